//! How fast VIGOR samples are decoded and turned into batches: one thread, then all cores.
//!
//! ```text
//! cargo run --release -p crossfix-offline --example load_rate -- ROOT [SECONDS]
//! ```
//!
//! ROOT is a VIGOR tree; its list `same-area-test` is read over and over for SECONDS (default 8)
//! with each number of threads. What is read lies in the page cache after the first round, so this
//! is the rate of the cores, not of the disk.

use crossfix_offline::dataset::Samples;
use crossfix_offline::dataset::ahead::Workers;
use crossfix_offline::dataset::samples::batches_ahead;
use crossfix_offline::dataset::vigor::{Headings, Vigor, VigorFolder, VigorSamples, VigorSplit};
use crossfix_offline::model::preset;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::time::{Duration, Instant};

const BATCH: u64 = 8;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments
        .next()
        .ok_or_else(|| anyhow::anyhow!("usage: load_rate ROOT [SECONDS]"))?;
    let seconds: f64 = arguments.next().map_or(Ok(8.0), |text| text.parse())?;
    let folder = VigorFolder::new(Path::new(&root));
    let vigor = Vigor::open(&folder, VigorSplit::SameAreaTest)?;
    let spec = preset("ccvpe-vigor").ok_or_else(|| anyhow::anyhow!("no preset ccvpe-vigor"))?;
    let spec = spec.describe();
    let all = (0..vigor.rows.len()).collect();
    let samples = VigorSamples::new(&vigor, all, Headings::Within(180.0), &spec)?;
    let count = samples.len() as u64;
    let jobs = |number: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        (number * BATCH..(number + 1) * BATCH)
            .map(|place| samples.draw((place % count) as usize, &mut rng))
            .collect()
    };
    let cores = Workers::default().threads;
    for threads in [1, cores] {
        let workers = Workers {
            threads,
            depth: threads + 2,
        };
        let measured = batches_ahead(0..u64::MAX / BATCH, workers, &spec, jobs, |batches| {
            // The first batches fill the page cache and the queue.
            for batch in batches.by_ref().take(threads + 2) {
                batch?;
            }
            let begin = Instant::now();
            let mut read = 0u64;
            while begin.elapsed() < Duration::from_secs_f64(seconds) {
                match batches.next() {
                    Some(batch) => read += batch?.shown.len() as u64,
                    None => break,
                }
            }
            Ok::<_, anyhow::Error>(read as f64 / begin.elapsed().as_secs_f64())
        })?;
        println!(
            "{threads} threads: {measured:.1} samples/s, {:.1} samples/s a thread, {:.1} ms a sample and thread",
            measured / threads as f64,
            1e3 * threads as f64 / measured
        );
    }
    Ok(())
}
