//! Heatmaps against the place that was known before: the last place they agreed on, carried on by
//! dead reckoning.
//!
//! A place on which heatmaps have agreed is not given up for heatmaps that agree on another one,
//! unless dead reckoning allows for the step or the receiver asks for it: a student can be sure and
//! wrong for minutes. Heatmaps that contradict go into a belief of their own, the candidate.

use std::collections::VecDeque;

use crossfix_calibration::Heatmap;
use nalgebra::{Matrix2, Vector2};

use super::gate::{Gate, Trust};
use crate::fusion::FusionConfig;
use crate::fusion::jump::Place;
use crate::fusion::largest_sigma;
use crate::fusion::visual::VisualBelief;

/// Heatmaps that are remembered.
const REMEMBERED: usize = 10;
/// Of these, agreeing ones that establish a place.
const ESTABLISHES: usize = 4;
/// Of these, contradicting ones from which on the camera is not believed any more.
const UNRELIABLE: usize = 4;
/// Heatmaps with half of their mass this near to the mode have one clear mode, metres.
const CLEAR_MODE_M: f64 = 3.0;
/// Of these, contradicting ones up to which a position may be called good.
const TOLERATED: usize = 2;
/// Agreeing heatmaps in a row until a camera is believed again.
const AGREEMENTS: u32 = 4;
/// Mass near a place, as a share of the mass near the mode, from which on a heatmap agrees, and below
/// which it contradicts.
const AGREES: f64 = 0.2;
const CONTRADICTS: f64 = 0.06;
/// Heatmaps whose shift is averaged, and the largest mean shift of a place that stands still.
const SHIFTS: usize = 4;
const LARGEST_SHIFT_M: f64 = 2.0;
/// A candidate needs this many heatmaps that agree on it, over this way, metres.
const CANDIDATE_UPDATES: u32 = 5;
const CANDIDATE_WAY_M: f64 = 16.0;
/// A step of this many sigma is what dead reckoning allows for.
const ALLOWED_SIGMAS: f64 = 3.0;
/// Log-likelihood ratio from which on the receiver has decided for the candidate.
const GNSS_DECIDES: f64 = 5.0;
/// A belief wider than this is no better than the receiver, metres.
const WIDEST_SIGMA_M: f64 = 12.0;

/// From here on the newest heatmap lies beside the place, and from here on somewhere else altogether, metres: of heatmaps
/// that mean nothing nine in ten do, of 2068 on clean drives of four cities 0.2 % lie between.
const BESIDE_M: f64 = 5.0;
const ELSEWHERE_M: f64 = 13.0;

/// A heatmap is evidence for this long, nanoseconds.
const LATELY_NS: i64 = 8_000_000_000;

/// What a heatmap means for the place that was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Agrees,
    Unsure,
    Contradicts,
}

/// Heatmaps that contradict, as a belief of their own.
#[derive(Debug, Clone)]
struct Candidate {
    belief: VisualBelief,
    agreeing: u32,
    since_m: f64,
    /// Log-likelihood ratio of the receiver's positions, candidate against the known place.
    evidence: f64,
    evidence_ns: Option<i64>,
}

/// Which heatmaps are believed.
#[derive(Debug, Clone)]
pub(crate) struct HeatmapGate {
    pub(crate) gate: Gate,
    recent: VecDeque<Answer>,
    candidate: Option<Candidate>,
    established: bool,
    /// Modes of the last agreeing heatmaps minus the place known.
    shifts: VecDeque<[f64; 2]>,
    /// Where the newest heatmap has the vehicle, minus the track, if it has one clear mode.
    newest_m: Option<[f64; 2]>,
    /// Time and way of the last heatmap that agreed.
    pub(crate) agreed: Option<(i64, f64)>,
}

/// A heatmap with what was known when it was taken.
pub(crate) struct Sighting<'a> {
    pub(crate) heatmap: &'a Heatmap,
    /// Patch centre minus track.
    pub(crate) centre_m: [f64; 2],
    /// The known place at that time, widened by the way since it was worked out.
    pub(crate) known: Place,
    /// Where it was before a jump that is doubted.
    pub(crate) former: Option<Place>,
    /// The receiver's filtered position.
    pub(crate) gnss: Option<Place>,
    pub(crate) time_ns: i64,
    pub(crate) driven_m: f64,
    pub(crate) track_variance_m2: f64,
    /// The vehicle has hardly moved since the last one: it repeats its errors.
    pub(crate) is_near: bool,
}

impl HeatmapGate {
    pub(crate) fn new() -> Self {
        Self {
            gate: Gate::new("heatmap_vs_track", "camera"),
            recent: VecDeque::new(),
            candidate: None,
            established: false,
            shifts: VecDeque::new(),
            newest_m: None,
            agreed: None,
        }
    }

    /// Takes a heatmap in: into `belief`, or into the candidate. Returns whether the candidate has
    /// replaced the belief.
    pub(crate) fn take(
        &mut self,
        sighting: &Sighting<'_>,
        belief: &mut VisualBelief,
        config: &FusionConfig,
    ) -> Result<bool, crossfix_calibration::Error> {
        let sigma_m = largest_sigma(&sighting.known.covariance_m2);
        let answer = if sigma_m > WIDEST_SIGMA_M {
            Answer::Unsure
        } else {
            answer(sighting, sighting.known.offset_m, sigma_m)
        };
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(answer);
        let mode = sighting.heatmap.mode().offset_m;
        self.newest_m = (mass_near(sighting.heatmap, mode, CLEAR_MODE_M) > 0.5)
            .then(|| [0, 1].map(|axis| sighting.centre_m[axis] + mode[axis]));
        if answer == Answer::Agrees {
            self.gate.agree(sighting.time_ns, AGREEMENTS);
            if let Some(newest_m) = self.newest_m {
                let known_m = sighting.known.offset_m;
                self.shifts
                    .push_back([0, 1].map(|axis| newest_m[axis] - known_m[axis]));
            }
            if self.shifts.len() > SHIFTS {
                self.shifts.pop_front();
            }
            if self.gate.trust == Trust::Agrees && self.gate.good_run == AGREEMENTS {
                // What was wrong before is over.
                self.recent.retain(|answer| *answer != Answer::Contradicts);
            }
            if self.count(Answer::Agrees) >= ESTABLISHES && sigma_m < 4.0 {
                self.established = true;
            }
            if self.gate.trust == Trust::Agrees {
                self.agreed = Some((sighting.time_ns, sighting.driven_m));
            }
        }
        if self.established && answer == Answer::Contradicts {
            let words = "the heatmaps contradict the place known before";
            self.gate.contradict(u32::MAX, words);
            if self.count(Answer::Contradicts) >= UNRELIABLE {
                self.gate.exclude(words);
            }
            return self.consider(sighting, belief, config);
        }
        if self.gate.trust == Trust::Excluded {
            // It agrees now and then, by chance.
            return self.consider(sighting, belief, config);
        }
        if answer == Answer::Agrees && self.count(Answer::Agrees) >= 2 {
            self.candidate = None;
        }
        if sighting.is_near {
            return Ok(false);
        }
        belief.update(
            sighting.heatmap,
            sighting.centre_m,
            sighting.track_variance_m2,
            config,
        )?;
        Ok(false)
    }

    /// Feeds the candidate, and lets it replace the belief when it may.
    fn consider(
        &mut self,
        sighting: &Sighting<'_>,
        belief: &mut VisualBelief,
        config: &FusionConfig,
    ) -> Result<bool, crossfix_calibration::Error> {
        let variance_m2 = sighting.track_variance_m2;
        let candidate = match &mut self.candidate {
            Some(candidate) => candidate,
            None => self.candidate.insert(Candidate {
                belief: VisualBelief::new(sighting.known.offset_m, variance_m2, config)?,
                agreeing: 0,
                since_m: sighting.driven_m,
                evidence: 0.0,
                evidence_ns: None,
            }),
        };
        let before = candidate.belief.place(variance_m2);
        let sigma_m = largest_sigma(&before.covariance_m2);
        if sigma_m < 5.0 {
            match answer(sighting, before.offset_m, sigma_m) {
                Answer::Agrees => candidate.agreeing += 1,
                Answer::Contradicts => candidate.agreeing = candidate.agreeing.saturating_sub(2),
                Answer::Unsure => {}
            }
        } else {
            candidate.agreeing = 0;
            candidate.since_m = sighting.driven_m;
        }
        candidate
            .belief
            .update(sighting.heatmap, sighting.centre_m, variance_m2, config)?;
        let place = candidate.belief.place(variance_m2);
        if let Some(gnss) = sighting.gnss
            && largest_sigma(&place.covariance_m2) < 4.0
        {
            // Positions within a correlation time are one measurement.
            let weight = candidate.evidence_ns.map_or(1.0, |then_ns| {
                (sighting.time_ns - then_ns) as f64 * 1e-9 / config.gnss_correlation_s
            });
            let difference =
                squared_distance(&sighting.known, &gnss) - squared_distance(&place, &gnss);
            candidate.evidence += 0.5 * weight.clamp(0.0, 1.0) * difference.clamp(-30.0, 30.0);
            candidate.evidence_ns = Some(sighting.time_ns);
        }
        let supported = candidate.agreeing >= CANDIDATE_UPDATES
            && sighting.driven_m - candidate.since_m >= CANDIDATE_WAY_M;
        // Back to a place that the receiver has decided against is no way.
        let former = sighting
            .former
            .as_ref()
            .filter(|_| candidate.evidence > -GNSS_DECIDES);
        let allowed = std::iter::once(&sighting.known).chain(former).any(|from| {
            let step = Vector2::from(place.offset_m) - Vector2::from(from.offset_m);
            let sigma_m = largest_sigma(&(from.covariance_m2 + place.covariance_m2));
            step.norm() <= ALLOWED_SIGMAS * sigma_m
        });
        if !(supported && (allowed || candidate.evidence > GNSS_DECIDES)) {
            return Ok(false);
        }
        *belief = candidate.belief.clone();
        self.candidate = None;
        self.recent.clear();
        self.recent.extend([Answer::Agrees; 2]);
        self.agreed = Some((sighting.time_ns, sighting.driven_m));
        self.gate.trust = Trust::Agrees;
        self.gate.explain("");
        Ok(true)
    }

    /// Starts over: the belief was given up.
    pub(crate) fn forget(&mut self) {
        self.recent.clear();
        self.candidate = None;
        self.established = false;
        self.shifts.clear();
        self.newest_m = None;
        self.agreed = None;
        if self.gate.trust != Trust::Unchecked {
            self.gate.trust = Trust::Unchecked;
            self.gate.explain("");
        }
    }

    /// Whether heatmaps have agreed on a place that is kept now.
    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the last heatmaps agree with what is published.
    pub(crate) fn supports(&self) -> bool {
        let mut last = self.recent.iter().rev().take(2);
        last.any(|answer| *answer == Answer::Agrees)
            && self.count(Answer::Agrees) >= 2
            && self.count(Answer::Contradicts) <= TOLERATED
            && self.gate.trust != Trust::Excluded
            && self.shift_m() < LARGEST_SHIFT_M
    }

    /// How far the last heatmaps lie to one side of the place they agree with: a belief that is being
    /// dragged along lags behind them.
    pub(crate) fn shift_m(&self) -> f64 {
        if self.shifts.len() < SHIFTS {
            return 0.0;
        }
        let [east, north] =
            [0, 1].map(|axis| self.shifts.iter().map(|shift| shift[axis]).sum::<f64>());
        east.hypot(north) / SHIFTS as f64
    }

    /// How far the newest heatmap lies from this place, unless it lies somewhere else altogether, which is chance.
    pub(crate) fn newest_off_m(&self, place_m: [f64; 2]) -> Option<f64> {
        let newest_m = self.newest_m?;
        let off_m = (newest_m[0] - place_m[0]).hypot(newest_m[1] - place_m[1]);
        (off_m < ELSEWHERE_M).then_some(off_m)
    }

    /// Whether the newest heatmap lies beside this place: the place may have begun to move away.
    pub(crate) fn newest_is_beside(&self, place_m: [f64; 2]) -> bool {
        self.newest_off_m(place_m)
            .is_some_and(|off_m| off_m > BESIDE_M)
    }

    /// Whether they have done so within the last seconds.
    pub(crate) fn supports_at(&self, now_ns: i64) -> bool {
        self.supports()
            && self
                .agreed
                .is_some_and(|(agreed_ns, _)| now_ns.saturating_sub(agreed_ns) <= LATELY_NS)
    }

    /// Whether they have done so lately, and again after a receiver began to contradict.
    pub(crate) fn supports_against(&self, disputed_ns: Option<i64>, now_ns: i64) -> bool {
        self.supports_at(now_ns) && self.agreed_since(disputed_ns)
    }

    /// Whether the last agreement is from after this moment.
    pub(crate) fn agreed_since(&self, since_ns: Option<i64>) -> bool {
        let agreed_ns = self.agreed.map(|(agreed_ns, _)| agreed_ns);
        since_ns.is_none_or(|since_ns| agreed_ns.is_some_and(|agreed_ns| agreed_ns >= since_ns))
    }

    /// Whether the last heatmaps contradict what is published.
    pub(crate) fn contradicts(&self) -> bool {
        self.established
            && self.recent.len() >= 3
            && self
                .recent
                .iter()
                .rev()
                .take(3)
                .all(|answer| *answer == Answer::Contradicts)
    }

    /// How far the place is that heatmaps agree on instead, while they do.
    pub(crate) fn candidate_distance_m(&self, known_m: [f64; 2], variance_m2: f64) -> Option<f64> {
        let candidate = self.candidate.as_ref().filter(|c| c.agreeing >= 2)?;
        let place = candidate.belief.place(variance_m2).offset_m;
        Some((place[0] - known_m[0]).hypot(place[1] - known_m[1]))
    }

    fn count(&self, wanted: Answer) -> usize {
        self.recent
            .iter()
            .filter(|answer| **answer == wanted)
            .count()
    }
}

/// What a heatmap says about a place with this sigma: its mass around the place against its mass
/// around its own mode, so that blunt heatmaps are not asked for more than they can say.
fn answer(sighting: &Sighting<'_>, place_m: [f64; 2], sigma_m: f64) -> Answer {
    let heatmap = sighting.heatmap;
    let radius_m = (2.0 + 1.5 * sigma_m).min(12.0);
    let place = [0, 1].map(|axis| place_m[axis] - sighting.centre_m[axis]);
    let mode = heatmap.mode().offset_m;
    let near_place = mass_near(heatmap, place, radius_m);
    let near_mode = mass_near(heatmap, mode, radius_m);
    let area_m2 = (heatmap.side() as f64 * heatmap.metres_per_cell()).powi(2);
    let by_chance = std::f64::consts::PI * radius_m * radius_m / area_m2;
    if near_mode < 2.0 * by_chance {
        return Answer::Unsure;
    }
    if near_place >= AGREES * near_mode {
        Answer::Agrees
    } else if near_place < CONTRADICTS * near_mode {
        Answer::Contradicts
    } else {
        Answer::Unsure
    }
}

/// Mass of a heatmap within `radius_m` of a point.
fn mass_near(heatmap: &Heatmap, point_m: [f64; 2], radius_m: f64) -> f64 {
    let side = heatmap.side();
    let cells = heatmap.probabilities().iter().enumerate();
    cells
        .filter(|(index, _)| {
            let offset = heatmap.offset_m([index % side, index / side]);
            (offset[0] - point_m[0]).powi(2) + (offset[1] - point_m[1]).powi(2)
                <= radius_m * radius_m
        })
        .map(|(_, p)| f64::from(*p))
        .sum()
}

/// Squared Mahalanobis distance between two places, with the receiver's sigma once more: its slow
/// error is larger than it says.
fn squared_distance(place: &Place, gnss: &Place) -> f64 {
    let between = Vector2::from(place.offset_m) - Vector2::from(gnss.offset_m);
    let covariance: Matrix2<f64> = gnss.covariance_m2 * 2.0 + place.covariance_m2;
    covariance
        .try_inverse()
        .map_or(0.0, |inverse| (between.transpose() * inverse * between)[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;

    /// A vehicle whose place is known, with heatmaps every five metres.
    struct Drive {
        gate: HeatmapGate,
        belief: VisualBelief,
        config: FusionConfig,
        number: i64,
        replaced: usize,
        former: Option<Place>,
    }

    impl Drive {
        fn new() -> Self {
            let config = FusionConfig::default();
            Self {
                gate: HeatmapGate::new(),
                belief: VisualBelief::new([0.0, 0.0], 0.0, &config).unwrap(),
                config,
                number: 0,
                replaced: 0,
                former: None,
            }
        }

        /// Heatmaps with this mode, of a place known to `sigma_m` at the origin.
        fn see(&mut self, count: usize, at_m: [f64; 2], sigma_m: f64, gnss_m: Option<[f64; 2]>) {
            for _ in 0..count {
                let heatmap = Heatmap::gaussian(64, 1.0, at_m, 1.5).unwrap();
                let place = |offset_m, sigma_m: f64| Place {
                    offset_m,
                    covariance_m2: Matrix2::identity() * sigma_m.powi(2),
                };
                let sighting = Sighting {
                    heatmap: &heatmap,
                    centre_m: [0.0, 0.0],
                    known: place([0.0, 0.0], sigma_m),
                    former: self.former,
                    gnss: gnss_m.map(|at_m| place(at_m, 3.0)),
                    time_ns: self.number * SECOND_NS,
                    driven_m: self.number as f64 * 5.0,
                    track_variance_m2: 0.0,
                    is_near: false,
                };
                self.number += 1;
                let replaced = self
                    .gate
                    .take(&sighting, &mut self.belief, &self.config)
                    .unwrap();
                self.replaced += usize::from(replaced);
            }
        }
    }

    #[test]
    fn agreeing_heatmaps_establish_a_place_and_support_it_for_some_seconds() {
        let mut drive = Drive::new();
        drive.see(3, [0.5, 0.0], 2.0, None);
        assert!(!drive.gate.is_established());
        drive.see(1, [0.5, 0.0], 2.0, None);
        assert!(drive.gate.is_established() && drive.gate.supports());
        assert!(drive.gate.supports_at(5 * SECOND_NS));
        assert!(!drive.gate.supports_at(20 * SECOND_NS));
        // Against a receiver only what came after its contradiction counts.
        let last_ns = drive.gate.agreed.unwrap().0;
        for (disputed_ns, supports) in [
            (None, true),
            (Some(last_ns), true),
            (Some(last_ns + 1), false),
        ] {
            assert_eq!(
                drive.gate.supports_against(disputed_ns, 5 * SECOND_NS),
                supports
            );
        }
    }

    #[test]
    fn heatmaps_that_agree_on_another_place_for_minutes_do_not_move_an_established_one() {
        let mut drive = Drive::new();
        drive.see(6, [0.0, 0.0], 1.0, None);
        let before = drive.belief.place(0.0);
        drive.see(160, [25.0, 0.0], 1.0, None);
        assert_eq!(drive.replaced, 0);
        assert_eq!(drive.belief.place(0.0).offset_m, before.offset_m);
        assert_eq!(drive.gate.gate.trust, Trust::Excluded);
        assert!(drive.gate.contradicts() && !drive.gate.supports());
        let away_m = drive.gate.candidate_distance_m([0.0, 0.0], 0.0).unwrap();
        assert!((away_m - 25.0).abs() < 2.0, "{away_m}");
        // They come back, and are believed again after a few.
        drive.see(4, [0.0, 0.0], 1.0, None);
        assert_eq!(drive.gate.gate.trust, Trust::Agrees);
    }

    #[test]
    fn the_receiver_decides_for_the_place_that_heatmaps_agree_on() {
        let mut drive = Drive::new();
        drive.see(6, [0.0, 0.0], 1.0, None);
        drive.see(40, [25.0, 0.0], 1.0, Some([24.0, 1.0]));
        assert!(drive.replaced > 0);
        let mut against = Drive::new();
        against.see(6, [0.0, 0.0], 1.0, None);
        against.see(40, [25.0, 0.0], 1.0, Some([1.0, 1.0]));
        assert_eq!(against.replaced, 0);
    }

    #[test]
    fn a_step_that_dead_reckoning_allows_for_needs_no_receiver() {
        let mut drive = Drive::new();
        drive.see(6, [0.0, 0.0], 1.0, None);
        drive.see(20, [25.0, 0.0], 9.0, None);
        assert!(drive.replaced > 0);
    }

    #[test]
    fn a_step_back_to_where_the_place_was_before_a_doubted_jump_needs_no_receiver() {
        let mut drive = Drive::new();
        drive.see(6, [0.0, 0.0], 1.0, None);
        drive.former = Some(Place {
            offset_m: [24.0, 1.0],
            covariance_m2: Matrix2::identity() * 9.0,
        });
        drive.see(20, [25.0, 0.0], 1.0, None);
        assert!(drive.replaced > 0);
    }

    #[test]
    fn a_step_back_that_the_receiver_speaks_against_is_not_taken() {
        let mut drive = Drive::new();
        drive.see(6, [0.0, 0.0], 1.0, Some([0.0, 0.0]));
        drive.former = Some(Place {
            offset_m: [24.0, 1.0],
            covariance_m2: Matrix2::identity() * 9.0,
        });
        drive.see(20, [25.0, 0.0], 1.0, Some([0.0, 0.0]));
        assert_eq!(drive.replaced, 0);
    }

    #[test]
    fn heatmaps_that_all_lie_to_one_side_do_not_support() {
        let mut drive = Drive::new();
        drive.see(6, [3.0, 0.0], 2.0, None);
        assert!(drive.gate.shift_m() > LARGEST_SHIFT_M);
        assert!(drive.gate.is_established() && !drive.gate.supports());
    }

    #[test]
    fn the_newest_heatmap_counts_where_it_lies_beside_the_place_and_not_far_away() {
        let mut drive = Drive::new();
        for (east_m, is_beside) in [(1.0, false), (7.0, true), (25.0, false)] {
            drive.see(1, [east_m, 0.0], 2.0, None);
            assert_eq!(
                drive.gate.newest_is_beside([0.0, 0.0]),
                is_beside,
                "{east_m}"
            );
        }
        assert_eq!(drive.gate.newest_off_m([0.0, 0.0]), None);
        drive.gate.forget();
        assert_eq!(drive.gate.newest_off_m([20.0, 0.0]), None);
    }

    #[test]
    fn a_flat_heatmap_says_nothing() {
        let mut drive = Drive::new();
        let flat = Heatmap::new(64, 1.0, vec![1.0 / 4096.0; 4096]).unwrap();
        let known = Place {
            offset_m: [0.0, 0.0],
            covariance_m2: Matrix2::identity(),
        };
        let sighting = Sighting {
            heatmap: &flat,
            centre_m: [0.0, 0.0],
            known,
            former: None,
            gnss: None,
            time_ns: 0,
            driven_m: 0.0,
            track_variance_m2: 0.0,
            is_near: false,
        };
        assert_eq!(answer(&sighting, [0.0, 0.0], 1.0), Answer::Unsure);
        drive
            .gate
            .take(&sighting, &mut drive.belief, &drive.config)
            .unwrap();
        assert_eq!(drive.gate.gate.trust, Trust::Unchecked);
    }
}
