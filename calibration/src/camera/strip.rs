//! The ground strip that a network takes as input.
//!
//! A strip is a piece of a north-aligned panorama: columns are azimuth clockwise from north, rows are
//! elevation, `radians_per_pixel` both ways. Training and driving use the same strips, whatever the
//! camera.

use std::f64::consts::{PI, TAU};

use crate::angle::azimuth_rad_from_yaw_rad;
use crate::{Error, Result};

/// Size and direction of a ground strip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StripSpec {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Elevation of the top edge, radians above the horizon.
    pub top_elevation_rad: f64,
    /// Angle per pixel, the same for rows and columns.
    pub radians_per_pixel: f64,
    /// Azimuth of the left edge, radians clockwise from north.
    pub left_azimuth_rad: f64,
}

/// Orientation bins of a full circle; the left edge of a front strip sits on one.
const BINS: usize = 16;

impl StripSpec {
    /// The full circle in 48 × 256, from 28° above the horizon down, north in the centre column.
    pub fn panorama() -> Self {
        Self {
            rows: 48,
            columns: 256,
            top_elevation_rad: 28f64.to_radians(),
            radians_per_pixel: TAU / 256.0,
            left_azimuth_rad: -PI,
        }
    }

    /// The part of [`Self::panorama`] that a front camera sees: `columns` wide, its left edge on the
    /// multiple of 22.5° that brings its centre nearest to where a vehicle with this yaw looks.
    pub fn front(columns: usize, yaw_rad: f64) -> Self {
        let whole = Self::panorama();
        let wide_rad = columns as f64 * whole.radians_per_pixel;
        Self {
            columns,
            left_azimuth_rad: Self::left_edge_on_bin(wide_rad, BINS, yaw_rad),
            ..whole
        }
    }

    /// Where a strip of this width begins: the multiple of 2π / `bins`, in [-π, π), that
    /// brings the strip's centre nearest to where a vehicle with this yaw looks.
    pub fn left_edge_on_bin(wide_rad: f64, bins: usize, yaw_rad: f64) -> f64 {
        let bin_rad = TAU / bins as f64;
        let forward_rad = azimuth_rad_from_yaw_rad(yaw_rad);
        let bin = ((forward_rad - wide_rad / 2.0) / bin_rad).round();
        (bin * bin_rad + PI).rem_euclid(TAU) - PI
    }

    /// Azimuth of a continuous column, radians clockwise from north.
    pub fn azimuth_rad(&self, column: f64) -> f64 {
        self.left_azimuth_rad + column * self.radians_per_pixel
    }

    /// Elevation of a continuous row, radians above the horizon.
    pub fn elevation_rad(&self, row: f64) -> f64 {
        self.top_elevation_rad - row * self.radians_per_pixel
    }

    pub(super) fn check(&self) -> Result<()> {
        if !(1..=1024).contains(&self.rows) || !(1..=4096).contains(&self.columns) {
            return Err(Error::Strip(format!(
                "{}x{} pixels; need at most 4096x1024 and no side zero",
                self.columns, self.rows
            )));
        }
        let bottom_rad = self.elevation_rad(self.rows as f64);
        let wide_rad = self.columns as f64 * self.radians_per_pixel;
        let good = self.radians_per_pixel > 0.0
            && self.left_azimuth_rad.is_finite()
            && self.top_elevation_rad <= PI / 2.0 + 1e-9
            && bottom_rad >= -PI / 2.0 - 1e-9
            && wide_rad <= TAU + 1e-9;
        if good {
            Ok(())
        } else {
            Err(Error::Strip(format!("{self:?} does not fit on the sphere")))
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::angle::Yaw;

    #[test]
    fn front_strips_start_on_an_orientation_bin_near_the_view() {
        for i in -40..40 {
            let yaw_rad = f64::from(i) * 0.17;
            let strip = StripSpec::front(96, yaw_rad);
            let bins = strip.left_azimuth_rad.to_degrees() / 22.5;
            assert!(
                (bins - bins.round()).abs() < 1e-9 && (-PI..PI).contains(&strip.left_azimuth_rad)
            );
            let off = strip.azimuth_rad(48.0) - azimuth_rad_from_yaw_rad(yaw_rad);
            let off_deg = Yaw::new(off).radians().to_degrees();
            assert!(off_deg.abs() <= 11.25 + 1e-9, "{off_deg}");
        }
    }
}
