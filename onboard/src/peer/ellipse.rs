//! The error ellipse of a horizontal covariance, as gpsd and NMEA write it.

use crossfix_calibration::LineHeading;

/// Standard deviations along the axes, and where the major one points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ellipse {
    /// Semi-major axis, 1 sigma, metres.
    pub major_m: f64,
    /// Semi-minor axis, 1 sigma, metres.
    pub minor_m: f64,
    /// Direction of the major axis.
    pub orientation: LineHeading,
}

impl Ellipse {
    /// Of a covariance in east and north, m².
    pub fn new([[ee, en], [_, nn]]: [[f64; 2]; 2]) -> Self {
        let (middle, radius) = (f64::midpoint(ee, nn), ((ee - nn) / 2.0).hypot(en));
        // Twice the angle from east of the major axis.
        let from_east_rad = 0.5 * (2.0 * en).atan2(ee - nn);
        Self {
            major_m: (middle + radius).max(0.0).sqrt(),
            minor_m: (middle - radius).max(0.0).sqrt(),
            orientation: LineHeading::from_degrees(90.0 - from_east_rad.to_degrees()),
        }
    }

    /// Radius of the circle that holds 95 %: exact for a circle and for a line, close between.
    pub fn p95_radius_m(&self) -> f64 {
        let circle_m = 2.447_747 * f64::midpoint(self.major_m.powi(2), self.minor_m.powi(2)).sqrt();
        circle_m.max(1.959_964 * self.major_m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_axis_points_where_the_error_is() {
        for (covariance, orientation_deg) in [
            ([[4.0, 0.0], [0.0, 1.0]], 90.0),
            ([[1.0, 0.0], [0.0, 4.0]], 0.0),
            ([[5.0, 4.0], [4.0, 5.0]], 45.0),
            ([[5.0, -4.0], [-4.0, 5.0]], 135.0),
        ] {
            let ellipse = Ellipse::new(covariance);
            assert!(
                (ellipse.orientation.degrees() - orientation_deg).abs() < 1e-9,
                "{covariance:?}: {ellipse:?}"
            );
            assert!(ellipse.major_m > ellipse.minor_m);
        }
        assert!((Ellipse::new([[5.0, 4.0], [4.0, 5.0]]).major_m - 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_95_percent_radius_is_right_for_a_circle_and_a_line() {
        assert!((Ellipse::new([[1.0, 0.0], [0.0, 1.0]]).p95_radius_m() - 2.4477).abs() < 1e-3);
        assert!((Ellipse::new([[1.0, 0.0], [0.0, 0.0]]).p95_radius_m() - 1.96).abs() < 1e-3);
    }
}
