#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(clippy::float_cmp, reason = "hand-worked cases are exact in binary")
)]
//! Where things are and how sure we are: pure functions, no I/O, no clock.
//!
//! The modules in the order data flows through them:
//!
//! - [`angle`]: yaw inside, heading at the edges.
//! - [`geodesy`]: WGS 84, ECEF, local ENU frames and Web Mercator, each a type of its own.
//! - [`georeference`]: map tiles to the north-up aerial patch for the network, and its pixels to metres.
//! - [`camera`]: equirectangular and pinhole cameras, and the remap to the network's ground strip.
//! - [`heatmap`]: a network's output, as a mode, a mean and a covariance in metres.
//! - [`belief`]: where the vehicle may be, as a grid of probabilities.
//! - [`track`]: where a vehicle was at each picture of a drive, from all evidence of the drive.
//! - [`recover`]: what instruments have in common over many drives, from their tracks.
//! - [`uncertainty`]: whether stated uncertainty is true: temperature, coverage, NEES.
//!
//! Conventions: ENU metres, yaw in radians counter-clockwise from east, pixels as `[col, row]` with
//! `[0, 0]` the top-left corner of the image and pixel centres at `+0.5`, row 0 in the north.
//!
//! # From a coarse fix to a better one
//!
//! ```
//! use std::sync::Arc;
//! use crossfix_calibration::{
//!     Enu, Geodetic, GridBelief, Heatmap, LocalFrame, PatchGeoreference, PatchSpec, RgbImage,
//! };
//! # fn main() -> crossfix_calibration::Result<()> {
//! let frame = LocalFrame::new(Geodetic::new(52.0116, 4.3571, 0.0)?);
//!
//! // A GNSS fix, 5 m sigma, says where to cut the aerial patch ...
//! let fix = Geodetic::new(52.01163, 4.35718, 0.0)?;
//! let spec = PatchSpec { size_px: 128, metres_per_pixel: 0.5 };
//! let patch = PatchGeoreference::centred_on(fix, spec, 0.5)?;
//! let aerial = patch.render(18, 256, |_tile| Some(Arc::new(RgbImage::black(256, 256))))?;
//! assert_eq!((aerial.width, aerial.height), (128, 128));
//!
//! // ... the network answers with a heatmap over it (3 m east and 2 m south of the patch's centre) ...
//! let heatmap = Heatmap::gaussian(64, 1.0, [3.0, -2.0], 1.0)?;
//!
//! // ... and the belief weighs both.
//! let fix_m = frame.enu_from_geodetic(fix).horizontal();
//! let patch_m = frame.enu_from_geodetic(patch.centre()).horizontal();
//! let mut belief = GridBelief::new(fix_m, 128, 0.5)?;
//! belief.update_gnss(fix_m, [[25.0, 0.0], [0.0, 25.0]], 4.0)?;
//! belief.update_heatmap(&heatmap, patch_m, 0.8, 0.05)?;
//!
//! let estimate = belief.estimate();
//! let [east, north] = estimate.mean_m;
//! assert!((east - patch_m[0] - 3.0).abs() < 0.5 && (north - patch_m[1] + 2.0).abs() < 0.5);
//! assert_eq!(estimate.mode_count, 1);
//! let published = frame.geodetic_from_enu(Enu::new(east, north, 0.0));
//! assert!((published.latitude_deg - 52.01161).abs() < 1e-4);
//! # Ok(())
//! # }
//! ```

pub mod angle;
pub mod belief;
pub mod camera;
mod error;
pub mod geodesy;
pub mod georeference;
pub mod heatmap;
pub mod image;
mod mosaic;
mod peak;
pub mod recover;
pub mod track;
mod turned;
pub mod uncertainty;

pub use angle::{Heading, LineHeading, Yaw};
pub use belief::{BeliefEstimate, Evidence, GridBelief, LogMap, Step, smooth};
pub use camera::{
    Camera, CameraModel, Distortion, Equirectangular, Fisheye, LeverArm, Mount, PanoramaSpec,
    Pinhole, PinholeView, Stitcher, StripMapper, StripRemap, StripSpec,
};
pub use error::{Error, Result};
pub use geodesy::{Ecef, Enu, Geodetic, LocalFrame, TileId, mercator};
pub use georeference::{PatchGeoreference, PatchKey, PatchSpec};
pub use heatmap::{Heatmap, Mode, Part};
pub use image::RgbImage;
pub use nalgebra;
pub use peak::refine_peak;
