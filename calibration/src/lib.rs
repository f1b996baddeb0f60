#![forbid(unsafe_code)]
//! Where things are and how sure we are: pure functions, no I/O, no clock.
//!
//! The modules in the order data flows through them:
//!
//! - [`geodesy`]: WGS 84, ECEF, local ENU frames and Web Mercator, each a type of its own.
//! - [`georeference`]: map tiles to the north-up aerial patch a network eats, and its pixels to metres.
//! - [`camera`]: equirectangular and pinhole cameras, and the remap to the network's ground strip.
//! - [`heatmap`]: what a network answers, as a mode, a mean and a covariance in metres.
//! - [`belief`]: where the vehicle may be, as a grid of log-probabilities.
//! - [`uncertainty`]: is the stated confidence true? Temperature, coverage, NEES.
//!
//! Conventions: ENU metres, yaw in radians counter-clockwise from east, pixels as `[col, row]` with
//! `[0, 0]` the top-left corner of the image and pixel centres at `+0.5`, row 0 in the north.

pub mod belief;
pub mod camera;
mod error;
pub mod geodesy;
pub mod georeference;
pub mod heatmap;
pub mod image;

pub use belief::{BeliefEstimate, Evidence, GridBelief, Step, smooth};
pub use camera::{
    Camera, CameraModel, Equirectangular, Mount, Pinhole, PlumbBob, StripRemap, StripSpec,
};
pub use error::{Error, Result};
pub use geodesy::{Ecef, Enu, Geodetic, LocalFrame, TileId, mercator};
pub use georeference::{PatchGeoreference, PatchKey, PatchSpec};
pub use heatmap::{Heatmap, Mode};
pub use image::RgbImage;
pub use nalgebra;
