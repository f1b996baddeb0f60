//! How reliable the output is: a state, and a reason as one sentence.

use super::config::FusionConfig;
use crate::event::{EstimateKind, State};

/// Sources further apart than this leave no position worth publishing, metres.
const LOST_M: f64 = 1000.0;
/// A place that is known no better than this is not called good, metres: more than twice the radius of good ones on clean
/// drives, and about what a receiver among houses states.
const LARGEST_OK_RADIUS_M: f64 = 25.0;

/// What contributes at this moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inputs {
    pub(crate) gnss: bool,
    pub(crate) odometry: bool,
    pub(crate) heading: bool,
    pub(crate) visual: bool,
    /// Whether the last heatmaps agree with what is published.
    pub(crate) visual_agrees: bool,
    /// What is missing according to the caller, as a sentence.
    pub(crate) missing: Option<String>,
    /// Whether the vehicle was just found to be somewhere else altogether.
    pub(crate) relocated: bool,
    /// Whether the newest heatmap lies beside the place, which may have begun to move away.
    pub(crate) newest_is_beside: bool,
    /// Whether the place has just jumped away from one that was supported.
    pub(crate) jumped: bool,
    /// How far away the vehicle may be instead, metres.
    pub(crate) unclear_m: f64,
    /// How far off heatmaps are because of their stamps, and may be on top of that, metres.
    pub(crate) delayed_m: [f64; 2],
    /// How far odometry may have led astray unnoticed since the last heatmap, metres.
    pub(crate) unconfirmed_m: f64,
    /// What contradicts itself or another source, as sentences.
    pub(crate) problems: Vec<String>,
}

impl Inputs {
    /// The state and the reason for one output.
    pub(crate) fn judge(
        &self,
        kind: EstimateKind,
        sigma_m: f64,
        radius_m: f64,
        mode_count: usize,
        config: &FusionConfig,
    ) -> (State, String) {
        if sigma_m > config.lost_sigma_m || !sigma_m.is_finite() {
            return (
                State::Lost,
                "the error has grown beyond what is a position".to_owned(),
            );
        }
        if self.relocated {
            return (State::Lost, "the vehicle was relocated".to_owned());
        }
        if self.unclear_m > LOST_M {
            let words = "GNSS and the track are kilometres apart";
            return (State::Lost, words.to_owned());
        }
        let fused = kind == EstimateKind::Fused;
        let mut reasons = Vec::new();
        if !self.visual {
            reasons.push(match &self.missing {
                Some(missing) => format!("no aerial matching: {missing}"),
                None => "no recent aerial matching".to_owned(),
            });
        }
        if let (true, Some(missing)) = (self.visual, &self.missing) {
            reasons.push(format!("aerial matching has stopped: {missing}"));
        } else if self.visual && (!self.visual_agrees || self.newest_is_beside) {
            reasons.push("the aerial matching does not agree with the track".to_owned());
        }
        if fused && !self.gnss {
            reasons.push("no recent GNSS fix".to_owned());
        }
        if !self.odometry {
            reasons.push("no recent odometry".to_owned());
        }
        if self.jumped {
            reasons.push("the place has jumped lately".to_owned());
        }
        if reasons.is_empty() && radius_m > LARGEST_OK_RADIUS_M {
            reasons.push("the place is not known well".to_owned());
        }
        reasons.extend(self.problems.iter().cloned());
        if !self.heading {
            reasons.push("no heading yet".to_owned());
        }
        if mode_count > 1 {
            reasons.push(format!("{mode_count} places are possible"));
        }
        let absolute = self.visual || (fused && self.gnss);
        let state = match (absolute, reasons.is_empty()) {
            (false, _) => State::Coasting,
            (true, false) => State::Degraded,
            (true, true) => State::Ok,
        };
        (state, reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Inputs {
        Inputs {
            gnss: true,
            odometry: true,
            heading: true,
            visual: true,
            visual_agrees: true,
            missing: None,
            problems: Vec::new(),
            relocated: false,
            newest_is_beside: false,
            jumped: false,
            unclear_m: 0.0,
            delayed_m: [0.0; 2],
            unconfirmed_m: 0.0,
        }
    }

    fn judge(inputs: &Inputs, kind: EstimateKind, sigma_m: f64, modes: usize) -> (State, String) {
        inputs.judge(
            kind,
            sigma_m,
            4.0 * sigma_m,
            modes,
            &FusionConfig::default(),
        )
    }

    #[test]
    fn each_missing_source_has_its_state_and_reason() {
        use EstimateKind::{Fused, VisualOnly};
        let cases = [
            (well(), Fused, 1.0, 1, State::Ok, ""),
            (
                Inputs {
                    visual: false,
                    ..well()
                },
                Fused,
                1.0,
                1,
                State::Degraded,
                "no recent aerial",
            ),
            (
                Inputs {
                    gnss: false,
                    ..well()
                },
                Fused,
                1.0,
                1,
                State::Degraded,
                "no recent GNSS",
            ),
            (
                Inputs {
                    gnss: false,
                    ..well()
                },
                VisualOnly,
                1.0,
                1,
                State::Ok,
                "",
            ),
            (
                Inputs {
                    odometry: false,
                    ..well()
                },
                Fused,
                1.0,
                1,
                State::Degraded,
                "odometry",
            ),
            (well(), Fused, 1.0, 2, State::Degraded, "2 places"),
            (
                Inputs {
                    gnss: false,
                    visual: false,
                    ..well()
                },
                Fused,
                9.0,
                1,
                State::Coasting,
                "GNSS",
            ),
            (
                Inputs {
                    visual: false,
                    ..well()
                },
                VisualOnly,
                9.0,
                1,
                State::Coasting,
                "aerial",
            ),
            (well(), Fused, 80.0, 1, State::Lost, "grown"),
            (well(), Fused, f64::NAN, 1, State::Lost, "grown"),
            (well(), Fused, 8.0, 1, State::Degraded, "not known well"),
            (
                Inputs {
                    newest_is_beside: true,
                    ..well()
                },
                Fused,
                1.0,
                1,
                State::Degraded,
                "does not agree",
            ),
            (
                Inputs {
                    jumped: true,
                    ..well()
                },
                Fused,
                1.0,
                1,
                State::Degraded,
                "jumped",
            ),
        ];
        for (inputs, kind, sigma_m, modes, state, reason) in cases {
            let (got, why) = judge(&inputs, kind, sigma_m, modes);
            assert_eq!(got, state, "{inputs:?}");
            assert!(why.contains(reason), "{why}");
        }
    }
}
