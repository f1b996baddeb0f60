//! Temperature scaling: one temperature for all heatmaps, so that their probabilities are calibrated.

use crate::{Error, Result};

/// The outcome of [`fit_temperature`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TemperatureFit {
    /// Divide logits by this before the softmax; above 1 when the network is overconfident.
    pub temperature: f64,
    /// Mean negative log-likelihood of the true cells at temperature 1, in nats.
    pub nll_before: f64,
    /// The same at the fitted temperature.
    pub nll_after: f64,
}

/// Temperatures outside this range say that the logits carry no information (or no doubt).
const RANGE: [f64; 2] = [0.02, 50.0];

/// The temperature that minimises the mean negative log-likelihood of the true cells.
///
/// `samples` gives the logits of a heatmap (log-probabilities do as well; `-inf` counts as very
/// unlikely) and the index of the true cell. In `β = 1 / temperature` the objective is convex, its
/// slope is `E_β[z] − z_true`, its curvature `Var_β[z]`; Newton steps inside a shrinking bracket find
/// its zero.
///
/// # Errors
/// [`Error::Uncertainty`] when there is no sample, a true cell is not in its heatmap or a logit is NaN.
///
/// # Source
/// Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
pub fn fit_temperature<'a>(
    samples: impl IntoIterator<Item = (&'a [f32], usize)>,
) -> Result<TemperatureFit> {
    let mut prepared = Vec::new();
    for (index, (logits, true_cell)) in samples.into_iter().enumerate() {
        prepared.push(prepare(index, logits, true_cell)?);
    }
    if prepared.is_empty() {
        return Err(Error::Uncertainty(
            "a temperature needs at least one sample with a known true cell".to_owned(),
        ));
    }
    let [mut low, mut high] = [1.0 / RANGE[1], 1.0 / RANGE[0]];
    let mut beta = 1.0;
    let before = objective(&prepared, beta);
    let mut now = before;
    for _ in 0..60 {
        if now.slope > 0.0 {
            high = beta;
        } else {
            low = beta;
        }
        let newton = beta - now.slope / now.curvature;
        // Outside the bracket (or without curvature) halve it instead, in the logarithm.
        let next = if newton > low && newton < high {
            newton
        } else {
            (low * high).sqrt()
        };
        let step = (next / beta - 1.0).abs();
        beta = next;
        now = objective(&prepared, beta);
        if step < 1e-9 {
            break;
        }
    }
    Ok(TemperatureFit {
        temperature: 1.0 / beta,
        nll_before: before.nll,
        nll_after: now.nll,
    })
}

/// Logits below their maximum, and that of the true cell.
struct Sample {
    logits: Vec<f32>,
    true_logit: f64,
}

fn prepare(index: usize, logits: &[f32], true_cell: usize) -> Result<Sample> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if true_cell >= logits.len() {
        let cells = logits.len();
        return Err(Error::Uncertainty(format!(
            "sample {index}: true cell {true_cell} of {cells}"
        )));
    }
    if !top.is_finite() || logits.iter().any(|z| z.is_nan()) {
        return Err(Error::Uncertainty(format!(
            "sample {index}: a logit is NaN or infinite"
        )));
    }
    // Past e^-100 nothing is measured; the floor keeps one impossible truth from deciding everything.
    let logits: Vec<f32> = logits.iter().map(|z| (z - top).max(-100.0)).collect();
    let true_logit = f64::from(logits[true_cell]);
    Ok(Sample { logits, true_logit })
}

/// Mean over samples, at one `β`.
#[derive(Clone, Copy)]
struct Objective {
    nll: f64,
    slope: f64,
    curvature: f64,
}

fn objective(samples: &[Sample], beta: f64) -> Objective {
    let mut total = Objective {
        nll: 0.0,
        slope: 0.0,
        curvature: 0.0,
    };
    for sample in samples {
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for &z in &sample.logits {
            let z = f64::from(z);
            let weight = (beta * z).exp();
            sum += weight;
            first += weight * z;
            second += weight * z * z;
        }
        let mean = first / sum;
        total.nll += sum.ln() - beta * sample.true_logit;
        total.slope += mean - sample.true_logit;
        total.curvature += second / sum - mean * mean;
    }
    let count = samples.len() as f64;
    Objective {
        nll: total.nll / count,
        slope: total.slope / count,
        curvature: total.curvature / count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose true cells are drawn from the softmax at temperature 1 by stratified quantiles.
    fn honest(samples: usize) -> Vec<(Vec<f32>, usize)> {
        (0..samples)
            .map(|i| {
                let logits: Vec<f32> = (0..50)
                    .map(|k| -0.5 * ((k as f32 - 20.0) / (2.0 + (i % 5) as f32)).powi(2))
                    .collect();
                let sum: f32 = logits.iter().map(|z| z.exp()).sum();
                let quantile =
                    ((i * 7919) % samples) as f32 / samples as f32 + 0.5 / samples as f32;
                let mut mass = 0.0;
                let cell = logits.iter().position(|z| {
                    mass += z.exp() / sum;
                    mass > quantile
                });
                (logits, cell.unwrap_or(49))
            })
            .collect()
    }

    #[test]
    fn honest_logits_keep_their_temperature_and_scaled_ones_get_it_back() {
        let samples = honest(1000);
        for scale in [1.0f32, 3.0, 0.4] {
            let scaled: Vec<(Vec<f32>, usize)> = samples
                .iter()
                .map(|(l, c)| (l.iter().map(|z| z * scale).collect(), *c))
                .collect();
            let fit = fit_temperature(scaled.iter().map(|(l, c)| (l.as_slice(), *c))).unwrap();
            assert!(
                (fit.temperature / f64::from(scale) - 1.0).abs() < 0.05,
                "{scale}: {fit:?}"
            );
            assert!(fit.nll_after <= fit.nll_before + 1e-12);
        }
    }

    #[test]
    fn no_other_temperature_is_better() {
        let samples = honest(200);
        let prepared: Vec<Sample> = samples
            .iter()
            .map(|(l, c)| prepare(0, l, *c).unwrap())
            .collect();
        let fit = fit_temperature(samples.iter().map(|(l, c)| (l.as_slice(), *c))).unwrap();
        for factor in [0.5, 0.9, 0.99, 1.01, 1.1, 2.0] {
            assert!(objective(&prepared, 1.0 / (fit.temperature * factor)).nll >= fit.nll_after);
        }
    }

    #[test]
    fn uninformative_and_infallible_logits_stop_at_the_range() {
        let sure = [([5.0f32, 0.0, 0.0].as_slice(), 0)];
        assert!(fit_temperature(sure).unwrap().temperature < 0.3);
        let wrong = [([5.0f32, 0.0, 0.0].as_slice(), 1)];
        assert!(fit_temperature(wrong).unwrap().temperature > 0.9 * RANGE[1]);
        let flat = [([1.0f32; 3].as_slice(), 1)];
        assert!(fit_temperature(flat).unwrap().temperature.is_finite());
    }

    #[test]
    fn unusable_samples_are_named() {
        assert!(fit_temperature(std::iter::empty()).is_err());
        assert!(
            fit_temperature([([0.0f32].as_slice(), 1)])
                .unwrap_err()
                .to_string()
                .contains("sample 0")
        );
        assert!(fit_temperature([([f32::NAN, 0.0].as_slice(), 1)]).is_err());
        assert!(fit_temperature([([f32::NEG_INFINITY, 0.0].as_slice(), 0)]).is_ok());
        assert!(fit_temperature([([].as_slice(), 0)]).is_err());
    }
}
