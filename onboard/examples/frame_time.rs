//! Where the time of a frame goes, on one thread: `frame_time STUDENT.onnx TILES LOG.mcap...`
//!
//! Takes each recorded drive through the steps of `core.rs`, timed one by one, and prints the median,
//! the 99th percentile and the largest of each. Pin it to a core (`taskset -c 0`) and let nothing else
//! run.

use std::collections::HashSet;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use crossfix_calibration::{Camera, PatchKey, PatchSpec, StripRemap};
use crossfix_onboard::event::{CameraFrame, CrossViewFix, wrap_rad};
use crossfix_onboard::fusion::{Fusion, FusionConfig};
use crossfix_onboard::image_decode::decode_rgb;
use crossfix_onboard::log::{LogReader, Message};
use crossfix_onboard::matcher::{GroundStrip, Matcher, TractMatcher};
use crossfix_onboard::tiles::TileStore;

const STEPS: [&str; 11] = [
    "decode the picture",
    "strip: table",
    "strip: remap",
    "aerial patch, new",
    "aerial features, new",
    "ground and matching",
    "fusion: heatmap and estimates",
    "whole frame",
    "whole frame, new patch",
    "whole frame, known patch",
    "fusion: odometry or fix, and estimates",
];

/// Milliseconds of each step, in the order of [`STEPS`].
#[derive(Default)]
struct Times([Vec<f64>; STEPS.len()]);

impl Times {
    fn add(&mut self, step: usize, since: Instant) -> f64 {
        let ms = since.elapsed().as_secs_f64() * 1e3;
        self.0[step].push(ms);
        ms
    }

    fn print(&mut self) {
        println!(
            "{:<40} {:>6} {:>8} {:>8} {:>8}  ms",
            "", "count", "median", "p99", "most"
        );
        for (name, times) in STEPS.iter().zip(&mut self.0) {
            times.sort_by(f64::total_cmp);
            let at = |share: f64| {
                let index = (share * times.len() as f64) as usize;
                times
                    .get(index.min(times.len().saturating_sub(1)))
                    .copied()
                    .unwrap_or(f64::NAN)
            };
            let (median, p99, most) = (at(0.5), at(0.99), at(1.0));
            println!(
                "{name:<40} {:>6} {median:>8.3} {p99:>8.3} {most:>8.3}",
                times.len()
            );
        }
    }
}

struct Drive {
    matcher: TractMatcher,
    tiles: TileStore,
    fusion: Fusion,
    camera: Option<Camera>,
    known: HashSet<PatchKey>,
}

impl Drive {
    fn open(student: &Path, tiles: &Path) -> Result<Self> {
        let tiles = TileStore::open(tiles)?;
        let georef_sigma_m = tiles.manifest().georef_sigma_m;
        Ok(Self {
            matcher: TractMatcher::load(student)?,
            tiles,
            fusion: Fusion::new(FusionConfig::default(), georef_sigma_m),
            camera: None,
            known: HashSet::new(),
        })
    }

    fn replay(&mut self, log: &Path, times: &mut Times) -> Result<()> {
        for message in LogReader::open(log)? {
            let start = Instant::now();
            let used = match message? {
                Message::Calibration(camera) => {
                    self.camera = Some(camera);
                    continue;
                }
                Message::Frame(frame) => {
                    self.frame(&frame, times)?;
                    continue;
                }
                Message::Gnss(fix) => self.fusion.on_gnss(&fix),
                Message::Odometry(sample) => self.fusion.on_odometry(&sample),
                Message::Estimate(_) | Message::Other { .. } => continue,
            };
            if used.is_ok() {
                black_box(self.fusion.estimates(None));
                times.add(10, start);
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &CameraFrame, times: &mut Times) -> Result<()> {
        let begin = Instant::now();
        self.fusion.reach(frame.time_ns);
        let Ok(pose) = self.fusion.wants_frame(frame.time_ns) else {
            return Ok(());
        };
        let camera = self
            .camera
            .as_ref()
            .context("the log has no camera calibration before its first picture")?;
        let card = self.matcher.card().clone();

        let start = Instant::now();
        let picture = decode_rgb(&frame.image, 8192)?;
        times.add(0, start);

        let start = Instant::now();
        let direction = card.ground.strip_spec(pose.yaw_rad);
        let remap = StripRemap::new(camera, &direction, pose.yaw_rad)?;
        times.add(1, start);
        let start = Instant::now();
        let strip = remap.apply(&picture)?;
        times.add(2, start);

        let spec = PatchSpec {
            size_px: card.aerial.size_px,
            metres_per_pixel: card.aerial.metres_per_pixel,
        };
        let start = Instant::now();
        let grid_m = self.fusion.config().patch_grid_m;
        let (georeference, patch) = self.tiles.patch(pose.position, spec, grid_m)?;
        let new = self.known.insert(georeference.key());
        if new {
            times.add(3, start);
        }

        let strip = GroundStrip {
            image: &strip,
            left_azimuth_rad: direction.left_azimuth_rad,
        };
        let found = self
            .matcher
            .match_frame(strip, georeference.key(), &patch)?;
        if new {
            times.0[4].push(found.timings.aerial.as_secs_f64() * 1e3);
        }
        times.0[5].push(found.timings.ground_and_matching.as_secs_f64() * 1e3);

        let start = Instant::now();
        let sigma_rad = self.fusion.config().visual_yaw_sigma_deg.to_radians();
        let fix = CrossViewFix {
            time_ns: frame.time_ns,
            centre: georeference.centre(),
            heatmap: found.heatmap,
            yaw_rad: found
                .yaw_residual_rad
                .filter(|_| sigma_rad > 0.0)
                .map(|residual| wrap_rad(pose.yaw_rad + residual)),
            yaw_sigma_rad: sigma_rad,
        };
        self.fusion.on_visual(&fix)?;
        black_box(self.fusion.estimates(None));
        times.add(6, start);
        let whole = times.add(7, begin);
        times.0[if new { 8 } else { 9 }].push(whole);
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [student, tiles, logs @ ..] = arguments.as_slice() else {
        bail!("usage: frame_time STUDENT.onnx TILES LOG.mcap...");
    };
    let mut times = Times::default();
    for log in logs {
        // A drive begins with nothing cached, like a daemon.
        let mut drive = Drive::open(student, tiles)?;
        drive
            .replay(log, &mut times)
            .with_context(|| log.display().to_string())?;
    }
    times.print();
    Ok(())
}
