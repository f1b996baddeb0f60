//! The errors of this crate: input that cannot be used.

use crate::geodesy::TileId;

/// What went wrong, with the values, and what to do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A latitude, longitude or height that is not a place.
    #[error(
        "not a place on WGS 84: latitude {latitude_deg}, longitude {longitude_deg}, height {height_m} m; \
         need latitude in -90..=90, longitude in -180..=180 and a finite height"
    )]
    Geodetic {
        /// Degrees north.
        latitude_deg: f64,
        /// Degrees east.
        longitude_deg: f64,
        /// Metres above the ellipsoid.
        height_m: f64,
    },
    /// A patch that reaches beyond the square Web Mercator world.
    #[error(
        "an aerial patch around latitude {latitude_deg} reaches beyond the Web Mercator limit of ±{limit_deg:.5}; \
         map tiles end there, so no aerial matching is possible at this place"
    )]
    BeyondMercator {
        /// Latitude of the patch centre.
        latitude_deg: f64,
        /// The limit, [`crate::mercator::MAX_LATITUDE_DEG`].
        limit_deg: f64,
    },
    /// A tile that the patch needs and the tile source does not have.
    #[error(
        "no aerial tile {tile} (zoom/x/y) for the patch around {latitude_deg:.5},{longitude_deg:.5}; \
         add it to the tile set or choose a zoom the set has"
    )]
    MissingTile {
        /// The tile asked for.
        tile: TileId,
        /// Latitude of the patch centre.
        latitude_deg: f64,
        /// Longitude of the patch centre.
        longitude_deg: f64,
    },
    /// A patch size, resolution, zoom or tile size that cannot work.
    #[error("aerial patch: {0}")]
    Patch(String),
    /// An image whose size is not the one promised.
    #[error(
        "{what}: expected {expected_width}x{expected_height} RGB, got {width}x{height} with {bytes} bytes"
    )]
    ImageSize {
        /// Which image.
        what: String,
        /// Expected columns.
        expected_width: usize,
        /// Expected rows.
        expected_height: usize,
        /// Columns it says it has.
        width: usize,
        /// Rows it says it has.
        height: usize,
        /// Bytes it has.
        bytes: usize,
    },
    /// A camera description that contradicts itself.
    #[error("camera calibration: {0}")]
    Camera(String),
    /// A ground strip description that cannot work.
    #[error("ground strip: {0}")]
    Strip(String),
    /// Numbers that are not a heatmap.
    #[error("heatmap: {0}")]
    Heatmap(String),
    /// A grid belief asked for something impossible.
    #[error("grid belief: {0}")]
    Belief(String),
    /// Uncertainty statistics over unusable samples.
    #[error("uncertainty: {0}")]
    Uncertainty(String),
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
