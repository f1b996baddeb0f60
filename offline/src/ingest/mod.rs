//! `crossfix ingest`: recordings become a pairs dataset.
//!
//! [`recording`] reads the daemon's logs, [`photos`] pictures with positions in them, [`frames`] folders of pictures
//! beside a track (which [`gopro`] reads from videos); each gives a [`Recording`]: frames by time, and a [`Track`]. [`select`] chooses frames by
//! distance and drops what shows nothing, [`tiles`] cuts the aerial tiles that are needed, and [`run`] writes it all with
//! where it came from.

mod anonymous;
mod frames;
mod gopro;
mod photos;
mod recording;
mod select;
mod settings;
#[cfg(test)]
mod tests;
mod tiles;
mod track;

pub use settings::{Antenna, IngestArgs, Settings, Zone};
pub use track::Track;

use crate::data::pairs::write::{JPEG_QUALITY, PairsWriter, in_file, write_file};
use crate::data::pairs::{DatasetManifest, FORMAT, FORMAT_VERSION, HEADING_CONVENTION};
use crate::run::producer;
use anyhow::{Context, bail};
use crossfix_calibration::{Camera, Geodetic};
use rayon::prelude::*;
use select::{Chosen, Dropped};
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One recording that was opened: what is known of its frames, and how to get them.
pub struct Recording {
    /// The drive's name.
    pub name: String,
    /// The files that it came from.
    pub files: Vec<PathBuf>,
    /// Fixes, odometry and headings.
    pub track: Track,
    /// Frames in the order of time.
    pub frames: Vec<Frame>,
    /// The camera, where the recording describes it.
    pub camera: Option<Camera>,
    /// Things to say about it.
    pub notes: Vec<String>,
}

/// A picture that was not read yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// When it was taken, nanoseconds UTC.
    pub time_ns: i64,
    /// Where its bytes are.
    pub at: Place,
}

/// Where the bytes of a picture are.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A file of its own.
    File(PathBuf),
    /// A message of a log: which of the recording's files, and which frame in it.
    Log(usize, usize),
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ingested {
    /// Pictures that were there.
    pub frames: usize,
    /// Rows written.
    pub pairs: usize,
    /// Drives with a row.
    pub drives: usize,
    /// Metres between rows of a drive, in all.
    pub travelled_m: f64,
    /// Tiles copied.
    pub tiles: usize,
    /// Rows with odometry since the row before.
    pub with_odometry: usize,
    /// Rows with a heading.
    pub with_heading: usize,
    /// Pictures left out, by reason.
    pub left_out: BTreeMap<&'static str, usize>,
    /// Things to know.
    pub notes: Vec<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Runs the command.
///
/// # Errors
/// When a source cannot be read, nothing is left to write, or the disk refuses.
pub fn run(args: &IngestArgs) -> anyhow::Result<()> {
    let settings = args.settings()?;
    let made = ingest(args, &settings)?;
    if args.json {
        crate::outln!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    for note in &made.notes {
        crate::note!("{note}");
    }
    crate::outln!(
        "{}: {} pairs of {} drives, {:.1} km, {} tiles, from {} pictures in {:.1} s",
        args.out.display(),
        made.pairs,
        made.drives,
        made.travelled_m / 1000.0,
        made.tiles,
        made.frames,
        made.seconds
    );
    for (why, count) in &made.left_out {
        crate::outln!("  left out {count}: {why}");
    }
    crate::outln!("next: crossfix check {}", args.out.display());
    Ok(())
}

/// Makes a dataset of the sources.
///
/// # Errors
/// As [`run`].
pub fn ingest(args: &IngestArgs, settings: &Settings) -> anyhow::Result<Ingested> {
    let begun = Instant::now();
    let mut recordings = open(args, settings)?;
    unlike(&mut recordings);
    let recordings = recordings;
    let camera = camera_of(&recordings, settings)?;
    let mut made = Ingested {
        frames: recordings
            .iter()
            .map(|recording| recording.frames.len())
            .sum(),
        ..Ingested::default()
    };
    for recording in &recordings {
        let named = |note: &String| format!("{}: {note}", recording.name);
        made.notes.extend(recording.notes.iter().map(named));
    }
    let mut writer = PairsWriter::create(&args.out)?;
    let lanes = rayon::current_num_threads().max(1);
    let source = Mutex::new(tiles::Source::open(&args.tiles)?);
    let need = |place: Geodetic| {
        source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .need(place)
    };
    let images = args.out.join("images");
    let mut left_out: HashMap<Dropped, usize> = HashMap::new();
    let mut taken = HashSet::new();
    for some in recordings.chunks(lanes) {
        let chosen: Vec<anyhow::Result<(Vec<Chosen>, HashMap<Dropped, usize>)>> = some
            .par_iter()
            .map(|recording| select::choose(recording, &camera, settings, &need, &images))
            .collect();
        for (recording, chosen) in some.iter().zip(chosen) {
            let (mut chosen, dropped) = chosen.with_context(|| recording.name.clone())?;
            for (why, count) in dropped {
                *left_out.entry(why).or_default() += count;
            }
            select::drives(&recording.name, &recording.track, &mut chosen);
            select::unlike(&mut chosen, &mut taken);
            let mut drive = String::new();
            for one in &chosen {
                let row = one.row(settings);
                let file = args.out.join(&row.image);
                std::fs::rename(&one.file, &file).map_err(in_file(&file))?;
                made.with_odometry += usize::from(row.odometry.is_some());
                made.with_heading += usize::from(one.placed.yaw.is_some());
                made.drives += usize::from(drive != row.drive);
                made.travelled_m += one.travelled_m;
                drive.clone_from(&row.drive);
                writer.row(&row, None)?;
                made.pairs += 1;
            }
        }
    }
    made.left_out = left_out
        .into_iter()
        .map(|(why, count)| (why.words(), count))
        .collect();
    if made.pairs == 0 {
        let why: Vec<String> = made
            .left_out
            .iter()
            .map(|(why, count)| format!("{count} pictures {why}"))
            .collect();
        let _ = std::fs::remove_dir_all(&args.out);
        bail!(
            "no pair is left of {} pictures: {}; nothing is written",
            made.frames,
            if why.is_empty() {
                "the sources hold none".into()
            } else {
                why.join(", ")
            }
        );
    }
    if made.with_heading == 0 {
        made.notes
            .push("no row has a heading: take a network that searches all headings".into());
    }
    if made.with_odometry == 0 {
        made.notes
            .push("no row has odometry: labels will be worse".into());
    }
    let mut source = source.into_inner().unwrap_or_else(PoisonError::into_inner);
    let copied = source.copied()?;
    made.tiles = copied.len();
    let hashes: Vec<serde_json::Value> = recordings
        .par_iter()
        .flat_map(|recording| recording.files.par_iter())
        .map(|file| {
            json!({
                "file": file.file_name().map(|name| name.to_string_lossy()),
                "sha256": crate::run::sha256_file(file).ok(),
            })
        })
        .collect();
    let provenance = format!(
        "{} ingest of {} files; ingest.json",
        producer(),
        hashes.len()
    );
    let manifest = DatasetManifest {
        format: FORMAT.into(),
        version: FORMAT_VERSION,
        area: settings.area.clone(),
        licence: settings.licence.clone(),
        provenance,
        heading_convention: HEADING_CONVENTION.into(),
        tiles: "tiles.pmtiles".into(),
        camera,
    };
    made.seconds = begun.elapsed().as_secs_f64();
    let mut shown = serde_json::to_value(settings)?;
    // Where the zones are is what they hide.
    shown["zones"] = json!(settings.zones.len());
    let record = json!({
        "made_by": producer(),
        "settings": shown,
        "sources": hashes,
        "tiles": args.tiles.file_name().map(|name| name.to_string_lossy()),
        "jpeg_quality_of_turned_pictures": JPEG_QUALITY,
        "result": made,
    });
    let text = serde_json::to_string_pretty(&record)?;
    write_file(&args.out.join("ingest.json"), text.as_bytes())?;
    writer.finish(&manifest, copied, source.manifest())?;
    Ok(made)
}

/// The name of a folder, whichever way it was named.
fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize();
    let name = whole.as_deref().unwrap_or(folder).file_name();
    name.map_or_else(
        || "pictures".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Opens every source.
fn open(args: &IngestArgs, settings: &Settings) -> anyhow::Result<Vec<Recording>> {
    let mut recordings = Vec::new();
    let mut logs = Vec::new();
    for source in &args.sources {
        let folder = source.is_dir();
        if !folder && !source.exists() {
            bail!("{} is not there", source.display());
        }
        if !folder {
            let is_log = source
                .extension()
                .is_some_and(|name| name.eq_ignore_ascii_case("mcap"));
            if !is_log {
                bail!(
                    "{} is neither a .mcap file nor a folder; give logs, folders of logs, or folders of pictures",
                    source.display()
                );
            }
            logs.push(source.clone());
            continue;
        }
        let inside = frames::files(source)?;
        let some_logs: Vec<PathBuf> = inside
            .iter()
            .filter(|path| {
                path.extension()
                    .is_some_and(|name| name.eq_ignore_ascii_case("mcap"))
            })
            .cloned()
            .collect();
        if !some_logs.is_empty() {
            logs.extend(some_logs);
        } else if let Some(track) = &args.track {
            recordings.push(frames::open(source, &inside, track)?);
        } else {
            recordings.extend(photos::open(source, &inside, settings.camera.as_ref())?);
        }
    }
    if args.track.is_some() && recordings.is_empty() {
        bail!("--track is for folders of pictures named by their time, and none is given");
    }
    recordings.extend(recording::open(&logs, settings)?);
    if recordings
        .iter()
        .all(|recording| recording.frames.is_empty())
    {
        bail!("the sources hold no picture with a time; crossfix ingest --help says what is read");
    }
    Ok(recordings)
}

/// Gives recordings of the same name, from different folders, different names.
fn unlike(recordings: &mut [Recording]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for recording in recordings {
        let count = seen.entry(recording.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            recording.name = format!("{}-again{count}", recording.name);
        }
    }
}

/// The one camera of a dataset: as configured, or as the recordings describe it.
fn camera_of(recordings: &[Recording], settings: &Settings) -> anyhow::Result<Camera> {
    if let Some(camera) = &settings.camera {
        camera.check().context("camera")?;
        return Ok(camera.clone());
    }
    let mut found: Vec<(&Camera, usize)> = Vec::new();
    for recording in recordings {
        let Some(camera) = &recording.camera else {
            continue;
        };
        match found.iter_mut().find(|(other, _)| *other == camera) {
            Some((_, count)) => *count += recording.frames.len(),
            None => found.push((camera, recording.frames.len())),
        }
    }
    match found.as_slice() {
        [] => bail!(
            "nothing describes the camera; write [camera] into --config as docs/pairs.md says (action cameras do not say their focal length)"
        ),
        [(camera, _)] => Ok((*camera).clone()),
        several => bail!(
            "the sources are of {} cameras; ingest each into its own dataset, or write [camera] into --config to keep the pictures of its size",
            several.len()
        ),
    }
}
