//! The Earth: [`Geodetic`] (WGS 84), [`Ecef`], [`Enu`] about a [`LocalFrame`], and [`mercator`] tiles.
//!
//! ```text
//! Geodetic  ⇄  Ecef  ⇄  Enu        Geodetic  ⇄  mercator world pixels
//! ```

mod ecef;
mod enu;
pub mod mercator;
pub mod wgs84;

pub use ecef::Ecef;
pub use enu::{Enu, LocalFrame};
pub use mercator::TileId;
pub use wgs84::Geodetic;
