//! A scenario file: what goes wrong on a drive, and what must hold all the same.

use anyhow::{Context, ensure};
use serde::Deserialize;
use std::path::Path;

/// One file of `scenarios/`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// What happens, as a sentence.
    pub about: String,
    /// Whether the student and the aerial tiles are there. Default true.
    #[serde(default = "yes")]
    pub student: bool,
    /// What of it is known to be broken today.
    pub known: Option<Known>,
    /// What goes wrong, in this order.
    #[serde(default)]
    pub fault: Vec<Fault>,
    /// What must hold.
    #[serde(default)]
    pub expect: Expect,
}

/// A scenario that does not hold yet. Its bounds do not fail the run, but these do, so that it cannot
/// get worse unseen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// What does not hold, as a sentence.
    pub why: String,
    /// As in [`Expect`], percent. Default 0.1: the promise holds all the same.
    #[serde(default = "promised")]
    pub ok_outside_percent: f64,
    /// As in [`Expect`], percent.
    pub outside_percent: f64,
    /// Share of the time in a state that is not expected, percent. Default 100.
    #[serde(default = "any_share")]
    pub wrong_state_percent: f64,
    /// Mean error, metres. Default: any.
    #[serde(default = "any")]
    pub mean_m: f64,
    /// Seconds until `ok` is back after the last fault. Default: any.
    #[serde(default = "any")]
    pub ok_again_s: f64,
}

fn any() -> f64 {
    f64::INFINITY
}

fn any_share() -> f64 {
    100.0
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Deserialize)]
pub struct Fault {
    /// When it begins, seconds of the drive. Default 10.
    #[serde(default = "ten")]
    pub from_s: f64,
    /// When it ends, seconds of the drive. Default: it stays.
    #[serde(default = "forever")]
    pub until_s: f64,
    /// What it does.
    #[serde(flatten)]
    pub act: Act,
}

/// Who delivers events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The receiver.
    Gnss,
    /// Wheel speed, gyro and heading.
    Odometry,
    /// The camera.
    Camera,
    /// All three.
    All,
}

/// A number that a source delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Metres to the east, of the receiver.
    East,
    /// Metres to the north, of the receiver.
    North,
    /// Stated 1-sigma error per axis of the receiver, metres.
    Sigma,
    /// Speed of the receiver or of the odometry, m/s.
    Speed,
    /// Course over ground of the receiver, degrees.
    Course,
    /// Yaw rate of the odometry, rad/s counter-clockwise.
    YawRate,
    /// Heading of the odometry, degrees.
    Heading,
    /// Time stamp, seconds.
    Stamp,
    /// Every number but the stamp.
    Everything,
}

/// What a fault does.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "what a variant does names its fields")]
pub enum Act {
    /// Writes one value.
    Set {
        on: Source,
        field: Field,
        value: f64,
    },
    /// Multiplies.
    Scale { on: Source, field: Field, by: f64 },
    /// Adds.
    Add {
        on: Source,
        field: Field,
        value: f64,
    },
    /// Adds more and more, from 0 at the beginning.
    Ramp {
        on: Source,
        field: Field,
        per_s: f64,
    },
    /// Adds Gaussian noise.
    Noise {
        on: Source,
        field: Field,
        sigma: f64,
    },
    /// Repeats the value of the beginning.
    Stick { on: Source, field: Field },
    /// Takes the field away: no heading, no speed, no course.
    Omit { on: Source, field: Field },
    /// Delivers a share of the events only.
    Drop { on: Source, share: f64 },
    /// Delivers nothing for `off_s` of every `period_s`.
    Intermittent {
        on: Source,
        period_s: f64,
        off_s: f64,
    },
    /// Delivers every `n`th event only.
    Every { on: Source, n: usize },
    /// Delivers late, with the stamps of the measurement.
    Delay { on: Source, seconds: f64 },
    /// Measures so much before the stamp, as a source whose events are stamped when they arrive.
    Lag { on: Source, seconds: f64 },
    /// Holds everything back and delivers it at the end, at once.
    Burst { on: Source },
    /// Delivers every event so many times.
    Repeat { on: Source, times: usize },
    /// Stamps in another time scale.
    Timescale { on: Source, scale: Timescale },
    /// Numbers that cannot be: NaN, infinite, huge, swapped.
    Garbage { on: Source },
    /// All fixes at one place.
    Place {
        latitude_deg: f64,
        longitude_deg: f64,
    },
    /// A second receiver beside the first, so far from it.
    SecondReceiver { east_m: f64, north_m: f64 },
    /// What the camera shows.
    Picture { what: Picture },
    /// What the student answers.
    Heatmap { what: Heatmap },
    /// What the aerial tiles show.
    Aerial { what: Aerial },
    /// The vehicle is elsewhere from now on, as a simulator does it; imagery ends.
    Teleport { east_m: f64, north_m: f64 },
    /// The whole drive is elsewhere, without imagery.
    Elsewhere {
        latitude_deg: f64,
        longitude_deg: f64,
    },
    /// The machine sleeps: what arrives meanwhile is lost, and its clock of arrivals goes on.
    Suspend,
}

/// Another scale of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timescale {
    /// Since the machine was started.
    Boot,
    /// GPS time: 18 s ahead.
    Gps,
    /// International atomic time: 37 s ahead.
    Tai,
    /// Microseconds since 1970, read as nanoseconds.
    Microseconds,
    /// Seconds since 1970, read as nanoseconds.
    Seconds,
}

/// What a camera shows instead of the world.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Picture {
    /// Nothing.
    Black,
    /// Too much light.
    White,
    /// The same picture again, byte for byte.
    Frozen,
    /// The same picture with new sensor noise.
    FrozenNoisy,
    /// The same ten pictures again and again.
    Looped,
    /// Out of focus.
    Blurred,
    /// Sensor noise only.
    Noise,
    /// Left and right swapped.
    Mirrored,
    /// Mounted upside down.
    UpsideDown,
    /// Half a file.
    Cut,
    /// Turned by 90° about the vertical axis.
    Turned,
    /// One second old, with fresh stamps.
    SecondOld,
}

/// What a student answers instead of what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heatmap {
    /// Its heatmap moved 15 m east, as sure as before.
    Shifted,
    /// Sure of the same place of every patch.
    FixedPlace,
    /// Sure of another place each time.
    Random,
    /// Nothing anywhere.
    Flat,
    /// It fails.
    Error,
}

/// What the tiles show instead of the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aerial {
    /// Black ground.
    Black,
    /// The ground 10 m further east.
    Shifted,
}

/// What must hold, over all drives together unless it says each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Share of time with `ok` while the truth is outside the protection radius, at most, percent.
    pub ok_outside_percent: f64,
    /// Share of time outside the protection radius in any state but `lost`, at most, percent.
    pub outside_percent: f64,
    /// Longest time without an estimate on any drive, seconds.
    pub longest_gap_s: f64,
    /// Mean error while the fault lasts, metres, at most.
    pub mean_m: Option<f64>,
    /// Largest error, metres, at most.
    pub max_m: Option<f64>,
    /// Compare with the truth at the arrival instead of the time that an estimate claims: where the
    /// receiver's clock itself is wrong.
    pub by_arrival: bool,
    /// Farthest that the position may be from where it is without the faults that begin after the
    /// start, metres.
    pub moved_m: Option<f64>,
    /// States that are right while the fault lasts; empty means any.
    pub states: Vec<String>,
    /// Seconds after the beginning within which the state must be right, and stay so.
    pub within_s: f64,
    /// Share of the time after that when it may be wrong all the same, percent.
    pub wrong_state_percent: f64,
    /// After the last fault's end `ok` must be back within so many seconds, on each drive.
    pub ok_again_s: Option<f64>,
    /// Share of time with `ok`, at least, percent, over the whole drive.
    pub ok_percent: Option<f64>,
    /// Sources that tell the truth or are silent: the mean error while the fault lasts is compared
    /// with a drive without the others.
    pub without: Vec<Source>,
    /// The most it may be of that.
    pub ratio: f64,
    /// Errors below this are no reason to fail the ratio, metres.
    pub ratio_floor_m: f64,
    /// A word that the reasons must have while the fault lasts.
    pub word: Option<String>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            ok_outside_percent: 0.1,
            outside_percent: 1.0,
            longest_gap_s: 1.0,
            mean_m: None,
            max_m: None,
            by_arrival: false,
            moved_m: None,
            states: Vec::new(),
            within_s: 3.0,
            wrong_state_percent: 2.0,
            ok_again_s: None,
            ok_percent: None,
            without: Vec::new(),
            ratio: 1.5,
            ratio_floor_m: 0.5,
            word: None,
        }
    }
}

fn promised() -> f64 {
    0.1
}

fn yes() -> bool {
    true
}

fn ten() -> f64 {
    10.0
}

fn forever() -> f64 {
    f64::INFINITY
}

impl Scenario {
    /// Reads every `*.toml` of a folder, by name.
    ///
    /// # Errors
    /// When the folder or a file cannot be read, with its name.
    pub fn all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        let mut scenarios = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != "toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            let mut scenario: Self = toml::from_str(&text)
                .with_context(|| format!("{} is no scenario", path.display()))?;
            scenario.name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            for state in &scenario.expect.states {
                ensure!(
                    ["ok", "degraded", "coasting", "lost"].contains(&state.as_str()),
                    "{}: there is no state {state:?}",
                    path.display()
                );
            }
            scenarios.push(scenario);
        }
        scenarios.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(scenarios)
    }

    /// The same for all scenarios with the same drives and errors.
    pub fn key(&self) -> String {
        format!(
            "{} {:?} {}",
            self.student, self.fault, self.expect.by_arrival
        )
    }

    /// Whether pictures are matched: there are a student and tiles of where the vehicle drives.
    pub fn is_matched(&self) -> bool {
        let elsewhere = |fault: &Fault| matches!(fault.act, Act::Elsewhere { .. });
        self.student && !self.fault.iter().any(elsewhere)
    }

    /// When the first fault begins, seconds; the start without any.
    pub fn begins_s(&self) -> f64 {
        let begin = self.fault.iter().map(|fault| fault.from_s);
        begin.reduce(f64::min).unwrap_or(0.0)
    }

    /// When the last fault ends, seconds.
    pub fn ends_s(&self) -> f64 {
        let end = self.fault.iter().map(|fault| fault.until_s);
        end.reduce(f64::max).unwrap_or(f64::INFINITY)
    }

    /// The same drive without the faults that begin after the start, where it is compared with that.
    pub fn without_late_faults(&self) -> Option<Self> {
        self.expect.moved_m.map(|_| Self {
            fault: self
                .fault
                .iter()
                .filter(|fault| fault.from_s <= 0.0)
                .cloned()
                .collect(),
            ..self.clone()
        })
    }

    /// The drive that its error is compared with: without the sources that lie.
    pub fn reference(&self) -> Option<Self> {
        if self.expect.without.is_empty() {
            return None;
        }
        let drop = |on: &Source| Fault {
            from_s: self.begins_s(),
            until_s: self.ends_s(),
            act: Act::Drop {
                on: *on,
                share: 1.0,
            },
        };
        Some(Self {
            name: format!("{} (reference)", self.name),
            fault: self.expect.without.iter().map(drop).collect(),
            ..self.clone()
        })
    }
}
