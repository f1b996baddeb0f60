//! Whether a tile set is where it is needed, fine and fresh enough.

use crate::data::Pairs;
use anyhow::{Context, bail};
use crossfix_calibration::mercator::ground_resolution;
use crossfix_calibration::{Geodetic, PatchGeoreference, PatchSpec};
use crossfix_onboard::log::{LogReader, Message};
use crossfix_onboard::tiles::{TileError, TileStore};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Arguments of `crossfix tiles check`.
#[derive(Debug, Clone, clap::Args)]
pub struct TilesCheckArgs {
    /// The tile set: PMTiles, or a folder zoom/x/y.
    pub tiles: PathBuf,
    /// Where it is needed: logs (.mcap) with fixes, or pairs datasets.
    #[arg(long = "along")]
    pub tracks: Vec<PathBuf>,
    /// Side of the ground around each place that is needed, metres.
    #[arg(long, default_value_t = 64.0)]
    pub side_m: f64,
    /// Pictures older than this are called old, years.
    #[arg(long, default_value_t = 3.0)]
    pub most_years: f64,
    /// Metres a pixel that a network needs.
    #[arg(long, default_value_t = 0.5)]
    pub metres_per_pixel: f64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coverage {
    /// Places that were looked at, 10 m apart.
    pub places: usize,
    /// Of these, places with all the ground around them.
    pub covered: usize,
    /// Where ground is missing first, latitude and longitude.
    pub first_missing: Option<[f64; 2]>,
    /// Tiles that are there and cannot be used.
    pub damaged: Vec<String>,
    /// Resolution at the first place.
    pub metres_per_pixel: f64,
    /// As the description says.
    pub capture_date: String,
    /// Years since then.
    pub age_years: Option<f64>,
    /// What is wrong, with the remedy.
    pub problems: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When something is wrong with the tile set or it cannot be read.
pub fn run(args: &TilesCheckArgs) -> anyhow::Result<()> {
    let found = look(args)?;
    if args.json {
        crate::outln!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        crate::outln!(
            "{}: {} of {} places covered, {:.3} m a pixel, flown {}{}",
            args.tiles.display(),
            found.covered,
            found.places,
            found.metres_per_pixel,
            found.capture_date,
            found
                .age_years
                .map_or(String::new(), |age| format!(" ({age:.1} years ago)"))
        );
        for problem in &found.problems {
            crate::outln!("  {problem}");
        }
    }
    if !found.problems.is_empty() {
        bail!(
            "{}: {} problems",
            args.tiles.display(),
            found.problems.len()
        );
    }
    Ok(())
}

/// Looks at a tile set.
///
/// # Errors
/// When it or a track cannot be read.
pub fn look(args: &TilesCheckArgs) -> anyhow::Result<Coverage> {
    if !((8.0..=512.0).contains(&args.side_m)
        && args.metres_per_pixel > 0.0
        && args.most_years >= 0.0)
    {
        bail!(
            "--side-m goes from 8 to 512 metres, --metres-per-pixel is above 0, --most-years not below"
        );
    }
    let mut store = TileStore::open(&args.tiles)?;
    let manifest = store.manifest().clone();
    let mut places = Vec::new();
    for track in &args.tracks {
        along(track, &mut places).with_context(|| track.display().to_string())?;
    }
    let first = places.first().copied();
    let latitude_deg = first.map_or(0.0, |place: Geodetic| place.latitude_deg);
    let metres_per_pixel = match first {
        Some(_) => ground_resolution(latitude_deg, manifest.zoom, manifest.tile_px),
        None => manifest.metres_per_pixel,
    };
    let age_years = age_years(&manifest.capture_date);
    let mut found = Coverage {
        places: places.len(),
        covered: 0,
        first_missing: None,
        damaged: Vec::new(),
        metres_per_pixel,
        capture_date: manifest.capture_date.clone(),
        age_years,
        problems: Vec::new(),
    };
    let patch = PatchSpec {
        size_px: (args.side_m as usize).next_multiple_of(2),
        metres_per_pixel: 1.0,
    };
    for place in &places {
        // All of the ground around it, as a matcher would ask for it.
        let centre = PatchGeoreference::exactly_at(*place, patch)?.centre();
        match store.patch(centre, patch, 1.0) {
            Ok(_) => found.covered += 1,
            Err(TileError::NotCovered { .. }) => {
                found
                    .first_missing
                    .get_or_insert([place.latitude_deg, place.longitude_deg]);
            }
            Err(error) => {
                let what = error.to_string();
                if !found.damaged.contains(&what) && found.damaged.len() < 20 {
                    found.damaged.push(what);
                }
            }
        }
    }
    let missing = found.places - found.covered;
    if let (1.., Some([latitude, longitude])) = (missing, found.first_missing) {
        found.problems.push(format!(
            "{missing} of {} places lack ground within {:.0} m, the first at {latitude:.5}, {longitude:.5}: add tiles there",
            found.places,
            args.side_m / 2.0
        ));
    }
    let damaged = found.damaged.clone();
    found.problems.extend(damaged);
    if metres_per_pixel > 1.6 * args.metres_per_pixel {
        found.problems.push(format!(
            "{metres_per_pixel:.2} m a pixel is coarser than the {:.2} that a network needs: take a higher zoom",
            args.metres_per_pixel
        ));
    }
    let stated = manifest.metres_per_pixel / metres_per_pixel;
    if !(0.95..=1.05).contains(&stated) {
        found.problems.push(format!(
            "metres_per_pixel = {} in its description, and zoom {} has {metres_per_pixel:.4} here: correct it",
            manifest.metres_per_pixel, manifest.zoom
        ));
    }
    if let Some(age) = age_years.filter(|age| *age > args.most_years) {
        found.problems.push(format!(
            "the pictures are {age:.1} years old: look for newer ones, or raise --most-years where little is built"
        ));
    }
    Ok(found)
}

/// Places along a log or of a dataset, at least 10 m apart.
fn along(path: &Path, places: &mut Vec<Geodetic>) -> anyhow::Result<()> {
    let mut add = |place: Geodetic| {
        let far = places.last().is_none_or(|last| {
            let enu = crossfix_calibration::LocalFrame::new(*last).enu_from_geodetic(place);
            enu.east().hypot(enu.north()) >= 10.0
        });
        if far {
            places.push(place);
        }
    };
    if path.is_dir() {
        for row in Pairs::open(path)?.rows {
            add(Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0)?);
        }
        return Ok(());
    }
    for record in LogReader::open(path)?.records() {
        match record {
            Ok(record) => {
                if let Message::Gnss(fix) = record.message {
                    add(Geodetic {
                        height_m: 0.0,
                        ..fix.position
                    });
                }
            }
            Err(error) if error.ends_the_log() => bail!(error),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Years from a date (`YYYY`, `YYYY-MM`, `YYYY-MM-DD`) to today.
fn age_years(date: &str) -> Option<f64> {
    let mut parts = date.split('-').map(str::parse::<f64>);
    let year = parts.next()?.ok()?;
    let month = parts.next().map_or(Some(7.0), Result::ok)?;
    let day = parts.next().map_or(Some(1.0), Result::ok)?;
    let then = year + (month - 1.0) / 12.0 + (day - 1.0) / 365.0;
    let now = time::OffsetDateTime::now_utc();
    let now = f64::from(now.year()) + f64::from(now.ordinal() - 1) / 365.0;
    Some(now - then)
}
