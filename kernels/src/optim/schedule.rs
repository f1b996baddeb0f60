//! Learning-rate schedules.

/// A learning rate that may rise linearly at first and fall afterwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// The rate when the warm-up is over.
    pub base: f64,
    /// Steps over which the rate rises to `base`; 0 for none.
    pub warm_up_steps: u64,
    /// How the rate falls after the warm-up.
    pub decay: Decay,
}

/// How a learning rate falls between the end of the warm-up and the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decay {
    /// It does not.
    #[default]
    Constant,
    /// Along a straight line that meets zero one step after the last.
    LinearToZero,
    /// Along half a cosine that meets zero one step after the last (Loshchilov and Hutter 2017).
    Cosine,
}

impl LearningRate {
    /// The same rate at every step.
    pub fn constant(base: f64) -> Self {
        Self {
            base,
            warm_up_steps: 0,
            decay: Decay::Constant,
        }
    }

    /// The rate of step `step` (counted from 0) of `total`. Warm-up step k has `(k + 1) / warm_up`
    /// of the base rate. Steps from `total` on have the rate that the decay ends at.
    pub fn at(&self, step: u64, total: u64) -> f64 {
        if step < self.warm_up_steps {
            return self.base * (step + 1) as f64 / self.warm_up_steps as f64;
        }
        let span = total.saturating_sub(self.warm_up_steps).max(1);
        let progress = ((step - self.warm_up_steps) as f64 / span as f64).min(1.0);
        self.base
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::LinearToZero => 1.0 - progress,
                Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(decay: Decay, warm_up_steps: u64, total: u64) -> Vec<f64> {
        let rate = LearningRate {
            base: 2.0,
            warm_up_steps,
            decay,
        };
        (0..=total).map(|step| rate.at(step, total)).collect()
    }

    fn assert_rates(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
        }
    }

    #[test]
    fn linear_decay_meets_zero_after_the_last_step() {
        assert_rates(
            &rates(Decay::LinearToZero, 0, 4),
            &[2.0, 1.5, 1.0, 0.5, 0.0],
        );
    }

    #[test]
    fn warm_up_rises_to_the_base_before_the_decay_begins() {
        assert_rates(
            &rates(Decay::LinearToZero, 2, 6),
            &[1.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0],
        );
        assert_rates(&rates(Decay::Constant, 2, 4), &[1.0, 2.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn cosine_is_half_way_in_the_middle() {
        let sqrt_half = 0.5f64.sqrt();
        assert_rates(
            &rates(Decay::Cosine, 0, 4),
            &[2.0, 1.0 + sqrt_half, 1.0, 1.0 - sqrt_half, 0.0],
        );
    }

    #[test]
    fn steps_after_the_end_and_runs_of_no_steps_have_a_rate() {
        let rate = LearningRate {
            base: 1.0,
            warm_up_steps: 0,
            decay: Decay::Cosine,
        };
        assert!(rate.at(7, 5).abs() < 1e-12);
        assert!((rate.at(0, 0) - 1.0).abs() < 1e-12);
    }
}
