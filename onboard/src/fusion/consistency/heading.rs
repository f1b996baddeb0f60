//! The odometry's absolute heading against the receiver's course.

use crossfix_calibration::Yaw;

use super::exclusion::Exclusion;
use super::gate::Gate;
use crate::event::OdometrySample;

/// Agreeing fixes until an excluded heading is believed again.
const AGREEMENTS: u32 = 5;
/// Contradicting fixes until it is excluded.
const CONTRADICTIONS: u32 = 3;
/// A heading that is this far off contradicts, radians: vehicles slip and sensors are mounted askew.
const LARGEST_ERROR_RAD: f64 = 0.2;

/// The check of the odometry's heading.
#[derive(Debug, Clone)]
pub(crate) struct HeadingGate {
    pub(crate) gate: Gate,
    newest: Option<(i64, Yaw, f64, f64)>,
}

impl HeadingGate {
    pub(crate) fn new() -> Self {
        Self {
            gate: Gate::new("odometry_vs_gnss", "heading"),
            newest: None,
        }
    }

    /// A sample comes.
    pub(crate) fn on_sample(&mut self, sample: &OdometrySample, exclusion: &mut Exclusion) {
        let Some(measured) = sample
            .yaw
            .filter(|measured| measured.yaw.is_finite() && measured.sigma_rad > 0.0)
        else {
            return;
        };
        let before = self.newest.replace((
            sample.time_ns,
            measured.yaw,
            measured.sigma_rad,
            sample.yaw_rate_rps.unwrap_or(0.0),
        ));
        let Some((before_ns, before_yaw, ..)) = before else {
            return;
        };
        let dt_s = (sample.time_ns - before_ns) as f64 * 1e-9;
        let jump = measured.yaw.difference_rad(before_yaw).abs();
        // No vehicle turns that fast between two samples.
        if (0.0..0.5).contains(&dt_s)
            && jump > 3.0 * dt_s + 6.0 * measured.sigma_rad.min(0.1) + 0.1
            && !exclusion.is_open()
        {
            self.gate.contradict(
                CONTRADICTIONS,
                "the odometry's heading jumps more than a vehicle can",
            );
            self.gate.is_accused_by_receiver = false;
            exclusion.open(sample.time_ns);
        }
    }

    /// A fix with a course comes, turned round where the vehicle reverses. Returns the time to go
    /// back to when samples since turn out to be wrong.
    pub(crate) fn on_fix(
        &mut self,
        time_ns: i64,
        course: Yaw,
        speed_mps: f64,
        exclusion: &mut Exclusion,
    ) -> Option<i64> {
        let (at_ns, yaw, sigma_rad, rate_rps) = self.newest?;
        if speed_mps < 3.0 || (time_ns - at_ns).abs() > 500_000_000 {
            return None;
        }
        let off = yaw.difference_rad(course).abs();
        let sigma = sigma_rad.min(0.5).hypot(0.35 / speed_mps);
        let tolerance = LARGEST_ERROR_RAD.max(3.5 * sigma) + 0.5 * rate_rps.abs().min(1.0);
        if off > tolerance {
            let since_ns = self.gate.agreed_ns.unwrap_or(i64::MIN);
            let words = if off > 2.7 {
                "the odometry's heading points backwards"
            } else {
                "the odometry's heading differs from the GNSS course"
            };
            if self.gate.problem().is_none() {
                self.gate.is_accused_by_receiver = true;
            }
            self.gate.contradict(CONTRADICTIONS, words);
            let newly = !exclusion.is_open();
            exclusion.open(since_ns);
            return newly.then_some(since_ns);
        }
        if off < 0.7 * tolerance {
            self.gate.agree(time_ns, AGREEMENTS);
            if self.gate.trust == super::gate::Trust::Agrees && exclusion.is_open() {
                exclusion.close(time_ns);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::Trust;
    use super::*;
    use crate::fusion::tests_support::sample;

    const SECOND_NS: i64 = 1_000_000_000;

    /// Drives `seconds` with samples at 10 Hz whose heading is `heading_rad`, and a fix each second whose
    /// course is 0; returns the gate, the exclusion and the time to go back to, if any.
    fn drive(
        gate: &mut HeadingGate,
        exclusion: &mut Exclusion,
        from: i64,
        seconds: i64,
        heading_rad: f64,
    ) -> Option<i64> {
        let mut back_to = None;
        for tenth in from * 10..(from + seconds) * 10 {
            gate.on_sample(&sample(tenth, 8.0, 0.0, heading_rad), exclusion);
            if tenth % 10 == 0 {
                let time_ns = tenth / 10 * SECOND_NS;
                back_to = gate
                    .on_fix(time_ns, Yaw::new(0.0), 8.0, exclusion)
                    .or(back_to);
            }
        }
        back_to
    }

    #[test]
    fn a_heading_along_the_course_agrees() {
        let (mut gate, mut exclusion) = (HeadingGate::new(), Exclusion::default());
        assert_eq!(drive(&mut gate, &mut exclusion, 0, 5, 0.05), None);
        assert_eq!(gate.gate.trust, Trust::Agrees);
        assert!(!exclusion.is_open());
    }

    #[test]
    fn a_heading_that_jumps_is_excluded_from_the_jump_on_and_believed_after_five_agreements() {
        let (mut gate, mut exclusion) = (HeadingGate::new(), Exclusion::default());
        drive(&mut gate, &mut exclusion, 0, 5, 0.0);
        drive(&mut gate, &mut exclusion, 5, 4, 1.2);
        assert_eq!(gate.gate.trust, Trust::Excluded);
        assert!(exclusion.covers(6 * SECOND_NS) && !exclusion.covers(3 * SECOND_NS));
        drive(&mut gate, &mut exclusion, 9, 4, 0.0);
        assert!(exclusion.is_open(), "four agreements are too few");
        drive(&mut gate, &mut exclusion, 13, 2, 0.0);
        assert!(!exclusion.is_open());
        assert_eq!(gate.gate.trust, Trust::Agrees);
        assert!(exclusion.covers(6 * SECOND_NS) && !exclusion.covers(15 * SECOND_NS));
    }

    #[test]
    fn a_heading_that_was_wrong_from_the_first_is_taken_back_to_the_beginning_and_named() {
        let (mut gate, mut exclusion) = (HeadingGate::new(), Exclusion::default());
        let back_to = drive(&mut gate, &mut exclusion, 0, 5, std::f64::consts::PI);
        assert_eq!(back_to, Some(i64::MIN));
        let words = gate.gate.problem().unwrap();
        assert!(words.contains("backwards"), "{words}");
    }

    #[test]
    fn slow_fixes_and_old_headings_are_not_compared() {
        let (mut gate, mut exclusion) = (HeadingGate::new(), Exclusion::default());
        gate.on_sample(&sample(0, 8.0, 0.0, 1.5), &mut exclusion);
        assert_eq!(gate.on_fix(0, Yaw::new(0.0), 2.0, &mut exclusion), None);
        let later_ns = SECOND_NS;
        assert_eq!(
            gate.on_fix(later_ns, Yaw::new(0.0), 8.0, &mut exclusion),
            None
        );
        assert_eq!(gate.gate.trust, Trust::Unchecked);
    }
}
