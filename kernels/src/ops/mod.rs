//! The operations, one file or folder each: definition, gradient, tests, and the GPU kernels in the
//! `.cu` file beside it.
//!
//! [`for_each_operation!`](crate::for_each_operation) is the only list of them: the modules and what
//! they export, the kernels' sources (`kernel_sources.rs`) and the device test cases
//! (`kernels/dev`) come from it.
#![expect(
    clippy::missing_panics_doc,
    reason = "the only panics are the broken invariant that a recorded closure has what it saved"
)]

use crate::cuda::Source;

/// Calls `$callback!` with the list of operations: for each its module, what the module exports, and
/// its CUDA sources. Under `shared` are modules that only other operations use.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_operation {
    ($callback:ident) => {
        $callback! {
            operations {
                absolute_error { absolute_error } [SOURCE]
                activation { Activation, gelu, relu, sigmoid, silu } []
                add { add } []
                batch_norm { BatchNormMode, RunningStatistics, batch_norm } [SOURCE]
                collapse_rows { collapse_rows } [SOURCE]
                column_attention { column_attention } [on_cuda::SOURCE]
                concat_channels { concat_channels } [SOURCE]
                conv2d { Conv2d, Pad, conv2d } [cuda::SOURCE, cuda::WINDOW_SOURCE]
                conv_transpose2x2 { conv_transpose2x2 } [SOURCE]
                correlation_distance { correlation_distance } [SOURCE]
                crop2d { crop2d } [SOURCE]
                drop_connect { drop_connect, drop_connect_by, drop_connect_factors } [SOURCE]
                gather_channels { channel_lists, gather_channels, gather_channels_by } [SOURCE]
                global_mean_pool { global_mean_pool } [SOURCE]
                grid_columns { grid_columns } [SOURCE]
                grid_sample { Outside, grid_sample } [on_cuda::SOURCE]
                heatmap_cross_entropy { heatmap_cross_entropy } [SOURCE]
                heatmap_entropy { heatmap_entropy } [SOURCE]
                l2_normalise { l2_normalise } [SOURCE]
                layer_norm { layer_norm } [cuda::SOURCE]
                linear { linear } [SOURCE]
                max_channels { max_channels } [SOURCE]
                max_pool2d { max_pool2d } [SOURCE]
                normalise_images { Augment, Augmented, Normalisation, normalise_images } [SOURCE]
                orientation_loss { orientation_loss } [SOURCE]
                panorama_grid { Panorama, panorama_grid } [SOURCE]
                plane_grid { NEAREST_M, Plane, plane_grid, plane_in_front } [SOURCE]
                replace_beyond { replace_beyond } [SOURCE]
                reshape { reshape } []
                roll { roll } [SOURCE]
                rolled_matching { rolled_matching } [on_cuda::SOURCE]
                sample_normalise { sample_normalise } [cuda::SOURCE]
                scale { scale } []
                select_channels { select_channels } [SOURCE]
                separable_maps { separable_maps } [SOURCE]
                soft_margin_triplet {
                    place_numbers, soft_margin_triplet, soft_margin_triplet_at
                } [SOURCE]
                softmax { softmax } [cuda::SOURCE]
                spatial_correlation {
                    Correlation, spatial_correlation
                } [on_cuda::SOURCE, spectra_on_cuda::SOURCE]
                squeeze_excite { squeeze_excite } [SOURCE]
                uncertainty_weighted { uncertainty_weighted } [SOURCE]
                upsample2x { upsample2x } [SOURCE]
                weighted_info_nce { weighted_info_nce } [SOURCE]
                window_attention { window_attention } [on_cuda::SOURCE]
                window_energy { window_energy } [cuda::SOURCE]
            }
            shared {
                elementwise [SOURCE]
                total [SOURCE]
            }
        }
    };
}

macro_rules! declare {
    (
        operations { $($operation:ident { $($export:ident),* } [$($($source:ident)::+),*])* }
        shared { $($shared:ident [$($($shared_source:ident)::+),*])* }
    ) => {
        $(
            pub(crate) mod $operation;
            pub use $operation::{$($export),*};
        )*
        $(pub(crate) mod $shared;)*

        /// The `.cu` files of all operations.
        pub(crate) fn sources() -> Vec<&'static Source> {
            vec![
                $($(&$operation::$($source)::+,)*)*
                $($(&$shared::$($shared_source)::+,)*)*
            ]
        }
    };
}
for_each_operation!(declare);
