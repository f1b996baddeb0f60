//! Shadow mode: a second student that looks at frames the first one was used for, is compared with it, and
//! never used.
//!
//! What it says of a frame is judged by where the vehicle was by everything before that frame (GNSS,
//! odometry, the first student's earlier heatmaps). That track leans towards the first student, so a lead of
//! the shadow is rather larger than it shows, and a small lead of the first student may be none.

mod config;
mod likelihood;
mod tally;
#[cfg(test)]
mod tests;

use crossfix_calibration::{Geodetic, Heatmap, PatchGeoreference};

pub use self::config::ShadowConfig;
pub use self::tally::{ShadowHealth, StudentFigures, Tally, Verdict};
use crate::event::{Look, Match};
use crate::image_decode::decode_rgb;
use crate::matcher::ground::{self, GroundMapper};
use crate::matcher::{GroundStrip, Matcher, match_over};
use crate::tiles::TileStore;

/// Largest camera picture, pixels a side; that of the core.
const LARGEST_FRAME_PX: usize = 8192;

/// What two students say of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Time of the frame, nanoseconds UTC.
    pub time_ns: i64,
    /// Name of the camera.
    pub camera: String,
    /// Between the modes of the two heatmaps, metres.
    pub modes_apart_m: f64,
    /// The student that is used.
    pub running: Score,
    /// The one that is not.
    pub shadow: Score,
}

/// What a heatmap is worth, by where the vehicle was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// From its mode to the fused position, metres.
    pub mode_off_m: f64,
    /// Natural logarithm of the density of the fused position under it, per m²; a share of the density is
    /// spread evenly, as in the fusion.
    pub log_likelihood: f64,
}

/// A student in shadow mode.
pub struct Shadow {
    matcher: Box<dyn Matcher>,
    tiles: Option<TileStore>,
    patch_grid_m: f64,
    outlier_share: f64,
    every: u64,
    seen: u64,
    mapper: Option<GroundMapper>,
    tally: Tally,
}

impl Shadow {
    /// A student that looks at every `every`-th frame. `tiles` are for patches of another size than the
    /// first student's; `patch_grid_m` and `outlier_share` are those of the config: neither student's card decides how both are compared.
    pub fn new(
        matcher: Box<dyn Matcher>,
        tiles: Option<TileStore>,
        [patch_grid_m, outlier_share]: [f64; 2],
        every: u64,
    ) -> Self {
        Self {
            matcher,
            tiles,
            patch_grid_m,
            outlier_share,
            every: every.max(1),
            seen: 0,
            mapper: None,
            tally: Tally::default(),
        }
    }

    /// Compares it on a frame that the first student was used for, if it is this frame's turn. What goes
    /// wrong is counted, and nothing else comes of it.
    pub fn consider(&mut self, found: &Match, look: &Look) -> Option<Comparison> {
        self.seen += 1;
        if !(self.seen - 1).is_multiple_of(self.every) {
            return None;
        }
        match self.compare(found, look) {
            Ok(comparison) => {
                self.tally.note(&comparison);
                Some(comparison)
            }
            Err(problem) => {
                self.tally.note_failure(problem);
                None
            }
        }
    }

    /// Begins to count anew: the first student is another one.
    pub fn forget(&mut self) {
        self.tally = Tally::default();
    }

    /// The figures so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn compare(&mut self, found: &Match, look: &Look) -> Result<Comparison, String> {
        let card = self.matcher.card();
        let picture = decode_rgb(&look.frame.image, LARGEST_FRAME_PX)
            .map_err(|error| format!("the frame {error}"))?;
        let yaw_rad = look.pose.yaw.radians();
        let camera = &look.calibration;
        let (image, left_azimuth_rad) =
            ground::cut(&mut self.mapper, camera, &card.ground, yaw_rad, &picture)
                .map_err(|error| error.to_string())?;
        let spec = card.aerial.patch_spec();
        let (georeference, patch) = if spec == found.georeference.spec() {
            (found.georeference.clone(), found.patch.clone())
        } else {
            let tiles = self.tiles.as_mut().ok_or("no aerial tiles")?;
            tiles
                .patch(look.pose.position, spec, self.patch_grid_m)
                .map_err(|error| error.to_string())?
        };
        let strip = GroundStrip {
            image: &image,
            left_azimuth_rad,
        };
        let over = (&georeference, &*patch);
        let result = match_over(
            self.matcher.as_mut(),
            strip,
            yaw_rad,
            over,
            self.tiles.as_mut(),
            None,
        )?;
        let running = (&found.fix.heatmap, &found.georeference);
        let shadow = (&result.heatmap, &georeference);
        let apart = found.georeference.frame().enu_from_geodetic(mode(shadow));
        let apart = apart.horizontal();
        let first = mode_offset(running);
        // Both spread the same share over the same ground, whatever the size of their patches.
        let ground_m2 = found.georeference.spec().side_m().powi(2);
        let floor = (self.outlier_share, ground_m2);
        Ok(Comparison {
            time_ns: found.fix.time_ns,
            camera: found.camera.clone(),
            modes_apart_m: (apart[0] - first[0]).hypot(apart[1] - first[1]),
            running: score(running, look, floor),
            shadow: score(shadow, look, floor),
        })
    }
}

type Placed<'a> = (&'a Heatmap, &'a PatchGeoreference);

fn mode_offset((heatmap, _): Placed<'_>) -> [f64; 2] {
    heatmap.mode().offset_m
}

fn mode(placed: Placed<'_>) -> Geodetic {
    let [east, north] = mode_offset(placed);
    let frame = placed.1.frame();
    frame.geodetic_from_enu(crossfix_calibration::Enu::new(east, north, 0.0))
}

fn score(placed: Placed<'_>, look: &Look, (share, ground_m2): (f64, f64)) -> Score {
    let frame = placed.1.frame();
    let fused = frame.enu_from_geodetic(look.pose.position).horizontal();
    let mode = mode_offset(placed);
    let density = likelihood::density(placed.0, fused, look.pose.covariance_m2);
    Score {
        mode_off_m: (fused[0] - mode[0]).hypot(fused[1] - mode[1]),
        log_likelihood: ((1.0 - share) * density + share / ground_m2).ln(),
    }
}
