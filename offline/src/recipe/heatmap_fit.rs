//! What a network's heatmaps are worth in an area, without true positions: the softmax temperature at which they
//! mean what they say, and the share of them that means nothing.
//!
//! What stands in for the truth is the belief of a drive about each of its frames by everything else: odometry,
//! coarse positions, and the heatmaps of frames that are some metres away. The frame's own heatmap is left out, and
//! those of its neighbours are too, because a network repeats its errors over a few metres and would agree with
//! itself. That belief may be wide: the fit sums over it ([`fit_mixture`]).

use super::consensus::{Chain, Consensus, Settled};
use super::headings::searches_all;
use crate::data::pose::cell_from_offset;
use crate::data::{Dataset, Subset};
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::{PredictError, predict_with};
use crate::run::Interrupt;
use crossfix_calibration::track::{TrackModel, beliefs_without, travel_m};
use crossfix_calibration::uncertainty::{MixtureSample, fit_mixture};
use crossfix_calibration::{Error, GridBelief, Heatmap};
pub use crossfix_onboard::card::FittedBy;
use crossfix_onboard::card::HeatmapCalibration;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// See [`Silence`].
const STRETCH_M: f64 = 20.0;
/// See [`Silence`].
const APART_M: f64 = 5.0;
/// Times that drives are smoothed, each with other stretches silent.
const FOLDS: usize = 3;
/// Drives of fewer frames tell nothing.
const LEAST_FRAMES: usize = 10;
/// Share of the smoothing's odometry noise: labels are made with too much of it rather than too little, and under a
/// belief that is wider than it needs to be heatmaps look too sharp. Chosen on validation cities (docs/results.md).
const ODOMETRY_NOISE: f64 = 0.5;
/// Students are exported with what at least so many frames say: 92 frames of two drives said 0.22 where the truth of
/// other places said 0.38, and 272 frames of six drives 0.36.
const ENOUGH_FRAMES: usize = 200;
/// A few hundred heatmaps tell as much as all.
const MOST_HEATMAPS: usize = 1500;
/// They are kept up to this many bytes.
const MOST_BYTES: usize = 256 << 20;
/// Cells with less of the belief are left out.
const LEAST_MASS: f32 = 1e-5;
/// The smallest regions of these probabilities are looked at.
pub const NOMINAL: [f64; 5] = [0.5, 0.68, 0.9, 0.95, 0.99];

/// How heatmaps are to be believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatmapFit {
    /// What it rests on.
    pub by: FittedBy,
    /// Softmax temperature at which the heatmaps mean what they say.
    pub temperature: f64,
    /// Share of them that means nothing.
    pub outlier_share: f64,
    /// Frames that it was fitted by.
    pub frames: usize,
    /// Mean negative log-likelihood of what it was fitted by, nats.
    #[serde(default)]
    pub nll: f64,
    /// How often what it was fitted by lies within the smallest region of each probability.
    pub coverage: Vec<RegionCoverage>,
}

/// How often a region of one probability holds what it should.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RegionCoverage {
    /// Probability that the region claims.
    pub nominal: f64,
    /// Share that lies inside.
    pub observed: f64,
}

impl HeatmapFit {
    /// Fits temperature and outlier share to heatmaps of `side` cells along a side.
    ///
    /// # Errors
    /// As [`fit_mixture`].
    pub fn of(by: FittedBy, side: usize, samples: &[MixtureSample]) -> Result<Self, Error> {
        let fit = fit_mixture(samples)?;
        let mut found = Self {
            by,
            temperature: fit.temperature,
            outlier_share: fit.outlier,
            frames: samples.len(),
            nll: fit.nll,
            coverage: Vec::new(),
        };
        found.coverage = found.coverage_of(side, samples)?;
        Ok(found)
    }

    /// How often the truths of `samples` lie within the regions of heatmaps that are believed like this.
    ///
    /// # Errors
    /// [`Error::Heatmap`] for samples that are no heatmaps of `side` cells along a side.
    pub fn coverage_of(
        &self,
        side: usize,
        samples: &[MixtureSample],
    ) -> Result<Vec<RegionCoverage>, Error> {
        let levels = samples.par_iter().map(|sample| {
            let top = sample.logits.iter().copied().fold(f32::MIN, f32::max);
            let logits = sample.logits.iter().map(|logit| {
                let below = f64::from(logit - top) / self.temperature;
                below.exp() as f32
            });
            let mut cells: Vec<f32> = logits.collect();
            let sum: f32 = cells.iter().sum();
            cells.iter_mut().for_each(|cell| *cell /= sum);
            let believed = Heatmap::new(side, 1.0, cells)?.with_outliers(self.outlier_share)?;
            Ok(levels(believed.probabilities(), &sample.truth))
        });
        let levels = levels.collect::<Result<Vec<_>, Error>>()?;
        let all: Vec<(f64, f64)> = levels.into_iter().flatten().collect();
        let mass: f64 = all.iter().map(|(_, mass)| mass).sum();
        let coverage = NOMINAL.map(|nominal| {
            let inside = all.iter().filter(|(level, _)| *level <= nominal);
            let inside: f64 = inside.map(|(_, mass)| mass).sum();
            RegionCoverage {
                nominal,
                observed: inside / mass.max(1e-12),
            }
        });
        Ok(coverage.to_vec())
    }

    /// Whether it rests on enough frames to export a network with.
    pub fn is_enough(&self) -> bool {
        self.frames >= ENOUGH_FRAMES
    }

    /// What an exported student's card says of it.
    pub fn on_card(&self) -> HeatmapCalibration {
        HeatmapCalibration {
            fitted_by: self.by,
            frames: self.frames,
            outlier_share: Some(self.outlier_share),
        }
    }

    /// In a line.
    pub fn describe(&self) -> String {
        let by = match self.by {
            FittedBy::Truth => "true positions",
            FittedBy::Drives => "what drives say without them",
            FittedBy::None => "nothing",
        };
        format!(
            "heatmaps: temperature {:.3}, {:.1} % mean nothing, by {by} of {} frames",
            self.temperature,
            100.0 * self.outlier_share,
            self.frames
        )
    }
}

/// For each cell in which a truth may be: the probability of the smallest region of the heatmap that reaches it,
/// and how likely the truth is there.
fn levels(heatmap: &[f32], truth: &[(usize, f32)]) -> Vec<(f64, f64)> {
    let mut order: Vec<usize> = (0..heatmap.len()).collect();
    order.sort_by(|a, b| heatmap[*b].total_cmp(&heatmap[*a]));
    let mut level = vec![0.0f64; heatmap.len()];
    let mut above = 0.0;
    for cell in order {
        let p = f64::from(heatmap[cell]);
        level[cell] = above + 0.5 * p;
        above += p;
    }
    let all: f32 = truth.iter().map(|(_, mass)| mass).sum();
    let share = |(cell, mass): &(usize, f32)| (level[*cell], f64::from(mass / all));
    truth.iter().map(share).collect()
}

/// Runs `network` over all drives of `pairs` and fits what its heatmaps are worth there. `None` where frames have
/// no neighbours that tell where they are.
///
/// # Errors
/// [`PredictError`] when a pair cannot be read or does not fit the network, or on request.
pub fn by_drives(
    network: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    consensus: &Consensus,
    interrupt: &Interrupt,
) -> Result<Option<HeatmapFit>, PredictError> {
    let settled = consensus.settle(network, pairs, interrupt)?;
    by_settled(&settled, network, pairs, interrupt)
}

/// As [`by_drives`], of drives whose frames were placed by this network.
pub(crate) fn by_settled(
    settled: &Settled,
    network: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    interrupt: &Interrupt,
) -> Result<Option<HeatmapFit>, PredictError> {
    let spec = network.describe().clone();
    let samples = samples_of(settled, &Silence::default(), network, pairs, interrupt)?;
    if samples.len() < LEAST_FRAMES {
        return Ok(None);
    }
    let fit = HeatmapFit::of(FittedBy::Drives, spec.heatmap_side(), &samples);
    Ok(fit.ok())
}

/// Which heatmaps fall silent together, and what is believed of odometry meanwhile.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// Length of a silent stretch, metres; one stretch in [`FOLDS`] is silent at a time.
    stretch_m: f64,
    /// Frames of a silent stretch are fitted by when they are this far from heatmaps that speak, metres.
    apart_m: f64,
    /// Odometry's noise, as a share of that with which labels are made.
    odometry_noise: f64,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            stretch_m: STRETCH_M,
            apart_m: APART_M,
            odometry_noise: ODOMETRY_NOISE,
        }
    }
}

/// A frame, and where its drive thinks it was without its heatmap.
struct Placed {
    sample: usize,
    truth: Vec<(usize, f32)>,
}

fn samples_of(
    settled: &Settled,
    silence: &Silence,
    network: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    interrupt: &Interrupt,
) -> Result<Vec<MixtureSample>, PredictError> {
    let spec = network.describe().clone();
    let chains = settled.chains.iter();
    let chains: Vec<&Chain> = chains
        .filter(|chain| chain.frames.len() >= LEAST_FRAMES)
        .collect();
    let unfit = |error: Error| crate::model::ModelError::Input(error.to_string());
    let placed = chains
        .par_iter()
        .map(|chain| place_without(chain, &settled.model, silence, &spec))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unfit)?;
    let mut placed: Vec<Placed> = placed.into_iter().flatten().collect();
    let bytes = spec.heatmap_side().pow(2) * size_of::<f32>();
    let most = MOST_HEATMAPS.min(MOST_BYTES / bytes).max(1);
    let every = placed.len().div_ceil(most).max(1);
    let mut index = 0;
    placed.retain(|_| {
        index += 1;
        (index - 1) % every == 0
    });
    // A network that searches all headings placed its drives near those that were found; its heatmaps are worth what
    // they are where it is used, searching all.
    let mut kept = std::collections::HashMap::new();
    for chain in chains.iter().filter(|_| !searches_all(&spec)) {
        for (at, sample) in chain.samples.iter().enumerate() {
            let map = &chain.frames[at].answer;
            if map.side() == spec.heatmap_side() {
                kept.insert(*sample, map);
            }
        }
    }
    // Those of which fewer cells were kept are made once more.
    let again: Vec<usize> = placed.iter().map(|one| one.sample).collect();
    let again: Vec<usize> = again
        .into_iter()
        .filter(|sample| !kept.contains_key(sample))
        .collect();
    let subset = Subset {
        dataset: pairs,
        samples: &again,
    };
    let logs = |heatmap: &[f32]| -> Vec<f32> {
        let logs = heatmap.iter().map(|p| p.max(f32::MIN_POSITIVE).ln());
        logs.collect()
    };
    let mut whole = Vec::new();
    if !again.is_empty() {
        whole = predict_with(network, &subset, interrupt, |_, _, heatmap| {
            Ok(logs(heatmap))
        })?;
    }
    let mut whole: std::collections::HashMap<usize, Vec<f32>> =
        again.into_iter().zip(whole).collect();
    let mut samples = Vec::with_capacity(placed.len());
    for Placed { sample, truth } in placed {
        let logits = match kept.get(&sample) {
            Some(map) => logs(map.tempered(1.0).map_err(unfit)?.probabilities()),
            None => whole.remove(&sample).unwrap_or_default(),
        };
        samples.push(MixtureSample { logits, truth });
    }
    Ok(samples)
}

/// Where the frames of a drive were by everything but their own heatmaps and those around them, in cells of the
/// network's heatmap.
fn place_without(
    chain: &Chain,
    model: &TrackModel,
    silence: &Silence,
    spec: &ModelSpec,
) -> Result<Vec<Placed>, Error> {
    let travel = travel_m(&chain.frames);
    let model = TrackModel {
        odometry_share: silence.odometry_noise * model.odometry_share,
        odometry_step_m: silence.odometry_noise * model.odometry_step_m,
        ..*model
    };
    let Silence {
        stretch_m, apart_m, ..
    } = *silence;
    let stretch = |index: usize| (travel[index] / stretch_m) as usize;
    let is_inner = |index: usize| {
        let into = travel[index] - stretch(index) as f64 * stretch_m;
        (apart_m..=stretch_m - apart_m).contains(&into)
    };
    let mut placed = Vec::new();
    for fold in 0..FOLDS {
        let is_silent = |index: usize| stretch(index) % FOLDS == fold;
        beliefs_without(
            &chain.frames,
            &model,
            &chain.drift,
            is_silent,
            |index, belief| {
                let sample = chain.samples[index];
                let patch_m = chain.frames[index].patch_m;
                if is_inner(index)
                    && let Some(truth) = in_cells(belief, patch_m, spec)
                {
                    placed.push((index, Placed { sample, truth }));
                }
            },
        )?;
    }
    placed.sort_by_key(|(index, _)| *index);
    Ok(placed.into_iter().map(|(_, one)| one).collect())
}

/// A belief in the cells of a heatmap around `patch_m`, as far as it lies inside; none where most does not.
fn in_cells(belief: &GridBelief, patch_m: [f64; 2], spec: &ModelSpec) -> Option<Vec<(usize, f32)>> {
    let (side, cells) = (spec.heatmap_side(), belief.cells());
    // Cells of the belief that are larger than the heatmap's are spread over several.
    let parts = (belief.metres_per_cell() / spec.metres_per_cell())
        .ceil()
        .clamp(1.0, 16.0) as usize;
    let part_m = belief.metres_per_cell() / parts as f64;
    let mut mass = vec![0.0f32; side * side];
    for (at, p) in belief.probabilities().iter().enumerate() {
        if *p < LEAST_MASS / 10.0 {
            continue;
        }
        let centre = belief.cell_centre([at % cells, at / cells]);
        for part in 0..parts * parts {
            let along = [part % parts, part / parts]
                .map(|part| (part as f64 + 0.5) * part_m - 0.5 * belief.metres_per_cell());
            let offset = [0, 1].map(|axis| centre[axis] + along[axis] - patch_m[axis]);
            let [column, row] = cell_from_offset(offset, spec);
            let inside = |cell: f64| cell >= 0.0 && cell < side as f64;
            if inside(column) && inside(row) {
                mass[row as usize * side + column as usize] += p / (parts * parts) as f32;
            }
        }
    }
    let truth = mass.into_iter().enumerate();
    let truth: Vec<(usize, f32)> = truth.filter(|(_, mass)| *mass > LEAST_MASS).collect();
    let sum: f32 = truth.iter().map(|(_, mass)| mass).sum();
    (sum > 0.5).then(|| {
        let one = truth.into_iter().map(|(cell, mass)| (cell, mass / sum));
        one.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;

    #[test]
    fn a_belief_keeps_its_place_in_cells_that_are_larger_and_smaller_than_its_own() {
        let spec = named("compact").unwrap().describe();
        let patch_m = [100.0, -50.0];
        for (cell_m, cells) in [(0.5, 128), (3.0, 24)] {
            let mut belief = GridBelief::new(patch_m, cells, cell_m).unwrap();
            let place_m = [107.3, -54.6];
            let covariance = [[16.0, 0.0], [0.0, 16.0]];
            belief.update_gaussian(place_m, covariance, 0.0).unwrap();
            let truth = in_cells(&belief, patch_m, &spec).unwrap();
            let mass: f32 = truth.iter().map(|(_, mass)| mass).sum();
            assert!((mass - 1.0).abs() < 1e-3, "{mass}");
            let mean = [0, 1].map(|axis| {
                let place = |cell: usize| [cell % 64, cell / 64][axis] as f64 + 0.5;
                truth
                    .iter()
                    .map(|(cell, mass)| place(*cell) * f64::from(*mass))
                    .sum::<f64>()
            });
            assert!(
                (mean[0] - 39.3).abs() < 0.2 && (mean[1] - 36.6).abs() < 0.2,
                "{mean:?}"
            );
            // Nearly all of it lies outside of this patch.
            assert!(in_cells(&belief, [150.0, -50.0], &spec).is_none());
        }
    }

    #[test]
    fn regions_hold_what_their_heatmaps_say_and_outliers_fill_the_largest() {
        let heatmap: [f32; 4] = [0.6, 0.3, 0.08, 0.02];
        let logits: Vec<f32> = heatmap.iter().map(|p| p.ln()).collect();
        // A hundred truths as often in each cell as it says.
        let samples: Vec<MixtureSample> = [60, 30, 8, 2]
            .into_iter()
            .enumerate()
            .flat_map(|(cell, count)| (0..count).map(move |_| cell))
            .map(|cell| MixtureSample {
                logits: logits.clone(),
                truth: vec![(cell, 1.0)],
            })
            .collect();
        let fit = HeatmapFit::of(FittedBy::Truth, 2, &samples).unwrap();
        assert!((fit.temperature - 1.0).abs() < 0.1, "{fit:?}");
        assert!(fit.outlier_share < 0.02 && fit.frames == 100, "{fit:?}");
        // A truth in the second cell is reached at 0.6 + 0.15 of the mass; one in the last at 0.99, the edge of the last region.
        let held: Vec<f64> = fit.coverage.iter().map(|region| region.observed).collect();
        for (held, expected) in held.iter().zip([0.6, 0.6, 0.9, 0.98]) {
            assert!((held - expected).abs() < 1e-6, "{held} {expected}");
        }
        let flat = HeatmapFit {
            outlier_share: 1.0,
            ..fit
        };
        let held = flat.coverage_of(2, &samples).unwrap();
        assert!(held[0].observed < 0.95 && (held[4].nominal - 0.99).abs() < 1e-12);
        assert!(flat.coverage_of(3, &samples).is_err());
    }
}
