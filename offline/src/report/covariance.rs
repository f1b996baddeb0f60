//! Numbers of a covariance and of errors against it, as pages show them.

use super::input::{CoveragePoint, CoverageSeries, Role};

/// The nominal probabilities [`coverage_series`] looks at.
const NOMINAL: [f64; 13] = [
    0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99,
];

/// Coverage from squared Mahalanobis distances (`errorᵀ · covariance⁻¹ · error`), one per position.
///
/// Two-dimensional Gaussian: the region of probability p is where the squared distance is at most
/// −2 ln(1 − p). A distance that is not finite counts as outside.
pub fn coverage_series(
    name: &str,
    role: Role,
    squared_mahalanobis_distances: &[f64],
) -> CoverageSeries {
    let count = squared_mahalanobis_distances.len();
    let inside = |nominal: f64| {
        let limit = -2.0 * (1.0 - nominal).ln();
        let hits = squared_mahalanobis_distances.iter();
        hits.filter(|&&distance| distance <= limit).count()
    };
    let points = NOMINAL.iter().map(|&nominal| CoveragePoint {
        nominal,
        empirical: inside(nominal) as f64 / count.max(1) as f64,
    });
    CoverageSeries {
        name: name.to_owned(),
        role,
        sample_count: count,
        points: if count == 0 {
            Vec::new()
        } else {
            points.collect()
        },
    }
}

/// Radius of the circle around the estimate that holds 95 % of a Gaussian with this covariance.
///
/// `None` when the covariance is not finite, not symmetric enough to have one, or not positive.
///
/// # Source
/// Write the error as `ρ (√a cos φ, √b sin φ)` with ρ Rayleigh and φ uniform (a, b the
/// eigenvalues); then P(|error| ≤ R) is the mean over φ of `1 − exp(−R² / 2(a cos²φ + b sin²φ))`,
/// solved for R by bisection.
pub fn radius_95_m(covariance_m2: [[f64; 2]; 2]) -> Option<f64> {
    let (a, b, _) = eigen(covariance_m2)?;
    let inside = |radius: f64| {
        let steps = 24;
        let share = (0..steps).map(|step| {
            let phi = (f64::from(step) + 0.5) / f64::from(steps) * std::f64::consts::FRAC_PI_2;
            let variance = a * phi.cos().powi(2) + b * phi.sin().powi(2);
            1.0 - (-radius * radius / (2.0 * variance)).exp()
        });
        share.sum::<f64>() / f64::from(steps)
    };
    let (mut low, mut high) = (0.0, 2.5 * a.sqrt());
    for _ in 0..30 {
        let middle = 0.5 * (low + high);
        if inside(middle) < 0.95 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(high)
}

/// Larger and smaller eigenvalue, and the angle of the larger's axis counter-clockwise from east.
pub(super) fn eigen([[ee, en], [ne, nn]]: [[f64; 2]; 2]) -> Option<(f64, f64, f64)> {
    let cross = 0.5 * (en + ne);
    let middle = 0.5 * (ee + nn);
    let half = (0.5 * (ee - nn)).hypot(cross);
    let (large, small) = (middle + half, middle - half);
    let usable = large.is_finite() && large > 0.0 && small > 0.0 && large < 1e12;
    usable.then(|| (large, small, 0.5 * (2.0 * cross).atan2(ee - nn)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radius_of_a_round_covariance_is_the_rayleigh_quantile() {
        let radius = radius_95_m([[4.0, 0.0], [0.0, 4.0]]).unwrap();
        assert!((radius - 2.0 * (-2.0 * 0.05_f64.ln()).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn radius_of_a_needle_is_the_one_dimensional_quantile() {
        let radius = radius_95_m([[1.0, 0.0], [0.0, 1e-6]]).unwrap();
        assert!((radius - 1.96).abs() < 0.02, "{radius}");
    }

    #[test]
    fn broken_covariances_have_no_radius() {
        for bad in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            assert_eq!(radius_95_m([[bad, 0.0], [0.0, 1.0]]), None);
        }
        assert_eq!(radius_95_m([[1.0, 5.0], [5.0, 1.0]]), None);
    }

    #[test]
    fn coverage_counts_what_lies_inside() {
        // −2 ln(0.5) = 1.386, −2 ln(0.05) = 5.99
        let series = coverage_series("fused", Role::Fused, &[1.0, 2.0, 5.0, f64::NAN]);
        let at = |nominal: f64| {
            let point = series
                .points
                .iter()
                .find(|p| (p.nominal - nominal).abs() < 1e-9);
            point.unwrap().empirical
        };
        assert!((at(0.5) - 0.25).abs() < 1e-9 && (at(0.95) - 0.75).abs() < 1e-9);
        assert!(coverage_series("none", Role::Other, &[]).points.is_empty());
    }
}
