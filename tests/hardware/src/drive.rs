//! A recorded drive and its truth.

use anyhow::{Context, ensure};
use crossfix_calibration::{Camera, Enu, Geodetic, LocalFrame};
use crossfix_onboard::event::Event;
use crossfix_onboard::log::{LogReader, Message};
use serde::Deserialize;
use std::path::Path;

/// An event with its sender and the moment it arrives.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Name of the source.
    pub source: &'static str,
    /// Nanoseconds since the drive began.
    pub at_ns: i64,
    /// What arrives.
    pub event: Event,
}

/// A drive.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Name of its log.
    pub name: String,
    /// What arrived, in order, each when it was true.
    pub arrivals: Vec<Arrival>,
    /// The camera's calibration.
    pub camera: Option<Camera>,
    /// Where the vehicle was.
    pub truth: Truth,
}

/// The true track.
#[derive(Debug, Clone)]
pub struct Truth {
    points: Vec<(i64, Geodetic)>,
}

#[derive(Deserialize)]
struct TruthLine {
    time_ns: i64,
    latitude_deg: f64,
    longitude_deg: f64,
}

impl Truth {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let points = text.lines().map(|line| {
            let line: TruthLine = serde_json::from_str(line)?;
            let place = Geodetic::new(line.latitude_deg, line.longitude_deg, 0.0)?;
            Ok((line.time_ns, place))
        });
        let points = points.collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!points.is_empty(), "{} is empty", path.display());
        Ok(Self { points })
    }

    /// From points in the order of time.
    #[cfg(test)]
    pub fn of(points: Vec<(i64, Geodetic)>) -> Self {
        Self { points }
    }

    /// Its first moment, nanoseconds UTC.
    pub fn start_ns(&self) -> i64 {
        self.points[0].0
    }

    /// Its last moment, nanoseconds UTC.
    pub fn end_ns(&self) -> i64 {
        self.points[self.points.len() - 1].0
    }

    /// Metres east and north from the truth at `time_ns` to `place`; nothing outside the drive.
    pub fn error_m(&self, time_ns: i64, place: Geodetic) -> Option<[f64; 2]> {
        let after = self.points.partition_point(|(time, _)| *time < time_ns);
        let (next_ns, next) = *self.points.get(after)?;
        let (last_ns, last) = match after.checked_sub(1) {
            Some(before) if next_ns != time_ns => self.points[before],
            _ if next_ns == time_ns => (time_ns - 1, next),
            _ => return None,
        };
        let share = (time_ns - last_ns) as f64 / (next_ns - last_ns) as f64;
        let frame = LocalFrame::new(last);
        let step = frame.enu_from_geodetic(next);
        let place = frame.enu_from_geodetic(Geodetic {
            height_m: 0.0,
            ..place
        });
        Some([
            place.east() - share * step.east(),
            place.north() - share * step.north(),
        ])
    }

    /// Unit vector east and north along the way at `time_ns`, over at least a metre of it that ends there;
    /// nothing before the first metre, or outside the drive.
    pub fn course(&self, time_ns: i64) -> Option<[f64; 2]> {
        let after = self.points.partition_point(|(time, _)| *time < time_ns);
        let frame = LocalFrame::new(self.points.get(after)?.1);
        self.points[..after].iter().rev().find_map(|(_, place)| {
            let back = frame.enu_from_geodetic(*place);
            let way_m = back.east().hypot(back.north());
            (way_m >= 1.0).then(|| [-back.east() / way_m, -back.north() / way_m])
        })
    }

    /// Puts every point from `from_ns` on elsewhere.
    pub fn map(&mut self, from_ns: i64, mut place: impl FnMut(Geodetic) -> Geodetic) {
        for point in self.points.iter_mut().filter(|(time, _)| *time >= from_ns) {
            point.1 = place(point.1);
        }
    }
}

/// `place` moved by metres east and north.
pub fn moved(place: Geodetic, east_m: f64, north_m: f64) -> Geodetic {
    let frame = LocalFrame::new(place);
    let target = frame.geodetic_from_enu(Enu::new(east_m, north_m, 0.0));
    Geodetic {
        height_m: place.height_m,
        ..target
    }
}

impl Drive {
    /// Reads a log and the truth beside it.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn open(log: &Path) -> anyhow::Result<Self> {
        let truth = Truth::open(&log.with_extension("truth.jsonl"))?;
        let start_ns = truth.start_ns();
        let (mut arrivals, mut camera) = (Vec::new(), None);
        for message in LogReader::open(log)? {
            let event = match message? {
                Message::Calibration(found) => {
                    camera = Some(found);
                    continue;
                }
                message => message.into_event(),
            };
            let Some(event) = event else { continue };
            let source = match &event {
                Event::Gnss(_) => "gnss",
                Event::Odometry(_) => "odometry",
                Event::Frame(_) => "camera",
                Event::SourceState { .. } => continue,
            };
            arrivals.push(Arrival {
                source,
                at_ns: event.time_ns() - start_ns,
                event,
            });
        }
        let name = log.file_stem().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            arrivals,
            camera,
            truth,
        })
    }

    /// The same drive, so much later.
    pub fn later(&self, by_ns: i64) -> Self {
        let mut drive = self.clone();
        for arrival in &mut drive.arrivals {
            let time_ns = arrival.event.time_ns();
            arrival.event.set_time_ns(time_ns + by_ns);
        }
        for (time_ns, _) in &mut drive.truth.points {
            *time_ns += by_ns;
        }
        drive
    }

    /// Every log of a folder, by name.
    ///
    /// # Errors
    /// When there is none, or one cannot be read.
    pub fn all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        let mut logs = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "mcap") {
                logs.push(path);
            }
        }
        logs.sort();
        ensure!(!logs.is_empty(), "{} holds no log", folder.display());
        logs.iter().map(|log| Self::open(log)).collect()
    }
}
