//! Spoiled inputs of every kind, from a seed and for a few seconds: the targets of `fuzz/` without its
//! compiler. `CROSSFIX_FUZZ_SECONDS=600 CROSSFIX_FUZZ_SEED=7` for longer and others; the seed and number
//! of the input that failed are told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfix_onboard::event::{CameraFrame, OdometrySample};
use crossfix_onboard::log::LogWriter;

#[path = "../fuzz/src/bodies.rs"]
mod bodies;
#[path = "../fuzz/src/mutate.rs"]
mod mutate;

/// Inputs are cut to this, so that many fit into a second.
const LARGEST_BYTES: usize = 64 << 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn run(name: &str, seeds: &[Vec<u8>]) -> Result<()> {
    let (_, body) = bodies::BODIES
        .iter()
        .find(|(known, _)| *known == name)
        .context("unknown")?;
    let seconds = setting("CROSSFIX_FUZZ_SECONDS", 3);
    let seed = setting("CROSSFIX_FUZZ_SEED", 1);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut count, mut slowest) = (0, Duration::ZERO);
    for bytes in seeds {
        body(bytes);
    }
    while Instant::now() < until {
        let mut random = mutate::Random::new(seed.wrapping_mul(1 << 32).wrapping_add(count));
        let bytes = mutate::spoiled(seeds, LARGEST_BYTES, &mut random);
        let begun = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| body(&bytes)));
        ensure!(
            done.is_ok(),
            "{name}: seed {seed}, input {count}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        slowest = slowest.max(begun.elapsed());
        count += 1;
    }
    println!("{name}: {count} inputs in {seconds} s, the slowest took {slowest:?}");
    ensure!(
        count > 10 && slowest < Duration::from_secs(10),
        "{name}: {count} inputs, {slowest:?}"
    );
    Ok(())
}

fn read(path: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read(&path).with_context(|| format!("{}", path.display()))
}

/// The first lines of a recording, which are like the rest.
fn beginning(path: &str) -> Result<Vec<u8>> {
    let mut bytes = read(path)?;
    bytes.truncate(8 << 10);
    Ok(bytes)
}

#[test]
fn gpsd() -> Result<()> {
    run("gpsd", &[beginning("onboard/tests/data/gpsd_m9n.json")?])
}

#[test]
fn nmea() -> Result<()> {
    let m9n = beginning("onboard/tests/data/m9n.nmea")?;
    run("nmea", &[m9n, beginning("onboard/tests/data/bt451.nmea")?])
}

#[test]
fn ubx() -> Result<()> {
    run("ubx", &[read("onboard/tests/data/mixed.ubx")?])
}

#[test]
fn mcap() -> Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut log = LogWriter::new(&mut bytes, "seed.mcap".as_ref())?;
    for tick in 0..20 {
        let time_ns = 1_700_000_000_000_000_000 + tick * 100_000_000;
        log.write_odometry(&OdometrySample {
            time_ns,
            forward_speed_mps: Some(10.0),
            yaw_rate_rps: Some(0.1),
            yaw: None,
            speed_sigma_mps: 0.1,
            yaw_rate_sigma_rps: 0.01,
        })?;
        log.write_frame(&CameraFrame {
            time_ns,
            image: b"\xff\xd8 picture \xff\xd9"[..].into(),
            camera: "front".into(),
        })?;
    }
    log.finish()?;
    let mut seeds = vec![bytes.into_inner()];
    for name in [
        "foxglove_json",
        "foxglove_sdk",
        "mcap_protobuf",
        "mcap_ros2",
        "own_lz4",
    ] {
        seeds.push(read(&format!("tests/data/foreign_logs/{name}.mcap"))?);
    }
    run("mcap", &seeds)
}

#[test]
fn pmtiles() -> Result<()> {
    run("pmtiles", &[read("onboard/tests/data/tiny.pmtiles")?])
}

#[test]
fn config() -> Result<()> {
    let broken = read("onboard/tests/data/broken.toml")?;
    run("config", &[read("onboard/crossfixd.example.toml")?, broken])
}

#[test]
fn pickle() -> Result<()> {
    let names = ["state.pt", "state_legacy.pt", "module.pt", "hostile.pt"];
    let seeds: Result<Vec<_>> = names
        .iter()
        .map(|name| read(&format!("offline/src/import/samples/{name}")))
        .collect();
    run("pickle", &seeds?)
}

#[test]
fn safetensors() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("seed.safetensors");
    let arrays = [("weight".to_owned(), (vec![2, 3], vec![0.5; 6]))].into();
    crossfix_offline::model::weights::write_arrays(&path, &arrays, &serde_json::json!({"a": 1}))?;
    run("safetensors", &[std::fs::read(&path)?])
}

#[test]
fn onnx() -> Result<()> {
    run("onnx", &[read("onboard/tests/data/tiny.onnx")?])
}

#[test]
fn core_events() -> Result<()> {
    let mut random = mutate::Random::new(9);
    let seeds = [0, 300, 3000].map(|length| (0..length).map(|_| random.below(200) as u8).collect());
    run("core_events", &seeds)
}
