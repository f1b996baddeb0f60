//! A recorded drive through the daemon's core, one line a second:
//! `cargo run --release -p crossfix-onboard --example replay -- drive.mcap [crossfixd.toml]`

use anyhow::Context;
use crossfix_onboard::config::Config;
use crossfix_onboard::pipeline;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let log = arguments.next().context("usage: replay LOG [CONFIG]")?;
    // Without a config there is no student, and the position is that of GNSS and odometry.
    let config = arguments
        .next()
        .map(|path| Config::load(&path))
        .transpose()?;
    let mut last_s = i64::MIN;
    let summary = pipeline::replay(&log, &config.unwrap_or_default(), |estimate| {
        let second = estimate.time_ns / 1_000_000_000;
        if second > last_s {
            last_s = second;
            println!(
                "{second} {:?}: {:.7} {:.7}, within {:.1} m, {}",
                estimate.state,
                estimate.position.latitude_deg,
                estimate.position.longitude_deg,
                estimate.protection_radius_m,
                estimate.reason
            );
        }
    })?;
    println!("{} events, {} estimates", summary.events, summary.estimates);
    Ok(())
}
