//! Samples of fast sensors, thinned out: an IMU sends some hundred a second.

use crate::event::OdometrySample;

/// A quantity is not passed on more often than this, nanoseconds.
const SPACING_NS: i64 = 18_000_000;

/// When a speed and a yaw rate were passed on last.
#[derive(Debug, Default)]
pub struct Thinner {
    last_ns: [Option<i64>; 2],
}

impl Thinner {
    /// The sample with what is due of it; none when nothing is.
    pub fn due(&mut self, mut sample: OdometrySample) -> Option<OdometrySample> {
        let [speed_ns, yaw_rate_ns] = &mut self.last_ns;
        if !is_due(sample.forward_speed_mps, sample.time_ns, speed_ns) {
            sample.forward_speed_mps = None;
        }
        if !is_due(sample.yaw_rate_rps, sample.time_ns, yaw_rate_ns) {
            sample.yaw_rate_rps = None;
        }
        let is_left = sample.forward_speed_mps.is_some() || sample.yaw_rate_rps.is_some();
        is_left.then_some(sample)
    }
}

/// A stamp before the last one is due as well: the clock behind it was set.
fn is_due(value: Option<f64>, time_ns: i64, last_ns: &mut Option<i64>) -> bool {
    let is_soon = |last_ns: i64| (0..SPACING_NS).contains(&time_ns.saturating_sub(last_ns));
    if value.is_none() || last_ns.is_some_and(is_soon) {
        return false;
    }
    *last_ns = Some(time_ns);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time_ns: i64, speed: Option<f64>, yaw_rate: Option<f64>) -> OdometrySample {
        OdometrySample {
            time_ns,
            forward_speed_mps: speed,
            yaw_rate_rps: yaw_rate,
            yaw: None,
            speed_sigma_mps: 0.2,
            yaw_rate_sigma_rps: 0.01,
        }
    }

    #[test]
    fn a_gyro_of_400_hz_is_thinned_out_and_does_not_hold_up_the_wheels() {
        let mut thinner = Thinner::default();
        let (mut speeds, mut yaw_rates) = (0, 0);
        for tick in 0..400 {
            let time_ns = tick * 2_500_000;
            let gyro = thinner.due(sample(time_ns, None, Some(0.1)));
            yaw_rates += usize::from(gyro.is_some());
            if tick % 20 == 0 {
                let wheels = thinner.due(sample(time_ns + 1, Some(5.0), None));
                speeds += usize::from(wheels.is_some());
            }
        }
        assert_eq!((speeds, yaw_rates), (20, 50));
    }

    #[test]
    fn what_is_due_of_a_sample_passes_and_a_clock_set_back_starts_anew() {
        let mut thinner = Thinner::default();
        assert!(thinner.due(sample(0, None, Some(0.1))).is_some());
        let both = thinner
            .due(sample(1_000_000, Some(5.0), Some(0.1)))
            .unwrap();
        assert_eq!(
            (both.forward_speed_mps, both.yaw_rate_rps),
            (Some(5.0), None)
        );
        assert!(
            thinner
                .due(sample(-1_000_000_000, Some(5.0), None))
                .is_some()
        );
        assert!(thinner.due(sample(0, None, None)).is_none());
    }
}
