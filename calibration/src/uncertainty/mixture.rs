//! Temperature and outlier share of heatmaps together, where the truth is known or where only a probability of it
//! is: a heatmap means something in all cases but a share, and then it is the softmax at one temperature.

use crate::{Error, Result};

/// The outcome of [`fit_mixture`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixtureFit {
    /// Divide logits by this before the softmax.
    pub temperature: f64,
    /// Share of heatmaps that mean nothing: their truth may be anywhere.
    pub outlier: f64,
    /// Mean negative log-likelihood at both, nats.
    pub nll: f64,
}

/// One heatmap and where its truth is.
#[derive(Debug, Clone)]
pub struct MixtureSample {
    /// Logits or log-probabilities of all cells; what lies 100 nats below the largest is not told apart.
    pub logits: Vec<f32>,
    /// Cells in which the truth may be and the probability of each. They sum to at most 1: what is missing lies
    /// outside the heatmap, and says nothing.
    pub truth: Vec<(usize, f32)>,
}

/// Temperatures that are tried.
const TEMPERATURES: [f64; 2] = [0.05, 20.0];
/// Steps of the search over all of them; the nearest three are searched further.
const COARSE: usize = 16;
/// Shares of outliers that are tried.
const SHARES: [f64; 2] = [1e-4, 0.95];

/// Temperature `T` and outlier share `ω` that maximise the mean of
/// `ln Σ q(x) ((1 − ω) softmax(z / T)(x) + ω / n)` over samples with `n` cells.
///
/// `q` is what is known of the truth without the heatmap: a single cell where the truth is known. Where it is the
/// belief of other measurements that are independent given the truth, the sum is, up to a constant, the
/// probability of those measurements given the picture, and neither is favoured by a `q` that is wide.
///
/// # Errors
/// [`Error::Uncertainty`] without samples, or when one has NaN, an infinite maximum, or a cell that is not there.
///
/// # Source
/// Temperature: Guo et al., "On calibration of modern neural networks", 2017, section 4.2. The marginal likelihood
/// of a mixture: Dempster, Laird, Rubin 1977.
pub fn fit_mixture(samples: &[MixtureSample]) -> Result<MixtureFit> {
    if samples.is_empty() {
        let what = "a temperature needs at least one sample whose truth is known, or nearly so";
        return Err(Error::Uncertainty(what.into()));
    }
    let samples: Vec<Prepared> = samples
        .iter()
        .enumerate()
        .map(|(index, sample)| Prepared::new(index, sample))
        .collect::<Result<_>>()?;
    let [low, high] = TEMPERATURES.map(f64::ln);
    let at = |log: f64| best_share(&samples, log.exp());
    let step = (high - low) / COARSE as f64;
    let mut best = low;
    let mut found = at(low);
    for index in 1..=COARSE {
        let log = low + step * index as f64;
        let here = at(log);
        if here.nll < found.nll {
            (best, found) = (log, here);
        }
    }
    // Golden-section search between the neighbours of the best.
    let ratio = 0.5 * (5f64.sqrt() - 1.0);
    let (mut a, mut b) = ((best - step).max(low), (best + step).min(high));
    let mut inner = [b - ratio * (b - a), a + ratio * (b - a)];
    let mut values = inner.map(at);
    while b - a > 2e-3 {
        if values[0].nll < values[1].nll {
            b = inner[1];
            inner = [b - ratio * (b - a), inner[0]];
            values = [at(inner[0]), values[0]];
        } else {
            a = inner[0];
            inner = [inner[1], a + ratio * (b - a)];
            values = [values[1], at(inner[1])];
        }
    }
    let [one, other] = values;
    Ok([one, other].into_iter().fold(
        found,
        |best, new| if new.nll < best.nll { new } else { best },
    ))
}

/// Logits below their largest, and where the truth may be.
struct Prepared {
    logits: Vec<f32>,
    truth: Vec<(usize, f32)>,
}

impl Prepared {
    fn new(index: usize, sample: &MixtureSample) -> Result<Self> {
        let MixtureSample { logits, truth } = sample;
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !top.is_finite() || logits.iter().any(|z| z.is_nan()) {
            return Err(Error::Uncertainty(format!(
                "sample {index}: a logit is NaN or infinite"
            )));
        }
        let cells = logits.len();
        if let Some((cell, _)) = truth.iter().find(|(cell, _)| *cell >= cells) {
            return Err(Error::Uncertainty(format!(
                "sample {index}: true cell {cell} of {cells}"
            )));
        }
        let mass: f32 = truth.iter().map(|(_, mass)| mass).sum();
        if truth.iter().any(|(_, mass)| !(*mass >= 0.0)) || !(mass > 0.0 && mass < 1.001) {
            return Err(Error::Uncertainty(format!(
                "sample {index}: the probabilities of its truth sum to {mass}"
            )));
        }
        Ok(Self {
            logits: logits.iter().map(|z| (z - top).max(-100.0)).collect(),
            truth: truth.clone(),
        })
    }

    /// The probability of the truth at a temperature, over that in a heatmap that means nothing.
    fn gain(&self, temperature: f64) -> f64 {
        let beta = (1.0 / temperature) as f32;
        let sum: f32 = self.logits.iter().map(|z| (beta * z).exp()).sum();
        let of_truth = |&(cell, mass): &(usize, f32)| {
            f64::from(mass) * f64::from((beta * self.logits[cell]).exp())
        };
        let mass: f64 = self.truth.iter().map(|(_, mass)| f64::from(*mass)).sum();
        let inside: f64 = self.truth.iter().map(of_truth).sum();
        inside / f64::from(sum) * self.logits.len() as f64 / mass
    }
}

/// The outlier share that is best at a temperature. The objective is concave in it: its slope has one zero.
fn best_share(samples: &[Prepared], temperature: f64) -> MixtureFit {
    let gains: Vec<f64> = samples.iter().map(|one| one.gain(temperature)).collect();
    let slope = |share: f64| -> f64 {
        gains
            .iter()
            .map(|gain| (1.0 - gain) / ((1.0 - share) * gain + share))
            .sum()
    };
    let [mut low, mut high] = SHARES;
    if slope(low) <= 0.0 {
        high = low;
    } else if slope(high) >= 0.0 {
        low = high;
    }
    while high - low > 1e-5 {
        let middle = f64::midpoint(low, high);
        if slope(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let outlier = f64::midpoint(low, high);
    let cells = |one: &Prepared| (one.logits.len() as f64).ln();
    let nll = samples
        .iter()
        .zip(&gains)
        .map(|(one, gain)| cells(one) - ((1.0 - outlier) * gain + outlier).ln())
        .sum::<f64>();
    MixtureFit {
        temperature,
        outlier,
        nll: nll / samples.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [0, 1) that repeat.
    struct Noise(u64);

    impl Noise {
        fn unit(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f64 / f64::from(1u32 << 24)
        }
    }

    /// Heatmaps over a row of 60 cells whose truth is drawn from them at temperature `1 / scale`, in a share of
    /// cases from anywhere; the truth is known to `blur` cells.
    fn drawn(count: usize, scale: f64, outlier: f64, blur: f64) -> Vec<MixtureSample> {
        let mut noise = Noise(7);
        (0..count)
            .map(|_| {
                let centre = 15.0 + 30.0 * noise.unit();
                let width = 2.0 + 2.0 * noise.unit();
                let logit = |cell: usize| -0.5 * ((cell as f64 - centre) / width).powi(2);
                let sum: f64 = (0..60).map(|cell| logit(cell).exp()).sum();
                let mut left = noise.unit() * sum;
                let honest = (0..60).position(|cell| {
                    left -= logit(cell).exp();
                    left < 0.0
                });
                let truth = if noise.unit() < outlier {
                    (60.0 * noise.unit()) as usize
                } else {
                    honest.unwrap_or(59)
                };
                // What other measurements know of it errs as much as it says.
                let normal = (0..12).map(|_| noise.unit()).sum::<f64>() - 6.0;
                let seen = truth as f64 + blur * normal;
                let known = |cell: usize| {
                    let off = (cell as f64 - seen) / blur.max(1e-3);
                    (-0.5 * off * off).exp()
                };
                let mass: f64 = (0..60).map(known).sum();
                let truth = if blur > 0.0 && mass > 0.0 {
                    let share = |cell: usize| (cell, (known(cell) / mass) as f32);
                    (0..60)
                        .map(share)
                        .filter(|(_, mass)| *mass > 1e-6)
                        .collect()
                } else {
                    vec![(truth, 1.0)]
                };
                MixtureSample {
                    logits: (0..60).map(|cell| (scale * logit(cell)) as f32).collect(),
                    truth,
                }
            })
            .collect()
    }

    #[test]
    fn temperature_and_outliers_come_back_from_known_truth_and_from_a_blurred_one() {
        for (scale, outlier, blur) in [
            (1.0, 0.1, 0.0),
            (3.0, 0.2, 0.0),
            (3.0, 0.2, 1.0),
            (0.5, 0.05, 1.5),
        ] {
            let fit = fit_mixture(&drawn(3000, scale, outlier, blur)).unwrap();
            assert!(
                (fit.temperature / scale - 1.0).abs() < 0.1,
                "{fit:?} {scale} {blur}"
            );
            assert!(
                (fit.outlier - outlier).abs() < 0.03,
                "{fit:?} {outlier} {blur}"
            );
        }
    }

    #[test]
    fn taking_a_blurred_truth_for_a_sharp_one_would_flatten_the_heatmaps() {
        let samples = drawn(3000, 1.0, 0.1, 2.5);
        let sharp: Vec<MixtureSample> = samples
            .iter()
            .map(|sample| {
                let mode = sample.truth.iter().max_by(|a, b| a.1.total_cmp(&b.1));
                MixtureSample {
                    truth: vec![(mode.unwrap().0, 1.0)],
                    ..sample.clone()
                }
            })
            .collect();
        let [fit, flat] = [&samples, &sharp].map(|samples| fit_mixture(samples).unwrap());
        assert!((fit.temperature - 1.0).abs() < 0.15, "{fit:?}");
        assert!(flat.temperature > 1.3, "{flat:?}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let sample = |logits: &[f32], truth: &[(usize, f32)]| MixtureSample {
            logits: logits.to_vec(),
            truth: truth.to_vec(),
        };
        for (samples, expected) in [
            (vec![], "at least one"),
            (vec![sample(&[0.0, f32::NAN], &[(0, 1.0)])], "sample 0"),
            (
                vec![sample(&[0.0], &[(0, 1.0)]), sample(&[0.0], &[(1, 1.0)])],
                "sample 1",
            ),
            (vec![sample(&[0.0], &[(0, f32::NAN)])], "sum to"),
            (vec![sample(&[0.0], &[])], "sum to"),
        ] {
            let error = fit_mixture(&samples).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // Infallible, and wrong without exception.
        let sure = fit_mixture(&[sample(&[9.0, 0.0, 0.0], &[(0, 1.0)])]).unwrap();
        assert!(sure.outlier < 0.01 && sure.temperature < 1.0, "{sure:?}");
        let wrong = fit_mixture(&[sample(&[9.0, 0.0, 0.0], &[(1, 1.0)])]).unwrap();
        // Nothing is believed of it, as far as the ranges go.
        assert!(
            wrong.nll <= 3f64.ln() + 0.02 && wrong.outlier > 0.9,
            "{wrong:?}"
        );
    }
}
