//! Labels by mode for GGCVT, and the loss that learns them.
//!
//! The published method leaves GGCVT's targets open; these follow our reading of it: the score is
//! minus the distance, and the target of a cell is the largest value that the Gaussian around the
//! mode takes within the cell's footprint, which is what max-pooling does for CCVPE. The maps of
//! GGCVT are not nested, so their targets cannot be pooled from the finest.
//!
//! Source: Adapting Fine-Grained Cross-GroundProjection Localization to Areas without Fine Ground Truth
//! (Xia, Shi, Li, Kooij 2024), equations 2 to 5.

use super::loss::{Centre, best_cells, sum};
use super::spec::GgcvtSpec;
use super::{GgcvtPrediction, ModelError};
use crate::model::loss::{LEAST_TARGET, PoseTarget};
use crossfix_kernels::{Device, Result as KernelResult, Tape, Tensor, ops};

/// Constants of the labels and their loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelLoss {
    /// Softmax temperature of the scores.
    pub temperature: f32,
    /// Sigma of the Gaussian, pixels of the aerial image.
    pub sigma_px: f64,
    /// Target entries at or below this are not positives.
    pub threshold: f32,
    /// Levels supervised, coarsest first.
    pub levels: usize,
}

impl LabelLoss {
    fn supervised(&self) -> usize {
        self.levels.clamp(1, 3)
    }
}

impl Default for LabelLoss {
    /// The paper's values for GGCVT: all three levels.
    fn default() -> Self {
        Self {
            temperature: 0.1,
            sigma_px: 4.0,
            threshold: 0.01,
            levels: 3,
        }
    }
}

/// Where the finest distance map of each sample is smallest: [down, right] from the middle of the
/// aerial image, pixels.
///
/// # Errors
/// [`ModelError::Input`] when the pass ended before the finest level.
pub fn modes_px(
    spec: &GgcvtSpec,
    prediction: &GgcvtPrediction,
    centre: Centre,
) -> Result<Vec<[f64; 2]>, ModelError> {
    let finest = prediction.distances.get(2);
    let finest = finest.ok_or_else(|| ModelError::Input("the pass ended before level 2".into()))?;
    let middle = centre.index(spec.camera, spec.places()[2]);
    let cell_px = spec.aerial_px as f64 / spec.sides()[2] as f64;
    let cells = best_cells(finest)?.into_iter();
    Ok(cells
        .map(|cell| cell.map(|index| (index as f64 - middle) * cell_px))
        .collect())
}

/// The Gaussian around a mode as the rows or columns of a level see it: the largest value that it
/// takes within each.
fn footprint(spec: &GgcvtSpec, level: usize, mode_px: f64, sigma_px: f64) -> Vec<f64> {
    let places = spec.places()[level];
    let cell_px = spec.aerial_px as f64 / spec.sides()[level] as f64;
    let middle = Centre::Trained.index(spec.camera, places);
    (0..places)
        .map(|index| ((index as f64 - middle) * cell_px - mode_px).abs() - cell_px / 2.0)
        .map(|beyond| (-0.5 * (beyond.max(0.0) / sigma_px).powi(2)).exp())
        .collect()
}

/// The target of one level for a mode [down, right] in pixels: row-major, largest value at most 1,
/// and 0 where it is below 1e-12.
pub fn footprint_target(
    spec: &GgcvtSpec,
    level: usize,
    mode_px: [f64; 2],
    sigma_px: f64,
) -> Vec<f32> {
    let [rows, columns] = mode_px.map(|mode| footprint(spec, level, mode, sigma_px));
    let cells = rows
        .iter()
        .flat_map(|row| columns.iter().map(move |column| (row * column) as f32));
    cells
        .map(|value| if value < LEAST_TARGET { 0.0 } else { value })
        .collect()
}

/// The target of one level for a whole map on the finest level's places, largest value 1: the largest
/// value within each place's cell.
fn pooled_map(spec: &GgcvtSpec, level: usize, map: &[f32]) -> Vec<f32> {
    let (places, finest) = (spec.places()[level], spec.places()[2]);
    let from_middle = |level: usize, index: usize| {
        let cell_px = spec.aerial_px as f64 / spec.sides()[level] as f64;
        let middle = Centre::Trained.index(spec.camera, spec.places()[level]);
        (index as f64 - middle) * cell_px
    };
    let half_px = spec.aerial_px as f64 / spec.sides()[level] as f64 / 2.0;
    // A little wider, so that places on the border of two cells count in both.
    let inside = |index: usize| {
        let centre = from_middle(level, index);
        let within = |fine: &usize| (from_middle(2, *fine) - centre).abs() <= half_px + 1e-9;
        (0..finest).filter(within).collect::<Vec<usize>>()
    };
    let cells: Vec<Vec<usize>> = (0..places).map(inside).collect();
    let mut pooled = Vec::with_capacity(places * places);
    for rows in &cells {
        for columns in &cells {
            let values = rows
                .iter()
                .flat_map(|row| columns.iter().map(move |column| map[row * finest + column]));
            pooled.push(values.fold(0.0, f32::max));
        }
    }
    pooled
}

/// Replaces the targets of samples whose label is a whole map.
///
/// # Errors
/// [`ModelError::Input`] for a map of another size.
pub(super) fn replace_by_maps(
    spec: &GgcvtSpec,
    targets: &mut [Tensor],
    labels: &[PoseTarget],
) -> Result<(), ModelError> {
    let finest = spec.places()[2].pow(2);
    for (level, targets) in targets.iter_mut().enumerate() {
        let places = spec.places()[level].pow(2);
        let mut values = targets.data().to_vec();
        for (label, values) in labels.iter().zip(values.chunks_exact_mut(places)) {
            let Some(map) = &label.map else { continue };
            if map.len() != finest {
                let what = format!(
                    "a label's map has {} cells; this network {finest}",
                    map.len()
                );
                return Err(ModelError::Input(what));
            }
            let pooled = pooled_map(spec, level, map);
            for (value, pooled) in values.iter_mut().zip(pooled) {
                *value = pooled * label.weight as f32;
            }
        }
        *targets = Tensor::new(values, targets.shape())?;
    }
    Ok(())
}

/// Row profile, column profile and weight of the targets of one level, `[N, places]` twice and
/// `[N, 1]`: what [`multiplied`] makes the targets of, on a device.
pub(super) type LabelProfiles = [Tensor; 3];

/// For each supervised level, on the host.
pub(super) fn label_profiles(
    spec: &GgcvtSpec,
    modes_px: &[[f64; 2]],
    weights: &[f32],
    config: &LabelLoss,
) -> KernelResult<Vec<LabelProfiles>> {
    let level = |level: usize| {
        let along = |axis: usize| {
            let modes = modes_px.iter().map(|mode| mode[axis]);
            let values = modes.flat_map(|mode| footprint(spec, level, mode, config.sigma_px));
            let values = values.map(|value| value as f32).collect();
            Tensor::new(values, &[modes_px.len(), spec.places()[level]])
        };
        Ok([
            along(0)?,
            along(1)?,
            Tensor::new(weights.to_vec(), &[modes_px.len(), 1])?,
        ])
    };
    (0..config.supervised()).map(level).collect()
}

/// The targets `[N, places²]` of profiles, where those lie.
pub(super) fn multiplied([rows, columns, weights]: &LabelProfiles) -> KernelResult<Tensor> {
    let maps = ops::separable_maps(columns, rows, weights, LEAST_TARGET)?;
    let flat = [maps.shape()[0], maps.shape()[1..].iter().product()];
    ops::reshape(&mut Tape::inference(), &maps, &flat)
}

/// The targets `[N, places²]` of each supervised level, on `device`.
pub(super) fn label_targets(
    spec: &GgcvtSpec,
    modes_px: &[[f64; 2]],
    weights: &[f32],
    config: &LabelLoss,
    device: &Device,
) -> KernelResult<Vec<Tensor>> {
    if *device != Device::Cpu {
        // What goes there are profiles, a hundredth of the maps.
        let profiles = label_profiles(spec, modes_px, weights, config)?;
        let multiplied = profiles.iter().map(|profiles| {
            let [rows, columns, weights] = profiles;
            multiplied(&[rows.to(device)?, columns.to(device)?, weights.to(device)?])
        });
        return multiplied.collect();
    }
    let targets = (0..config.supervised()).map(|level| {
        let modes = modes_px.iter().zip(weights);
        let targets = modes.flat_map(|(mode, weight)| {
            let target = footprint_target(spec, level, *mode, config.sigma_px);
            target.into_iter().map(move |value| value * weight)
        });
        let shape = [modes_px.len(), spec.places()[level].pow(2)];
        Tensor::new(targets.collect(), &shape)
    });
    targets.collect()
}

/// The weighted `InfoNCE` of each supervised level.
///
/// # Errors
/// [`ModelError`] when the prediction lacks a level or belongs to another batch.
pub fn label_losses(
    tape: &mut Tape,
    spec: &GgcvtSpec,
    prediction: &GgcvtPrediction,
    modes_px: &[[f64; 2]],
    config: &LabelLoss,
) -> Result<Vec<Tensor>, ModelError> {
    let device = prediction.distances.first().map(Tensor::device);
    let device = device.unwrap_or(Device::Cpu);
    let weights = vec![1.0; modes_px.len()];
    let targets = label_targets(spec, modes_px, &weights, config, &device)?;
    label_losses_to(tape, prediction, &targets, config)
}

/// As [`label_losses`], to targets that lie beside the distances.
pub(super) fn label_losses_to(
    tape: &mut Tape,
    prediction: &GgcvtPrediction,
    targets: &[Tensor],
    config: &LabelLoss,
) -> Result<Vec<Tensor>, ModelError> {
    let Some(distances) = prediction.distances.get(..targets.len()) else {
        let what = format!("the pass ended before level {}", targets.len() - 1);
        return Err(ModelError::Input(what));
    };
    let losses = distances.iter().zip(targets).map(|(distances, targets)| {
        let scores = ops::scale(tape, distances, -1.0)?;
        let scores = ops::reshape(tape, &scores, targets.shape())?;
        let (temperature, threshold) = (config.temperature, config.threshold);
        let loss = ops::weighted_info_nce(tape, &scores, targets, temperature, threshold)?;
        Ok(loss)
    });
    losses.collect()
}

/// Their mean.
///
/// # Errors
/// As [`label_losses`].
pub fn label_loss(
    tape: &mut Tape,
    spec: &GgcvtSpec,
    prediction: &GgcvtPrediction,
    modes_px: &[[f64; 2]],
    config: &LabelLoss,
) -> Result<Tensor, ModelError> {
    let terms = label_losses(tape, spec, prediction, modes_px, config)?;
    let total = sum(tape, &terms)?;
    Ok(ops::scale(tape, &total, 1.0 / terms.len() as f32)?)
}

#[cfg(test)]
mod tests {
    use super::super::spec::preset;
    use super::*;
    use crossfix_kernels::testing::assert_close;

    #[test]
    fn a_target_is_one_where_the_footprint_holds_the_mode() {
        let spec = preset("ggcvt-vigor").unwrap();
        // Level 0: cells of 8 pixels, the middle between indices 19 and 20.
        let target = footprint_target(&spec, 0, [2.0, -6.0], 4.0);
        let at = |row: usize, column: usize| target[row * 40 + column];
        assert_eq!(at(20, 19), 1.0);
        // The next column to the left begins 2 px beyond the mode: exp(-(2/4)²/2).
        assert!((at(20, 18) - (-0.125f32).exp()).abs() < 1e-6);
        assert!((at(19, 18) - (-0.25f32).exp()).abs() < 1e-6);
    }

    /// Products of f32 profiles differ from rounded products of f64 ones by two roundings.
    #[test]
    fn profiles_multiply_to_the_targets_that_are_drawn() {
        let spec = preset("ggcvt-compact").unwrap();
        let modes = [[2.0, -6.0], [-17.3, 30.1]];
        let weights = [1.0, 0.3];
        let config = LabelLoss {
            levels: 2,
            ..LabelLoss::default()
        };
        let drawn = label_targets(&spec, &modes, &weights, &config, &Device::Cpu).unwrap();
        let profiles = label_profiles(&spec, &modes, &weights, &config).unwrap();
        assert_eq!([drawn.len(), profiles.len()], [2; 2]);
        for (drawn, profiles) in drawn.iter().zip(&profiles) {
            let product = multiplied(profiles).unwrap();
            assert_eq!(product.shape(), drawn.shape());
            assert_close(product.data(), drawn.data(), 2e-7);
        }
    }

    #[test]
    fn a_whole_map_is_pooled_into_the_cells_that_cover_it() {
        let spec = preset("ggcvt-compact").unwrap();
        let finest = spec.places()[2];
        let mut map = vec![0.0; finest * finest];
        map[3 * finest + 5] = 1.0;
        for level in 0..3 {
            let pooled = pooled_map(&spec, level, &map);
            let places = spec.places()[level];
            let px = |level: usize, index: usize| {
                let cell_px = spec.aerial_px as f64 / spec.sides()[level] as f64;
                let middle = Centre::Trained.index(spec.camera, spec.places()[level]);
                (index as f64 - middle) * cell_px
            };
            let half_px = spec.aerial_px as f64 / spec.sides()[level] as f64 / 2.0;
            let best = pooled.iter().position(|value| *value == 1.0).unwrap();
            assert!((px(level, best / places) - px(2, 3)).abs() <= half_px + 1e-6);
            assert!((px(level, best % places) - px(2, 5)).abs() <= half_px + 1e-6);
            let covered = pooled.iter().filter(|value| **value > 0.0).count();
            assert!((1..=4).contains(&covered), "{covered}");
        }
    }

    #[test]
    fn modes_are_measured_from_the_trained_middle() {
        let spec = preset("ggcvt-vigor").unwrap();
        let mut map = vec![1.0; 155 * 155];
        map[85 * 155 + 112] = 0.0;
        let map = Tensor::new(map, &[1, 155, 155]).unwrap();
        let prediction = GgcvtPrediction {
            distances: vec![map.clone(), map.clone(), map],
            poses: Vec::new(),
        };
        let modes = modes_px(&spec, &prediction, Centre::Trained).unwrap();
        assert_eq!(modes, [[16.0, 70.0]]);
        let modes = modes_px(&spec, &prediction, Centre::Published).unwrap();
        assert_eq!(modes, [[14.0, 68.0]]);
    }
}
