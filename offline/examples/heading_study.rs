//! How well headings that nobody measured are found along drives, against true ones.
//!
//! `cargo run --release -p crossfix-offline --example heading_study -- FOLDER...`
//!
//! Each FOLDER is a pairs dataset with truth, whose headings are taken as unknown; once with its odometry and once
//! without.

use anyhow::Context;
use crossfix_calibration::Heading;
use crossfix_offline::data::Pairs;
use crossfix_offline::data::pairs::PairRow;
use crossfix_offline::data::pairs::headings::find;
use crossfix_offline::data::pairs::truth::Truth;
use crossfix_offline::metrics::quantile;
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let folders: Vec<String> = std::env::args().skip(1).collect();
    println!("dataset | evidence | found | error: median, p95, largest | within 1, 2 sigma");
    for with_odometry in [true, false] {
        let mut all = Vec::new();
        let mut rows_in_all = 0;
        for folder in &folders {
            let folder = Path::new(folder);
            let truth = Truth::open(folder)?;
            let mut rows = Pairs::open(folder)?.rows;
            for row in &mut rows {
                (row.heading_deg, row.heading_sigma_deg) = (0.0, 180.0);
                row.odometry = row.odometry.filter(|_| with_odometry);
            }
            find(&mut rows).context("no row without a heading")?;
            let found = rows.iter().filter(|row| row.heading_sigma_deg < 180.0);
            let errors = found.map(|row: &PairRow| {
                let truth = truth.get(&row.id).context("no truth")?;
                let off = Heading::from_degrees(row.heading_deg - truth.heading_deg).degrees();
                Ok((off.min(360.0 - off), row.heading_sigma_deg))
            });
            let errors = errors.collect::<anyhow::Result<Vec<_>>>()?;
            tell(
                &folder.display().to_string(),
                with_odometry,
                rows.len(),
                &errors,
            );
            rows_in_all += rows.len();
            all.extend(errors);
        }
        tell("all", with_odometry, rows_in_all, &all);
    }
    Ok(())
}

/// A line about errors and their sigmas, degrees.
fn tell(name: &str, with_odometry: bool, rows: usize, errors: &[(f64, f64)]) {
    let mut sizes: Vec<f64> = errors.iter().map(|(off, _)| *off).collect();
    sizes.sort_by(f64::total_cmp);
    let within = |sigmas: f64| {
        let inside = errors.iter().filter(|(off, sigma)| *off <= sigmas * sigma);
        100.0 * inside.count() as f64 / errors.len().max(1) as f64
    };
    println!(
        "{name} | {} | {} of {rows} | {:.1}, {:.1}, {:.1} deg | {:.0}, {:.0} %",
        if with_odometry {
            "odometry and positions"
        } else {
            "positions alone"
        },
        errors.len(),
        quantile(&sizes, 0.5),
        quantile(&sizes, 0.95),
        sizes.last().copied().unwrap_or(0.0),
        within(1.0),
        within(2.0),
    );
}
