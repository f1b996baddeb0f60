//! Targets as what they are made of. A Gaussian map is a column profile times a row profile, its
//! pooled forms are products of pooled profiles, and the shares of orientation bins are a factor
//! for each bin: a few hundred numbers for a sample instead of two million at the published size.
//! A device multiplies them out; and a recorded step takes them as its inputs.

use super::{
    LEAST_TARGET, LossConfig, PoseTarget, Targets, bin_angle_rad, check_separable, check_weights,
    directions, orientation_shares, supervised, supervised_bins,
};
use crate::model::{CcvpeSpec, LossComponents, ModelError};
use crossfix_kernels::{Device, Tape, Tensor, ops};

/// Column profile `[N, width]`, row profile `[N, height]`, weights `[N, channels]` of one map.
type Separable = [Tensor; 3];

/// The profiles of a batch, of one shape for all batches of a size.
#[derive(Debug, Clone)]
pub(crate) struct Profiles {
    levels: Vec<Separable>,
    map: Option<Separable>,
    /// Where the cross entropy weighs labels: the map, its sum the label's weight.
    heatmap: Option<Separable>,
    directions: Option<Tensor>,
    /// Whether the map is the heatmap's too, or the orientation's alone.
    weighs_heatmap: bool,
}

impl Profiles {
    /// On the host.
    pub fn new(
        spec: &CcvpeSpec,
        targets: &[PoseTarget],
        config: &LossConfig,
    ) -> Result<Self, ModelError> {
        check_weights(targets, config)?;
        check_separable(targets)?;
        let (side, n) = (spec.heatmap_side(), targets.len());
        let sigma_cells = config.sigma_m / spec.metres_per_cell();
        let profile = |centre: f64| -> Vec<f32> {
            let distance = |i: usize| (i as f64 + 0.5 - centre) / sigma_cells;
            let value = |d: f64| (-0.5 * d * d).exp() as f32;
            (0..side).map(|i| value(distance(i))).collect()
        };
        let of_all = |at: fn(&PoseTarget) -> f64| -> Vec<Vec<f32>> {
            targets.iter().map(|target| profile(at(target))).collect()
        };
        let columns = of_all(|target| target.column);
        let rows = of_all(|target| target.row);
        let level = |k: usize| -> Result<Separable, ModelError> {
            let grid = spec.levels[k].grid;
            let pooled = |profiles: &[Vec<f32>]| {
                let pooled = profiles.iter().flat_map(|profile| pool(profile, grid));
                Tensor::new(pooled.collect(), &[n, grid])
            };
            let bins = supervised_bins(spec, config, k);
            let all = spec.orientation_bins;
            let weights = targets.iter().flat_map(|pose| {
                let shares = orientation_shares(bin_angle_rad(spec, pose), all);
                let label = pose.weight as f32;
                let weight = move |bin: &isize| -> f32 {
                    let channel = bin.rem_euclid(all as isize) as usize;
                    let mine = shares.iter().filter(|(c, _)| *c == channel);
                    mine.map(|(_, weight)| weight).sum::<f32>() * label
                };
                bins.iter().map(weight).collect::<Vec<f32>>()
            });
            let weights = Tensor::new(weights.collect(), &[n, bins.len()])?;
            Ok([pooled(&columns)?, pooled(&rows)?, weights])
        };
        let needs_map = config.heatmap > 0.0 || config.orientation > 0.0;
        let whole = |scale: &dyn Fn(usize) -> f32| -> Result<Separable, ModelError> {
            let weights = targets.iter().enumerate();
            let weights = weights.map(|(sample, t)| t.weight as f32 * scale(sample));
            Ok([
                Tensor::new(columns.concat(), &[n, side])?,
                Tensor::new(rows.concat(), &[n, side])?,
                Tensor::new(weights.collect(), &[n, 1])?,
            ])
        };
        let sum = |profile: &[f32]| profile.iter().sum::<f32>();
        let weighted = config.heatmap > 0.0 && config.weighted;
        let levels = supervised(spec, config, spec.levels.len());
        Ok(Self {
            levels: (0..levels).map(level).collect::<Result<_, _>>()?,
            map: needs_map.then(|| whole(&|_| 1.0)).transpose()?,
            heatmap: weighted
                .then(|| whole(&|sample| (sum(&columns[sample]) * sum(&rows[sample])).recip()))
                .transpose()?,
            directions: (config.orientation > 0.0)
                .then(|| directions(targets))
                .transpose()?,
            weighs_heatmap: config.heatmap > 0.0,
        })
    }

    /// Which values a loss against them consists of.
    pub fn components(&self) -> LossComponents {
        LossComponents {
            info_nce: self.levels.len(),
            triplet: false,
            heatmap: self.weighs_heatmap,
            orientation: self.directions.is_some(),
        }
    }

    /// The same on a device.
    pub fn to(&self, device: &Device) -> Result<Self, ModelError> {
        let moved = self.tensors().map(|tensor| tensor.to(device));
        let moved = moved.collect::<Result<Vec<_>, _>>()?;
        Ok(self.like(&mut moved.into_iter()))
    }

    /// All tensors, in an order that [`Profiles::like`] knows.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let maps = self.levels.iter().chain(&self.map);
        let maps = maps.chain(&self.heatmap).flatten();
        maps.chain(&self.directions)
    }

    /// Profiles of the same shape from tensors in the order of [`Profiles::tensors`].
    ///
    /// # Panics
    /// When there are too few.
    pub fn like(&self, tensors: &mut impl Iterator<Item = Tensor>) -> Self {
        let mut next = || tensors.next().expect("as many tensors as profiles have");
        let levels = self.levels.iter().map(|_| [next(), next(), next()]);
        Self {
            levels: levels.collect(),
            map: self.map.as_ref().map(|_| [next(), next(), next()]),
            heatmap: self.heatmap.as_ref().map(|_| [next(), next(), next()]),
            directions: self.directions.as_ref().map(|_| next()),
            weighs_heatmap: self.weighs_heatmap,
        }
    }

    /// The targets, multiplied out where the profiles are.
    pub fn targets(&self) -> Result<Targets, ModelError> {
        let multiplied = |[columns, rows, weights]: &Separable| -> Result<Tensor, ModelError> {
            let maps = ops::separable_maps(columns, rows, weights, LEAST_TARGET)?;
            let flat = [maps.shape()[0], maps.shape()[1..].iter().product()];
            Ok(ops::reshape(&mut Tape::inference(), &maps, &flat)?)
        };
        Ok(Targets {
            levels: self
                .levels
                .iter()
                .map(multiplied)
                .collect::<Result<_, _>>()?,
            map: self.map.as_ref().map(multiplied).transpose()?,
            heatmap: self.heatmap.as_ref().map(multiplied).transpose()?,
            directions: self.directions.clone(),
        })
    }
}

/// Largest value of each of `cells` equal parts; what is left over belongs to the last.
fn pool(profile: &[f32], cells: usize) -> Vec<f32> {
    let window = profile.len() / cells;
    let mut pooled = vec![0.0f32; cells];
    for (place, value) in profile.iter().enumerate() {
        let cell = &mut pooled[(place / window).min(cells - 1)];
        *cell = cell.max(*value);
    }
    pooled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::preset;
    use crossfix_kernels::testing::assert_close;
    use std::slice::from_ref;

    /// Two samples of which one counts half: the loss is their weighted mean, the gradient too.
    #[test]
    fn labels_count_by_their_weight() {
        let spec = preset("compact").unwrap();
        let config = LossConfig {
            heatmap: 0.0,
            orientation: 0.0,
            threshold: 0.0,
            levels: Some(1),
            ..LossConfig::default()
        };
        let pose = |column, weight| PoseTarget {
            column,
            row: 30.0,
            residual_rad: 0.0,
            weight,
            map: None,
        };
        let grid = spec.levels[0].grid;
        let bins = spec.stack_bins(0).len();
        let scores = crossfix_kernels::testing::noise(&[2, bins, grid, grid], 3);
        let loss = |poses: &[PoseTarget], from: usize| {
            let values = scores.data()[from * bins * grid * grid..].to_vec();
            let values = values[..poses.len() * bins * grid * grid].to_vec();
            let stack = Tensor::new(values, &[poses.len(), bins, grid, grid]).unwrap();
            let prediction = crate::model::Prediction {
                levels: vec![stack],
                logits: None,
                orientation: None,
                orientation_vectors: None,
                poses: Vec::new(),
            };
            let tape = &mut Tape::inference();
            let loss = super::super::loss(tape, &spec, &prediction, poses, &config);
            loss.unwrap().info_nce[0]
        };
        let (first, second) = (pose(20.0, 1.0), pose(44.0, 1.0));
        let (a, b) = (loss(from_ref(&first), 0), loss(from_ref(&second), 1));
        let both = loss(&[first.clone(), pose(44.0, 0.5)], 0);
        // The two targets are mirror images, so their sums are equal.
        let expected = (a + 0.5 * b) / 1.5;
        assert!(
            (both - expected).abs() < 1e-5 * expected,
            "{both} {expected}"
        );
        let config = LossConfig {
            heatmap: 1.0,
            ..config
        };
        let refused = Profiles::new(&spec, &[pose(20.0, 0.5)], &config);
        assert!(refused.unwrap_err().to_string().contains("loss.heatmap"));
        let config = LossConfig {
            weighted: true,
            triplet: 1.0,
            ..config
        };
        let refused = Profiles::new(&spec, &[pose(20.0, 0.5)], &config);
        assert!(refused.unwrap_err().to_string().contains("loss.triplet"));
    }

    /// With weights the cross entropy is the weighted mean of the samples' own, and with weights of 1
    /// what it is without; from drawn targets as from profiles.
    #[test]
    fn the_heatmaps_cross_entropy_counts_labels_by_their_weight() {
        let spec = preset("compact").unwrap();
        let pose = |column, weight| PoseTarget {
            column,
            row: 30.3,
            residual_rad: 0.0,
            weight,
            map: None,
        };
        let side = spec.heatmap_side();
        let logits = crossfix_kernels::testing::noise(&[2, side * side], 5);
        let levels = spec.levels.len();
        let loss = |poses: &[PoseTarget], from: usize, weighted: bool, profiles: bool| {
            let config = LossConfig {
                info_nce: 0.0,
                orientation: 0.0,
                weighted,
                levels: Some(1),
                ..LossConfig::default()
            };
            let grid = spec.levels[0].grid;
            let values = logits.data()[from * side * side..][..poses.len() * side * side].to_vec();
            let shape = [poses.len(), spec.stack_bins(0).len(), grid, grid];
            let prediction = crate::model::Prediction {
                levels: vec![Tensor::zeros(&shape); levels.min(1)],
                logits: Some(Tensor::new(values, &[poses.len(), side * side]).unwrap()),
                orientation: None,
                orientation_vectors: None,
                poses: Vec::new(),
            };
            let targets = if profiles {
                let profiles = Profiles::new(&spec, poses, &config).unwrap();
                profiles
                    .like(&mut profiles.tensors().cloned())
                    .targets()
                    .unwrap()
            } else {
                Targets::drawn(&spec, poses, &config, 1).unwrap()
            };
            let tape = &mut Tape::inference();
            let terms = super::super::loss_terms(tape, &spec, &prediction, &targets, &config);
            terms.unwrap().heatmap.unwrap().item().unwrap()
        };
        let (first, second) = (pose(20.4, 1.0), pose(44.0, 1.0));
        let (a, b) = (
            loss(from_ref(&first), 0, false, false),
            loss(from_ref(&second), 1, false, false),
        );
        for profiles in [false, true] {
            let both = loss(&[first.clone(), pose(44.0, 0.25)], 0, true, profiles);
            let expected = (a + 0.25 * b) / 1.25;
            assert!(
                (both - expected).abs() < 1e-5 * expected,
                "{both} {expected}"
            );
            let alike = loss(&[first.clone(), second.clone()], 0, true, profiles);
            let expected = f32::midpoint(a, b);
            assert!(
                (alike - expected).abs() < 1e-5 * expected,
                "{alike} {expected}"
            );
        }
    }

    /// Products of f32 profiles differ from rounded products of f64 ones by two roundings.
    #[test]
    fn profiles_multiply_to_the_targets_that_are_drawn() {
        for name in [
            "compact",
            "ccvpe-kitti",
            "ccvpe-vigor-fov180-prior72-reflect",
        ] {
            let spec = preset(name).unwrap();
            let poses =
                [(20.4, 33.7, 0.3), (0.2, 63.9, -2.9)].map(|(column, row, residual_rad)| {
                    PoseTarget {
                        column,
                        row,
                        residual_rad,
                        weight: 1.0,
                        map: None,
                    }
                });
            for all_bins_at_first_level in [true, false] {
                let config = LossConfig {
                    sigma_m: 4.0 * spec.metres_per_cell(),
                    all_bins_at_first_level,
                    ..LossConfig::default()
                };
                let levels = spec.levels.len();
                let drawn = Targets::drawn(&spec, &poses, &config, levels).unwrap();
                let profiles = Profiles::new(&spec, &poses, &config).unwrap();
                let again = profiles.like(&mut profiles.tensors().cloned());
                let multiplied = again.targets().unwrap();
                let pairs = multiplied.levels.iter().zip(&drawn.levels);
                let maps = multiplied.map.iter().zip(&drawn.map);
                let mut compared = 0;
                for (got, expected) in pairs.chain(maps) {
                    assert_eq!(got.shape(), expected.shape());
                    assert_close(got.data(), expected.data(), 2e-7);
                    compared += 1;
                }
                assert_eq!(compared, levels + 1);
            }
        }
    }
}
