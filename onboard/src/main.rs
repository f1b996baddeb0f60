//! `crossfixd`: read the config, run the pipeline, stop cleanly on a signal.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use anyhow::{anyhow, bail};
use clap::{CommandFactory, Parser};
use crossfix_onboard::cli::{Arguments, Command};
use crossfix_onboard::config::{Config, Part, ProblemKind};
use crossfix_onboard::log::LogWriter;
use crossfix_onboard::panic_is_caught;
use crossfix_onboard::peer::jsonl::estimate_json;
use crossfix_onboard::pipeline::{self, Controls, Replayed};
use crossfix_onboard::status;
use tracing::warn;

/// Lines of the log that may wait for a reader; more are lost.
const LOG_LINES: usize = 1024;
/// How long the last words may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let _log = log_to_stderr();
    // A dead thread must not leave half a daemon publishing, nor wait for a reader of its last words.
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic_is_caught() {
            return;
        }
        std::thread::spawn(|| {
            std::thread::sleep(LAST_WORDS);
            std::process::abort();
        });
        default_hook(panic);
        std::process::abort();
    }));
    let arguments = Arguments::parse();
    let done = match (arguments.command, arguments.check, arguments.print_config) {
        (_, Some(config), _) | (Some(Command::Check { config }), _, _) => check(&config),
        (_, _, Some(config)) => print_config(config.as_deref()),
        (Some(Command::Run { config }), _, _) => run(&config),
        (Some(Command::Status { config }), _, _) => print_status(&config),
        (
            Some(Command::Replay {
                log,
                config,
                out,
                json,
            }),
            _,
            _,
        ) => replay(&log, config.as_deref(), out.as_deref(), json),
        (None, None, None) => {
            let help = Arguments::command().render_help();
            note(&format!("{help}\n"));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("crossfixd: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error through a bounded queue: a reader who stalls loses lines and holds up nothing.
/// What the guard returned still has to write is written, within a second, when it is dropped.
fn log_to_stderr() -> WorkerGuard {
    let asked = std::env::var("CROSSFIX_LOG").ok();
    let filter = asked.and_then(|filter| filter.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| {
        Targets::new()
            .with_default(LevelFilter::INFO)
            // They log every packet.
            .with_targets(["rustdds", "ros2_client"].map(|name| (name, LevelFilter::ERROR)))
            // It fails to leave multicast groups that it never joined.
            .with_target("rustdds::network::udp_listener", LevelFilter::OFF)
    });
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES)
        .finish(std::io::stderr());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // The complaint that standard error is full would go there too, and panic.
        .log_internal_errors(false);
    // The journal stamps and colours by itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        let layer = layer.without_time().with_ansi(false);
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .init();
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let layer = layer.with_ansi(terminal);
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .init();
    }
    guard
}

/// Writes to standard output; a reader who left is no error.
fn say(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    match written.and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow!("writing to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes to standard error, which may be closed or stalled.
fn note(text: &str) {
    let (text, (sender, written)) = (text.to_owned(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let _ = std::io::stderr().write_all(text.as_bytes());
        let _ = sender.send(());
    });
    let _ = written.recv_timeout(LAST_WORDS);
}

fn check(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let mut problems: Vec<String> = config
        .check_run()
        .iter()
        .chain(&config.check_machine())
        .map(ToString::to_string)
        .collect();
    if problems.is_empty() {
        problems = pipeline::misfits(&config)?;
    }
    refuse(path, &problems)?;
    say(&format!("{}: no problems\n", path.display()))
}

fn refuse(path: &Path, problems: &[impl Display]) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let list: String = problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect();
    bail!(
        "{} has {} problem(s):{list}",
        path.display(),
        problems.len()
    );
}

fn print_config(path: Option<&Path>) -> anyhow::Result<()> {
    let config = path.map(Config::load).transpose()?.unwrap_or_default();
    say(&config.to_toml())
}

fn print_status(path: &Path) -> anyhow::Result<()> {
    let Some(socket) = Config::load(path)?.daemon.status_socket else {
        bail!("{} sets no daemon.status_socket", path.display());
    };
    let answer = status::ask(&socket)
        .map_err(|error| anyhow!("no answer on {}: {error}", socket.display()))?;
    say(&answer)
}

fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    // A file that is missing on the road degrades the output; everything else is a mistake to mend.
    let (missing, wrong): (Vec<_>, Vec<_>) = config.check_run().into_iter().partition(|problem| {
        problem.kind == ProblemKind::Missing
            && matches!(problem.part, Part::Tiles | Part::Model | Part::Shadow)
    });
    refuse(path, &wrong)?;
    missing
        .iter()
        .for_each(|problem| warn!(%problem, "going on without"));
    let controls = Controls {
        config_path: Some(path.to_owned()),
        ..Controls::default()
    };
    stop_on_signals(&controls.stop)?;
    signal_hook::flag::register(signal_hook::consts::SIGHUP, controls.reload_model.clone())?;
    pipeline::run(&config, &controls)?;
    Ok(())
}

/// TERM and INT set the flag, and exit at once when it is set.
fn stop_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // In this order: the first signal sets the flag, the second finds it set and exits.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(())
}

fn replay(log: &Path, config: Option<&Path>, out: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let config = config.map(Config::load).transpose()?.unwrap_or_default();
    let mut problems = config.check();
    // What replay does not open may be missing.
    problems.retain(|problem| !matches!(problem.part, Part::Source | Part::Sink));
    // A shadow that is not there changes no estimate, and the summary says so.
    problems.retain(|problem| problem.part != Part::Shadow || problem.kind != ProblemKind::Missing);
    refuse(Path::new("the config"), &problems)?;
    // What was written until a signal is finished, also when the terminal is closed.
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;
    signal_hook::flag::register(signal_hook::consts::SIGHUP, stop.clone())?;
    let mut writer = out.map(LogWriter::create).transpose()?;
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut failure, mut written_any) = (None, false);
    let summary = pipeline::replay_until(log, &config, &stop, |replayed| {
        if failure.is_some() {
            return;
        }
        written_any = true;
        let written = writer.as_mut().map_or(Ok(()), |writer| match replayed {
            Replayed::Estimate(estimate) => writer.write_estimate(estimate),
            Replayed::Comparison(comparison) => writer.write_comparison(comparison),
        });
        let written = written.map_err(anyhow::Error::from);
        let printed = match replayed {
            Replayed::Estimate(estimate) if json => writeln!(stdout, "{}", estimate_json(estimate)),
            _ => Ok(()),
        };
        failure = written
            .and(printed.map_err(|error| anyhow!("writing to standard output: {error}")))
            .err();
        if failure.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            // An empty file would only be in the way of the next try.
            if let (Some(path), false) = (out, written_any) {
                drop(writer);
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    };
    if let Some(failure) = failure {
        return Err(failure);
    }
    stdout
        .flush()
        .map_err(|error| anyhow!("writing to standard output: {error}"))?;
    if let Some(writer) = writer {
        writer.finish()?;
    }
    note(&format!(
        "crossfixd: {} events, {} estimates, {} bad messages; {:?}\n",
        summary.events, summary.estimates, summary.bad_messages, summary.counters
    ));
    if let Some(shadow) = &summary.shadow {
        note(&format!("crossfixd: {}\n", shadow.sentence()));
    }
    match summary.damage {
        Some(damage) => Err(damage.into()),
        None if stop.load(Ordering::Relaxed) => {
            bail!("stopped by a signal before the end of the log")
        }
        None => Ok(()),
    }
}
