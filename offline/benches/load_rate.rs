//! How fast samples are decoded and turned into batches of `ccvpe-vigor`: one thread, then all cores.
//!
//! ```text
//! cargo bench -p crossfix-offline --bench load_rate -- ROOT [SECONDS [CACHE]]
//! ```
//!
//! ROOT is a VIGOR tree, whose list `same-area-test` is read over and over for SECONDS (default 8)
//! with each number of threads; or a pairs dataset with truth, which is read once and then seen over
//! and over through random views, as training does: from memory as far as it fits there. What is read lies in the page cache after
//! the first round, so this is the rate of the cores, not of the disk. Beside the rate it says how
//! much CPU time a sample took, of all threads together, which other programs on the machine hardly
//! change. With a folder CACHE it is the rate of a VIGOR tree's later epochs, as `--cache` has them.

use cpu_time::ProcessTime;
use crossfix_offline::data::batch::batches_ahead;
use crossfix_offline::data::loader::Workers;
use crossfix_offline::data::pairs::truth::{Truth, true_labels};
use crossfix_offline::data::vigor::{Headings, Vigor, VigorFolder, VigorSamples, VigorSplit};
use crossfix_offline::data::{
    Augmentation, Dataset, Examples, InMemory, Labelled, MEMORY_BYTES, Pairs, PairsImages,
    Pictures, Preparation,
};
use crossfix_offline::model::{ModelSpec, named, preset};
use crossfix_offline::run::Interrupt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::time::{Duration, Instant};

const BATCH: u64 = 8;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let root = arguments
        .next()
        .ok_or_else(|| anyhow::anyhow!("usage: load_rate ROOT [SECONDS [CACHE]]"))?;
    let seconds: f64 = arguments.next().map_or(Ok(8.0), |text| text.parse())?;
    let root = Path::new(&root);
    if root.join("dataset.toml").is_file() {
        return pairs(root, seconds);
    }
    let folder = VigorFolder::new(root);
    let vigor = Vigor::open(&folder, VigorSplit::SameAreaTest)?;
    let spec = preset("ccvpe-vigor").ok_or_else(|| anyhow::anyhow!("no preset ccvpe-vigor"))?;
    let spec = spec.describe();
    let all = (0..vigor.rows.len()).collect();
    let mut samples = VigorSamples::new(&vigor, all, Headings::Within(180.0), &spec)?;
    if let Some(folder) = arguments.next() {
        samples.pictures = Pictures::cached_in(Path::new(&folder))?;
    }
    rates(&samples, &spec, seconds)
}

/// A pairs dataset, with the margin and the views of a compact network's training.
fn pairs(root: &Path, seconds: f64) -> anyhow::Result<()> {
    let spec = named("ccvpe-vigor").ok_or_else(|| anyhow::anyhow!("no preset ccvpe-vigor"))?;
    let spec = spec.describe();
    let preparation = Preparation {
        margin_m: 8.0,
        ..Preparation::default()
    };
    let images = PairsImages::open(Pairs::open(root)?, &spec, preparation)?;
    let begin = Instant::now();
    for index in 0..images.len() {
        images.pair(index)?;
    }
    let read = begin.elapsed().as_secs_f64();
    println!(
        "read {} pairs on one thread in {read:.2} s: {:.1} pairs/s",
        images.len(),
        images.len() as f64 / read
    );
    let dataset = InMemory::new(images, MEMORY_BYTES);
    let examples = Labelled {
        dataset: &dataset,
        labels: &true_labels(&dataset, &Truth::open(root)?, &spec)?,
        epochs: &[],
        augmentation: &Augmentation::default(),
        spec: &spec,
    };
    rates(&examples, &spec, seconds)
}

fn rates(samples: &dyn Examples, spec: &ModelSpec, seconds: f64) -> anyhow::Result<()> {
    let count = samples.len() as u64;
    let never = Interrupt::default();
    let draw = |number: u64| {
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
        let measured = batches_ahead(
            0..u64::MAX / BATCH,
            workers,
            &never,
            spec,
            draw,
            |batches| {
                // The first batches fill the page cache and the queue.
                for batch in batches.by_ref().take(threads + 2) {
                    batch?;
                }
                let (begin, worked) = (Instant::now(), ProcessTime::now());
                let mut read = 0u64;
                while begin.elapsed() < Duration::from_secs_f64(seconds) {
                    match batches.next() {
                        Some(batch) => read += batch?.examples.len() as u64,
                        None => break,
                    }
                }
                let worked_ms = 1e3 * worked.elapsed().as_secs_f64();
                let rate = read as f64 / begin.elapsed().as_secs_f64();
                Ok::<_, anyhow::Error>((rate, worked_ms / read as f64))
            },
        )?;
        let (rate, cpu_ms) = measured;
        println!(
            "{threads} threads: {rate:.1} samples/s, {:.1} samples/s a thread; {cpu_ms:.1} ms of CPU time a sample",
            rate / threads as f64,
        );
    }
    Ok(())
}
