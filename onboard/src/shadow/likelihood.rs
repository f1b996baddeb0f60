//! The density of an uncertain position under a heatmap.

use crossfix_calibration::Heatmap;

/// Cells farther from the position than this many standard deviations add nothing.
const FARTHEST_SIGMAS: f64 = 6.0;

/// The heatmap's density at a position with a Gaussian error, per m²: its cells, each spread over its
/// square, times the Gaussian. `position_m` is `[east, north]` from the patch centre, `covariance_m2` its
/// 1-sigma covariance.
pub fn density(heatmap: &Heatmap, position_m: [f64; 2], covariance_m2: [[f64; 2]; 2]) -> f64 {
    let within_m2 = heatmap.metres_per_cell().powi(2) / 12.0;
    let [[ee, en], [_, nn]] = covariance_m2;
    let (ee, nn) = (ee + within_m2, nn + within_m2);
    let determinant = ee * nn - en * en;
    let usable = determinant > 0.0 && determinant.is_finite();
    if !usable || position_m.iter().any(|metres| !metres.is_finite()) {
        return 0.0;
    }
    let reach_m = [ee, nn].map(|variance_m2| FARTHEST_SIGMAS * variance_m2.sqrt());
    let (side, cell_m) = (heatmap.side(), heatmap.metres_per_cell());
    let half = side as f64 / 2.0;
    let range = |middle: f64, reach_m: f64| {
        let (low, high) = (middle - reach_m / cell_m, middle + reach_m / cell_m);
        low.floor().max(0.0) as usize..(high.ceil().max(0.0) as usize).min(side)
    };
    let columns = range(half + position_m[0] / cell_m, reach_m[0]);
    let rows = range(half - position_m[1] / cell_m, reach_m[1]);
    let mut sum = 0.0;
    for row in rows {
        for column in columns.clone() {
            let probability = f64::from(heatmap.probabilities()[row * side + column]);
            let cell = heatmap.offset_m([column, row]);
            let (e, n) = (cell[0] - position_m[0], cell[1] - position_m[1]);
            let distance2 = (nn * e * e - 2.0 * en * e * n + ee * n * n) / determinant;
            sum += probability * (-0.5 * distance2).exp();
        }
    }
    sum / (std::f64::consts::TAU * determinant.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_gaussians_overlap_as_their_variances_say() {
        // The density of N(0, 2²) at a position that is off by 3 m with N(0, 1.5²): N(3; 0, 2² + 1.5²).
        let heatmap = Heatmap::gaussian(128, 0.5, [5.0, -3.0], 2.0).unwrap();
        let variance_m2: f64 = 4.0 + 2.25;
        let expected = (-0.5 * 9.0 / variance_m2).exp() / (std::f64::consts::TAU * variance_m2);
        let found = density(&heatmap, [8.0, -3.0], [[2.25, 0.0], [0.0, 2.25]]);
        assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
    }

    #[test]
    fn correlated_errors_are_stretched_along_their_axis() {
        let heatmap = Heatmap::gaussian(128, 0.5, [4.0, 4.0], 1.0).unwrap();
        let along = density(&heatmap, [0.0, 0.0], [[9.0, 8.0], [8.0, 9.0]]);
        let across = density(&heatmap, [0.0, 0.0], [[9.0, -8.0], [-8.0, 9.0]]);
        assert!(along > 10.0 * across, "{along} {across}");
    }

    #[test]
    fn what_lies_outside_or_is_no_position_has_no_density() {
        let heatmap = Heatmap::gaussian(64, 1.0, [0.0, 0.0], 2.0).unwrap();
        let unit = [[1.0, 0.0], [0.0, 1.0]];
        assert_eq!(density(&heatmap, [500.0, 0.0], unit), 0.0);
        assert_eq!(density(&heatmap, [f64::NAN, 0.0], unit), 0.0);
        assert_eq!(
            density(&heatmap, [0.0, 0.0], [[f64::NAN, 0.0], [0.0, 1.0]]),
            0.0
        );
        assert_eq!(density(&heatmap, [0.0, 0.0], [[1.0, 5.0], [5.0, 1.0]]), 0.0);
    }
}
