//! What came out of the drives of a scenario, and whether it holds what the scenario expects.

use crate::run::{Published, Run};
use crate::scenario::{Expect, Known, Scenario};
use crossfix_onboard::event::State;
use std::collections::BTreeMap;

/// Figures over all drives of a scenario. "Time" is the share of estimates, which come at 10 Hz.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Mean error while the fault lasts, metres, without `lost`.
    pub mean_m: f64,
    /// Largest error while the fault lasts, metres, without `lost`.
    pub max_m: f64,
    /// Outside the protection radius, percent, without `lost`.
    pub outside: f64,
    /// `ok`, percent.
    pub ok: f64,
    /// `ok` and outside the radius, percent of all.
    pub ok_outside: f64,
    /// Right state after the time allowed, percent; 100 where any is.
    pub right_state: f64,
    /// Truth within the 95 % region while not `lost`, percent.
    pub inside_95: f64,
    /// Longest time without an estimate, seconds.
    pub gap_s: f64,
    /// Until `ok` was back after the fault on the slowest drive, seconds.
    pub ok_again_s: f64,
    /// Most discontinuities of a drive.
    pub resets: u32,
    /// Whether the expected word was among the reasons on every drive.
    pub word: bool,
    /// The reason most often given while the fault lasts.
    pub reason: String,
}

/// Squared Mahalanobis distance that holds 95 % of a two-dimensional Gaussian.
const REGION_95: f64 = 5.991_464_547_107_979;

/// Whether the 95 % region of an estimate holds the truth.
fn is_inside_95(published: &Published) -> bool {
    let [[ee, en], [_, nn]] = published.covariance_m2;
    let determinant = ee * nn - en * en;
    published.error_m.is_some_and(|[east, north]| {
        let squared = nn * east * east - 2.0 * en * east * north + ee * north * north;
        determinant > 0.0 && squared <= REGION_95 * determinant
    })
}

/// Output pauses no longer than this even where bounds are broken, seconds.
const LONGEST_KNOWN_GAP_S: f64 = 21.0;

/// What a scenario's drives are compared with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compared {
    /// Mean error without the lying sources, metres.
    pub reference_m: Option<f64>,
    /// Farthest from the positions without the fault, metres.
    pub moved_m: Option<f64>,
}

/// The farthest that positions of one time are apart, metres, over all drives.
pub fn farthest_m(runs: &[Run], others: &[Run]) -> f64 {
    let mut farthest_m = 0.0_f64;
    for (run, other) in runs.iter().zip(others) {
        let others = by_time(other);
        for (time, published) in by_time(run) {
            let other = others.get(&time).and_then(|other| other.error_m);
            if let (Some(a), Some(b)) = (published.error_m, other) {
                farthest_m = farthest_m.max((a[0] - b[0]).hypot(a[1] - b[1]));
            }
        }
    }
    farthest_m
}

/// Estimates by the time they claim, and by their number among those of the same time.
fn by_time(run: &Run) -> BTreeMap<(i64, usize), &Published> {
    let mut counts = BTreeMap::<i64, usize>::new();
    let numbered = run.fused.iter().map(|published| {
        let count = counts.entry(published.time_ns).or_default();
        *count += 1;
        ((published.time_ns, *count), published)
    });
    numbered.collect()
}

/// An error that no radius covers: the estimate claims a time that is not of the drive.
const WRONG_TIME_M: f64 = 1e6;

fn error_m(published: &Published) -> f64 {
    published
        .error_m
        .map_or(WRONG_TIME_M, |[east, north]| east.hypot(north))
}

impl Figures {
    /// Of the runs of `scenario`, one for each drive.
    pub fn of(scenario: &Scenario, runs: &[Run]) -> Self {
        let expect = &scenario.expect;
        let (begins_s, ends_s) = (scenario.begins_s(), scenario.ends_s());
        let right = |state: State| {
            expect.states.is_empty() || expect.states.iter().any(|name| name == state.as_str())
        };
        let mut figures = Self {
            word: true,
            ..Self::default()
        };
        let mut errors = Vec::new();
        let (mut all, mut known, mut outside, mut ok, mut ok_outside) = (0, 0, 0, 0, 0);
        let mut inside_95 = 0;
        let (mut judged, mut wrong) = (0, 0);
        let mut reasons = BTreeMap::<&str, usize>::new();
        for run in runs {
            let mut last_s = 0.0;
            let mut ok_again_s = f64::INFINITY;
            let mut word = expect.word.is_none();
            // The end of a drive that gives out is a gap too.
            for published in &run.fused {
                figures.gap_s = figures.gap_s.max(published.at_s - last_s);
                last_s = published.at_s;
                let error_m = error_m(published);
                let is_ok = published.state == State::Ok;
                all += 1;
                ok += usize::from(is_ok);
                figures.resets = figures.resets.max(published.reset_count);
                let during = published.at_s >= begins_s && published.at_s < ends_s;
                if published.state != State::Lost {
                    known += 1;
                    let is_outside = error_m > published.radius_m;
                    inside_95 += usize::from(is_inside_95(published));
                    outside += usize::from(is_outside);
                    ok_outside += usize::from(is_outside && is_ok);
                    if during {
                        errors.push(error_m);
                        figures.max_m = figures.max_m.max(error_m);
                    }
                }
                if during {
                    *reasons.entry(published.reason.as_str()).or_default() += 1;
                    word |= (expect.word.as_ref()).is_some_and(|w| published.reason.contains(w));
                    if published.at_s >= begins_s + expect.within_s {
                        judged += 1;
                        wrong += usize::from(!right(published.state));
                    }
                }
                if published.at_s >= ends_s && is_ok {
                    ok_again_s = ok_again_s.min(published.at_s - ends_s);
                }
            }
            figures.gap_s = figures.gap_s.max(run.length_s - last_s);
            figures.ok_again_s = figures.ok_again_s.max(ok_again_s);
            figures.word &= word;
        }
        let percent = |part: usize, whole: usize| part as f64 / whole.max(1) as f64 * 100.0;
        // Where everything is `lost` there is no position to be wrong.
        figures.mean_m = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        figures.outside = percent(outside, known);
        figures.inside_95 = percent(inside_95, known);
        figures.ok = percent(ok, all);
        figures.ok_outside = percent(ok_outside, all);
        figures.right_state = 100.0 - percent(wrong, judged);
        let most = reasons.iter().max_by_key(|(_, count)| **count);
        figures.reason = most.map_or_else(String::new, |(reason, _)| (*reason).to_owned());
        figures
    }

    /// What is not as expected, in words.
    pub fn failures(&self, expect: &Expect, compared: Compared) -> Vec<String> {
        let Compared {
            reference_m,
            moved_m,
        } = compared;
        let mut failures = Vec::new();
        let mut at_most = |what: &str, value: f64, bound: f64| {
            if !(value <= bound) {
                failures.push(format!("{what} {value:.2}, at most {bound:.2}"));
            }
        };
        at_most(
            "ok while outside, %",
            self.ok_outside,
            expect.ok_outside_percent,
        );
        at_most("outside, %", self.outside, expect.outside_percent);
        at_most("gap, s", self.gap_s, expect.longest_gap_s);
        if let Some(bound) = expect.mean_m {
            at_most("mean, m", self.mean_m, bound);
        }
        if let Some(bound) = expect.max_m {
            at_most("max, m", self.max_m, bound);
        }
        if let (Some(bound), Some(moved_m)) = (expect.moved_m, moved_m) {
            at_most("moved, m", moved_m, bound);
        }
        let wrong_state = 100.0 - self.right_state;
        at_most("wrong state, %", wrong_state, expect.wrong_state_percent);
        if let Some(bound) = expect.ok_again_s {
            at_most("ok again after, s", self.ok_again_s, bound);
        }
        if let Some(reference_m) = reference_m {
            let bound = (expect.ratio * reference_m).max(expect.ratio_floor_m);
            at_most("mean, m, against the healthy sources", self.mean_m, bound);
        }
        if let Some(bound) = expect.ok_percent
            && !(self.ok >= bound)
        {
            failures.push(format!("ok {:.1} %, at least {bound:.1}", self.ok));
        }
        if !self.word {
            let word = expect.word.as_deref().unwrap_or_default();
            failures.push(format!("no reason says {word:?}"));
        }
        failures
    }

    /// What of a scenario that is known to be broken got worse, in words.
    pub fn worse_than(&self, known: &Known) -> Vec<String> {
        let figures = [
            (
                "ok while outside, %",
                self.ok_outside,
                known.ok_outside_percent,
            ),
            ("outside, %", self.outside, known.outside_percent),
            (
                "wrong state, %",
                100.0 - self.right_state,
                known.wrong_state_percent,
            ),
            ("mean, m", self.mean_m, known.mean_m),
            ("ok again after, s", self.ok_again_s, known.ok_again_s),
            ("gap, s", self.gap_s, LONGEST_KNOWN_GAP_S),
        ];
        figures
            .iter()
            .filter(|(_, value, bound)| !(value <= bound))
            .map(|(what, value, bound)| format!("{what} {value:.2}, at most {bound:.2}"))
            .collect()
    }

    /// A row of the table.
    pub fn row(&self, name: &str, compared: Compared) -> String {
        let mut row = format!(
            "{name:<34} {:>8.2} {:>8.1} {:>8.2} {:>6.1} {:>8.2} {:>7.1} {:>6.1} {:>5.1}",
            self.mean_m,
            self.max_m,
            self.outside,
            self.ok,
            self.ok_outside,
            self.right_state,
            self.inside_95,
            self.gap_s,
        );
        for value in [compared.reference_m, compared.moved_m] {
            row += &value.map_or_else(|| " ".repeat(9), |value| format!(" {value:>8.2}"));
        }
        row
    }

    /// The heading of the rows.
    pub fn heading() -> String {
        format!(
            "{:<34} {:>8} {:>8} {:>8} {:>6} {:>8} {:>7} {:>6} {:>5} {:>8} {:>8}",
            "scenario",
            "mean, m",
            "max, m",
            "out, %",
            "ok, %",
            "ok∧out,%",
            "right,%",
            "in95,%",
            "gap,s",
            "ref., m",
            "moved, m"
        )
    }
}
