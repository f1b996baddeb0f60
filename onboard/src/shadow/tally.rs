//! The figures of a shadow so far, and what they say.

use std::collections::VecDeque;

use serde::Serialize;

use super::{Comparison, Score};

/// Medians are over so many comparisons.
const REMEMBERED: usize = 1000;
/// Errors of neighbouring frames are alike, so this many in a row count as one.
const BLOCK: u64 = 5;
/// Fewer blocks say nothing.
const FEWEST_BLOCKS: f64 = 8.0;
/// A lead counts from so many standard errors on.
const SIGMAS: f64 = 3.0;

/// What the comparisons say of the shadow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Undecided,
    /// The fused position is more probable under its heatmaps than under the first student's.
    Better,
    /// It is less probable.
    Worse,
}

/// Figures of one student, over the frames that both looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StudentFigures {
    /// Median distance from its mode to the fused position, metres.
    pub mode_off_m: Option<f64>,
    /// Mean natural logarithm of the density of the fused position under its heatmaps, per m².
    pub log_likelihood: Option<f64>,
}

/// A shadow's part of the health report.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShadowHealth {
    /// The file.
    pub model: String,
    /// Whether it runs.
    pub up: bool,
    /// Why it does not run, or what went wrong with its last frame; none while all is well.
    pub error: Option<String>,
    /// Frames that were compared.
    pub compared: u64,
    /// Frames of which it gave no heatmap.
    pub failed: u64,
    /// Frames that were passed over because it was busy.
    pub skipped: u64,
    /// Median distance between the modes of both students, metres.
    pub modes_apart_m: Option<f64>,
    /// The student that is used.
    pub running: StudentFigures,
    /// The one that is not.
    pub shadow: StudentFigures,
    /// Mean log-likelihood of the shadow minus that of the running student.
    pub gain: Option<f64>,
    /// 1-sigma error of `gain`.
    pub gain_sigma: Option<f64>,
    /// What that says.
    pub verdict: Verdict,
}

/// Sums over comparisons.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    compared: u64,
    failed: u64,
    error: Option<String>,
    recent: VecDeque<[f64; 3]>, // modes apart, running's and shadow's mode off, metres
    running_sum: f64,
    shadow_sum: f64,
    block: [f64; 2],  // comparisons and gains in the block that is not full
    blocks: [f64; 3], // blocks, the sum of their means, and of the squares of these
}

impl Tally {
    /// One more frame that was compared.
    pub fn note(&mut self, comparison: &Comparison) {
        let Score {
            mode_off_m: running_off_m,
            log_likelihood: running,
        } = comparison.running;
        let Score {
            mode_off_m: shadow_off_m,
            log_likelihood: shadow,
        } = comparison.shadow;
        self.compared += 1;
        self.error = None;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        let off = [comparison.modes_apart_m, running_off_m, shadow_off_m];
        self.recent.push_back(off);
        self.running_sum += running;
        self.shadow_sum += shadow;
        self.block[0] += 1.0;
        self.block[1] += shadow - running;
        if self.compared.is_multiple_of(BLOCK) {
            let mean = self.block[1] / self.block[0];
            self.blocks[0] += 1.0;
            self.blocks[1] += mean;
            self.blocks[2] += mean * mean;
            self.block = [0.0; 2];
        }
    }

    /// One more frame of which the shadow gave no heatmap.
    pub fn note_failure(&mut self, problem: String) {
        self.failed += 1;
        self.error = Some(problem);
    }

    /// The report of a shadow that runs.
    pub fn health(&self, model: &str, skipped: u64) -> ShadowHealth {
        let count = self.compared as f64;
        let mean = |sum: f64| (self.compared > 0).then(|| sum / count);
        let median = |which: usize| {
            let mut values: Vec<f64> = self.recent.iter().map(|off| off[which]).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let gain = mean(self.shadow_sum - self.running_sum);
        let gain_sigma = self.gain_sigma();
        let verdict = match gain.zip(gain_sigma) {
            Some((gain, sigma)) if gain > SIGMAS * sigma => Verdict::Better,
            Some((gain, sigma)) if gain < -SIGMAS * sigma => Verdict::Worse,
            _ => Verdict::Undecided,
        };
        ShadowHealth {
            model: model.to_owned(),
            up: true,
            error: self.error.clone(),
            compared: self.compared,
            failed: self.failed,
            skipped,
            modes_apart_m: median(0),
            running: StudentFigures {
                mode_off_m: median(1),
                log_likelihood: mean(self.running_sum),
            },
            shadow: StudentFigures {
                mode_off_m: median(2),
                log_likelihood: mean(self.shadow_sum),
            },
            gain,
            gain_sigma,
            verdict,
        }
    }

    fn gain_sigma(&self) -> Option<f64> {
        let [blocks, sum, squares] = self.blocks;
        if blocks < FEWEST_BLOCKS {
            return None;
        }
        let variance = (squares - sum * sum / blocks).max(0.0) / (blocks - 1.0);
        Some((variance / blocks).sqrt())
    }
}

impl ShadowHealth {
    /// A shadow that does not run, and why.
    pub fn broken(model: &str, error: String) -> Self {
        Self {
            model: model.to_owned(),
            error: Some(error),
            ..Self::default()
        }
    }

    /// One line for people.
    pub fn sentence(&self) -> String {
        let metres = |value: Option<f64>| value.map_or("?".into(), |value| format!("{value:.2} m"));
        let nats = |value: Option<f64>| value.map_or("?".into(), |value| format!("{value:+.3}"));
        let mut line = format!("shadow {}: ", self.model);
        if let Some(error) = self.error.as_ref().filter(|_| !self.up) {
            return line + "does not run: " + error;
        }
        line += match self.verdict {
            Verdict::Undecided => "undecided",
            Verdict::Better => "better",
            Verdict::Worse => "worse",
        };
        line += &format!(
            " after {} frames ({} failed, {} skipped); log-likelihood of the fused position {} \u{b1} {} \
             against the running student's; modes {} from the fused position, the running student's {}; \
             {} apart",
            self.compared,
            self.failed,
            self.skipped,
            nats(self.gain),
            self.gain_sigma
                .map_or("?".into(), |sigma| format!("{sigma:.3}")),
            metres(self.shadow.mode_off_m),
            metres(self.running.mode_off_m),
            metres(self.modes_apart_m),
        );
        match &self.error {
            Some(error) => line + "; " + error,
            None => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(count: u32, gain: impl Fn(u32) -> f64) -> ShadowHealth {
        let mut tally = Tally::default();
        for step in 0..count {
            let score = |log_likelihood, mode_off_m| Score {
                mode_off_m,
                log_likelihood,
            };
            tally.note(&Comparison {
                time_ns: 0,
                camera: String::new(),
                modes_apart_m: 1.0,
                running: score(-3.0, 2.0),
                shadow: score(-3.0 + gain(step), 1.5),
            });
        }
        tally.health("next.onnx", 0)
    }

    /// Between -1 and 1, without order (the finaliser of `SplitMix64`).
    fn noise(step: u32) -> f64 {
        let mut bits = u64::from(step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    #[test]
    fn a_lead_counts_when_it_stands_out_of_its_scatter() {
        assert_eq!(
            tally(400, |step| 0.3 + noise(step)).verdict,
            Verdict::Better
        );
        assert_eq!(tally(400, |step| noise(step) - 0.3).verdict, Verdict::Worse);
        assert_eq!(tally(400, noise).verdict, Verdict::Undecided);
        assert_eq!(tally(39, |_| 1.0).verdict, Verdict::Undecided, "too few");
        assert_eq!(tally(40, |_| 1.0).verdict, Verdict::Better);
    }

    #[test]
    fn runs_of_like_errors_do_not_pass_for_many_frames() {
        // The same noise, each value five times in a row: five times the variance of the mean.
        let apart = tally(400, noise).gain_sigma.unwrap();
        let runs = tally(400, |step| noise(step / 5)).gain_sigma.unwrap();
        assert!((runs / apart - 5f64.sqrt()).abs() < 0.5, "{runs} {apart}");
    }

    #[test]
    fn figures_are_medians_and_means() {
        let health = tally(50, |_| 0.5);
        assert_eq!(health.modes_apart_m, Some(1.0));
        assert_eq!(health.shadow.mode_off_m, Some(1.5));
        assert_eq!(health.running.log_likelihood, Some(-3.0));
        assert!((health.gain.unwrap() - 0.5).abs() < 1e-9);
        assert!(health.sentence().contains("better after 50 frames"));
        let broken = ShadowHealth::broken("next.onnx", "is no ONNX".into());
        assert_eq!(
            broken.sentence(),
            "shadow next.onnx: does not run: is no ONNX"
        );
    }
}
