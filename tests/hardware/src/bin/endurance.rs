//! Many hours of driving through the daemon's core on a simulated clock: the drives of a demo, one after another, in
//! one core that is never started anew. Between two of them the vehicle is silent for a while and elsewhere after it.
//! Positions must stay as good as in the first hour, and memory as it is.
//!
//! `endurance DEMO_OUT --hours 24` prints a line an hour and exits with 1 when something grows.

use anyhow::{Context, ensure};
use clap::Parser;
use crossfix_hardware_tests::drive::Drive;
use crossfix_onboard::core::Core;
use crossfix_onboard::event::{Arrival, Estimate, EstimateKind, State};
use crossfix_onboard::fusion::FusionConfig;
use crossfix_onboard::matcher::TractMatcher;
use crossfix_onboard::pipeline::LiveCore;
use crossfix_onboard::tiles::TileStore;
use std::path::PathBuf;
use std::process::ExitCode;

/// The daemon's tick.
const TICK_NS: i64 = 100_000_000;
/// From the end of one drive to the beginning of the next, nanoseconds.
const BREAK_NS: i64 = 20_000_000_000;
const HOUR_NS: i64 = 3_600_000_000_000;
/// Memory may grow by so much from the end of the first hour to that of the last, MiB.
const MOST_GROWTH_MIB: f64 = 8.0;
/// The mean error of an hour is at most so many times that of the first.
const MOST_RATIO: f64 = 1.2;
/// Parts of an hour in `ok` may fall by so much, percent.
const MOST_LESS_OK: f64 = 5.0;

/// Drives for many hours on a simulated clock and checks that nothing grows.
#[derive(Debug, Parser)]
struct Args {
    /// The folder that `crossfix demo` made.
    demo: PathBuf,
    /// Hours to drive.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    hours: u32,
}

/// What an hour was like.
#[derive(Debug, Clone, Copy, Default)]
struct Hour {
    drives: u32,
    estimates: u64,
    known: u64,
    sum_m: f64,
    ok: u64,
    ok_outside: u64,
    longest_gap_s: f64,
    resets: u32,
    memory_mib: f64,
}

impl Hour {
    fn add(&mut self, estimate: &Estimate, error_m: f64) {
        self.estimates += 1;
        self.resets = estimate.reset_count;
        if estimate.state != State::Lost {
            self.known += 1;
            self.sum_m += error_m;
        }
        if estimate.state == State::Ok {
            self.ok += 1;
            self.ok_outside += u64::from(!(error_m <= estimate.protection_radius_m));
        }
    }

    fn mean_m(&self) -> f64 {
        self.sum_m / self.known as f64
    }

    fn percent(&self, part: u64) -> f64 {
        100.0 * part as f64 / self.estimates as f64
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let drives = Drive::all(&args.demo.join("test/logs"))?;
    let tiles = TileStore::open(args.demo.join("test/tiles.pmtiles"))?;
    let student = TractMatcher::load(args.demo.join("student.onnx"))?;
    let camera = drives[0].camera.clone();
    let core = Core::new(
        FusionConfig::default(),
        camera,
        Some(tiles),
        Some(Box::new(student)),
    );
    let mut live = LiveCore::new(core, TICK_NS, 0);
    let first_ns = drives[0].truth.start_ns();
    let mut hours: Vec<Hour> = Vec::new();
    let mut hour = Hour::default();
    let mut begins_ns = 0;
    println!(
        "hour drives estimates  mean, m  ok, %  ok and outside, %  gap, s  resets  memory, MiB"
    );
    for drive in drives.iter().cycle() {
        if begins_ns >= HOUR_NS * (hours.len() as i64 + 1) {
            hour.memory_mib = memory_mib()?;
            println!(
                "{:4} {:6} {:9} {:8.3} {:6.1} {:18.3} {:7.1} {:7} {:12.1}",
                hours.len() + 1,
                hour.drives,
                hour.estimates,
                hour.mean_m(),
                hour.percent(hour.ok),
                hour.percent(hour.ok_outside),
                hour.longest_gap_s,
                hour.resets,
                hour.memory_mib
            );
            hours.push(std::mem::take(&mut hour));
            if hours.len() >= args.hours as usize {
                break;
            }
        }
        let drive = drive.later(first_ns + begins_ns - drive.truth.start_ns());
        let (mut last_ns, mut end_ns) = (begins_ns, begins_ns);
        let mut publish = |at_ns: i64, estimates: Vec<Estimate>| {
            for estimate in estimates {
                if estimate.kind != EstimateKind::Fused {
                    continue;
                }
                hour.longest_gap_s = hour.longest_gap_s.max((at_ns - last_ns) as f64 * 1e-9);
                last_ns = at_ns;
                if let Some([east, north]) =
                    drive.truth.error_m(estimate.time_ns, estimate.position)
                {
                    hour.add(&estimate, east.hypot(north));
                }
            }
        };
        for arrival in &drive.arrivals {
            let at_ns = begins_ns + arrival.at_ns.max(0);
            while live.next_tick_ns() < at_ns {
                let now_ns = live.next_tick_ns();
                publish(now_ns, live.wait_over(now_ns));
            }
            let arrival = Arrival::new(arrival.source, at_ns, arrival.event.clone());
            publish(at_ns, live.handle(arrival));
            end_ns = end_ns.max(at_ns);
        }
        begins_ns = end_ns + BREAK_NS;
        hour.drives += 1;
    }
    let (first, last) = (hours[0], hours[hours.len() - 1]);
    ensure!(first.known > 0, "no position in the first hour");
    let mut good = true;
    let mut at_most = |what: &str, value: f64, bound: f64| {
        if !(value <= bound) {
            println!("BROKEN: {what} {value:.3}, at most {bound:.3}");
            good = false;
        }
    };
    for (number, hour) in hours.iter().enumerate() {
        let what = |what: &str| format!("hour {}: {what}", number + 1);
        at_most(&what("mean, m"), hour.mean_m(), MOST_RATIO * first.mean_m());
        let not_ok = 100.0 - hour.percent(hour.ok);
        let bound = 100.0 - first.percent(first.ok) + MOST_LESS_OK;
        at_most(&what("not ok, %"), not_ok, bound);
        at_most(
            &what("ok and outside, %"),
            hour.percent(hour.ok_outside),
            0.1,
        );
        at_most(&what("gap, s"), hour.longest_gap_s, 1.0);
    }
    let growth_mib = last.memory_mib - first.memory_mib;
    at_most("growth of memory, MiB", growth_mib, MOST_GROWTH_MIB);
    println!("{} hours, memory grew by {growth_mib:.1} MiB", hours.len());
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What of this process is in memory, MiB.
fn memory_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .context("no VmRSS")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
