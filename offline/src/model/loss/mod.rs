//! Losses and their targets.
//!
//! Source: Convolutional Cross-View Pose Estimation (Xia, Booij, Kooij 2023), section III; the
//! Gaussian pseudo ground truth of Adapting Fine-Grained Cross-View Localization (2024) is the
//! same function of another position.

mod profiles;

pub(crate) use profiles::Profiles;

use crate::model::{CcvpeSpec, Extent, ModelError, ModelSpec, Prediction};
use crossfix_kernels::{Device, Result as KernelResult, Tape, Tensor, ops};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where a camera is in its aerial image, and how its ground image was turned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoseTarget {
    /// Column in heatmap cells from the left edge; cell centres at +0.5.
    pub column: f64,
    /// Row in heatmap cells from the top (north) edge.
    pub row: f64,
    /// True yaw minus the yaw the ground image was aligned with, radians, counter-clockwise.
    pub residual_rad: f64,
    /// How much the label counts beside others of its batch; 1 unless a recipe weighs labels. Above 0.
    pub weight: f64,
    /// A whole map as label instead of the Gaussian around the position: one value for each heatmap
    /// cell, row-major, the largest 1. For the baseline that learns the teacher's heatmap itself.
    #[serde(skip)]
    pub map: Option<Arc<[f32]>>,
}

/// Which terms a loss has, and their constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Weight of the mean of the levels' `InfoNCE`.
    pub info_nce: f32,
    /// Weight of the soft-margin triplets of the levels, for networks that match by distance.
    #[serde(skip_serializing_if = "is_zero")]
    pub triplet: f32,
    /// Weight of the heatmap's cross entropy; 0 leaves it out. Networks without decoders have none.
    pub heatmap: f32,
    /// Weight of the orientation field; 0 leaves it out. Networks without decoders have none.
    pub orientation: f32,
    /// Weight of the entropy of the student's own finest map (entropy minimisation); 0 leaves it out.
    #[serde(skip_serializing_if = "is_zero")]
    pub entropy: f32,
    /// Levels supervised, coarsest first; `None` is all.
    pub levels: Option<usize>,
    /// Softmax temperature of the scores.
    pub temperature: f32,
    /// Target entries at or below this are not positives.
    pub threshold: f32,
    /// Sigma of the Gaussian target, metres.
    pub sigma_m: f64,
    /// Whether the first level's `InfoNCE` runs over all orientation bins or over those searched.
    pub all_bins_at_first_level: bool,
    /// Whether the heatmap's cross entropy weighs labels, as a mean over the batch; otherwise it takes
    /// weights of 1 only. Adaptation sets it where a recipe weighs its labels.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub weighted: bool,
}

impl Default for LossConfig {
    /// The compact network's supervised loss: the published ratio of `InfoNCE` to cross entropy is
    /// 10,000; the sum is divided by it here, which Adam does not notice.
    fn default() -> Self {
        Self {
            info_nce: 1.0,
            triplet: 0.0,
            heatmap: 1.0,
            orientation: 0.1,
            entropy: 0.0,
            levels: None,
            temperature: 0.1,
            threshold: 0.01,
            sigma_m: 1.0,
            all_bins_at_first_level: true,
            weighted: false,
        }
    }
}

impl LossConfig {
    /// How much of a network has to run for the terms whose weight is above 0.
    pub fn extent(&self, spec: &ModelSpec) -> Extent {
        if self.orientation > 0.0 {
            Extent::Everything
        } else if self.heatmap > 0.0 || self.entropy > 0.0 {
            Extent::Location
        } else {
            Extent::Levels(self.levels.unwrap_or(spec.levels.len()))
        }
    }
}

/// Left out of written settings, so that runs of networks without it keep their fingerprint.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(weight: &f32) -> bool {
    *weight == 0.0
}

/// A loss and the values it was made of.
#[derive(Debug)]
pub struct Loss {
    /// What is minimised.
    pub total: Tensor,
    /// `InfoNCE` of each supervised level.
    pub info_nce: Vec<f32>,
    /// Sum of the levels' triplets.
    pub triplet: Option<f32>,
    /// Cross entropy of the heatmap.
    pub heatmap: Option<f32>,
    /// Orientation loss.
    pub orientation: Option<f32>,
}

/// What the Gaussian target is cut off at. Its tails would otherwise end in subnormal numbers,
/// which spread through the backward pass and cost most processors a hundred cycles each: half of
/// a training step.
pub(crate) const LEAST_TARGET: f32 = 1e-12;

/// exp(-d² / 2σ²) at the cell centres, row-major; peak at most 1, and 0 where it is below 1e-12.
///
/// # Units
/// `side` and `sigma_cells` in heatmap cells.
pub fn gaussian(side: usize, target: &PoseTarget, sigma_cells: f64) -> Vec<f32> {
    let along = |centre: f64| -> Vec<f64> {
        (0..side)
            .map(|i| (i as f64 + 0.5 - centre) / sigma_cells)
            .map(|d| (-0.5 * d * d).exp())
            .collect()
    };
    let (columns, rows) = (along(target.column), along(target.row));
    let cells = rows
        .iter()
        .flat_map(|r| columns.iter().map(move |c| (r * c) as f32));
    cells
        .map(|value| if value < LEAST_TARGET { 0.0 } else { value })
        .collect()
}

/// Largest value of each `side / grid` square of a map; the target of a coarse level.
pub fn max_pool(map: &[f32], side: usize, grid: usize) -> Vec<f32> {
    let window = side / grid;
    let mut pooled = vec![0.0f32; grid * grid];
    for (row, line) in map.chunks_exact(side).enumerate() {
        for (column, value) in line.iter().enumerate() {
            let cell =
                &mut pooled[(row / window).min(grid - 1) * grid + (column / window).min(grid - 1)];
            *cell = cell.max(*value);
        }
    }
    pooled
}

/// Shares of an angle among orientation bins: for the two nearest, the channel and its weight.
///
/// Bins run backwards: with n bins of width w, q = ⌊θ/w⌋ and r the rest, channel (n−q) mod n gets
/// 1−r and channel (n−q−1) mod n gets r.
pub fn orientation_shares(angle_rad: f64, bins: usize) -> [(usize, f32); 2] {
    let width = std::f64::consts::TAU / bins as f64;
    let angle = angle_rad.rem_euclid(std::f64::consts::TAU);
    let lower = (angle / width).floor();
    let rest = angle / width - lower;
    let lower = lower as usize % bins;
    [
        ((bins - lower) % bins, (1.0 - rest) as f32),
        ((2 * bins - lower - 1) % bins, rest as f32),
    ]
}

/// Target of the score stack of one level: the pooled Gaussian, shared among `bins`.
pub fn level_target(
    pooled: &[f32],
    residual_rad: f64,
    bins: &[isize],
    all_bins: usize,
) -> Vec<f32> {
    let shares = orientation_shares(residual_rad, all_bins);
    let mut stack = Vec::with_capacity(bins.len() * pooled.len());
    for bin in bins {
        let channel = bin.rem_euclid(all_bins as isize) as usize;
        let weight: f32 = shares
            .iter()
            .filter(|(c, _)| *c == channel)
            .map(|(_, w)| w)
            .sum();
        stack.extend(pooled.iter().map(|value| weight * value));
    }
    stack
}

/// Levels of `available` ones that the loss supervises.
fn supervised(spec: &CcvpeSpec, config: &LossConfig, available: usize) -> usize {
    config.levels.unwrap_or(spec.levels.len()).min(available)
}

/// Whether level `k` is supervised over the searched bins of a stack that holds them all.
fn selects_bins(spec: &CcvpeSpec, config: &LossConfig, k: usize) -> bool {
    k == 0 && !config.all_bins_at_first_level && spec.orientation_prior.is_some()
}

/// The bins that level `k` is supervised over.
fn supervised_bins(spec: &CcvpeSpec, config: &LossConfig, k: usize) -> Vec<isize> {
    if selects_bins(spec, config, k) {
        spec.searched_bins()
    } else {
        spec.stack_bins(k)
    }
}

/// The angle that bins are shared by.
fn bin_angle_rad(spec: &CcvpeSpec, pose: &PoseTarget) -> f64 {
    if spec.bins_run_with_angle {
        -pose.residual_rad
    } else {
        pose.residual_rad
    }
}

/// Refuses weights that a term of the loss would ignore: the triplets count every sample alike, and
/// so does the heatmap's cross entropy unless it is told of weights.
pub(crate) fn check_weights(targets: &[PoseTarget], config: &LossConfig) -> Result<(), ModelError> {
    let wrong = |weight: f64| !(weight.is_finite() && weight > 0.0);
    if let Some(target) = targets.iter().find(|target| wrong(target.weight)) {
        return Err(ModelError::Input(format!(
            "a label's weight is {}; it must be above 0, leave out labels that do not count",
            target.weight
        )));
    }
    let weighted = targets
        .iter()
        .any(|target| target.weight.to_bits() != 1.0f64.to_bits());
    if weighted && (config.triplet > 0.0 || (config.heatmap > 0.0 && !config.weighted)) {
        let what = "loss.triplet counts all labels alike, and loss.heatmap without loss.weighted; set it to true, or the terms to 0";
        return Err(ModelError::Input(what.into()));
    }
    Ok(())
}

/// Refuses labels that are whole maps where only their profiles go to a device.
pub(crate) fn check_separable(targets: &[PoseTarget]) -> Result<(), ModelError> {
    if targets.iter().any(|target| target.map.is_some()) {
        let what = "labels that are whole heatmaps are learned on the CPU alone; use --device cpu";
        return Err(ModelError::Input(what.into()));
    }
    Ok(())
}

/// Cosine and sine of each residual, `[N, 2]`.
fn directions(targets: &[PoseTarget]) -> Result<Tensor, ModelError> {
    let directions = targets
        .iter()
        .flat_map(|t| [t.residual_rad.cos() as f32, t.residual_rad.sin() as f32]);
    Ok(Tensor::new(directions.collect(), &[targets.len(), 2])?)
}

/// What a prediction should have been, as tensors beside it.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// For each supervised level, `[N, entries of its stack]`.
    levels: Vec<Tensor>,
    /// Gaussian maps `[N, side * side]`, where the heatmap or the orientation is weighed.
    map: Option<Tensor>,
    /// The same maps, each divided by its sum and multiplied with its label's weight, where the
    /// cross entropy weighs labels.
    heatmap: Option<Tensor>,
    /// `[N, 2]`.
    directions: Option<Tensor>,
}

impl Targets {
    /// Drawn on the host.
    fn drawn(
        spec: &CcvpeSpec,
        targets: &[PoseTarget],
        config: &LossConfig,
        supervised: usize,
    ) -> Result<Self, ModelError> {
        let (side, n) = (spec.heatmap_side(), targets.len());
        let sigma_cells = config.sigma_m / spec.metres_per_cell();
        let drawn = |target: &PoseTarget| match &target.map {
            Some(map) if map.len() == side * side => Ok(map.to_vec()),
            Some(map) => Err(ModelError::Input(format!(
                "a label's map has {} cells; the heatmap has {side} x {side}",
                map.len()
            ))),
            None => Ok(gaussian(side, target, sigma_cells)),
        };
        let maps: Vec<Vec<f32>> = targets.iter().map(drawn).collect::<Result<_, _>>()?;
        let level = |k: usize| {
            let bins = supervised_bins(spec, config, k);
            let grid = spec.levels[k].grid;
            let entries = bins.len() * grid * grid;
            let mut target = Vec::with_capacity(n * entries);
            for (map, pose) in maps.iter().zip(targets) {
                let pooled = max_pool(map, side, grid);
                let angle_rad = bin_angle_rad(spec, pose);
                let all_bins = spec.orientation_bins;
                let stack = level_target(&pooled, angle_rad, &bins, all_bins);
                target.extend(stack.iter().map(|value| value * pose.weight as f32));
            }
            Tensor::new(target, &[n, entries])
        };
        let needs_map = config.heatmap > 0.0 || config.orientation > 0.0;
        let scaled = |scale: fn(&[f32]) -> f32| {
            let maps = maps.iter().zip(targets).flat_map(|(map, pose)| {
                let scale = scale(map) * pose.weight as f32;
                map.iter().map(move |value| value * scale)
            });
            Tensor::new(maps.collect(), &[n, side * side])
        };
        let weighted = config.heatmap > 0.0 && config.weighted;
        Ok(Self {
            levels: (0..supervised).map(level).collect::<Result<_, _>>()?,
            map: needs_map.then(|| scaled(|_| 1.0)).transpose()?,
            heatmap: weighted
                .then(|| scaled(|map| map.iter().sum::<f32>().recip()))
                .transpose()?,
            directions: (config.orientation > 0.0)
                .then(|| directions(targets))
                .transpose()?,
        })
    }
}

/// A loss and what it was made of, not read yet.
#[derive(Debug)]
pub(crate) struct LossTerms {
    /// What is minimised.
    pub total: Tensor,
    /// `InfoNCE` of each supervised level.
    pub info_nce: Vec<Tensor>,
    /// Sum of the levels' triplets.
    pub triplet: Option<Tensor>,
    /// Cross entropy of the heatmap.
    pub heatmap: Option<Tensor>,
    /// Orientation loss.
    pub orientation: Option<Tensor>,
}

impl LossTerms {
    /// Waits for the values.
    pub fn read(self) -> KernelResult<Loss> {
        let item = |term: Option<Tensor>| term.map(|term| term.item()).transpose();
        let info_nce = self.info_nce.iter().map(Tensor::item);
        Ok(Loss {
            info_nce: info_nce.collect::<KernelResult<_>>()?,
            triplet: item(self.triplet)?,
            heatmap: item(self.heatmap)?,
            orientation: item(self.orientation)?,
            total: self.total,
        })
    }
}

/// The loss of `prediction` for a batch whose poses are `targets`.
///
/// # Errors
/// [`ModelError`] when the prediction lacks a part that `config` weighs, or shapes disagree.
pub fn loss(
    tape: &mut Tape,
    spec: &CcvpeSpec,
    prediction: &Prediction,
    targets: &[PoseTarget],
    config: &LossConfig,
) -> Result<Loss, ModelError> {
    check_weights(targets, config)?;
    let levels = supervised(spec, config, prediction.levels.len());
    let device = prediction
        .levels
        .first()
        .map_or(Device::Cpu, Tensor::device);
    let targets = match &device {
        Device::Cpu => Targets::drawn(spec, targets, config, levels)?,
        // What goes there are profiles, a thousandth of the maps.
        Device::Cuda(_) => Profiles::new(spec, targets, config)?
            .to(&device)?
            .targets()?,
    };
    let terms = loss_terms(tape, spec, prediction, &targets, config)?;
    Ok(terms.read()?)
}

/// As [`loss`], against targets that lie beside the prediction, without reading any value.
pub(crate) fn loss_terms(
    tape: &mut Tape,
    spec: &CcvpeSpec,
    prediction: &Prediction,
    targets: &Targets,
    config: &LossConfig,
) -> Result<LossTerms, ModelError> {
    let side = spec.heatmap_side();
    let supervised = targets.levels.len();
    if config.triplet > 0.0 {
        let what = "triplets are of networks that match by distance; set loss.triplet to 0";
        return Err(ModelError::Input(what.into()));
    }
    let mut terms = Vec::new();
    let mut info_nce = Vec::new();
    for (k, target) in targets.levels.iter().enumerate() {
        let mut stack = prediction.levels[k].clone();
        if selects_bins(spec, config, k) {
            stack = ops::select_channels(tape, &stack, &spec.searched_channels())?;
        }
        let scores = ops::reshape(tape, &stack, target.shape())?;
        let term =
            ops::weighted_info_nce(tape, &scores, target, config.temperature, config.threshold)?;
        terms.push(ops::scale(
            tape,
            &term,
            config.info_nce / supervised as f32,
        )?);
        info_nce.push(term);
    }
    let mut heatmap = None;
    if config.heatmap > 0.0 {
        let logits = part(prediction.logits.as_ref(), "heatmap")?;
        let term = if config.weighted {
            // The cross entropy of a batch whose samples count by the sums of their targets.
            let target = part(targets.heatmap.as_ref(), "heatmap")?;
            let logits = ops::reshape(tape, logits, target.shape())?;
            ops::weighted_info_nce(tape, &logits, target, 1.0, 0.0)?
        } else {
            let target = part(targets.map.as_ref(), "heatmap")?;
            ops::heatmap_cross_entropy(tape, logits, target)?
        };
        terms.push(ops::scale(tape, &term, config.heatmap)?);
        heatmap = Some(term);
    }
    let mut orientation = None;
    if config.orientation > 0.0 {
        let field = part(prediction.orientation.as_ref(), "orientation")?;
        let map = part(targets.map.as_ref(), "orientation")?;
        let directions = part(targets.directions.as_ref(), "orientation")?;
        let weight = ops::reshape(tape, map, &[map.shape()[0], 1, side, side])?;
        let term = ops::orientation_loss(tape, field, &weight, directions)?;
        terms.push(ops::scale(tape, &term, config.orientation)?);
        orientation = Some(term);
    }
    if config.entropy > 0.0 {
        let logits = part(prediction.logits.as_ref(), "heatmap")?;
        let entropy = ops::heatmap_entropy(tape, logits)?;
        terms.push(ops::scale(tape, &entropy, config.entropy)?);
    }
    let mut terms = terms.into_iter();
    let mut total = terms
        .next()
        .ok_or_else(|| ModelError::Input("a loss without any term; give one a weight".into()))?;
    for term in terms {
        total = ops::add(tape, &total, &term)?;
    }
    Ok(LossTerms {
        total,
        info_nce,
        triplet: None,
        heatmap,
        orientation,
    })
}

fn part<'a>(tensor: Option<&'a Tensor>, what: &str) -> Result<&'a Tensor, ModelError> {
    tensor.ok_or_else(|| ModelError::Input(format!("the pass ended before the {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_CENTRE: PoseTarget = PoseTarget {
        column: 4.5,
        row: 2.5,
        residual_rad: 0.0,
        weight: 1.0,
        map: None,
    };

    #[test]
    fn gaussian_peaks_at_the_cell_that_holds_the_camera() {
        let map = gaussian(8, &AT_CENTRE, 1.0);
        assert_eq!(map[2 * 8 + 4], 1.0);
        assert!((map[2 * 8 + 5] - (-0.5f32).exp()).abs() < 1e-7);
        assert!((map[3 * 8 + 5] - (-1.0f32).exp()).abs() < 1e-7);
    }

    #[test]
    fn coarse_targets_keep_the_peak() {
        let map = gaussian(8, &AT_CENTRE, 1.0);
        let pooled = max_pool(&map, 8, 4);
        assert_eq!(pooled[4 + 2], 1.0);
        assert!((pooled[4 + 1] - (-0.5f32).exp()).abs() < 1e-7);
    }

    #[test]
    fn orientation_is_shared_by_the_two_nearest_bins_backwards() {
        let degrees = f64::to_radians;
        // The published rule with n = 16: 22.5° is the whole of channel 15.
        assert_eq!(orientation_shares(degrees(22.5), 16)[0], (15, 1.0));
        let [(a, wa), (b, wb)] = orientation_shares(degrees(5.625), 16);
        assert_eq!((a, b), (0, 15));
        assert!((wa - 0.75).abs() < 1e-6 && (wb - 0.25).abs() < 1e-6);
        let [(a, wa), (b, wb)] = orientation_shares(degrees(-5.625), 16);
        assert_eq!((a, b), (1, 0));
        assert!((wa - 0.25).abs() < 1e-6 && (wb - 0.75).abs() < 1e-6);
    }

    #[test]
    fn level_targets_hold_only_the_searched_bins() {
        let target = level_target(&[1.0, 0.5], 5.625f64.to_radians(), &[-1, 0, 1], 16);
        let expected = [0.25, 0.125, 0.75, 0.375, 0.0, 0.0];
        crossfix_kernels::testing::assert_close(&target, &expected, 1e-6);
    }
}
