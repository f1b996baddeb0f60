//! How finely a town is drawn: the pictures' sizes, and the raster that they are drawn from.

use super::district::Grid;
use super::tiles::ZOOM;
use std::f64::consts::{PI, TAU};
use std::str::FromStr;

/// Size and vertical span of a panorama, once around, its pixels square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanoramaSize {
    rows: usize,
    columns: usize,
}

/// Elevation of the upper edge of a panorama that is no whole sphere, rad.
const TOP_RAD: f64 = 28.0 * PI / 180.0;

impl PanoramaSize {
    /// 48 × 256: 28° above the horizon to 39.5° below it.
    pub const DEFAULT: Self = Self {
        rows: 48,
        columns: 256,
    };

    /// A size. Half as many rows as columns are the whole sphere; less begin 28° above the
    /// horizon, where the networks' strips begin.
    ///
    /// # Errors
    /// What is wrong with it and what to ask for.
    pub fn new(rows: usize, columns: usize) -> Result<Self, String> {
        if !(16..=1024).contains(&rows) || !(64..=2048).contains(&columns) {
            return Err(format!(
                "{rows}x{columns}: 16 to 1024 rows and 64 to 2048 columns can be drawn"
            ));
        }
        let size = Self { rows, columns };
        if 2 * rows != columns && size.bottom_rad() < -PI / 2.0 {
            let most = ((TOP_RAD + PI / 2.0) / size.radians_per_pixel()) as usize;
            return Err(format!(
                "{rows} rows of {:.3}° do not fit under the upper edge at 28°; {columns} columns go with at most {most} rows, or with {} for the whole sphere",
                size.radians_per_pixel().to_degrees(),
                columns / 2
            ));
        }
        Ok(size)
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Angle per row and per column.
    pub fn radians_per_pixel(&self) -> f64 {
        TAU / self.columns as f64
    }

    /// Elevation of the upper edge.
    pub fn top_rad(&self) -> f64 {
        if 2 * self.rows == self.columns {
            PI / 2.0
        } else {
            TOP_RAD
        }
    }

    /// Elevation of the lower edge.
    pub fn bottom_rad(&self) -> f64 {
        self.top_rad() - self.rows as f64 * self.radians_per_pixel()
    }
}

impl FromStr for PanoramaSize {
    type Err = String;

    /// Reads `ROWSxCOLUMNS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('x').and_then(|(rows, columns)| {
            Some((rows.trim().parse().ok()?, columns.trim().parse().ok()?))
        });
        let (rows, columns) =
            numbers.ok_or_else(|| format!("{text:?}: say ROWSxCOLUMNS, such as 320x640"))?;
        Self::new(rows, columns)
    }
}

/// How finely a town is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Of panoramas.
    pub panorama: PanoramaSize,
    /// Of the aerial tiles (web mercator, 256 pixels a tile).
    pub zoom: u8,
}

impl Default for Detail {
    /// What the compact networks see.
    fn default() -> Self {
        Self {
            panorama: PanoramaSize::DEFAULT,
            zoom: ZOOM,
        }
    }
}

impl Detail {
    /// Zooms of tiles: below, a tile is coarser than any network; above, pixels would be finer than
    /// the raster knows anything of.
    pub const ZOOMS: std::ops::RangeInclusive<u8> = 16..=20;

    /// The raster that has something to show at this fineness: cells of 0.25 m for the default, of
    /// 0.125 m beyond it, which are a third of a gigabyte a district.
    pub fn grid(&self) -> Grid {
        let fine = self.zoom > ZOOM || self.panorama.columns > PanoramaSize::DEFAULT.columns;
        Grid::new(if fine { 2 } else { 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_as_many_rows_as_columns_are_the_whole_sphere() {
        let size: PanoramaSize = "320x640".parse().unwrap();
        assert!((size.top_rad() - PI / 2.0).abs() < 1e-12);
        assert!((size.bottom_rad() + PI / 2.0).abs() < 1e-12);
        let size = PanoramaSize::DEFAULT;
        assert!((size.top_rad().to_degrees() - 28.0).abs() < 1e-12);
        assert!((size.bottom_rad().to_degrees() + 39.5).abs() < 1e-12);
    }

    #[test]
    fn sizes_that_cannot_be_drawn_are_refused_with_what_can() {
        for (text, way_out) in [
            ("640", "ROWSxCOLUMNS"),
            ("0x640", "16 to 1024 rows"),
            ("320x6400", "64 to 2048 columns"),
            ("319x640", "at most 209 rows"),
            ("640x320", "with 160 for the whole sphere"),
            ("320x-640", "ROWSxCOLUMNS"),
        ] {
            let error = text.parse::<PanoramaSize>().unwrap_err();
            assert!(error.contains(way_out), "{text}: {error}");
        }
    }

    #[test]
    fn only_what_is_finer_than_the_default_has_finer_cells() {
        let detail = |panorama: &str, zoom| Detail {
            panorama: panorama.parse().unwrap(),
            zoom,
        };
        assert_eq!(Detail::default().grid().side, 2400);
        assert_eq!(detail("48x256", 18).grid(), Grid::new(1));
        for fine in [detail("320x640", 18), detail("48x256", 19)] {
            assert_eq!(fine.grid().side, 4800);
        }
    }
}
