//! From the config to a core: camera, tiles and student, as far as they are there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossfix_calibration::{Camera, StripSpec};
use tracing::{error, info, warn};

use super::shadow_thread::{LoadShadow, Loaded};
use super::trusted::Pin;
use crate::card::StudentCard;
use crate::config::{Config, ConfigError, ModelConfig, RigConfig, TilesConfig};
use crate::core::{Core, Rig};
use crate::log::{Message, Recording};
use crate::matcher::ground::GroundMapper;
use crate::matcher::{MatchError, Matcher, ModelFile, TractMatcher};
use crate::peer::SourceConfig;
use crate::shadow::{Shadow, ShadowConfig};
use crate::tiles::{TileError, TileStore};
use crate::transport::file;

/// Messages of a log that are looked through for the camera's calibration.
const CALIBRATION_WITHIN: usize = 10_000;

/// Tiles may be coarser than what the student was trained with by this factor.
const COARSEST_TILES: f64 = 1.6;
/// Tiles along one side of a patch; more are read too slowly.
const MOST_TILES_A_SIDE: f64 = 16.0;

/// What the config names and we cannot use.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The tile set.
    #[error(transparent)]
    Tiles(#[from] TileError),
    /// The student.
    #[error(transparent)]
    Model(#[from] MatchError),
    /// The student or the tiles are another file than the config says.
    #[error(
        "{part} {path:?} has sha256 {found}, and the config says {expected}; put the right file there or change {part}.sha256"
    )]
    Hash {
        /// `model` or `tiles`.
        part: &'static str,
        /// The file.
        path: PathBuf,
        /// From the config.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// The student or the tiles are not signed by the key of the config.
    #[error(
        "{part} {path:?} is not signed as the config asks: {reason}; sign it with `minisign -Sm FILE`, put FILE.minisig beside it, or change {part}.minisign"
    )]
    Signature {
        /// `model` or `tiles`.
        part: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The config cannot be read again.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cameras of the rig.
    #[error("[rig] cannot be right: {0}")]
    Rig(#[from] crossfix_calibration::Error),
    /// A new student was asked for, and the config names none.
    #[error("the config has no [model]; add one with the path of the student")]
    NoModel,
}

/// A core with all that the config names, for a replay.
///
/// # Errors
/// [`SetupError`] when a tile set or student is named and cannot be used.
pub fn core_from(config: &Config) -> Result<Core, SetupError> {
    let tiles = config.tiles.as_ref().map(open_tiles).transpose()?;
    let matcher = config.model.as_ref().map(load).transpose()?;
    let camera = config.camera.clone();
    let mut core = Core::new(config.fusion.clone(), camera, tiles, matcher);
    core.set_matching(config.matching.clone());
    if let Some(rig) = &config.rig {
        core.set_rig(Rig::new(rig)?);
    }
    Ok(core)
}

/// What does not fit together of camera, tiles and student, each as a sentence.
///
/// # Errors
/// [`SetupError`] when a tile set or student is named and cannot be used.
pub fn misfits(config: &Config) -> Result<Vec<String>, SetupError> {
    let tiles = config.tiles.as_ref().map(open_tiles).transpose()?;
    let mut problems = Vec::new();
    let shadow = config.shadow.as_ref().map(ShadowConfig::as_model);
    for (name, model) in [("student", &config.model), ("shadow", &shadow)] {
        if let Some(model) = model {
            let matcher = load(model)?;
            misfits_of(name, matcher.card(), config, tiles.as_ref(), &mut problems);
        }
    }
    Ok(problems)
}

fn misfits_of(
    name: &str,
    card: &StudentCard,
    config: &Config,
    tiles: Option<&TileStore>,
    problems: &mut Vec<String>,
) {
    if let Some(tiles) = tiles {
        let (ground, aerial) = (tiles.manifest(), &card.aerial);
        if ground.metres_per_pixel > COARSEST_TILES * aerial.metres_per_pixel {
            problems.push(format!(
                "tiles: they have {:.2} m a pixel, and the {name} was trained with {:.2}; take tiles of a \
                 larger zoom",
                ground.metres_per_pixel, aerial.metres_per_pixel
            ));
        }
        let tile_m = ground.tile_px as f64 * ground.metres_per_pixel;
        let side_m = aerial.size_px as f64 * aerial.metres_per_pixel;
        if side_m / tile_m > MOST_TILES_A_SIDE {
            problems.push(format!(
                "tiles: a patch of {side_m:.0} m takes {:.0} tiles a side of {tile_m:.0} m; take tiles of a \
                 smaller zoom",
                side_m / tile_m
            ));
        }
    }
    if let Some(rig) = &config.rig {
        rig_misfits(name, card, rig, problems);
    }
    if let Some(camera) = &config.camera
        && let Err(error) = GroundMapper::new(camera, &card.ground)
    {
        problems.push(format!(
            "camera: it does not see what the {name} looks at: {error}"
        ));
    }
}

/// A panorama that ends where the student still looks.
fn rig_misfits(name: &str, card: &StudentCard, rig: &RigConfig, problems: &mut Vec<String>) {
    let camera = rig.panorama().camera();
    if let Err(error) = GroundMapper::new(&camera, &card.ground) {
        problems.push(format!(
            "rig: it does not see what the {name} looks at: {error}"
        ));
        return;
    }
    if card.ground.camera.is_some() {
        return;
    }
    let strip: StripSpec = card.ground.strip_spec(0.0);
    let [top_deg, bottom_deg] =
        [0.0, strip.rows as f64].map(|row| strip.elevation_rad(row).to_degrees());
    let (highest_deg, lowest_deg) = (rig.top_elevation_deg, rig.bottom_elevation_deg);
    if top_deg > highest_deg + 1.0 || bottom_deg < lowest_deg - 1.0 {
        problems.push(format!(
            "rig: its panorama shows elevations from {highest_deg:.1}° to {lowest_deg:.1}°, and the {name} looks at \
             {top_deg:.1}° to {bottom_deg:.1}°; set rig.top_elevation_deg and rig.bottom_elevation_deg"
        ));
    }
}

/// A core with what can be used of the config: on the road the output goes on, degraded.
pub fn core_or_less(config: &Config) -> Core {
    let tiles = config
        .tiles
        .as_ref()
        .and_then(|tiles| usable("tiles", open_tiles(tiles)));
    let matcher = config
        .model
        .as_ref()
        .and_then(|model| usable("model", load(model)));
    let camera = config.camera.clone().or_else(|| recorded_camera(config));
    let mut core = Core::new(config.fusion.clone(), camera, tiles, matcher);
    core.set_clocks(config.clocks());
    core.set_matching(config.matching.clone());
    if let Some(rig) = &config.rig
        && let Some(rig) = usable("rig", Rig::new(rig).map_err(SetupError::from))
    {
        core.set_rig(rig);
    }
    core
}

fn usable<T>(what: &str, result: Result<T, SetupError>) -> Option<T> {
    result
        .inspect_err(
            |failure| error!(what, error = %failure, "going on without; the output is degraded"),
        )
        .ok()
}

/// The student again: the one that the config file names now, or without a file the same as before.
///
/// # Errors
/// [`SetupError`] when it cannot be used.
pub fn reload_model(
    model: Option<&ModelConfig>,
    config_path: Option<&Path>,
) -> Result<Box<dyn Matcher>, SetupError> {
    let config = config_path.map(Config::load).transpose()?;
    let model = match &config {
        Some(config) => config.model.as_ref(),
        None => model,
    };
    load(model.ok_or(SetupError::NoModel)?)
}

/// The student in shadow mode that the config names, with tiles of its own.
///
/// # Errors
/// [`SetupError`] when it, or the tiles, cannot be used.
pub fn load_shadow(config: &Config, shadow: &ShadowConfig) -> Result<Box<Shadow>, SetupError> {
    let matcher = load(&shadow.as_model())?;
    // Whether these are the right tiles was found out at the start.
    let tiles = config
        .tiles
        .as_ref()
        .map(|tiles| TileStore::open(&tiles.path));
    let fusion = [config.fusion.patch_grid_m, config.fusion.outlier_share()];
    let shadow = Shadow::new(matcher, tiles.transpose()?, fusion, shadow.every);
    Ok(Box::new(shadow))
}

/// Loads what the config file names at the time; without a file, what this config names.
pub fn shadow_loader(config: &Config, config_path: Option<PathBuf>) -> Arc<LoadShadow> {
    let config = config.clone();
    Arc::new(move || {
        let Ok(now) = config_path.as_deref().map(Config::load).transpose() else {
            return Loaded::Unreadable;
        };
        let config = now.as_ref().unwrap_or(&config);
        config.shadow.as_ref().map_or(Loaded::None, |shadow| {
            let name = shadow.model.display().to_string();
            Loaded::Some(name, load_shadow(config, shadow))
        })
    })
}

fn load(config: &ModelConfig) -> Result<Box<dyn Matcher>, SetupError> {
    let bytes = TractMatcher::read(&config.path)?;
    let pin = Pin {
        part: "model",
        path: &config.path,
        sha256: config.sha256.as_deref(),
        minisign: config.minisign.as_deref(),
    };
    let sha256 = pin.verify(bytes.as_slice())?;
    let name = config.path.display().to_string();
    let matcher = TractMatcher::within(&bytes, &name, config.memory_mb)?;
    info!(path = ?config.path, sha256, "student loaded");
    let path = config.path.clone();
    Ok(Box::new(matcher.of_file(ModelFile { path, sha256 })))
}

/// The tiles, if they are the right ones.
///
/// # Errors
/// [`SetupError`] when they cannot be opened, or are others than the config says.
pub(crate) fn open_tiles(config: &TilesConfig) -> Result<TileStore, SetupError> {
    let pin = Pin {
        part: "tiles",
        path: &config.path,
        sha256: config.sha256.as_deref(),
        minisign: config.minisign.as_deref(),
    };
    if pin.asks() {
        let file = file::open(&config.path).map_err(|error| SetupError::Read {
            path: config.path.clone(),
            source: error.into(),
        })?;
        pin.verify(file)?;
    }
    Ok(TileStore::open(&config.path)?)
}

/// The camera that a recorded source was made with.
fn recorded_camera(config: &Config) -> Option<Camera> {
    config.source.iter().find_map(|source| {
        let SourceConfig::Mcap(source) = source else {
            return None;
        };
        let topics = source.topics.clone().unwrap_or_default();
        let recording = Recording::open(&source.path, &topics)
            .inspect_err(|error| warn!(%error, "no camera calibration"))
            .ok()?;
        let records = recording.records().take(CALIBRATION_WITHIN);
        records
            .filter_map(|record| Some(record.ok()?.message))
            .find_map(|message| match message {
                Message::Calibration(camera) => Some(camera),
                _ => None,
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::tests::tiny_card;
    use crate::config::RigCameraConfig;
    use crossfix_calibration::{LeverArm, Mount, Pinhole};

    fn lens(yaw_left_deg: f64) -> Camera {
        Camera::Pinhole(Pinhole {
            mount: Mount {
                yaw_left_deg,
                ..Mount::default()
            },
            ..Pinhole::with_horizontal_view(128, 96, 1.9)
        })
    }

    fn problems(card: &StudentCard, config: &Config) -> Vec<String> {
        let mut problems = Vec::new();
        misfits_of("student", card, config, None, &mut problems);
        problems
    }

    #[test]
    fn a_camera_that_does_not_look_where_the_pinhole_student_does_is_told() {
        let mut card = tiny_card();
        card.ground.camera = Some([6.0, 6.0, 3.5, 1.5]);
        for (yaw_left_deg, good) in [(0.0, true), (10.0, true), (150.0, false)] {
            let config = Config {
                camera: Some(lens(yaw_left_deg)),
                ..Config::default()
            };
            let found = problems(&card, &config);
            assert_eq!(found.is_empty(), good, "{yaw_left_deg}: {found:?}");
            assert!(
                good || found[0].contains("sees 0 % of the picture"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_panorama_that_ends_where_the_student_still_looks_is_told() {
        let camera = [0.0, 120.0, -120.0].map(|yaw_left_deg| RigCameraConfig {
            source: format!("{yaw_left_deg}"),
            lens: lens(yaw_left_deg),
            lever_arm: LeverArm::default(),
        });
        let mut card = tiny_card();
        card.ground.top_elevation_deg = 28.0;
        (card.ground.rows, card.ground.columns) = (48, 256);
        for (top_elevation_deg, good) in [(30.0, true), (20.0, false)] {
            let rig = RigConfig {
                camera: camera.clone().into(),
                top_elevation_deg,
                ..RigConfig::default()
            };
            let config = Config {
                rig: Some(rig),
                ..Config::default()
            };
            let found = problems(&card, &config);
            assert_eq!(found.is_empty(), good, "{top_elevation_deg}: {found:?}");
            assert!(
                good || found[0].contains("rig.top_elevation_deg"),
                "{found:?}"
            );
        }
    }
}
