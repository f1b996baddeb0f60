//! Every `.cu` file, for the compiler of the tests and the emulator.

use super::driver::Source;
use crate::ops;

/// What every `.cu` file may include.
pub const COMMON: &str = include_str!("common.cuh");

/// All kernels' files.
pub fn sources() -> Vec<&'static Source> {
    vec![
        &ops::absolute_error::SOURCE,
        &ops::batch_norm::SOURCE,
        &ops::collapse_rows::SOURCE,
        &ops::column_attention::on_cuda::SOURCE,
        &ops::concat_channels::SOURCE,
        &ops::conv2d::on_cuda::SOURCE,
        &ops::conv2d::on_cuda::WINDOW_SOURCE,
        &ops::conv_transpose2x2::SOURCE,
        &ops::correlation_distance::SOURCE,
        &ops::crop2d::SOURCE,
        &ops::drop_connect::SOURCE,
        &ops::elementwise::SOURCE,
        &ops::gather_channels::SOURCE,
        &ops::global_mean_pool::SOURCE,
        &ops::grid_columns::SOURCE,
        &ops::grid_sample::on_cuda::SOURCE,
        &ops::heatmap_cross_entropy::SOURCE,
        &ops::l2_normalise::SOURCE,
        &ops::layer_norm::cuda::SOURCE,
        &ops::linear::SOURCE,
        &ops::max_channels::SOURCE,
        &ops::max_pool2d::SOURCE,
        &ops::normalise_images::SOURCE,
        &ops::orientation_loss::SOURCE,
        &ops::panorama_grid::SOURCE,
        &ops::plane_grid::SOURCE,
        &ops::replace_beyond::SOURCE,
        &ops::roll::SOURCE,
        &ops::rolled_matching::on_cuda::SOURCE,
        &ops::sample_normalise::cuda::SOURCE,
        &ops::select_channels::SOURCE,
        &ops::separable_maps::SOURCE,
        &ops::soft_margin_triplet::SOURCE,
        &ops::softmax::cuda::SOURCE,
        &ops::spatial_correlation::on_cuda::SOURCE,
        &ops::spatial_correlation::spectra_on_cuda::SOURCE,
        &ops::squeeze_excite::SOURCE,
        &ops::total::SOURCE,
        &ops::uncertainty_weighted::SOURCE,
        &ops::upsample2x::SOURCE,
        &ops::weighted_info_nce::SOURCE,
        &ops::window_attention::on_cuda::SOURCE,
        &ops::window_energy::cuda::SOURCE,
        &crate::optim::adam_on_cuda::SOURCE,
        &crate::optim::guard::SOURCE,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn kernels_have_names_of_their_own() {
        let mut seen = HashSet::new();
        for source in sources() {
            let entries: Vec<&str> = source.entries().collect();
            assert!(!entries.is_empty(), "{} has no kernel", source.name);
            for entry in &entries {
                assert!(seen.insert(entry.to_string()), "{entry} is there twice");
            }
            for hot in source.hot {
                assert!(entries.contains(hot), "{}: no kernel {hot}", source.name);
            }
        }
    }

    #[test]
    fn every_file_is_listed() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let mut folders = vec![std::path::PathBuf::from(root)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "cu") {
                    let name = path.strip_prefix(root).unwrap();
                    files.push(name.to_str().unwrap().to_string());
                }
            }
        }
        let mut listed: Vec<String> = sources().iter().map(|s| s.name.to_string()).collect();
        files.sort();
        listed.sort();
        assert_eq!(listed, files);
    }
}
