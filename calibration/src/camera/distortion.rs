//! What the lens of a pinhole camera bends: radially and tangentially (Brown–Conrady), as a polynomial or as
//! a quotient of two.

use serde::{Deserialize, Serialize};

/// Steps in which a way from the axis is looked through for a turning point.
const STEPS: u32 = 32;

/// Distortion coefficients as ROS and `OpenCV` name them: `plumb_bob` (k1, k2, p1, p2, k3) and, with k4 to
/// k6, `rational_polynomial`.
///
/// # Source
/// Brown, "Decentering distortion of lenses", 1966; `OpenCV` calib3d, "Detailed description".
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distortion {
    /// Radial, r².
    pub k1: f64,
    /// Radial, r⁴.
    pub k2: f64,
    /// Tangential.
    pub p1: f64,
    /// Tangential.
    pub p2: f64,
    /// Radial, r⁶.
    #[serde(default)]
    pub k3: f64,
    /// Radial, r², of the divisor.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub k4: f64,
    /// Radial, r⁴, of the divisor.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub k5: f64,
    /// Radial, r⁶, of the divisor.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub k6: f64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Distortion {
    /// All coefficients.
    pub(super) fn numbers(&self) -> [f64; 8] {
        let Self {
            k1,
            k2,
            p1,
            p2,
            k3,
            k4,
            k5,
            k6,
        } = *self;
        [k1, k2, p1, p2, k3, k4, k5, k6]
    }

    /// Where a point of the plane at distance 1 lands.
    pub(super) fn bend(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let r2 = x * x + y * y;
        let radial = self.above(r2) / self.below(r2);
        [
            x * radial + 2.0 * self.p1 * x * y + self.p2 * (r2 + 2.0 * x * x),
            y * radial + self.p1 * (r2 + 2.0 * y * y) + 2.0 * self.p2 * x * y,
        ]
    }

    fn above(&self, r2: f64) -> f64 {
        1.0 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
    }

    fn below(&self, r2: f64) -> f64 {
        1.0 + r2 * (self.k4 + r2 * (self.k5 + r2 * self.k6))
    }

    /// Whether the bent radius still grows all the way out to `r2`: past its turning point it folds back,
    /// and rays that the lens never saw would land in the picture.
    pub(super) fn grows_until(&self, r2: f64) -> bool {
        (1..=STEPS).all(|step| {
            let s = r2 * f64::from(step) / f64::from(STEPS);
            let (above, below) = (self.above(s), self.below(s));
            let above_slope = self.k1 + s * (2.0 * self.k2 + s * 3.0 * self.k3);
            let below_slope = self.k4 + s * (2.0 * self.k5 + s * 3.0 * self.k6);
            // The derivative of r · above(r²) / below(r²) along r, times below².
            let slope = above * below + 2.0 * s * (above_slope * below - above * below_slope);
            below > 0.0 && slope > 0.0
        })
    }

    /// The undistorted point, by the usual fixed-point iteration; `None` if it does not settle.
    pub(super) fn unbend(&self, bent: [f64; 2]) -> Option<[f64; 2]> {
        let mut point = bent;
        for _ in 0..200 {
            let again = self.bend(point);
            let miss = [bent[0] - again[0], bent[1] - again[1]];
            point = [point[0] + miss[0], point[1] + miss[1]];
            if miss[0].abs().max(miss[1].abs()) < 1e-13 {
                return self
                    .grows_until(point[0] * point[0] + point[1] * point[1])
                    .then_some(point);
            }
        }
        None
    }
}
