//! Published tensors and ours: the same names, a few shapes written differently.

use crate::model::Parameters;
use std::collections::BTreeMap;

/// Whether a tensor of the published CCVPE state dict is one that ours leaves out.
pub fn is_unused(name: &str) -> bool {
    // The encoders' classifiers are in the state dict and never evaluated; the counters serve
    // running averages without a momentum.
    name.contains("_efficientnet._fc.") || name.ends_with(".num_batches_tracked")
}

/// Whether a tensor of the published GGCVT state dict is one that ours computes: where each pair of
/// tokens of a window finds its bias.
pub fn is_unused_by_ggcvt(name: &str) -> bool {
    name.ends_with(".attn.relative_position_index")
}

/// The published shape of our parameter `name` of shape `own`: 1×1 convolutions that we keep as
/// matrices have four axes there.
pub fn published_shape(name: &str, own: &[usize]) -> Vec<usize> {
    let squeezed = name.ends_with("._se_reduce.weight") || name.ends_with("._se_expand.weight");
    let rows = name.starts_with("grd_feature_to_descriptor") && name.ends_with(".2.weight");
    match own {
        [outputs, inputs] if squeezed => vec![*outputs, *inputs, 1, 1],
        [inputs] if rows => vec![1, *inputs, 1, 1],
        _ => own.to_vec(),
    }
}

/// Every tensor our network takes from a checkpoint, with its published shape.
pub fn wanted(parameters: &Parameters) -> BTreeMap<String, Vec<usize>> {
    let weights = parameters.all().iter();
    let weights = weights.map(|p| (p.name.clone(), published_shape(&p.name, p.value.shape())));
    let names = parameters.statistics_names().iter();
    let statistics = names
        .zip(parameters.all_statistics())
        .flat_map(|(name, statistics)| {
            let channels = vec![statistics.mean.len()];
            ["running_mean", "running_var"].map(|what| (format!("{name}.{what}"), channels.clone()))
        });
    weights.chain(statistics).collect()
}
