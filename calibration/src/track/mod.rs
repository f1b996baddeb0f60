//! Where a vehicle was at each picture of a drive, from all that the drive recorded: the network's
//! answers, odometry and coarse positions. No truth.
//!
//! Yaw → motion between pictures → forward–backward smoothing on a grid ([`crate::smooth`]) → the
//! mode of each picture's posterior, and how much of it lies there. [`drift()`] finds what odometry and
//! coarse positions had wrong over the whole drive, for a second pass; [`yaws_by_course`] finds headings that
//! nobody measured.

mod coarse;
pub mod drift;
mod heading;
mod motion;

pub use coarse::{
    INDEPENDENT_ROUGHNESS, Offset, drive_bias, roughness, tile_offset, waypoint_roughness,
};
pub use drift::{Drift, drift};
pub use heading::{FoundYaw, Waypoint, yaws_by_course, yaws_by_directions};
pub use motion::{GnssWeights, Motion, gnss_weights, motions, yaws};

use crate::angle::Yaw;
use crate::{GridBelief, LogMap, Result, Step, refine_peak, smooth};
use serde::{Deserialize, Serialize};

/// What a vehicle knew at one picture, in the local metres of its drive.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When, seconds from any moment.
    pub time_s: f64,
    /// Centre of the aerial patch.
    pub patch_m: [f64; 2],
    /// What the network made of the picture, over the patch.
    pub answer: LogMap,
    /// Coarse position.
    pub coarse_m: [f64; 2],
    /// Its stated covariance.
    pub coarse_covariance_m2: [[f64; 2]; 2],
    /// Measured yaw, radians counter-clockwise from east.
    pub yaw_rad: f64,
    /// Its standard deviation; π and more where it is unknown.
    pub yaw_sigma_rad: f64,
    /// Movement since the frame before in the vehicle's frame there: metres forward, metres to the
    /// left, radians counter-clockwise.
    pub odometry: Option<[f64; 3]>,
}

/// How evidence is believed. The defaults were chosen on validation areas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackModel {
    /// Power on heatmaps, below 1 where networks are too sure.
    pub heatmap_power: f64,
    /// Share of heatmaps that mean nothing.
    pub outlier: f64,
    /// Travel over which a network's errors repeat, metres: frames nearer to each other share one
    /// frame's say.
    pub repeat_m: f64,
    /// Error of odometry's distance, as a share of it.
    pub odometry_share: f64,
    /// Error of odometry beside that, metres for `repeat_m` of travel; it grows with travel's root.
    pub odometry_step_m: f64,
    /// What stated sigmas of coarse positions are multiplied with.
    pub gnss_inflation: f64,
    /// Time in which the bias of coarse positions forgets itself, seconds.
    pub gnss_memory_s: f64,
    /// Noise of coarse positions beside their bias, metres along each axis.
    pub gnss_noise_m: f64,
    /// Share of coarse positions that mean nothing.
    pub gnss_outlier: f64,
    /// Share of steps after which the vehicle may be anywhere.
    pub lost: f64,
    /// Cells of the grid, metres.
    pub cell_m: f64,
    /// Support is the mass within this distance of the mode, metres.
    pub support_m: f64,
}

impl Default for TrackModel {
    fn default() -> Self {
        Self {
            heatmap_power: 0.9,
            outlier: 0.2,
            repeat_m: 5.0,
            odometry_share: 0.03,
            odometry_step_m: 0.2,
            gnss_inflation: 1.5,
            gnss_memory_s: 40.0,
            gnss_noise_m: 0.7,
            gnss_outlier: 0.1,
            lost: 1e-4,
            cell_m: 0.5,
            support_m: 1.5,
        }
    }
}

/// Where the vehicle was at one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// `[east, north]` of the posterior's mode.
    pub mode_m: [f64; 2],
    /// Probability that the vehicle was within [`TrackModel::support_m`] of it.
    pub support: f64,
    /// Yaw by all headings and turns, radians counter-clockwise from east.
    pub yaw_rad: f64,
}

/// Frames smoothed in one piece, and how many of those before and after a piece only lend support.
const PIECE: usize = 240;
const OVERLAP: usize = 40;

/// The places of a drive's frames, which are in the order of time.
///
/// `drift` is what an earlier pass found to be wrong with odometry and coarse positions
/// ([`Drift::default`]: nothing known), `prior` may weigh the cells of a frame's grid by anything else.
///
/// # Errors
/// [`crate::Error::Belief`] for numbers that are not finite or covariances that are none.
///
/// # Method
/// Hidden Markov model over grid cells. The coarse positions' bias is a Gauss–Markov process; it is
/// exact here, see [`gnss_weights`].
pub fn places(
    frames: &[Frame],
    model: &TrackModel,
    drift: &Drift,
    prior: impl FnMut(usize, &mut GridBelief) -> Result<()>,
) -> Result<Vec<Place>> {
    let mut places: Vec<Option<Place>> = vec![None; frames.len()];
    beliefs(
        frames,
        model,
        drift,
        |_| true,
        prior,
        |index, yaw_rad, belief| {
            places[index] = Some(place(belief, model, yaw_rad));
        },
    )?;
    Ok(places.into_iter().flatten().collect())
}

/// Where the frames were by everything but the heatmaps of those that `is_silent`: `each` gets those frames'
/// beliefs, in any order.
///
/// # Errors
/// As [`places`].
pub fn beliefs_without(
    frames: &[Frame],
    model: &TrackModel,
    drift: &Drift,
    is_silent: impl Fn(usize) -> bool,
    mut each: impl FnMut(usize, &GridBelief),
) -> Result<()> {
    let is_heard = |index: usize| !is_silent(index);
    beliefs(
        frames,
        model,
        drift,
        is_heard,
        |_, _| Ok(()),
        |index, _, belief| {
            if is_silent(index) {
                each(index, belief);
            }
        },
    )
}

/// Metres of travel from the first frame to each: by odometry, or by the patches' centres where there is none.
pub fn travel_m(frames: &[Frame]) -> Vec<f64> {
    let mut sum = 0.0;
    let mut travel = Vec::with_capacity(frames.len());
    for (index, frame) in frames.iter().enumerate() {
        if index > 0 {
            let patches = [0, 1].map(|axis| frame.patch_m[axis] - frames[index - 1].patch_m[axis]);
            let [forward, left] = frame.odometry.map_or(patches, |[f, l, _]| [f, l]);
            sum += forward.hypot(left);
        }
        travel.push(sum);
    }
    travel
}

/// As [`places`]: `each` gets the yaw and the belief of every frame; heatmaps count where they are heard.
fn beliefs(
    frames: &[Frame],
    model: &TrackModel,
    drift: &Drift,
    is_heard: impl Fn(usize) -> bool,
    mut prior: impl FnMut(usize, &mut GridBelief) -> Result<()>,
    mut each: impl FnMut(usize, f64, &GridBelief),
) -> Result<()> {
    let yaws = yaws(frames, drift);
    let gnss = gnss_weights(frames, model);
    let motions = motions(frames, &yaws, &gnss, model, drift);
    let exponents = exponents(frames, &motions, model.repeat_m);
    let mut first = 0;
    while first < frames.len() {
        let end = frames.len().min(first + PIECE);
        let from = first.saturating_sub(OVERLAP);
        let to = frames.len().min(end + OVERLAP);
        let piece = &frames[from..to];
        let span_m = |frame: &Frame| frame.answer.side() as f64 * frame.answer.metres_per_cell();
        let span_m = piece.iter().map(span_m).fold(0.0, f64::max);
        let cells = ((span_m / model.cell_m).ceil() as usize).max(3);
        let start = GridBelief::new(piece[0].patch_m, cells, model.cell_m)?;
        let steps: Vec<Step> = (from..to)
            .map(|index| {
                let motion = motions[index].filter(|_| index > from);
                Step {
                    centre_m: frames[index].patch_m,
                    motion_m: motion.map_or([0.0; 2], |motion| motion.step_m),
                    motion_sigma_m: motion.map_or(0.0, |motion| motion.sigma_m),
                    lost: motion.map_or(1.0, |motion| model.lost * motion.travel(model.repeat_m)),
                }
            })
            .collect();
        let evidence = |index: usize, belief: &mut GridBelief| {
            let (frame, gnss) = (&frames[from + index], gnss.unary[from + index]);
            if is_heard(from + index) {
                let heatmap = frame.answer.tempered(model.heatmap_power)?;
                let exponent = exponents[from + index];
                belief.update_heatmap(&heatmap, frame.patch_m, exponent, model.outlier)?;
            }
            if gnss > 0.0 {
                let variance = |stated: f64| stated * model.gnss_inflation.powi(2) / gnss;
                let covariance = frame.coarse_covariance_m2.map(|row| row.map(variance));
                // Nothing is known of where a frame is whose coarse position is not.
                if covariance[0][0].max(covariance[1][1]) < 1e5 {
                    let place_m = [0, 1].map(|axis| frame.coarse_m[axis] - drift.offset_m[axis]);
                    belief.update_gaussian(place_m, covariance, model.gnss_outlier)?;
                }
            }
            prior(from + index, belief)
        };
        smooth(&start, &steps, evidence, |index, belief| {
            let index = from + index;
            if (first..end).contains(&index) {
                each(index, yaws[index].0, belief);
            }
        })?;
        first = end;
    }
    Ok(())
}

fn place(belief: &GridBelief, model: &TrackModel, yaw_rad: f64) -> Place {
    let (p, side) = (belief.probabilities(), belief.cells());
    let mut best = 0;
    for (at, value) in p.iter().enumerate() {
        if *value > p[best] {
            best = at;
        }
    }
    let [column, row] = refine_peak(p, side, [best % side, best / side]);
    let half = side as f64 / 2.0;
    let [east, north] = belief.centre();
    let mode_m = [
        east + (column - half) * belief.metres_per_cell(),
        north + (half - row) * belief.metres_per_cell(),
    ];
    Place {
        mode_m,
        support: belief.mass_within(mode_m, model.support_m).min(1.0),
        yaw_rad: Yaw::new(yaw_rad).radians(),
    }
}

/// The say of each frame's heatmap: 1 where its neighbours are `repeat_m` away, less where they are
/// nearer, so that a vehicle that stands does not count one picture a hundred times.
fn exponents(frames: &[Frame], motions: &[Option<Motion>], repeat_m: f64) -> Vec<f64> {
    let length = |index: usize| {
        let motion = motions.get(index).copied().flatten();
        motion.map_or(repeat_m, |motion| motion.travel(repeat_m) * repeat_m)
    };
    let share = |index: usize| {
        let around_m = f64::midpoint(length(index), length(index + 1));
        (around_m / repeat_m).clamp(1e-3, 1.0)
    };
    (0..frames.len())
        .map(|index| if repeat_m > 0.0 { share(index) } else { 1.0 })
        .collect()
}

#[cfg(test)]
mod tests;
