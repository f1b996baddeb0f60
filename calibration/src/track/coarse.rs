//! What the places of frames say about coarse positions: the bias of each drive, the offset of a tile
//! set, and whether errors last from one position to the next at all.

use super::{Frame, Place, TrackModel, Waypoint};

/// Sigma of a tile set's offset before anything is known of it, metres along each axis.
const TILE_OFFSET_SIGMA_M: f64 = 3.0;

/// A mean of errors along each axis, and its standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offset {
    /// Metres east and north.
    pub mean_m: [f64; 2],
    /// Metres along each axis.
    pub sigma_m: f64,
}

/// Mean of coarse position minus place over a drive; its sigma is how well it stands for the tile set,
/// given a bias of the model's size and memory. `None` where nothing is supported.
pub fn drive_bias(frames: &[Frame], places: &[Place], model: &TrackModel) -> Option<Offset> {
    let (mut sum, mut weight, mut variance) = ([0.0; 2], 0.0, 0.0);
    for (frame, place) in frames.iter().zip(places) {
        let [[ee, _], [_, nn]] = frame.coarse_covariance_m2;
        if ee.max(nn) > 1e5 {
            continue;
        }
        for axis in 0..2 {
            sum[axis] += place.support * (frame.coarse_m[axis] - place.mode_m[axis]);
        }
        variance += place.support * f64::midpoint(ee, nn) * model.gnss_inflation.powi(2);
        weight += place.support;
    }
    let (first, last) = (frames.first()?, frames.last()?);
    let lasting = (last.time_s - first.time_s).max(0.0) / (2.0 * model.gnss_memory_s);
    // No more errors are independent than there are positions.
    let lasting = lasting.min(frames.len() as f64);
    (weight > 0.0).then(|| Offset {
        mean_m: sum.map(|sum| sum / weight),
        sigma_m: (variance / weight / (1.0 + lasting)).sqrt(),
    })
}

/// What coarse positions have in common over all drives: the offset of the aerial tiles from the
/// satellites' frame. Few drives say little: it is drawn towards nothing.
pub fn tile_offset(drives: &[Offset]) -> Offset {
    let prior = TILE_OFFSET_SIGMA_M.powi(-2);
    let (mut sum, mut precision) = ([0.0; 2], prior);
    for drive in drives {
        let weight = drive.sigma_m.powi(-2);
        for axis in 0..2 {
            sum[axis] += weight * drive.mean_m[axis];
        }
        precision += weight;
    }
    Offset {
        mean_m: sum.map(|sum| sum / precision),
        sigma_m: precision.sqrt().recip(),
    }
}

/// How much coarse positions bend beside what vehicles do: the median second difference of neighbours
/// of a drive over their stated sigma. A lasting bias leaves little of it, errors that are drawn anew
/// for each frame leave about 3. `None` of fewer than ten.
pub fn roughness<'a>(drives: impl IntoIterator<Item = &'a [Frame]>) -> Option<f64> {
    let coarse = |frame: &Frame| {
        let [[ee, _], [_, nn]] = frame.coarse_covariance_m2;
        (frame.coarse_m, f64::midpoint(ee, nn).sqrt())
    };
    let drives = drives.into_iter();
    rough(drives.map(|frames| frames.iter().map(coarse).collect()))
}

/// As [`roughness`], of drives without headings.
pub fn waypoint_roughness<'a>(drives: impl IntoIterator<Item = &'a [Waypoint]>) -> Option<f64> {
    let coarse = |point: &Waypoint| (point.coarse_m, point.coarse_sigma_m);
    let drives = drives.into_iter();
    rough(drives.map(|points| points.iter().map(coarse).collect()))
}

/// Of positions and their sigmas.
fn rough(drives: impl Iterator<Item = Vec<([f64; 2], f64)>>) -> Option<f64> {
    let mut bends = Vec::new();
    for points in drives {
        for three in points.windows(3) {
            let [(a, _), (b, sigma_m), (c, _)] = three else {
                continue;
            };
            let bend = [0, 1].map(|axis| a[axis] - 2.0 * b[axis] + c[axis]);
            // Stops and crossings bend a track too, by metres at most.
            bends.push(bend[0].hypot(bend[1]) / sigma_m.max(1.0));
        }
    }
    bends.sort_by(f64::total_cmp);
    (bends.len() >= 10).then(|| bends[bends.len() / 2])
}

/// Roughness above which errors do not last from one coarse position to the next.
pub const INDEPENDENT_ROUGHNESS: f64 = 1.5;
