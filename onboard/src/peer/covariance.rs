//! What a receiver's error figures mean in m², east and north, 1 sigma.

use nalgebra::{Matrix2, SymmetricEigen};

/// Radius of the 95 % circle of a round two-dimensional normal distribution, in sigmas: √(−2 ln 0.05).
pub const P95_RADIUS_SIGMAS: f64 = 2.447_746_830_680_816;
/// Half the 95 % interval of a normal distribution, in sigmas.
pub const P95_INTERVAL_SIGMAS: f64 = 1.959_963_984_540_054;

/// A GST report: standard deviations in metres.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GstSigmas {
    pub latitude_m: Option<f64>,
    pub longitude_m: Option<f64>,
    pub altitude_m: Option<f64>,
    pub major_m: Option<f64>,
    pub minor_m: Option<f64>,
    /// Direction of the major axis, degrees clockwise from true north.
    pub orientation_deg: Option<f64>,
}

impl GstSigmas {
    /// The covariance, where the report says enough.
    ///
    /// The ellipse is only taken when it agrees with the axes, since receivers exist whose ellipse is
    /// of another confidence (a NEO-M9N says 2.5 and 2.4 m beside 0.98 and 1.0 m).
    pub fn covariance_m2(&self) -> Option<[[f64; 2]; 2]> {
        let axes = positive(self.longitude_m).zip(positive(self.latitude_m));
        let ellipse = positive(self.major_m)
            .zip(positive(self.minor_m))
            .zip(self.orientation_deg.filter(|o| o.is_finite()));
        let ellipse = ellipse.map(|((major_m, minor_m), orientation_deg)| {
            let (sin, cos) = orientation_deg.to_radians().sin_cos();
            let (a, b) = (major_m * major_m, minor_m * minor_m);
            [
                [a * sin * sin + b * cos * cos, (a - b) * sin * cos],
                [(a - b) * sin * cos, a * cos * cos + b * sin * sin],
            ]
        });
        match (axes, ellipse) {
            (Some((east_m, north_m)), Some(ellipse)) => {
                let total = east_m * east_m + north_m * north_m;
                let agrees = ((ellipse[0][0] + ellipse[1][1]) / total - 1.0).abs() < 0.25;
                Some(if agrees {
                    ellipse
                } else {
                    diagonal(east_m, north_m)
                })
            }
            (Some((east_m, north_m)), None) => Some(diagonal(east_m, north_m)),
            (None, ellipse) => ellipse,
        }
    }
}

/// The value if it can be a standard deviation.
pub fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value > 0.0 && *value < 1e6)
}

/// Independent errors along east and north.
pub fn diagonal(east_sigma_m: f64, north_sigma_m: f64) -> [[f64; 2]; 2] {
    [
        [east_sigma_m * east_sigma_m, 0.0],
        [0.0, north_sigma_m * north_sigma_m],
    ]
}

/// The covariance with no direction better than `floor_sigma_m`.
pub fn floored(covariance_m2: [[f64; 2]; 2], floor_sigma_m: f64) -> [[f64; 2]; 2] {
    let [[ee, en], [_, nn]] = covariance_m2;
    let eigen = SymmetricEigen::new(Matrix2::new(ee, en, en, nn));
    let floor = floor_sigma_m * floor_sigma_m;
    if eigen.eigenvalues.iter().all(|value| *value >= floor) {
        return [[ee, en], [en, nn]];
    }
    let values = eigen.eigenvalues.map(|value| value.max(floor));
    let m = eigen.eigenvectors * Matrix2::from_diagonal(&values) * eigen.eigenvectors.transpose();
    [[m[(0, 0)], m[(0, 1)]], [m[(0, 1)], m[(1, 1)]]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_major_axis_to_the_north_east_correlates_east_and_north() {
        // Sigmas 3 and 1 m at 45 degrees: variance (9 + 1) / 2 along both axes, covariance (9 - 1) / 2.
        let gst = GstSigmas {
            major_m: Some(3.0),
            minor_m: Some(1.0),
            orientation_deg: Some(45.0),
            ..Default::default()
        };
        let [[ee, en], [ne, nn]] = gst.covariance_m2().unwrap();
        for (got, expected) in [(ee, 5.0), (nn, 5.0), (en, 4.0), (ne, 4.0)] {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
    }

    #[test]
    fn an_ellipse_that_contradicts_the_axes_is_not_taken() {
        let gst = GstSigmas {
            latitude_m: Some(0.98),
            longitude_m: Some(1.0),
            major_m: Some(2.5),
            minor_m: Some(2.4),
            orientation_deg: Some(125.0),
            altitude_m: Some(3.0),
        };
        assert_eq!(gst.covariance_m2(), Some(diagonal(1.0, 0.98)));
    }

    #[test]
    fn zeros_are_no_errors() {
        let gst = GstSigmas {
            latitude_m: Some(0.0),
            longitude_m: Some(0.0),
            ..Default::default()
        };
        assert_eq!(gst.covariance_m2(), None);
    }

    proptest! {
        #[test]
        fn a_floored_covariance_stays_symmetric_and_above_the_floor(major in 1e-4..100.0, minor in 1e-4..100.0, angle in -400.0..400.0, floor in 0.01..5.0) {
            let gst = GstSigmas { major_m: Some(major), minor_m: Some(minor), orientation_deg: Some(angle), ..Default::default() };
            let [[ee, en], [ne, nn]] = floored(gst.covariance_m2().unwrap(), floor);
            prop_assert_eq!(en, ne);
            let smallest = f64::midpoint(ee, nn) - ((ee - nn) / 2.0).hypot(en);
            prop_assert!(smallest >= floor * floor * (1.0 - 1e-6) - 1e-9 * (ee + nn));
        }
    }
}
