//! Recorded drives through the daemon's own pipeline, against their truth.

use super::area::Areas;
use crate::metrics::{mean, quantile};
use crate::report::{Role, Track, TrackSample, TrackState};
use anyhow::{Context, ensure};
use crossfix_calibration::{Geodetic, LocalFrame};
use crossfix_onboard::config::{Config, ModelConfig, TilesConfig};
use crossfix_onboard::event::{Estimate, EstimateKind, State};
use crossfix_onboard::log::{LogReader, Message};
use crossfix_onboard::matcher::DEFAULT_MEMORY_MB;
use crossfix_onboard::pipeline::replay;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// Squared Mahalanobis distance that holds 95 % of a two-dimensional Gaussian.
const REGION_95: f64 = 5.991_464_547_107_979;

/// All drives together, and the first one for the page.
pub struct Drives {
    /// Errors of the fixes as received, at their own times, m.
    pub gnss_m: Vec<f64>,
    /// Errors of the fused output, at its own times, m.
    pub fused_m: Vec<f64>,
    /// Errors of the output without the GNSS prior, m.
    pub visual_m: Vec<f64>,
    /// Squared Mahalanobis distances of the fused output.
    pub fused_squared: Vec<f64>,
    /// Share of the fused output in state `ok`.
    pub ok: f64,
    /// Tracks of the first drive, in metres about `origin`.
    pub tracks: Vec<Track>,
    /// Where the first drive began.
    pub origin: Geodetic,
}

/// A line of a drive's truth file.
#[derive(Deserialize)]
struct TruthLine {
    time_ns: i64,
    latitude_deg: f64,
    longitude_deg: f64,
}

struct TruthTrack {
    frame: LocalFrame,
    points: Vec<(i64, [f64; 2])>,
}

impl TruthTrack {
    fn open(log: &Path) -> anyhow::Result<Self> {
        let path = log.with_extension("truth.jsonl");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().map(serde_json::from_str::<TruthLine>);
        let lines = lines
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("{} is no truth file", path.display()))?;
        let first = lines
            .first()
            .with_context(|| format!("{} is empty", path.display()))?;
        let frame = LocalFrame::new(Geodetic::new(first.latitude_deg, first.longitude_deg, 0.0)?);
        let points = lines.iter().map(|line| {
            let place = Geodetic::new(line.latitude_deg, line.longitude_deg, 0.0)?;
            Ok((line.time_ns, local(&frame, place)))
        });
        let points = points.collect::<crossfix_calibration::Result<Vec<_>>>()?;
        Ok(Self { frame, points })
    }

    /// Where the vehicle was, between samples linearly.
    fn at(&self, time_ns: i64) -> Option<[f64; 2]> {
        let after = self.points.partition_point(|(time, _)| *time < time_ns);
        let (next_ns, next) = *self.points.get(after)?;
        if next_ns == time_ns {
            return Some(next);
        }
        let (last_ns, last) = *self.points.get(after.checked_sub(1)?)?;
        let share = (time_ns - last_ns) as f64 / (next_ns - last_ns) as f64;
        Some([0, 1].map(|axis| last[axis] + share * (next[axis] - last[axis])))
    }
}

fn local(frame: &LocalFrame, place: Geodetic) -> [f64; 2] {
    let enu = frame.enu_from_geodetic(place);
    [enu.east(), enu.north()]
}

impl Drives {
    /// Replays every log with the student at `model`.
    pub fn replay(areas: &Areas, model: &Path) -> anyhow::Result<Self> {
        let config = Config {
            tiles: Some(TilesConfig {
                path: areas.test_tiles.clone(),
                sha256: None,
                minisign: None,
            }),
            model: Some(ModelConfig {
                path: model.to_owned(),
                sha256: None,
                minisign: None,
                memory_mb: DEFAULT_MEMORY_MB,
            }),
            ..Config::default()
        };
        let mut drives = Self {
            gnss_m: Vec::new(),
            fused_m: Vec::new(),
            visual_m: Vec::new(),
            fused_squared: Vec::new(),
            ok: 0.0,
            tracks: Vec::new(),
            origin: Geodetic::new(0.0, 0.0, 0.0)?,
        };
        for (number, log) in areas.logs.iter().enumerate() {
            drives.one(log, &config, number == 0)?;
        }
        ensure!(
            !drives.fused_m.is_empty(),
            "the replayed drives gave no position"
        );
        drives.ok /= drives.fused_m.len() as f64;
        Ok(drives)
    }

    fn one(&mut self, log: &Path, config: &Config, draw: bool) -> anyhow::Result<()> {
        let truth = TruthTrack::open(log)?;
        let start_ns = truth.points[0].0;
        let sample = |time_ns: i64, [east_m, north_m]: [f64; 2]| TrackSample {
            time_s: (time_ns - start_ns) as f64 * 1e-9,
            east_m,
            north_m,
            ..TrackSample::default()
        };
        let mut gnss = Vec::new();
        for message in LogReader::open(log)? {
            if let Message::Gnss(fix) = message? {
                let place = local(&truth.frame, fix.position);
                if let Some(true_place) = truth.at(fix.time_ns) {
                    self.gnss_m.push(distance(place, true_place));
                }
                gnss.push(TrackSample {
                    covariance_m2: Some(fix.covariance_m2),
                    ..sample(fix.time_ns, place)
                });
            }
        }
        let (mut fused, mut visual) = (Vec::new(), Vec::new());
        replay(log, config, |estimate: &Estimate| {
            let place = local(&truth.frame, estimate.position);
            let Some(true_place) = truth.at(estimate.time_ns) else {
                return;
            };
            if estimate.state == State::Lost {
                return;
            }
            let drawn = TrackSample {
                covariance_m2: Some(estimate.covariance_m2),
                state: Some(track_state(estimate.state)),
                ..sample(estimate.time_ns, place)
            };
            let error = [place[0] - true_place[0], place[1] - true_place[1]];
            match estimate.kind {
                EstimateKind::Fused => {
                    self.fused_m.push(error[0].hypot(error[1]));
                    self.fused_squared
                        .push(mahalanobis_squared(error, estimate.covariance_m2));
                    self.ok += f64::from(u8::from(estimate.state == State::Ok));
                    fused.push(drawn);
                }
                EstimateKind::VisualOnly => {
                    self.visual_m.push(error[0].hypot(error[1]));
                    visual.push(drawn);
                }
            }
        })?;
        if draw {
            let truth_samples = truth
                .points
                .iter()
                .map(|(time_ns, place)| sample(*time_ns, *place));
            self.origin = truth.frame.origin();
            self.tracks = vec![
                track("true track", Role::Truth, truth_samples.collect()),
                track("GNSS", Role::Gnss, gnss),
                track("visual only", Role::VisualOnly, visual),
                track("fused", Role::Fused, fused),
            ];
        }
        Ok(())
    }

    /// Share of the fused output whose 95 % region holds the truth.
    pub fn coverage_95(&self) -> f64 {
        let inside = self
            .fused_squared
            .iter()
            .filter(|squared| **squared <= REGION_95)
            .count();
        inside as f64 / self.fused_squared.len() as f64
    }

    /// The `drive` part of summary.json.
    pub fn summary(&self) -> Value {
        let p95 = |errors: &[f64]| {
            let mut errors = errors.to_vec();
            errors.sort_by(f64::total_cmp);
            quantile(&errors, 0.95)
        };
        json!({
            "gnss": { "mean_m": mean(&self.gnss_m), "p95_m": p95(&self.gnss_m), "count": self.gnss_m.len() },
            "fused": {
                "mean_m": mean(&self.fused_m),
                "p95_m": p95(&self.fused_m),
                "coverage_95": self.coverage_95(),
                "ok": self.ok,
                "count": self.fused_m.len(),
            },
            "visual_only": { "mean_m": mean(&self.visual_m), "p95_m": p95(&self.visual_m) },
        })
    }

    /// The line of the printed table.
    pub fn line(&self) -> String {
        format!(
            "drives: GNSS {:.2} m, fused {:.2} m mean; the 95 % region holds the truth {:.1} % of the time\n",
            mean(&self.gnss_m),
            mean(&self.fused_m),
            self.coverage_95() * 100.0
        )
    }
}

fn track(name: &str, role: Role, samples: Vec<TrackSample>) -> Track {
    Track {
        name: name.into(),
        role,
        samples,
    }
}

fn track_state(state: State) -> TrackState {
    match state {
        State::Ok => TrackState::Ok,
        State::Degraded => TrackState::Degraded,
        State::Coasting => TrackState::Coasting,
        State::Lost => TrackState::Lost,
    }
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// eᵀ C⁻¹ e; infinite for a covariance that is not positive.
fn mahalanobis_squared([east, north]: [f64; 2], [[ee, en], [_, nn]]: [[f64; 2]; 2]) -> f64 {
    let determinant = ee * nn - en * en;
    if determinant <= 0.0 || ee <= 0.0 {
        return f64::INFINITY;
    }
    (nn * east * east - 2.0 * en * east * north + ee * north * north) / determinant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_sigma_error_has_distance_one() {
        assert!((mahalanobis_squared([2.0, 0.0], [[4.0, 0.0], [0.0, 1.0]]) - 1.0).abs() < 1e-12);
        // Along the long axis of a correlated covariance (eigenvalue 3).
        let d = mahalanobis_squared([1.0, 1.0], [[2.0, 1.0], [1.0, 2.0]]);
        assert!((d - 2.0 / 3.0).abs() < 1e-12);
        assert!(mahalanobis_squared([1.0, 0.0], [[0.0, 0.0], [0.0, 0.0]]).is_infinite());
    }

    #[test]
    fn truth_between_samples_is_linear() {
        let frame = LocalFrame::new(Geodetic::new(52.0, 4.0, 0.0).unwrap());
        let track = TruthTrack {
            frame,
            points: vec![(0, [0.0, 0.0]), (100, [1.0, 2.0])],
        };
        assert_eq!(track.at(50), Some([0.5, 1.0]));
        assert_eq!(track.at(100), Some([1.0, 2.0]));
        assert_eq!(track.at(101), None);
        assert_eq!(track.at(-1), None);
    }
}
