//! What an ingest is told: arguments, and a file of settings.

use crate::storage::{Files, Paths, Role};
use anyhow::{Context, bail};
use crossfix_calibration::{Camera, Geodetic, LocalFrame};
use crossfix_onboard::log::TopicsConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Arguments of `crossfix ingest`.
#[derive(Debug, Clone, clap::Args)]
pub struct IngestArgs {
    /// Logs (.mcap), folders of logs, or folders of pictures: with positions in their EXIF, or named by
    /// their time beside --track.
    #[arg(required = true)]
    pub sources: Vec<PathBuf>,
    /// New folder for the dataset.
    #[arg(long)]
    pub out: PathBuf,
    /// Tile set to copy the needed tiles from: PMTiles, or a folder zoom/x/y, with its tiles.toml.
    #[arg(long)]
    pub tiles: PathBuf,
    /// Positions of pictures that are named by their time: a GPX or NMEA file (names are nanoseconds UTC), or the
    /// GoPro video that the pictures were cut from (names are milliseconds since it began).
    #[arg(long)]
    pub track: Option<PathBuf>,
    /// TOML file of settings; the options below win over it.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where this is, in words.
    #[arg(long)]
    pub area: Option<String>,
    /// What may be done with the pictures, an SPDX expression or words.
    #[arg(long)]
    pub licence: Option<String>,
    /// Metres of travel between pictures [default: 5].
    #[arg(long)]
    pub every_m: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The settings of an ingest, as a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where this is, in words.
    pub area: String,
    /// What may be done with the pictures.
    pub licence: String,
    /// Metres of travel between pictures.
    pub every_m: f64,
    /// Logs that follow one another within so many seconds are one drive.
    pub gap_s: f64,
    /// The receiver's antenna, seen from the camera.
    pub antenna: Antenna,
    /// Subtracted from the stamps of pictures, seconds: how much later than true they are.
    pub picture_delay_s: f64,
    /// Whether the clocks behind the stamps of logs are judged by when messages were recorded, as the daemon does.
    pub judge_clocks: bool,
    /// Topics of logs; what is not named is found by its type.
    pub topics: TopicsConfig,
    /// Places of which nothing is taken, neither pictures nor positions.
    pub zones: Vec<Zone>,
    /// The camera, where the sources do not describe it, or better than they do.
    pub camera: Option<Camera>,
}

/// Where the receiver's antenna is, in metres from the camera.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Antenna {
    /// In front of it.
    pub forward_m: f64,
    /// To its left.
    pub left_m: f64,
}

/// A circle of which nothing is taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its centre, WGS 84.
    pub latitude_deg: f64,
    /// Its centre, WGS 84.
    pub longitude_deg: f64,
    /// Its radius, metres.
    pub radius_m: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            area: String::new(),
            licence: String::new(),
            every_m: 5.0,
            gap_s: 30.0,
            antenna: Antenna::default(),
            picture_delay_s: 0.0,
            judge_clocks: true,
            topics: TopicsConfig::default(),
            zones: Vec::new(),
            camera: None,
        }
    }
}

impl Files for IngestArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = vec![
            (Role::Input, &mut self.tiles),
            (Role::Folder, &mut self.out),
        ];
        let optional = [&mut self.track, &mut self.config];
        let inputs = optional.into_iter().flatten().chain(&mut self.sources);
        paths.extend(inputs.map(|path| (Role::Input, path)));
        paths
    }
}

impl IngestArgs {
    /// The settings: --config, with the options over it.
    ///
    /// # Errors
    /// The field, its value and what is allowed.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = match &self.config {
            None => Settings::default(),
            Some(path) => {
                let text = crossfix_onboard::file::read_text(path, 1 << 20)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                toml::from_str(&text).with_context(|| path.display().to_string())?
            }
        };
        for (given, field) in [
            (&self.area, &mut settings.area),
            (&self.licence, &mut settings.licence),
        ] {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        settings.every_m = self.every_m.unwrap_or(settings.every_m);
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [("area", &self.area), ("licence", &self.licence)] {
            if value.trim().is_empty() {
                bail!(
                    "{name} is not said; give --{name} or write it into --config, in words if need be"
                );
            }
        }
        if !(0.1..=1000.0).contains(&self.every_m) {
            bail!("every_m is {}; it must be 0.1 to 1000 metres", self.every_m);
        }
        if !(0.1..=86_400.0).contains(&self.gap_s) {
            bail!("gap_s is {}; it must be 0.1 to 86400 seconds", self.gap_s);
        }
        if !(self.picture_delay_s.abs() <= 3600.0) {
            bail!(
                "picture_delay_s is {}; it must be within an hour",
                self.picture_delay_s
            );
        }
        let arm = [self.antenna.forward_m, self.antenna.left_m];
        if !arm.iter().all(|metres| metres.abs() <= 50.0) {
            bail!("antenna is {arm:?}; it must be within 50 metres of the camera");
        }
        for zone in &self.zones {
            Geodetic::new(zone.latitude_deg, zone.longitude_deg, 0.0).context("zones")?;
            if !(zone.radius_m > 0.0 && zone.radius_m <= 1e5) {
                bail!(
                    "zones: radius_m is {}; it must be above 0 and at most 100 km",
                    zone.radius_m
                );
            }
        }
        Ok(())
    }

    /// Whether a place that is known to `sigma_m` may lie in a zone.
    pub fn is_private(&self, place: Geodetic, sigma_m: f64) -> bool {
        self.zones.iter().any(|zone| {
            let centre = Geodetic {
                latitude_deg: zone.latitude_deg,
                longitude_deg: zone.longitude_deg,
                height_m: place.height_m,
            };
            let enu = LocalFrame::new(centre).enu_from_geodetic(place);
            enu.east().hypot(enu.north()) <= zone.radius_m + 3.0 * sigma_m
        })
    }
}
