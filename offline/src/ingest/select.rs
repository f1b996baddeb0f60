//! Chooses frames: one every few metres, of a place that is known and may be shown, with a picture that shows
//! something.

use super::anonymous::anonymous;
use super::settings::Settings;
use super::track::{Placed, Track, heading_deg};
use super::{Frame, Place, Recording, recording};
use crate::data::pairs::PairRow;
use crate::data::pairs::write::write_file;
use crate::data::{OdometryStep, picture};
use crossfix_calibration::{Camera, Enu, Geodetic, LocalFrame};
use crossfix_onboard::core::frame_quality::FrameQuality;
use crossfix_onboard::image_decode;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A drive ends where nothing is kept for so long, nanoseconds: standing at a light does not end it.
const DRIVE_GAP_NS: i64 = 600_000_000_000;

/// Recorders choose pictures by distance too, and their odometer is not ours.
const NEARLY: f64 = 0.9;

/// Why a picture is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Too near the one before.
    Near,
    /// No fix around its time.
    NoFix,
    /// In a zone.
    Private,
    /// No tile under it.
    NoTile,
    /// It cannot be decoded whole.
    Unreadable,
    /// Of another size than the camera's.
    OtherSize,
    /// Dark, blurred, frozen, upside down.
    Quality,
}

impl Dropped {
    /// As it is printed.
    pub fn words(self) -> &'static str {
        match self {
            Self::Near => "nearer than every_m to the one before",
            Self::NoFix => "without a fix around their time",
            Self::Private => "in a zone",
            Self::NoTile => "without tiles under them",
            Self::Unreadable => "cut short or unreadable",
            Self::OtherSize => "of another size than the camera's",
            Self::Quality => "blank, blurred, upside down or repeated",
        }
    }
}

/// A frame that is kept.
pub struct Chosen {
    /// Its time, nanoseconds UTC.
    pub time_ns: i64,
    /// Where the antenna was.
    pub placed: Placed,
    /// The picture, without positions and names in it, under a name for the time being.
    pub file: PathBuf,
    /// Its file's ending.
    pub extension: &'static str,
    /// The drive, its number in it, and the movement since the one before.
    pub drive: String,
    /// Number in the drive.
    pub number: usize,
    /// Movement since the one before.
    pub odometry: Option<OdometryStep>,
    /// Metres since the one before.
    pub travelled_m: f64,
}

/// Chooses frames of a recording that are on a tile, and writes their pictures into `folder`: a long drive's do
/// not fit into memory.
///
/// # Errors
/// When a file cannot be read or written.
pub fn choose(
    recording: &Recording,
    camera: &Camera,
    settings: &Settings,
    on_tile: &(dyn Fn(Geodetic) -> bool + Sync),
    folder: &Path,
) -> anyhow::Result<(Vec<Chosen>, HashMap<Dropped, usize>)> {
    let mut dropped: HashMap<Dropped, usize> = HashMap::new();
    let mut drop = |why: Dropped| *dropped.entry(why).or_default() += 1;
    let delay_ns = (settings.picture_delay_s * 1e9) as i64;
    let mut wanted: Vec<(&Frame, i64, Placed)> = Vec::new();
    for frame in &recording.frames {
        let time_ns = frame.time_ns - delay_ns;
        let Some(placed) = recording.track.at(time_ns) else {
            drop(Dropped::NoFix);
            continue;
        };
        let (camera_at, [[ee, _], [_, nn]]) = camera_place(&placed, settings);
        let sigma_m = (ee + nn).sqrt();
        let shown = [camera_at, placed.position];
        if shown
            .iter()
            .any(|place| settings.is_private(*place, sigma_m))
        {
            drop(Dropped::Private);
            continue;
        }
        if !on_tile(placed.position) {
            drop(Dropped::NoTile);
            continue;
        }
        if let Some((_, before_ns, before)) = wanted.last() {
            let travelled = recording.track.travelled_m(*before_ns, time_ns);
            let travelled = travelled.unwrap_or_else(|| {
                let enu = LocalFrame::new(before.position).enu_from_geodetic(placed.position);
                enu.east().hypot(enu.north())
            });
            if travelled < NEARLY * settings.every_m {
                drop(Dropped::Near);
                continue;
            }
        }
        wanted.push((frame, time_ns, placed));
    }
    let mut chosen = Vec::with_capacity(wanted.len());
    let mut quality = FrameQuality::default();
    let mut judge = |bytes: &[u8]| {
        let picture = image_decode::decode(bytes, picture::MOST_SIDE_PX);
        let picture = picture.map_err(|_| Dropped::Unreadable)?;
        if [picture.image.width, picture.image.height] != camera.image_size() {
            return Err(Dropped::OtherSize);
        }
        quality
            .judge(&picture.image)
            .map_err(|_| Dropped::Quality)?;
        Ok(picture)
    };
    // Logs are read once more, in their own order; pictures are judged in the order of time.
    let mut of_log: HashMap<(usize, usize), usize> = HashMap::new();
    for (index, (frame, ..)) in wanted.iter().enumerate() {
        if let Place::Log(file, number) = frame.at {
            of_log.insert((file, number), index);
        }
    }
    let mut read = recording::Pictures::open(&recording.files, of_log);
    for (index, (frame, time_ns, placed)) in wanted.iter().enumerate() {
        let bytes = match &frame.at {
            Place::File(path) => picture::bytes(path).ok(),
            Place::Log(..) => Some(read.take(index)?),
        };
        let judged = bytes
            .ok_or(Dropped::Unreadable)
            .and_then(|bytes| Ok((judge(&bytes)?, bytes)));
        let (picture, bytes) = match judged {
            Ok(judged) => judged,
            Err(why) => {
                drop(why);
                continue;
            }
        };
        let (bytes, extension) = anonymous(bytes, &picture);
        let file = folder.join(format!(".{}-{index}", recording.name));
        write_file(&file, &bytes)?;
        chosen.push(Chosen {
            time_ns: *time_ns,
            placed: *placed,
            file,
            extension,
            drive: String::new(),
            number: 0,
            odometry: None,
            travelled_m: 0.0,
        });
    }
    Ok((chosen, dropped))
}

/// Names drives and numbers their frames; movement is between frames that were kept.
pub fn drives(name: &str, track: &Track, chosen: &mut [Chosen]) {
    let (mut part, mut number) = (0, 0);
    for index in 0..chosen.len() {
        if index > 0 {
            let [before, this] = [&chosen[index - 1], &chosen[index]];
            let gap = this.time_ns - before.time_ns;
            let step = track.step(before.time_ns, this.time_ns);
            let travelled = track.travelled_m(before.time_ns, this.time_ns);
            if gap > DRIVE_GAP_NS {
                part += 1;
                number = 0;
            } else {
                chosen[index].odometry = step;
                chosen[index].travelled_m = travelled.unwrap_or(0.0);
            }
        }
        chosen[index].drive = if part == 0 {
            name.to_owned()
        } else {
            format!("{name}-{part}")
        };
        chosen[index].number = number;
        number += 1;
    }
}

/// Gives drives other names where theirs are taken: a later part of `a` may be called as a recording of its own.
pub fn unlike(chosen: &mut [Chosen], taken: &mut HashSet<String>) {
    for drive in chosen.chunk_by_mut(|a, b| a.drive == b.drive) {
        let mut name = drive[0].drive.clone();
        while !taken.insert(name.clone()) {
            name.push_str("-again");
        }
        for one in drive {
            one.drive.clone_from(&name);
        }
    }
}

impl Chosen {
    /// The row of it.
    pub fn row(&self, settings: &Settings) -> PairRow {
        let id = format!("{}-{:05}", self.drive, self.number);
        let (heading, sigma) = match &self.placed.yaw {
            Some(yaw) => (
                heading_deg(yaw.yaw),
                yaw.sigma_rad.to_degrees().clamp(0.1, 180.0),
            ),
            None => (0.0, 180.0),
        };
        let (position, covariance_m2) = camera_place(&self.placed, settings);
        PairRow {
            image: format!("images/{id}.{}", self.extension),
            id,
            drive: self.drive.clone(),
            time_ns: self.time_ns,
            latitude_deg: position.latitude_deg,
            longitude_deg: position.longitude_deg,
            covariance_m2,
            heading_deg: heading,
            heading_sigma_deg: sigma,
            odometry: self.odometry,
        }
    }
}

/// Where the camera is when the antenna is there; with an unknown heading it is anywhere around it.
fn camera_place(placed: &Placed, settings: &Settings) -> (Geodetic, [[f64; 2]; 2]) {
    let arm = settings.antenna;
    let length2 = arm.forward_m.powi(2) + arm.left_m.powi(2);
    let mut covariance_m2 = placed.covariance_m2;
    let mut widen = |variance: f64| {
        covariance_m2[0][0] += variance;
        covariance_m2[1][1] += variance;
    };
    if length2 == 0.0 {
        return (placed.position, covariance_m2);
    }
    let Some(yaw) = &placed.yaw else {
        widen(0.5 * length2);
        return (placed.position, covariance_m2);
    };
    widen(0.5 * length2 * yaw.sigma_rad.min(1.0).powi(2));
    let (sin, cos) = yaw.yaw.radians().sin_cos();
    let east = arm.forward_m * cos - arm.left_m * sin;
    let north = arm.forward_m * sin + arm.left_m * cos;
    let camera = LocalFrame::new(placed.position).geodetic_from_enu(Enu::new(-east, -north, 0.0));
    (camera, covariance_m2)
}
