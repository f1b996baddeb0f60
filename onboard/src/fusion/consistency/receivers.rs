//! Each receiver's positions against the place known without them, over several fixes.
//!
//! One far fix is held back. Several that agree with each other are multipath, a receiver that lies,
//! or a vehicle that was moved: what the others say decides.

use std::sync::Arc;

use nalgebra::{Matrix2, Vector2};

use super::super::largest_sigma;
use super::gate::{Gate, SourceVerdict, Trust};

/// Squared Mahalanobis distance from which a fix contradicts: 4.2 sigma.
const CONTRADICTION: f64 = 18.0;
/// A receiver that was excluded is believed again after so many fixes within 2.4 sigma (squared: `NEAR`) that none
/// contradicted between, or after so many that were farther off and did not contradict either.
const NEAR_AGREEMENTS: u32 = 3;
const NEAR: f64 = 6.0;
const AGREEMENTS: u32 = 15;
/// Contradicting fixes in a row, agreeing with each other, before anything follows from them.
const CONFIRMATIONS: u32 = 3;
/// Farther than this neither dead reckoning nor multipath explains a fix, metres.
const FAR_M: f64 = 5_000.0;
/// Fixes in a row from far away that set up a new local frame.
const FAR_CONFIRMATIONS: u32 = 5;
/// For this long, and on this way, fixes must insist against dead reckoning alone, nanoseconds and metres;
/// while the vehicle stands, when a reflection stays as it is, for longer.
const INSISTENCE_NS: i64 = 30_000_000_000;
const INSISTENCE_M: f64 = 20.0;
const INSISTENCE_STANDING_NS: i64 = 120_000_000_000;
/// A receiver has agreed lately within this time, nanoseconds.
const LATELY_NS: i64 = 3_000_000_000;
/// Receivers that are told apart; more than that are taken for the last one.
const MOST_RECEIVERS: usize = 8;

/// What to do with a fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take it in.
    Use,
    /// Set it aside.
    Hold,
    /// The vehicle is where it says: start over from there.
    Relocate,
}

/// A fix beside what was known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) time_ns: i64,
    /// Fix minus the place known, and its covariance.
    pub(crate) residual_m: Vector2<f64>,
    pub(crate) known_m2: Matrix2<f64>,
    pub(crate) stated_m2: Matrix2<f64>,
    /// Fix minus track.
    pub(crate) offset_m: [f64; 2],
    /// Way driven up to here.
    pub(crate) driven_m: f64,
    /// The last heatmaps agree with the place known.
    pub(crate) heatmaps_agree: bool,
    /// Nothing but the receiver supports the place known: no odometry that is believed, or heatmaps
    /// that contradict it.
    pub(crate) known_is_doubtful: bool,
}

/// Contradicting fixes in a row that agree with each other.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The last one minus track, metres.
    offset_m: [f64; 2],
    /// Time of the first, and the way driven before it.
    since_ns: i64,
    since_m: f64,
    count: u32,
}

#[derive(Debug, Clone)]
struct Receiver {
    name: Arc<str>,
    gate: Gate,
    run: Option<Run>,
    /// Fixes near the place known since the last that contradicted.
    near_run: u32,
    /// How far it was at the last comparison.
    distance_m: f64,
    /// How far the true place may be from it, by its stated error, 1-sigma along the worse axis.
    stated_sigma_m: f64,
}

/// The checks of all receivers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receivers(Vec<Receiver>);

impl Receivers {
    /// Judges a fix of the receiver with this name.
    pub(crate) fn judge(&mut self, name: &Arc<str>, seen: &Comparison, jump_m: f64) -> Verdict {
        let other_agrees = self.0.iter().any(|receiver| {
            receiver.name != *name && receiver.gate.agreed_within(seen.time_ns, LATELY_NS)
        });
        let receiver = self.of(name);
        let distance_m = seen.residual_m.norm();
        receiver.distance_m = distance_m;
        receiver.stated_sigma_m = largest_sigma(&seen.stated_m2);
        let squared = (seen.known_m2 + seen.stated_m2)
            .try_inverse()
            .map_or(f64::INFINITY, |inverse| {
                (seen.residual_m.transpose() * inverse * seen.residual_m)[0]
            });
        if squared <= CONTRADICTION {
            receiver.run = None;
            if receiver.gate.good_run == 0 {
                receiver.near_run = 0;
            }
            receiver.near_run += u32::from(squared <= NEAR);
            let is_near = receiver.near_run >= NEAR_AGREEMENTS;
            let enough = if is_near { 1 } else { AGREEMENTS };
            receiver.gate.agree(seen.time_ns, enough);
            return match receiver.gate.trust {
                Trust::Excluded => Verdict::Hold,
                _ => Verdict::Use,
            };
        }
        receiver.gate.contradict(u32::MAX, "");
        let tolerance_m = 4.0 * seen.stated_m2.trace().sqrt() + jump_m;
        let first = Run {
            offset_m: seen.offset_m,
            since_ns: seen.time_ns,
            since_m: seen.driven_m,
            count: 1,
        };
        let run = match receiver.run {
            Some(run)
                if (run.offset_m[0] - seen.offset_m[0])
                    .hypot(run.offset_m[1] - seen.offset_m[1])
                    <= tolerance_m =>
            {
                Run {
                    offset_m: seen.offset_m,
                    count: run.count + 1,
                    ..run
                }
            }
            _ => first,
        };
        receiver.run = Some(run);
        let count = run.count;
        if other_agrees {
            if count >= 2 {
                let words = format!("receiver \"{name}\" is far from the other receiver");
                receiver.gate.exclude(words);
            }
            return Verdict::Hold;
        }
        if count < CONFIRMATIONS && !(seen.heatmaps_agree && receiver.gate.trust == Trust::Excluded)
        {
            return Verdict::Hold;
        }
        if seen.heatmaps_agree {
            // From now on fixes have to insist anew.
            receiver.run = Some(first);
            receiver.gate.exclude(format!(
                "receiver \"{name}\" contradicts camera and odometry"
            ));
            return Verdict::Hold;
        }
        let insists_ns = seen.time_ns - run.since_ns;
        let insists = insists_ns >= INSISTENCE_NS && seen.driven_m - run.since_m >= INSISTENCE_M
            || insists_ns >= INSISTENCE_STANDING_NS;
        if seen.known_is_doubtful || insists || distance_m > FAR_M && count >= FAR_CONFIRMATIONS {
            receiver.run = None;
            receiver.gate.trust = Trust::Unchecked;
            receiver.gate.explain("");
            return Verdict::Relocate;
        }
        receiver
            .gate
            .exclude(format!("receiver \"{name}\" contradicts dead reckoning"));
        Verdict::Hold
    }

    /// The fix repeats the one before it while the vehicle moves.
    pub(crate) fn repeats(&mut self, name: &Arc<str>) {
        let receiver = self.of(name);
        let words = format!("receiver \"{name}\" repeats one position while the vehicle moves");
        receiver.gate.contradict(2, words);
    }

    /// Whether a contradicting receiver may still judge others: nobody has shown it to be wrong.
    pub(crate) fn may_judge(&self, name: &Arc<str>, heatmaps_agree: bool) -> bool {
        !heatmaps_agree
            && self
                .0
                .iter()
                .all(|receiver| receiver.name == *name || receiver.gate.bad_run > 0)
    }

    /// Since when receivers have contradicted the place known while none agrees with it.
    pub(crate) fn disputed_since_ns(&self, now_ns: i64) -> Option<i64> {
        if self
            .0
            .iter()
            .any(|receiver| receiver.gate.agreed_within(now_ns, LATELY_NS))
        {
            return None;
        }
        let contradicting = self.0.iter().filter(|receiver| receiver.gate.bad_run > 0);
        contradicting
            .filter_map(|receiver| Some(receiver.run?.since_ns))
            .min()
    }

    /// Whether the positions and speeds of this receiver are believed.
    pub(crate) fn believes(&self, name: &Arc<str>) -> bool {
        self.0
            .iter()
            .find(|receiver| receiver.name == *name)
            .is_none_or(|receiver| receiver.gate.trust != Trust::Excluded)
    }

    /// What is wrong with receivers, as sentences.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|receiver| receiver.gate.trust == Trust::Excluded)
            .filter_map(|receiver| receiver.gate.problem())
    }

    /// The farthest receiver that contradicts now and may be right: its distance and its 1-sigma error, metres.
    pub(crate) fn farthest(&self, heatmaps_agree: bool, now_ns: i64) -> Option<[f64; 2]> {
        if heatmaps_agree || self.disputed_since_ns(now_ns).is_none() {
            return None;
        }
        let contradicting = self.0.iter().filter(|receiver| receiver.gate.bad_run > 0);
        contradicting
            .map(|receiver| [receiver.distance_m, receiver.stated_sigma_m])
            .max_by(|a, b| a[0].total_cmp(&b[0]))
    }

    /// While sources contradict each other, the true place may as well be where a receiver says that nobody has
    /// shown to be wrong: the distance of the nearest one, and its 1-sigma error, metres.
    pub(crate) fn nearest(&self) -> Option<[f64; 2]> {
        self.0
            .iter()
            .filter(|receiver| receiver.gate.trust != Trust::Excluded)
            .map(|receiver| [receiver.distance_m, receiver.stated_sigma_m])
            .min_by(|a, b| a[0].total_cmp(&b[0]))
    }

    /// What every check found.
    pub(crate) fn verdicts(&self) -> Vec<SourceVerdict> {
        self.0
            .iter()
            .map(|receiver| receiver.gate.verdict())
            .collect()
    }

    fn of(&mut self, name: &Arc<str>) -> &mut Receiver {
        let at = match self.0.iter().position(|receiver| receiver.name == *name) {
            Some(at) => at,
            None if self.0.len() < MOST_RECEIVERS => {
                self.0.push(Receiver {
                    name: name.clone(),
                    gate: Gate::new("gnss_vs_fused", name.as_ref()),
                    run: None,
                    near_run: 0,
                    distance_m: 0.0,
                    stated_sigma_m: 0.0,
                });
                self.0.len() - 1
            }
            None => MOST_RECEIVERS - 1,
        };
        &mut self.0[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(second: i64, east_m: f64) -> Comparison {
        Comparison {
            time_ns: second * 1_000_000_000,
            residual_m: Vector2::new(east_m, 0.0),
            known_m2: Matrix2::identity(),
            stated_m2: Matrix2::identity() * 10.0,
            offset_m: [east_m, 0.0],
            driven_m: second as f64 * 5.0,
            heatmaps_agree: true,
            known_is_doubtful: false,
        }
    }

    fn verdicts(fixes: impl Iterator<Item = Comparison>) -> (Vec<Verdict>, Receivers) {
        let mut receivers = Receivers::default();
        let name: Arc<str> = "gnss".into();
        let verdicts = fixes
            .map(|seen| receivers.judge(&name, &seen, 3.0))
            .collect();
        (verdicts, receivers)
    }

    #[test]
    fn one_far_fix_is_held_back_and_the_next_good_one_used() {
        let (verdicts, receivers) = verdicts(
            [0.0, 50.0, 0.0]
                .into_iter()
                .zip(0..)
                .map(|(m, s)| seen(s, m)),
        );
        assert_eq!(verdicts, [Verdict::Use, Verdict::Hold, Verdict::Use]);
        assert_eq!(receivers.problems().count(), 0);
    }

    #[test]
    fn fixes_that_contradict_the_heatmaps_are_never_followed_and_named() {
        let (verdicts, receivers) = verdicts((0..100).map(|second| seen(second, 800.0)));
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Hold));
        let problems: Vec<&str> = receivers.problems().collect();
        assert_eq!(
            problems,
            ["receiver \"gnss\" contradicts camera and odometry"]
        );
    }

    #[test]
    fn a_receiver_that_was_excluded_is_believed_sooner_when_it_is_near() {
        // Both are within what does not contradict.
        // After far ones a single near one is not enough.
        for (at_m, held) in [([3.0; 3], 2), ([11.0; 3], 14), ([11.0, 11.0, 3.0], 7)] {
            let fixes = (0..10).map(|second| seen(second, 800.0));
            let then = (10..40).map(|second| seen(second, at_m[second as usize % 3]));
            let (verdicts, _) = verdicts(fixes.chain(then));
            let first = verdicts.iter().position(|verdict| *verdict == Verdict::Use);
            assert_eq!(first, Some(10 + held), "{at_m:?}");
        }
    }

    #[test]
    fn without_other_evidence_three_fixes_relocate_and_against_dead_reckoning_they_have_to_insist()
    {
        let lonely = |doubtful: bool| {
            move |second: i64| Comparison {
                heatmaps_agree: false,
                known_is_doubtful: doubtful,
                ..seen(second, 800.0)
            }
        };
        let first = |doubtful: bool| {
            verdicts((0..60).map(lonely(doubtful)))
                .0
                .iter()
                .position(|verdict| *verdict == Verdict::Relocate)
        };
        assert_eq!(first(true), Some(2));
        assert_eq!(first(false), Some(30));
    }

    #[test]
    fn while_the_vehicle_stands_fixes_have_to_insist_for_longer() {
        let standing = |second: i64| Comparison {
            heatmaps_agree: false,
            driven_m: 7.0,
            ..seen(second, 60.0)
        };
        let (verdicts, receivers) = verdicts((0..110).map(standing));
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Hold));
        assert_eq!(receivers.disputed_since_ns(109_000_000_000), Some(0));
        assert_eq!(
            receivers
                .farthest(false, 109_000_000_000)
                .map(|[distance_m, _]| distance_m),
            Some(60.0)
        );
        assert_eq!(receivers.farthest(true, 109_000_000_000), None);
    }

    #[test]
    fn of_two_receivers_the_one_that_fits_the_track_is_kept_and_the_other_named() {
        let mut receivers = Receivers::default();
        let names: [Arc<str>; 2] = ["front".into(), "rear".into()];
        for second in 0..5 {
            let comparison = |east_m| Comparison {
                heatmaps_agree: false,
                ..seen(second, east_m)
            };
            assert_eq!(
                receivers.judge(&names[0], &comparison(1.0), 3.0),
                Verdict::Use
            );
            assert_eq!(
                receivers.judge(&names[1], &comparison(130.0), 3.0),
                Verdict::Hold
            );
        }
        let problems: Vec<&str> = receivers.problems().collect();
        assert_eq!(
            problems,
            ["receiver \"rear\" is far from the other receiver"]
        );
    }

    #[test]
    fn a_receiver_that_agreed_and_fell_silent_answers_nobody() {
        let mut receivers = Receivers::default();
        let names: [Arc<str>; 2] = ["front".into(), "rear".into()];
        let lonely = |second, east_m| Comparison {
            heatmaps_agree: false,
            ..seen(second, east_m)
        };
        receivers.judge(&names[1], &lonely(0, 1.0), 3.0);
        for second in 0..10 {
            receivers.judge(&names[0], &lonely(second, 60.0), 3.0);
        }
        assert_eq!(receivers.disputed_since_ns(1_000_000_000), None);
        assert!(receivers.disputed_since_ns(9_000_000_000).is_some());
    }
}
