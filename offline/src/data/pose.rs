//! Where a camera is: in metres, in heatmap cells, and how its strip lies on the circle.

use crate::model::ModelSpec;
use crossfix_calibration::{Heading, StripSpec, Yaw};
use std::f64::consts::PI;

/// Metres east and north of the patch centre to heatmap (column, row).
pub fn cell_from_offset([east, north]: [f64; 2], spec: &ModelSpec) -> [f64; 2] {
    let half = spec.heatmap_side() as f64 / 2.0;
    let cell = spec.metres_per_cell();
    [half + east / cell, half - north / cell]
}

/// Heatmap (column, row) to metres east and north of the patch centre.
pub fn offset_from_cell([column, row]: [f64; 2], spec: &ModelSpec) -> [f64; 2] {
    let half = spec.heatmap_side() as f64 / 2.0;
    let cell = spec.metres_per_cell();
    [(column - half) * cell, (half - row) * cell]
}

/// The strip a network eats from a vehicle with this yaw.
pub fn strip_spec(spec: &ModelSpec, yaw_rad: f64) -> StripSpec {
    let whole = StripSpec::panorama();
    let radians_per_pixel = spec.radians_per_column();
    let wide_rad = spec.ground_columns as f64 * radians_per_pixel;
    StripSpec {
        rows: spec.ground_rows,
        columns: spec.ground_columns,
        left_azimuth_rad: if spec.ground_left_bin() {
            StripSpec::left_edge_on_bin(wide_rad, spec.orientation_bins, yaw_rad)
        } else {
            whole.left_azimuth_rad
        },
        radians_per_pixel,
        top_elevation_rad: spec.top_elevation_deg().to_radians(),
    }
}

/// The bin, clockwise from south, on which the strip's left edge lies.
pub fn left_bin(spec: &ModelSpec, strip: &StripSpec) -> usize {
    let bins = spec.orientation_bins;
    let bin = ((strip.left_azimuth_rad + PI) / spec.bin_rad()).round();
    (bin as isize).rem_euclid(bins as isize) as usize
}

/// Heading in degrees clockwise from north to yaw in radians counter-clockwise from east.
pub fn yaw_from_heading(heading_deg: f64) -> f64 {
    Heading::from_degrees(heading_deg).yaw().radians()
}

/// An angle in (-π, π].
pub fn wrap_rad(angle: f64) -> f64 {
    Yaw::new(angle).radians()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;

    #[test]
    fn angles_wrap_into_half_open_interval() {
        assert!((wrap_rad(3.0 * PI) - PI).abs() < 1e-12);
        assert!((wrap_rad(-PI) - PI).abs() < 1e-12);
        assert!((wrap_rad(-0.1) + 0.1).abs() < 1e-12);
    }

    #[test]
    fn a_vehicle_heading_north_sees_bins_five_to_ten() {
        let spec = named("compact-front").unwrap().describe();
        let strip = strip_spec(&spec, yaw_from_heading(0.0));
        assert_eq!(left_bin(&spec, &strip), 5);
        let strip = strip_spec(&spec, yaw_from_heading(90.0));
        assert_eq!(left_bin(&spec, &strip), 9);
    }
}
