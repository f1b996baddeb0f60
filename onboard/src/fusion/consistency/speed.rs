//! The odometry's speed against what a vehicle can do, and against the receiver's speed.

use std::collections::VecDeque;

use super::exclusion::Exclusion;
use super::gate::{Gate, Trust};
use crate::event::OdometrySample;

/// Largest acceleration of a vehicle, m/s²: an emergency stop is 10.
const LARGEST_ACCELERATION: f64 = 12.0;
/// A speed that jumped and came back within this time was a single wrong value, nanoseconds.
const SPIKE_NS: i64 = 300_000_000;
/// Without a receiver's speed, a new level is believed after this time, nanoseconds.
const NOBODY_SAYS_NS: i64 = 10_000_000_000;
/// A receiver's speed may be this late, nanoseconds.
const RECEIVER_LAG_NS: i64 = 400_000_000;
/// 1-sigma error of a receiver's speed, m/s.
const RECEIVER_SIGMA_MPS: f64 = 0.35;
/// Agreeing fixes in motion until an excluded speed is believed again.
const AGREEMENTS: u32 = 3;
/// Contradicting fixes until it counts as excluded.
const CONTRADICTIONS: u32 = 2;
/// Fixes whose ratio of speeds is averaged.
const RATIOS: usize = 8;
/// A lasting ratio this far from 1 contradicts: wheels wear, but not that much.
const LARGEST_SCALE_ERROR: f64 = 0.07;
/// Samples alike in a row, of a source whose samples differ otherwise, that are one stuck sample.
const STUCK_SAMPLES: u32 = 4;

/// Odometry may be off by this share from the way between positions to be believed on appeal.
const LARGEST_APPEAL_ERROR: f64 = 0.3;

/// Ratios of units that are mistaken for m/s, and their names.
const UNITS: [(f64, &str); 5] = [
    (2.236_94, "mph"),
    (3.6, "km/h"),
    (1.943_84, "knots"),
    (3.280_84, "feet per second"),
    (0.277_778, "m/s taken as km/h"),
];

/// The check of the odometry's speed.
#[derive(Debug, Clone)]
pub(crate) struct SpeedGate {
    pub(crate) gate: Gate,
    /// Samples of the last second.
    recent: VecDeque<(i64, f64)>,
    /// The last plausible sample.
    plausible: Option<(i64, f64)>,
    repeats: Repeats,
    receiver: Option<(i64, f64)>,
    ratios: VecDeque<f64>,
    doubted_ns: i64,
    /// Whether positions have spoken against it.
    by_positions: bool,
}

impl SpeedGate {
    pub(crate) fn new() -> Self {
        Self {
            gate: Gate::new("odometry_vs_gnss", "speed"),
            recent: VecDeque::new(),
            plausible: None,
            repeats: Repeats::default(),
            receiver: None,
            ratios: VecDeque::new(),
            doubted_ns: 0,
            by_positions: false,
        }
    }

    /// A sample comes. Returns the time to go back to when earlier ones turn out to be wrong.
    pub(crate) fn on_sample(
        &mut self,
        sample: &OdometrySample,
        exclusion: &mut Exclusion,
    ) -> Option<i64> {
        let time_ns = sample.time_ns;
        let speed = sample.forward_speed_mps?;
        if !speed.is_finite() || self.recent.back().is_some_and(|last| time_ns <= last.0) {
            return None;
        }
        self.recent.push_back((time_ns, speed));
        while self
            .recent
            .front()
            .is_some_and(|old| old.0 < time_ns - 1_200_000_000)
        {
            self.recent.pop_front();
        }
        let mut back_ns = None;
        // A speed alone may repeat: it is counted in steps, and a vehicle may hold it.
        let stuck_ns = sample
            .yaw_rate_rps
            .and_then(|yaw_rate| self.repeats.note(time_ns, [speed, yaw_rate]));
        if self.gate.trust != Trust::Excluded {
            if let Some(since_ns) = stuck_ns
                && !exclusion.is_open()
            {
                self.doubt(time_ns, "the odometry repeats the same values");
                exclusion.open(since_ns);
                back_ns = Some(since_ns);
            }
            if self.jumps(time_ns, speed, sample.speed_sigma_mps) {
                if !exclusion.is_open() {
                    self.doubt(
                        time_ns,
                        "the odometry's speed jumps more than a vehicle can",
                    );
                    exclusion.open(time_ns);
                }
            } else if exclusion.is_open() {
                // It goes on smoothly again, or nobody has said anything against it for long.
                let is_smooth = self.repeats.differ()
                    && self
                        .plausible
                        .is_some_and(|(last_ns, _)| time_ns - last_ns <= SPIKE_NS);
                let is_forgotten = time_ns - self.doubted_ns > NOBODY_SAYS_NS
                    && self
                        .receiver
                        .is_none_or(|(at_ns, _)| time_ns - at_ns > NOBODY_SAYS_NS);
                if is_smooth || is_forgotten {
                    exclusion.close(time_ns);
                    self.gate.trust = Trust::Unchecked;
                }
            }
        }
        if !exclusion.is_open() {
            self.plausible = Some((time_ns, speed));
        }
        back_ns
    }

    fn doubt(&mut self, time_ns: i64, words: &str) {
        self.doubted_ns = time_ns;
        if self.gate.trust != Trust::Excluded {
            self.gate.trust = Trust::Doubted;
            self.gate.is_accused_by_receiver = false;
            self.gate.explain(words);
        }
    }

    fn jumps(&self, time_ns: i64, speed: f64, sigma: f64) -> bool {
        self.plausible.is_some_and(|(last_ns, last)| {
            let dt_s = ((time_ns - last_ns) as f64 * 1e-9).min(1.0);
            let noise = 6.0 * sigma.clamp(0.05, 1.0);
            (speed - last).abs() > LARGEST_ACCELERATION * dt_s + noise + 0.3
        })
    }

    /// A fix with a speed comes; `backwards` is how the vehicle moves by course and heading. Returns
    /// the time to go back to when samples since turn out to be wrong.
    pub(crate) fn on_fix(
        &mut self,
        time_ns: i64,
        receiver_mps: f64,
        backwards: Option<bool>,
        exclusion: &mut Exclusion,
    ) -> Option<i64> {
        let before = self.receiver.replace((time_ns, receiver_mps));
        // A receiver that jumps itself is no reference.
        if let Some((before_ns, before_mps)) = before {
            let dt_s = (time_ns - before_ns) as f64 * 1e-9;
            if dt_s <= 0.0 || (receiver_mps - before_mps).abs() > LARGEST_ACCELERATION * dt_s + 1.5
            {
                return None;
            }
        }
        let around = self.recent.iter().filter(|(at_ns, _)| {
            (time_ns - RECEIVER_LAG_NS..=time_ns + RECEIVER_LAG_NS / 2).contains(at_ns)
        });
        let (low, high) = around.fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(low, high), &(_, v)| (low.min(v), high.max(v)),
        );
        if low > high {
            return None;
        }
        let middle = 0.5 * (low + high);
        let wrong_sign = receiver_mps > 2.0
            && middle.abs() > 1.0
            && backwards.is_some_and(|backwards| backwards != (middle < 0.0));
        let (low, high) = if high < 0.0 {
            (-high, -low)
        } else {
            (low.max(0.0), high)
        };
        let off = (low - receiver_mps).max(receiver_mps - high).max(0.0);
        let tolerance = 3.0 * RECEIVER_SIGMA_MPS + 0.05 * receiver_mps.max(high);
        if receiver_mps > 3.0 {
            // While it brakes, an unknown delay looks like another scale: of the speeds around, the one that fits best.
            let ratio = 1.0_f64.clamp(low / receiver_mps, high / receiver_mps);
            self.ratios.push_back(ratio);
            if self.ratios.len() > RATIOS {
                self.ratios.pop_front();
            }
        }
        if wrong_sign || off > tolerance {
            let gross = wrong_sign || off > 3.0 * tolerance;
            let words = if wrong_sign {
                "the odometry's speed has the wrong sign".to_owned()
            } else {
                explain(middle.abs() / receiver_mps.max(0.1), receiver_mps)
            };
            let since_ns = self.gate.agreed_ns.unwrap_or(i64::MIN);
            if self.gate.problem().is_none() {
                self.gate.is_accused_by_receiver = true;
            }
            self.gate
                .contradict(if gross { 1 } else { CONTRADICTIONS }, words.clone());
            self.gate.explain(words);
            let newly = !exclusion.is_open();
            exclusion.open(since_ns);
            return newly.then_some(since_ns);
        }
        if let Some(words) = self.scale_is_wrong() {
            let newly = !exclusion.is_open();
            if self.gate.problem().is_none() {
                self.gate.is_accused_by_receiver = true;
            }
            self.gate.exclude(words);
            self.gate.good_run = 0;
            let since_ns = time_ns - 8_000_000_000;
            exclusion.open(since_ns);
            return newly.then_some(since_ns);
        }
        if off < 0.6 * tolerance {
            // Standing still says nothing about a speed that was wrong in motion.
            let moving = receiver_mps > 1.5;
            if self.gate.trust == Trust::Agrees || self.gate.trust == Trust::Unchecked || moving {
                let enough = AGREEMENTS;
                self.gate.agree(time_ns, enough);
                if self.gate.trust == Trust::Agrees && exclusion.is_open() {
                    exclusion.close(time_ns);
                }
            }
        }
        None
    }

    /// The receiver's speed, which spoke against the odometry, turned out to be this many times that of its own
    /// positions. Odometry that fits those is pardoned.
    pub(crate) fn appeal(&mut self, time_ns: i64, receiver_factor: f64, exclusion: &mut Exclusion) {
        let count = self.ratios.len() as f64;
        let mean = self.ratios.iter().sum::<f64>() / count;
        let fits = (mean * receiver_factor - 1.0).abs() < LARGEST_APPEAL_ERROR;
        if self.gate.problem().is_none() || !self.gate.is_accused_by_receiver || !fits {
            return;
        }
        self.gate.pardon();
        self.ratios.clear();
        self.plausible = None;
        exclusion.close(time_ns);
    }

    /// The odometry's distance is this many times that between the positions of a receiver that tells no speed.
    pub(crate) fn differs_from_positions(
        &mut self,
        time_ns: i64,
        ratio: f64,
        exclusion: &mut Exclusion,
    ) {
        let than = if ratio < 1.0 { "shorter" } else { "longer" };
        let words = format!("the odometry's way is {than} than that between the fixes");
        self.by_positions = true;
        self.gate.contradict(1, words);
        if !exclusion.is_open() {
            exclusion.open(time_ns);
        }
    }

    /// The two fit: what they said against it is over.
    pub(crate) fn fits_positions(&mut self, time_ns: i64, exclusion: &mut Exclusion) {
        if std::mem::take(&mut self.by_positions) && self.gate.trust == Trust::Excluded {
            self.gate.pardon();
            self.plausible = None;
            exclusion.close(time_ns);
        }
    }

    /// A ratio that stays away from 1.
    fn scale_is_wrong(&self) -> Option<String> {
        let count = self.ratios.len() as f64;
        if self.ratios.len() < RATIOS {
            return None;
        }
        let mean = self.ratios.iter().sum::<f64>() / count;
        let variance = self.ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let off = (mean - 1.0).abs();
        (off > LARGEST_SCALE_ERROR && off > 4.0 * (variance / count).sqrt())
            .then(|| explain(mean, 10.0))
    }
}

/// What a ratio of odometry to receiver looks like.
fn explain(ratio: f64, receiver_mps: f64) -> String {
    if ratio < 0.08 && receiver_mps > 1.5 {
        return "the odometry's speed reads 0 while GNSS moves".to_owned();
    }
    for (unit, name) in UNITS {
        if (ratio / unit - 1.0).abs() < 0.06 {
            return format!("the odometry's speed differs from GNSS like {name}");
        }
    }
    let direction = if ratio > 1.0 { "above" } else { "below" };
    format!("the odometry's speed is {direction} that of GNSS")
}

/// Finds values that repeat to the bit, of a source that does not do so otherwise.
#[derive(Debug, Clone, Default)]
struct Repeats {
    last: Option<[u64; 2]>,
    since_ns: i64,
    run: u32,
    /// Samples that differed from the one before.
    different: u32,
    /// Runs of repeated samples in motion seen so far: such a source may repeat.
    repeated_before: bool,
}

impl Repeats {
    /// Returns since when the values are stuck.
    fn note(&mut self, time_ns: i64, values: [f64; 2]) -> Option<i64> {
        let bits = values.map(f64::to_bits);
        if self.last.replace(bits) != Some(bits) {
            if self.run > STUCK_SAMPLES + 2 && self.different < 30 {
                self.repeated_before = true;
            }
            self.different = self.different.saturating_add(1);
            self.run = 0;
            self.since_ns = time_ns;
            return None;
        }
        self.run += 1;
        let moving = values[0].abs() > 0.3;
        (self.run >= STUCK_SAMPLES && moving && self.different >= 30 && !self.repeated_before)
            .then_some(self.since_ns + 1)
    }

    /// Whether the newest sample differs from the one before.
    fn differ(&self) -> bool {
        self.run == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::tests_support::sample;

    /// Ten seconds at about 8 m/s, then ten more with what `lie` makes of the speed; fixes at 1 Hz.
    /// Returns the gate, whether it is excluded, and after how many seconds it first was.
    fn drive(lie: impl Fn(f64, i64) -> f64) -> (SpeedGate, Exclusion, Option<f64>) {
        let (mut gate, mut exclusion) = (SpeedGate::new(), Exclusion::default());
        let mut first_s = None;
        for tenth in 0..200 {
            let truth = 8.0 + (tenth as f64 * 0.05).sin() + 0.02 * ((tenth * 7 % 11) as f64 - 5.0);
            let speed = if tenth < 100 {
                truth
            } else {
                lie(truth, tenth)
            };
            gate.on_sample(&sample(tenth, speed, 0.0, 0.0), &mut exclusion);
            if tenth % 10 == 0 {
                gate.on_fix(tenth * 100_000_000, truth, Some(false), &mut exclusion);
            }
            if tenth >= 100 && exclusion.is_open() {
                first_s = first_s.or(Some((tenth - 100) as f64 / 10.0));
            }
        }
        (gate, exclusion, first_s)
    }

    #[test]
    fn every_lie_about_the_speed_is_found_within_three_seconds_and_named() {
        let cases: [(&str, fn(f64, i64) -> f64); 6] = [
            ("reads 0", |_, _| 0.0),
            ("mph", |truth, _| truth * 2.236_94),
            ("km/h", |truth, _| truth * 3.6),
            ("wrong sign", |truth, _| -truth),
            ("above", |truth, _| truth + 4.0),
            ("below", |truth, _| truth * 0.6),
        ];
        for (words, lie) in cases {
            let (gate, exclusion, first_s) = drive(lie);
            assert!(exclusion.is_open(), "{words}");
            assert!(first_s.is_some_and(|s| s < 3.0), "{words}: {first_s:?}");
            let problem = gate.gate.problem().unwrap();
            assert!(problem.contains(words), "{problem}, expected {words}");
        }
    }

    #[test]
    fn values_that_repeat_to_the_bit_are_stuck() {
        let (_, exclusion, first_s) = drive(|_, _| 8.5);
        assert!(exclusion.covers(195 * 100_000_000), "{first_s:?}");
        assert!(first_s.is_some_and(|s| s < 1.0), "{first_s:?}");
    }

    #[test]
    fn a_good_speed_is_confirmed_and_one_wrong_sample_is_forgiven() {
        let (gate, exclusion, first_s) = drive(|truth, _| truth);
        assert!(!exclusion.is_open() && first_s.is_none());
        assert_eq!(gate.gate.trust, Trust::Agrees);
        let (gate, exclusion, first_s) =
            drive(|truth, tenth| if tenth == 115 { 40.0 } else { truth });
        assert!(!exclusion.is_open() && first_s == Some(1.5), "{first_s:?}");
        assert_eq!(gate.gate.trust, Trust::Agrees);
    }

    #[test]
    fn braking_is_no_wrong_scale_and_a_wrong_scale_is_one_while_braking() {
        for scale in [1.0, 1.2] {
            let (mut gate, mut exclusion) = (SpeedGate::new(), Exclusion::default());
            for tenth in 0..300 {
                // Down from 11 to 3 m/s and up again, 2 m/s each second; the receiver is heard on the way down.
                let phase = tenth % 80;
                let way_down = (80 - phase).min(phase) as f64 * 0.2;
                let truth = 11.0 - way_down;
                gate.on_sample(&sample(tenth, scale * truth, 0.0, 0.0), &mut exclusion);
                if phase <= 40 && tenth % 10 == 0 {
                    gate.on_fix(tenth * 100_000_000, truth, Some(false), &mut exclusion);
                }
            }
            assert_eq!(gate.gate.trust == Trust::Excluded, scale > 1.0, "{scale}");
        }
    }

    #[test]
    fn a_speed_that_agrees_again_is_believed_again() {
        let (gate, exclusion, _) =
            drive(|truth, tenth| if tenth < 140 { 2.0 * truth } else { truth });
        assert!(!exclusion.is_open());
        assert!(exclusion.covers(120 * 100_000_000));
        assert_eq!(gate.gate.verdict().exclusions, 1);
    }

    #[test]
    fn an_odometer_is_pardoned_when_the_receiver_was_wrong_by_its_own_positions() {
        // The receiver's speed came in knots: the odometer reads 0.51 of it.
        let accused = || drive(|truth, _| truth / 1.943_84);
        let (mut gate, mut exclusion, _) = accused();
        assert!(exclusion.is_open());
        gate.appeal(20_000_000_000, 1.9, &mut exclusion);
        assert!(!exclusion.is_open() && gate.gate.problem().is_none());
        // Both are wrong, each in its own way.
        let (mut gate, mut exclusion, _) = accused();
        gate.appeal(20_000_000_000, 3.6, &mut exclusion);
        assert!(exclusion.is_open());
        // It is stuck: no receiver said so, and none takes it back.
        let (mut gate, mut exclusion, _) = drive(|_, _| 8.5);
        gate.gate.is_accused_by_receiver = false;
        gate.appeal(20_000_000_000, 1.0, &mut exclusion);
        assert!(exclusion.is_open());
    }
}
