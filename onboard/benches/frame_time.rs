//! Where the time of a frame goes, on one thread: `frame_time STUDENT.onnx TILES LOG.mcap...`
//!
//! Takes each recorded drive through the steps of `core.rs`, timed one by one, and prints the median,
//! the 99th percentile and the largest of each, by the clock and by the thread's CPU time. Pin it to
//! a core (`taskset -c 0`); when other work runs beside it, only the CPU time means something.

use std::collections::HashSet;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cpu_time::ThreadTime;
use crossfix_calibration::{Camera, PatchKey, PatchSpec, StripRemap};
use crossfix_onboard::event::{CameraFrame, CrossViewFix};
use crossfix_onboard::fusion::{Fusion, FusionConfig};
use crossfix_onboard::image_decode::decode_rgb;
use crossfix_onboard::log::{LogReader, Message};
use crossfix_onboard::matcher::{GroundStrip, Matcher, TractMatcher};
use crossfix_onboard::tiles::TileStore;

const STEPS: [&str; 12] = [
    "decode the picture",
    "strip: table",
    "strip: remap",
    "aerial patch, new",
    "network, new patch",
    "network, known patch",
    "fusion: heatmap and estimates",
    "whole frame",
    "whole frame, new patch",
    "whole frame, known patch",
    "odometry, and estimates",
    "fix, and estimates",
];

/// Wall-clock and CPU milliseconds of each step, in the order of [`STEPS`].
#[derive(Default)]
struct Times([Vec<[f64; 2]>; STEPS.len()]);

/// The beginning of a step.
#[derive(Clone, Copy)]
struct Start(Instant, ThreadTime);

impl Start {
    fn now() -> Self {
        Self(Instant::now(), ThreadTime::now())
    }
}

impl Times {
    fn add(&mut self, step: usize, since: Start) {
        let Start(wall, cpu) = since;
        let cpu = cpu.elapsed();
        self.0[step].push([wall.elapsed(), cpu].map(|time| time.as_secs_f64() * 1e3));
    }

    fn print(&self) {
        println!(
            "{:<40} {:>5}  {:^28}  {:^28}",
            "ms", "", "wall clock", "CPU time"
        );
        let heads = ["median", "p99", "most"]
            .map(|head| format!("{head:>8}"))
            .join(" ");
        println!("{:<40} {:>5}  {heads:<28}  {heads}", "", "count");
        for (name, times) in STEPS.iter().zip(&self.0) {
            let [wall, cpu] = [0, 1].map(|clock| {
                let mut times: Vec<f64> = times.iter().map(|both| both[clock]).collect();
                times.sort_by(f64::total_cmp);
                let at = |share: f64| {
                    let index = (share * times.len() as f64) as usize;
                    times
                        .get(index.min(times.len().saturating_sub(1)))
                        .copied()
                        .unwrap_or(f64::NAN)
                };
                [0.5, 0.99, 1.0]
                    .map(|share| format!("{:>8.3}", at(share)))
                    .join(" ")
            });
            println!("{name:<40} {:>5}  {wall:<28}  {cpu}", times.len());
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
            let start = Start::now();
            let (step, used) = match message? {
                Message::Calibration(camera) => {
                    self.camera = Some(camera);
                    continue;
                }
                Message::Frame(frame) => {
                    self.frame(&frame, times)?;
                    continue;
                }
                Message::Odometry(sample) => (10, self.fusion.on_odometry(&sample)),
                Message::Gnss(fix) => (11, self.fusion.on_gnss(&"gnss".into(), &fix)),
                Message::Estimate(_) | Message::Nothing(_) | Message::Other { .. } => continue,
            };
            if used.is_ok() {
                black_box(self.fusion.estimates(None));
                times.add(step, start);
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &CameraFrame, times: &mut Times) -> Result<()> {
        let begin = Start::now();
        self.fusion.reach(frame.time_ns);
        let Ok(pose) = self.fusion.wants_frame(frame.time_ns) else {
            return Ok(());
        };
        let camera = self
            .camera
            .as_ref()
            .context("the log has no camera calibration before its first picture")?;
        let card = self.matcher.card().clone();

        let start = Start::now();
        let picture = decode_rgb(&frame.image, 8192)?;
        times.add(0, start);

        let start = Start::now();
        let direction = card.ground.strip_spec(pose.yaw.radians());
        let remap = StripRemap::new(camera, &direction, pose.yaw.radians())?;
        times.add(1, start);
        let start = Start::now();
        let strip = remap.apply(&picture)?;
        times.add(2, start);

        let spec = PatchSpec {
            size_px: card.aerial.size_px,
            metres_per_pixel: card.aerial.metres_per_pixel,
        };
        let start = Start::now();
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
        let start = Start::now();
        let found = self
            .matcher
            .match_frame(strip, georeference.key(), &patch)?;
        times.add(if new { 4 } else { 5 }, start);

        let start = Start::now();
        let sigma_rad = self.fusion.config().visual_yaw_sigma_deg.to_radians();
        let fix = CrossViewFix {
            time_ns: frame.time_ns,
            centre: georeference.centre(),
            heatmap: found.heatmap,
            yaw: found
                .yaw_residual_rad
                .filter(|_| sigma_rad > 0.0)
                .map(|residual| pose.yaw.turned(residual)),
            yaw_sigma_rad: sigma_rad,
        };
        self.fusion.on_visual(&fix)?;
        black_box(self.fusion.estimates(None));
        times.add(6, start);
        times.add(7, begin);
        times.add(if new { 8 } else { 9 }, begin);
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .map(PathBuf::from)
        .collect();
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
