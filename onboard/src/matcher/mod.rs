//! Ground strip and aerial patch to heatmap, through the exported student.

mod convolution;
mod memory;
mod onnx;
mod panics;
pub mod strip;
#[cfg(test)]
pub(crate) mod tiny;
mod tract;

use std::path::PathBuf;
use std::time::Duration;

use crossfix_calibration::{Heatmap, PatchKey, RgbImage};

use crate::card::{CardError, StudentCard};

pub use panics::panic_is_caught;
pub use tract::{DEFAULT_MEMORY_MB, TractMatcher};

/// Something that compares a ground strip with an aerial patch.
pub trait Matcher: Send {
    /// Its inputs, and what its outputs mean.
    fn card(&self) -> &StudentCard;

    /// The file that it was loaded from; none of one that was not.
    fn file(&self) -> Option<&ModelFile> {
        None
    }

    /// Where in `patch` the strip was taken.
    ///
    /// `strip` is north-aligned with the heading at hand; `key` names the patch, so that what depends
    /// on it alone is computed once.
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
}

/// Which student this is, so that a rollout can be followed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ModelFile {
    /// Where it was when it was loaded.
    pub path: std::path::PathBuf,
    /// Of its bytes, lower-case hexadecimal digits.
    pub sha256: String,
}

/// A ground strip and its azimuth.
#[derive(Debug, Clone, Copy)]
pub struct GroundStrip<'a> {
    /// The picture, as [`GroundInput::strip_spec`](crate::card::GroundInput::strip_spec) describes it.
    pub image: &'a RgbImage,
    /// Azimuth of its left edge, radians clockwise from north.
    pub left_azimuth_rad: f64,
}

/// The network's output for one strip and one patch.
#[derive(Debug, Clone)]
pub struct MatchResult {
    /// Probability over the patch, north up.
    pub heatmap: Heatmap,
    /// True yaw minus the yaw that the strip was aligned with, radians counter-clockwise, around the
    /// heatmap's mode.
    pub yaw_residual_rad: Option<f64>,
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
