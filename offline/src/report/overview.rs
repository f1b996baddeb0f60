//! The aerial picture of a piece of ground, from a tile set.

use super::input::MapPicture;
use super::picture::Picture;
use crossfix_calibration::{Enu, Geodetic, LocalFrame, PatchSpec};
use crossfix_onboard::tiles::TileStore;
use std::path::Path;

/// Largest side of an overview.
const SIDE_PX: usize = 1040;
/// Finest that an overview is.
const METRES_PER_PIXEL: f64 = 0.5;

/// The square piece of ground around some places, in metres about an origin.
#[derive(Debug, Clone, Copy)]
pub struct Square {
    /// East and north of its middle.
    middle_m: [f64; 2],
    side_m: f64,
}

impl Square {
    /// Around places, with room; at least as wide as an overview at full resolution. Maps are up to
    /// half as wide again as they are high.
    pub fn around(places: impl Iterator<Item = [f64; 2]> + Clone) -> Self {
        let along = |axis: usize| {
            let of = places.clone().map(|place| place[axis]);
            let low = of.clone().fold(f64::INFINITY, f64::min);
            let high = of.fold(f64::NEG_INFINITY, f64::max);
            (f64::midpoint(low, high), high - low)
        };
        let [(east, wide), (north, high)] = [along(0), along(1)];
        Self {
            middle_m: [east, north],
            side_m: (1.6 * wide.max(high) + 60.0).max(SIDE_PX as f64 * METRES_PER_PIXEL),
        }
    }

    /// Its picture, placed in metres about `origin`; smaller where the tile set ends near the middle.
    ///
    /// # Errors
    /// The tile set, when it cannot be read or shows nothing there.
    pub fn picture(self, tiles: &Path, origin: Geodetic) -> anyhow::Result<MapPicture> {
        let mut tiles = TileStore::open(tiles)?;
        let frame = LocalFrame::new(origin);
        let [east, north] = self.middle_m;
        let middle = frame.geodetic_from_enu(Enu::new(east, north, 0.0));
        let metres_per_pixel = self.side_m / SIDE_PX as f64;
        let mut size_px = SIDE_PX;
        loop {
            let spec = PatchSpec {
                size_px,
                metres_per_pixel,
            };
            match tiles.patch(middle, spec, 1.0) {
                Ok((georeference, image)) => {
                    let centre = frame.enu_from_geodetic(georeference.centre());
                    let half_m = size_px as f64 * metres_per_pixel / 2.0;
                    return Ok(MapPicture {
                        picture: Picture::jpeg(&image, size_px)?,
                        top_left_m: [centre.east() - half_m, centre.north() + half_m],
                        metres_per_pixel,
                    });
                }
                // The tile set ends near the middle: show what there is.
                Err(_) if size_px > 200 => size_px = size_px * 9 / 10,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
