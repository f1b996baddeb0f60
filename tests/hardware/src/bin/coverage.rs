//! Whether the regions that estimates state hold the truth as often as they say: over drives of many
//! areas, without faults.
//!
//! `coverage FOLDER...`: folders as `crossfix demo` makes them (student.onnx, test/tiles.pmtiles,
//! test/logs). Errors of one drive hang together, so beside the number of estimates stands the number of
//! spans of 20 s, which are nearly independent.

use clap::Parser;
use crossfix_hardware_tests::drive::{Drive, Truth};
use crossfix_hardware_tests::run::{Published, Run, Vehicle, run_all};
use crossfix_hardware_tests::scenario::Scenario;
use crossfix_onboard::event::State;
use crossfix_onboard::fusion::FusionConfig;
use std::io::Write;
use std::path::PathBuf;

/// Regions of a two-dimensional Gaussian, as shares.
const REGIONS: [f64; 5] = [0.5, 0.68, 0.9, 0.95, 0.99];
/// Errors this far apart are nearly independent, seconds.
const SPAN_S: f64 = 20.0;

/// Counts how often regions hold the truth.
#[derive(Debug, Parser)]
struct Args {
    /// Folders with a student, tiles and drives.
    folders: Vec<PathBuf>,
    /// GNSS and odometry alone.
    #[arg(long)]
    no_student: bool,
    /// Drives at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A setting of the daemon's `[fusion]`, as in the config file: `visual_exponent = 0.8`.
    #[arg(long)]
    set: Vec<String>,
    /// The daemon's `matching.whole_every`, for a student with a window.
    #[arg(long, default_value_t = 1)]
    whole_every: u32,
    /// Write every estimate there, as lines of numbers: folder, drive, seconds, error east and north,
    /// covariance ee, en, nn, radius, 1 if ok.
    #[arg(long)]
    dump: Option<PathBuf>,
}

/// How often, of how many.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    estimates: usize,
    spans: f64,
    inside: [usize; 5],
    outside_radius: usize,
    error_m: f64,
    /// Those of a known course, and the sums of their errors along and across it.
    on_course: usize,
    along_across_m: [f64; 2],
}

impl Counts {
    fn add(&mut self, published: &Published, truth: &Truth) {
        let Some([east, north]) = published.error_m else {
            return;
        };
        let [[ee, en], [_, nn]] = published.covariance_m2;
        let determinant = ee * nn - en * en;
        let squared =
            (nn * east * east - 2.0 * en * east * north + ee * north * north) / determinant;
        self.estimates += 1;
        for (inside, share) in self.inside.iter_mut().zip(REGIONS) {
            *inside += usize::from(squared <= -2.0 * (1.0 - share).ln());
        }
        let error_m = east.hypot(north);
        self.outside_radius += usize::from(error_m > published.radius_m);
        self.error_m += error_m;
        if let Some(course) = truth.course(published.time_ns) {
            self.on_course += 1;
            self.along_across_m[0] += (course[0] * east + course[1] * north).abs();
            self.along_across_m[1] += (course[0] * north - course[1] * east).abs();
        }
    }

    fn pooled(&mut self, other: &Self) {
        self.estimates += other.estimates;
        self.spans += other.spans;
        self.outside_radius += other.outside_radius;
        self.error_m += other.error_m;
        self.on_course += other.on_course;
        for (sum, more) in self.along_across_m.iter_mut().zip(other.along_across_m) {
            *sum += more;
        }
        for (sum, more) in self.inside.iter_mut().zip(other.inside) {
            *sum += more;
        }
    }

    fn row(&self, name: &str) -> String {
        let percent = |count: usize| count as f64 / self.estimates as f64 * 100.0;
        let mut row = format!("{name:<24} {:>7} {:>6.0}", self.estimates, self.spans);
        for inside in self.inside {
            row += &format!(" {:>6.1}", percent(inside));
        }
        let [along_m, across_m] = self.along_across_m.map(|sum| sum / self.on_course as f64);
        row + &format!(
            " {:>8.2} {:>8.2} {along_m:>8.2} {across_m:>9.2}",
            percent(self.outside_radius),
            self.error_m / self.estimates as f64
        )
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let scenario: Scenario = toml::from_str(&format!(
        "about = \"nothing goes wrong\"\nstudent = {}",
        !args.no_student
    ))?;
    let mut dump = args.dump.map(std::fs::File::create).transpose()?;
    println!(
        "{:<24} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8} {:>9}",
        "folder",
        "count",
        "spans",
        "50 %",
        "68 %",
        "90 %",
        "95 %",
        "99 %",
        "out, %",
        "mean, m",
        "along, m",
        "across, m"
    );
    let fusion: FusionConfig = toml::from_str(&args.set.join("\n"))?;
    let mut pooled = Counts::default();
    for folder in &args.folders {
        let drives = Drive::all(&folder.join("test/logs"))?;
        let vehicle = Vehicle {
            fusion: &fusion,
            whole_every: args.whole_every,
            student: &folder.join("student.onnx"),
            tiles: &folder.join("test/tiles.pmtiles"),
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let mut counts = Counts::default();
        for (drive, run) in run_all(&drives, &scenario, vehicle, args.threads)?
            .iter()
            .enumerate()
        {
            count(run, &drives[drive].truth, &mut counts);
            if let Some(file) = &mut dump {
                write(file, &name, drive, run)?;
            }
        }
        println!("{}", counts.row(&name));
        pooled.pooled(&counts);
    }
    println!("{}", pooled.row("all"));
    Ok(())
}

fn count(run: &Run, truth: &Truth, counts: &mut Counts) {
    let known = run.fused.iter().filter(|one| one.state != State::Lost);
    known.for_each(|published| counts.add(published, truth));
    counts.spans += run.length_s / SPAN_S;
}

fn write(file: &mut std::fs::File, folder: &str, drive: usize, run: &Run) -> std::io::Result<()> {
    for published in &run.fused {
        let [east, north] = published.error_m.unwrap_or([f64::NAN; 2]);
        let [[ee, en], [_, nn]] = published.covariance_m2;
        writeln!(
            file,
            "{folder} {drive} {:.2} {east:.3} {north:.3} {ee:.4} {en:.4} {nn:.4} {:.2} {}",
            published.at_s,
            published.radius_m,
            u8::from(published.state == State::Ok)
        )?;
    }
    Ok(())
}
