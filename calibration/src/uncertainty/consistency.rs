//! NEES and NIS: is the squared error as large as its covariance says, on average?

/// Squared error in units of its covariance, `eᵀ P⁻¹ e`: NEES when `e` is an estimate's error, NIS when
/// it is an innovation. `None` when the covariance is not positive definite.
pub fn normalised_error_squared(error_m: [f64; 2], covariance_m2: [[f64; 2]; 2]) -> Option<f64> {
    let [[ee, en], [ne, nn]] = covariance_m2;
    let determinant = ee * nn - en * ne;
    if !(ee > 0.0 && nn > 0.0 && determinant > 1e-12 * ee * nn && determinant.is_finite()) {
        return None;
    }
    let [e, n] = error_m;
    Some((nn * e * e - (en + ne) * e * n + ee * n * n) / determinant)
}

/// What the average of many normalised squared errors says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consistency {
    /// Average; the dimension (2) when the covariances are right, more when they are too small, less when too large.
    pub mean: f64,
    /// Lower end of the interval that holds the average of honest, independent samples 95 % of the time.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Samples.
    pub count: usize,
}

impl Consistency {
    /// Whether the average lies where honest samples would put it.
    pub fn is_consistent(&self) -> bool {
        (self.lower..=self.upper).contains(&self.mean)
    }
}

/// The average of two-dimensional normalised squared errors, with its 95 % interval.
///
/// Successive samples of one drive are not independent, so a mean just outside the interval is no proof;
/// `None` without samples.
///
/// # Source
/// Bar-Shalom, Li and Kirubarajan, "Estimation with applications to tracking and navigation", 2001,
/// section 5.4.2.
pub fn consistency(normalised_squared: &[f64]) -> Option<Consistency> {
    let count = normalised_squared.len();
    if count == 0 {
        return None;
    }
    let mean = normalised_squared.iter().sum::<f64>() / count as f64;
    let degrees = 2.0 * count as f64;
    let quantile = |z: f64| chi_square_quantile(degrees, z) / count as f64;
    Some(Consistency {
        mean,
        lower: quantile(-1.959_964),
        upper: quantile(1.959_964),
        count,
    })
}

/// The chi-square quantile at the normal quantile `z`, by Wilson and Hilferty's cube (1931); good to
/// 1 % above four degrees of freedom.
fn chi_square_quantile(degrees: f64, z: f64) -> f64 {
    let v = 2.0 / (9.0 * degrees);
    degrees * (1.0 - v + z * v.sqrt()).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        let got = normalised_error_squared([1.0, 2.0], [[2.0, 1.0], [1.0, 3.0]]).unwrap();
        // P⁻¹ = [3 −1; −1 2] / 5.
        assert!((got - (3.0 - 4.0 + 8.0) / 5.0).abs() < 1e-12, "{got}");
        assert_eq!(
            normalised_error_squared([1.0, 0.0], [[f64::NAN, 0.0], [0.0, 1.0]]),
            None
        );
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, z, table) in [
            (20.0, 1.959_964, 34.170),
            (20.0, -1.959_964, 9.591),
            (100.0, 1.959_964, 129.561),
            (4.0, 1.959_964, 11.143),
        ] {
            let got = chi_square_quantile(degrees, z);
            assert!(
                (got / table - 1.0).abs() < 0.01,
                "{degrees}: {got}, table {table}"
            );
        }
    }

    #[test]
    fn honest_errors_are_consistent_and_overconfident_ones_are_not() {
        // Quantiles of the chi-square with two degrees of freedom: −2 ln(1 − u).
        let honest: Vec<f64> = (0..500)
            .map(|i| -2.0 * (1.0 - (f64::from(i) + 0.5) / 500.0).ln())
            .collect();
        let verdict = consistency(&honest).unwrap();
        assert!(
            verdict.is_consistent() && (verdict.mean - 2.0).abs() < 0.01,
            "{verdict:?}"
        );
        let sure: Vec<f64> = honest.iter().map(|v| v * 1.5).collect();
        assert!(!consistency(&sure).unwrap().is_consistent());
        assert!(consistency(&[]).is_none());
    }
}
