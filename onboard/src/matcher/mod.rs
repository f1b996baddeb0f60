//! Ground strip and aerial patch to heatmap, through the exported student.

mod convolution;
pub mod ground;
mod memory;
mod onnx;
#[cfg(test)]
pub(crate) mod tiny;
mod tract;

use std::path::PathBuf;
use std::time::Duration;

use crossfix_calibration::{Heatmap, Part, PatchGeoreference, PatchKey, RgbImage};

use crate::card::{CardError, StudentCard};
use crate::tiles::TileStore;

pub use tract::{DEFAULT_MEMORY_MB, TractMatcher};

/// Something that compares a ground strip with an aerial patch.
pub trait Matcher: Send {
    /// Its inputs, and what its outputs mean.
    fn card(&self) -> &StudentCard;

    /// The file that it was loaded from; none of one that was not.
    fn file(&self) -> Option<&ModelFile> {
        None
    }

    /// Where in `patch` the strip was taken; [`match_over`] gives both as the card wants them.
    ///
    /// `strip` is aligned with the heading at hand; `key` names the patch, so that what depends on it
    /// alone is computed once.
    ///
    /// # Errors
    /// [`MatchError::Input`] for pictures of other sizes than the card's, [`MatchError::Direction`] for
    /// a strip that begins where none may, [`MatchError::Run`] when the network fails or answers with
    /// something that is no heatmap.
    fn match_frame(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
    ) -> Result<MatchResult, MatchError>;

    /// The same for a vehicle that is surely inside a part of the patch. A student with a window over it
    /// (`--window` of `crossfix export`) looks at no more, and its heatmap tells places outside apart neither from
    /// each other nor from the median one inside ([`Heatmap::of_part`]).
    ///
    /// # Errors
    /// As [`Matcher::match_frame`].
    fn match_inside(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
        inside: Inside,
    ) -> Result<MatchResult, MatchError> {
        let _ = inside;
        self.match_frame(strip, key, patch)
    }
}

/// A circle on a patch with north up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inside {
    /// Its centre from the patch's, metres east and north.
    pub offset_m: [f64; 2],
    /// Its radius, metres.
    pub radius_m: f64,
}

/// Which student this is, so that a rollout can be followed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ModelFile {
    /// Where it was when it was loaded.
    pub path: std::path::PathBuf,
    /// Of its bytes, lower-case hexadecimal digits.
    pub sha256: String,
}

/// Compares a ground image, made with this yaw (radians counter-clockwise from east), with a patch that
/// has north up; a student that wants one with its right edge ahead gets it from `tiles`. The heatmap has
/// north up. `inside` is where the vehicle surely is, if that is known and may be made use of.
///
/// # Errors
/// As [`Matcher::match_frame`], and when the tiles give no turned patch, in words.
pub fn match_over(
    matcher: &mut dyn Matcher,
    strip: GroundStrip<'_>,
    yaw_rad: f64,
    (north_up, patch): (&PatchGeoreference, &RgbImage),
    tiles: Option<&mut TileStore>,
    inside: Option<Inside>,
) -> Result<MatchResult, String> {
    if matcher.card().ground.camera.is_none() {
        let found = match inside {
            Some(inside) => matcher.match_inside(strip, north_up.key(), patch, inside),
            None => matcher.match_frame(strip, north_up.key(), patch),
        };
        return found.map_err(|error| error.to_string());
    }
    let turned = north_up
        .turned(yaw_rad)
        .map_err(|error| error.to_string())?;
    let tiles = tiles.ok_or("no aerial tiles")?;
    let patch = tiles.render(&turned).map_err(|error| error.to_string())?;
    let found = matcher.match_frame(strip, turned.key(), &patch);
    let found = found.map_err(|error| error.to_string())?;
    Ok(MatchResult {
        heatmap: found.heatmap.north_up(yaw_rad),
        ..found
    })
}

/// A ground image and its azimuth.
#[derive(Debug, Clone, Copy)]
pub struct GroundStrip<'a> {
    /// The strip, as [`GroundInput::strip_spec`](crate::card::GroundInput::strip_spec) describes it, or
    /// the picture of [`GroundInput::pinhole_view`](crate::card::GroundInput::pinhole_view).
    pub image: &'a RgbImage,
    /// Azimuth of a strip's left edge, radians clockwise from north.
    pub left_azimuth_rad: f64,
}

/// The network's output for one strip and one patch.
#[derive(Debug, Clone)]
pub struct MatchResult {
    /// Probability over the patch, which has north up or its right edge ahead.
    pub heatmap: Heatmap,
    /// True yaw minus the yaw that the strip was aligned with, radians counter-clockwise, around the
    /// heatmap's mode.
    pub yaw_residual_rad: Option<f64>,
    /// The cells that were looked at, where that was not the whole patch.
    pub part: Option<Part>,
    /// Where the time went. Only for people: nothing downstream may depend on it.
    pub timings: MatchTimings,
}

/// Wall-clock time of one [`Matcher::match_frame`].
#[derive(Debug, Clone, Copy, Default)]
pub struct MatchTimings {
    /// Aerial part; zero when its features came from the cache.
    pub aerial: Duration,
    /// Ground part, matching and decoders.
    pub ground_and_matching: Duration,
}

/// Why a student cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    /// The file cannot be read.
    #[error("student \"{}\" cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The bytes are not an ONNX model that we run.
    #[error("student \"{name}\" {problem}; export it again with `crossfix export`")]
    Model {
        /// File name, for people.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The card is missing or wrong.
    #[error("student \"{name}\": {source}")]
    Card {
        /// File name, for people.
        name: String,
        /// What is wrong with the card.
        source: CardError,
    },
    /// A picture of the wrong size.
    #[error("the {what} picture has {actual:?} px, and the student eats {expected:?}")]
    Input {
        /// `ground` or `aerial`.
        what: &'static str,
        /// Width and height that came.
        actual: [usize; 2],
        /// Width and height of the card.
        expected: [usize; 2],
    },
    /// A strip that begins between the bins of the card.
    #[error(
        "the ground strip begins {left_azimuth_deg:.3}° clockwise from north, and the student eats \
         strips that begin at south or a multiple of {bin_deg}° from there"
    )]
    Direction {
        /// Where it begins.
        left_azimuth_deg: f64,
        /// Width of an orientation bin.
        bin_deg: f64,
    },
    /// The network failed on this input.
    #[error("the student failed: {0}")]
    Run(String),
}

#[cfg(test)]
mod tests {
    use std::f64::consts::FRAC_PI_2;

    use super::*;
    use crate::card::tests::tiny_card;
    use crate::tiles::tests::{origin, stores};

    /// Sees the vehicle 10 m towards the right edge of every patch, and remembers the patch.
    struct Ahead {
        card: StudentCard,
        patch: Option<(PatchKey, RgbImage)>,
    }

    impl Matcher for Ahead {
        fn card(&self) -> &StudentCard {
            &self.card
        }

        fn match_frame(
            &mut self,
            _strip: GroundStrip<'_>,
            key: PatchKey,
            patch: &RgbImage,
        ) -> Result<MatchResult, MatchError> {
            self.patch = Some((key, patch.clone()));
            Ok(MatchResult {
                heatmap: Heatmap::gaussian(33, 1.0, [10.0, 0.0], 1.0).unwrap(),
                yaw_residual_rad: None,
                part: None,
                timings: MatchTimings::default(),
            })
        }
    }

    #[test]
    fn a_pinhole_student_gets_a_patch_with_the_heading_at_its_right() {
        let (_folder, [archive, _]) = stores();
        let mut tiles = TileStore::open(archive).unwrap();
        let mut card = tiny_card();
        card.aerial.size_px = 64;
        card.aerial.metres_per_pixel = 1.0;
        let (north_up, patch) = tiles
            .patch(origin(), card.aerial.patch_spec(), 1.0)
            .unwrap();
        let image = RgbImage::black(8, 4);
        let strip = GroundStrip {
            image: &image,
            left_azimuth_rad: 0.0,
        };
        let mut strips = Ahead { card, patch: None };
        let over = (&north_up, &*patch);
        let found = match_over(&mut strips, strip, FRAC_PI_2, over, None, None).unwrap();
        assert_eq!(found.heatmap.mode().offset_m, [10.0, 0.0]);
        assert_eq!(strips.patch.as_ref().unwrap().0, north_up.key());

        strips.card.ground.camera = Some([8.0, 8.0, 4.0, 2.0]);
        // The vehicle heads north: what is at the right of its patch is in the north.
        let found =
            match_over(&mut strips, strip, FRAC_PI_2, over, Some(&mut tiles), None).unwrap();
        assert_eq!(found.heatmap.mode().offset_m, [0.0, 10.0]);
        let (key, turned) = strips.patch.take().unwrap();
        assert_ne!(key, north_up.key());
        for (row, column) in (0..64).flat_map(|row| (0..64).map(move |column| (row, column))) {
            let expected = patch.pixel(row, 63 - column);
            for (found, expected) in turned.pixel(column, row).into_iter().zip(expected) {
                assert!(found.abs_diff(expected) <= 2, "{row},{column}");
            }
        }
        let refused = match_over(&mut strips, strip, FRAC_PI_2, over, None, None).unwrap_err();
        assert!(refused.contains("tiles"), "{refused}");
    }
}
