//! Drives under faults: every file of `scenarios/` says what goes wrong and what must hold all the
//! same. Needs the folder that `crossfix demo` made: its student, its tiles and its drives.
//!
//! `fault_drives DEMO_OUT [SCENARIO...]` prints a table and exits with 1 when a bound is broken.
//! Scenarios are named in full or by how they begin.

use anyhow::{Context, ensure};
use clap::Parser;
use crossfix_hardware_tests::drive::Drive;
use crossfix_hardware_tests::figures::{Compared, Figures, farthest_m};
use crossfix_hardware_tests::live::{self, Daemon};
use crossfix_hardware_tests::run::{Run, Vehicle, in_parallel, run_all};
use crossfix_hardware_tests::scenario::Scenario;
use crossfix_onboard::fusion::FusionConfig;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs recorded drives under faults and checks what must hold.
#[derive(Debug, Parser)]
struct Args {
    /// The folder that `crossfix demo` made.
    demo: PathBuf,
    /// Names of scenarios, or how they begin; none means all.
    scenarios: Vec<String>,
    /// Folder of scenario files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Use only so many drives.
    #[arg(long)]
    drives: Option<usize>,
    /// Drives at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A setting of the daemon's `[fusion]`, as in the config file: `visual_exponent = 0.8`.
    #[arg(long)]
    set: Vec<String>,
    /// The daemon's `matching.whole_every`, for a student with a window.
    #[arg(long, default_value_t = 1)]
    whole_every: u32,
    /// Drive in real time through this `crossfixd`: NMEA over pseudo-terminals, odometry over UDP, pictures in a folder.
    /// What comes out must be as good as on the simulated clock. Scenarios whose faults are of the student or the tiles
    /// are left out.
    #[arg(long, value_name = "CROSSFIXD")]
    live: Option<PathBuf>,
    /// Print every estimate of every drive.
    #[arg(long)]
    verbose: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut scenarios = Scenario::all(args.folder.as_deref().unwrap_or(&here))?;
    if !args.scenarios.is_empty() {
        let wanted = |name: &str| {
            args.scenarios
                .iter()
                .any(|wanted| name.starts_with(wanted.as_str()))
        };
        scenarios.retain(|scenario| wanted(&scenario.name));
    }
    ensure!(!scenarios.is_empty(), "there is no such scenario");
    let mut drives = Drive::all(&args.demo.join("test/logs"))?;
    drives.truncate(args.drives.unwrap_or(drives.len()));
    let (student, tiles) = (
        args.demo.join("student.onnx"),
        args.demo.join("test/tiles.pmtiles"),
    );
    let fusion: FusionConfig = toml::from_str(&args.set.join("\n"))?;
    let vehicle = Vehicle {
        fusion: &fusion,
        whole_every: args.whole_every,
        student: &student,
        tiles: &tiles,
    };
    let mut live_runs = VecDeque::new();
    if let Some(program) = &args.live {
        scenarios.retain(live::is_possible);
        live_runs = in_real_time(&args, program, &scenarios, &drives, vehicle)?;
        for scenario in &mut scenarios {
            let simulated = run_all(&drives, scenario, vehicle, args.threads)?;
            scenario.expect = scenario.expect.live(&Figures::of(scenario, &simulated));
            if let Some(known) = &mut scenario.known {
                *known = known.live(&scenario.expect);
            }
        }
    }
    println!("{}", Figures::heading());
    let (mut broken, mut known_broken) = (0, 0);
    // Many scenarios are compared with the same drive.
    let mut references = HashMap::new();
    for scenario in &scenarios {
        let all = |scenario: &Scenario| run_all(&drives, scenario, vehicle, args.threads);
        let runs = live_runs
            .pop_front()
            .map_or_else(|| all(scenario), Ok)
            .with_context(|| format!("in {}", scenario.name))?;
        if args.verbose {
            for (drive, run) in drives.iter().zip(&runs) {
                println!("{}", drive.name);
                print_run(run);
            }
        }
        let figures = Figures::of(scenario, &runs);
        let mut compared = Compared::default();
        if let Some(reference) = scenario.reference() {
            let key = reference.key();
            let known = references.get(&key).copied();
            let mean_m = match known {
                Some(mean_m) => mean_m,
                None => Figures::of(&reference, &all(&reference)?).mean_m,
            };
            references.insert(key, mean_m);
            compared.reference_m = Some(mean_m);
        }
        if let Some(other) = scenario.without_late_faults() {
            compared.moved_m = Some(farthest_m(&runs, &all(&other)?));
        }
        println!("{}", figures.row(&scenario.name, compared));
        let failures = figures.failures(&scenario.expect, compared);
        for failure in &failures {
            println!("    BROKEN: {failure}");
        }
        if !failures.is_empty() {
            println!("    {} Mostly said: {:?}", scenario.about, figures.reason);
        }
        match (&scenario.known, failures.is_empty()) {
            (None, true) => {}
            (None, false) => broken += 1,
            (Some(known), false) => {
                println!("    KNOWN: {}", known.why);
                let worse = figures.worse_than(known);
                worse
                    .iter()
                    .for_each(|worse| println!("    WORSE: {worse}"));
                if worse.is_empty() {
                    known_broken += 1;
                } else {
                    broken += 1;
                }
            }
            (Some(_), true) if args.live.is_some() => {}
            (Some(_), true) => println!("    It holds now: take `known` out of its file."),
        }
    }
    println!(
        "{} of {} scenarios hold, {known_broken} are known to be broken, {broken} are broken",
        scenarios.len() - broken - known_broken,
        scenarios.len()
    );
    Ok(if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The runs of each scenario, all of them `threads` at once.
fn in_real_time(
    args: &Args,
    program: &Path,
    scenarios: &[Scenario],
    drives: &[Drive],
    vehicle: Vehicle<'_>,
) -> anyhow::Result<VecDeque<Vec<Run>>> {
    let dataset = args.demo.join("test/dataset.toml");
    let dataset = std::fs::read_to_string(&dataset)
        .with_context(|| format!("cannot read {}", dataset.display()))?;
    let camera = dataset.find("\n[camera]").map(|at| &dataset[at..]);
    let folder = args.demo.join("live");
    let daemon = Daemon {
        program,
        camera: camera.context("the dataset has no camera")?,
        folder: &folder,
    };
    let cells: Vec<(&Scenario, &Drive)> = scenarios
        .iter()
        .flat_map(|scenario| drives.iter().map(move |drive| (scenario, drive)))
        .collect();
    let runs = in_parallel(&cells, args.threads, |(scenario, drive)| {
        live::run(drive, scenario, vehicle, daemon)
            .with_context(|| format!("{} on {}", scenario.name, drive.name))
    });
    let mut runs = runs.into_iter();
    scenarios
        .iter()
        .map(|_| runs.by_ref().take(drives.len()).collect())
        .collect()
}

fn print_run(run: &Run) {
    for published in &run.fused {
        let [east, north] = published.error_m.unwrap_or([f64::NAN; 2]);
        println!(
            "{:8.2} s  error {:8.2} {:8.2} m  radius {:7.1} m  {:<9} resets {}  {}",
            published.at_s,
            east,
            north,
            published.radius_m,
            published.state.as_str(),
            published.reset_count,
            published.reason
        );
    }
}
