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
