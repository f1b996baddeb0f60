//! How much memory an adaptation on many pairs of the published size needs.
//!
//! ```text
//! cargo bench -p crossfix-offline --bench many_pairs -- FOLDER [PAIRS [EPOCH_BATCHES [STEPS]]]
//! ```
//!
//! Writes a dataset of PAIRS rows (default 50,000) into FOLDER unless it is there: one simulated
//! drive at the sizes of `ccvpe-vigor`, again and again under new names, each picture a hard link to
//! one of that drive's. Then does what an adaptation does with it, and prints the peak memory of the
//! process so far (`VmHWM`) after each part:
//!
//! - labels every pair with the code that adaptation labels with; the network is replaced by one that
//!   answers at once, since 50,000 published forward passes take hours on a CPU;
//! - reads `EPOCH_BATCHES` batches of 8 (default 500) in an epoch's order, each transformed at random;
//! - trains `ccvpe-vigor` itself for STEPS steps of one pair (default 2; its activations are what a
//!   larger batch multiplies, and on a GPU they lie in the GPU's memory).

use anyhow::Context;
use crossfix_kernels::{Tape, Tensor};
use crossfix_offline::city::detail::Detail;
use crossfix_offline::city::frames::{CameraKind, Headings};
use crossfix_offline::city::style::Gap;
use crossfix_offline::city::{AreaConfig, AreaName, Part, build_area};
use crossfix_offline::data::batch::batches_ahead;
use crossfix_offline::data::loader::Workers;
use crossfix_offline::data::pairs::PairRow;
use crossfix_offline::data::{
    Augmentation, Dataset, Examples, InMemory, Labelled, MEMORY_BYTES, Pairs, PairsImages,
    Preparation,
};
use crossfix_offline::model::loss::{Loss, LossConfig, PoseTarget};
use crossfix_offline::model::{
    CrossViewModel, ForwardOptions, Input, ModelError, ModelSpec, NetworkSpec, Parameters,
    Prediction, named,
};
use crossfix_offline::recipe::{CoarsePrior, HeadingLabels, PseudoLabel, TeacherMode, defaults};
use crossfix_offline::run::{Interrupt, RunContext};
use crossfix_offline::simulate::{Contents, PairsPlan, write_pairs};
use crossfix_offline::train::{FitConfig, fit};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

const BATCH: usize = 8;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let usage = "usage: many_pairs FOLDER [PAIRS [EPOCH_BATCHES [STEPS]]]";
    let folder = arguments.next().context(usage)?;
    let folder = Path::new(&folder);
    let mut number = |otherwise: usize| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (pairs, batches, steps) = (number(50_000)?, number(500)?, number(2)?);
    if !folder.join("dataset.toml").exists() {
        write(folder, pairs)?;
        println!("written; run it again to measure a process that has not simulated a town");
        return Ok(());
    }
    let begun = Instant::now();
    let say = |what: &str| -> anyhow::Result<()> {
        let seconds = begun.elapsed().as_secs_f64();
        println!("{:>5} MB at most after {what} ({seconds:.0} s)", peak_mb()?);
        Ok(())
    };
    let table = named("ccvpe-vigor").context("no preset ccvpe-vigor")?;
    let spec = table.describe();
    let text = Pairs::open(folder)?;
    text.check_pictures()?;
    let images = PairsImages::open(text, &spec, Preparation::default())?;
    let dataset = InMemory::new(images, MEMORY_BYTES);
    say(&format!(
        "reading the text of {} pairs in {} drives and the header of each picture",
        dataset.len(),
        dataset.drives().len()
    ))?;

    let never = Interrupt::default();
    let mode = TeacherMode {
        prior: CoarsePrior::Ellipse,
        heading: HeadingLabels::Given,
        ..TeacherMode::default()
    };
    let labels = mode.label(&mut CentreNetwork::new(&table)?, &dataset, false, &never)?;
    let labels = labels.iter().map(PseudoLabel::target);
    let labels: Vec<(usize, PoseTarget)> = labels.enumerate().collect();
    say(&format!("labelling {} pairs", labels.len()))?;

    let examples = Labelled {
        dataset: &dataset,
        labels: &labels,
        epochs: &[],
        augmentation: &Augmentation::default(),
        spec: &spec,
    };
    // Far apart, as the places of a shuffled epoch.
    let order = |place: usize| place.wrapping_mul(7919) % examples.len();
    let draw = |number: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let first = number as usize * BATCH;
        (first..first + BATCH)
            .map(|place| examples.draw(order(place), &mut rng))
            .collect()
    };
    let workers = Workers::default();
    let read = batches_ahead(0..batches as u64, workers, &never, &spec, draw, |batches| {
        let mut read = 0;
        for batch in batches {
            read += batch?.examples.len();
        }
        Ok::<_, anyhow::Error>(read)
    })?;
    say(&format!("{read} pairs of an epoch in batches of {BATCH}"))?;

    let mut model = table.build(1)?;
    let config = FitConfig {
        batch: 1,
        steps: Some(steps as u64),
        ..defaults::paper(&spec).fit
    };
    let run = RunContext {
        seed: 1,
        folder: None,
        resume: false,
        interrupt: &never,
        world: crossfix_offline::train::World::alone(),
    };
    fit("train", model.as_mut(), &examples, &config, &run)?;
    say(&format!("{steps} training steps of one pair"))
}

/// The largest resident size of this process so far.
fn peak_mb() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("VmHWM is read on Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024 / 1_000_000)
}

/// One drive, and its rows again under new names until there are enough.
fn write(folder: &Path, pairs: usize) -> anyhow::Result<()> {
    let detail = Detail {
        panorama: "320x640".parse().map_err(anyhow::Error::msg)?,
        zoom: 20,
    };
    let area = build_area(AreaConfig {
        area: AreaName::Target,
        seed: 1,
        gap: Gap::default(),
    });
    let plan = PairsPlan {
        headings: Headings::Measured,
        part: Part::Adapt,
        districts: 1,
        contents: Contents::Drives {
            drives: 1,
            length_m: 270.0,
            spacing_m: 4.5,
            logs: 0,
        },
        camera: CameraKind::Panorama,
    };
    let hidden = indicatif::ProgressBar::hidden();
    write_pairs(&area.drawn_at(detail), &plan, folder, &hidden)?;
    let path = folder.join("pairs.jsonl");
    let text = fs::read_to_string(&path)?;
    let rows = text.lines().map(serde_json::from_str::<PairRow>);
    let rows: Vec<PairRow> = rows.collect::<Result<_, _>>()?;
    let mut file = BufWriter::new(fs::File::create(&path)?);
    for number in 0..pairs {
        let (drive, row) = (number / rows.len(), &rows[number % rows.len()]);
        let image = format!("images/again-{number}.jpg");
        fs::hard_link(folder.join(&row.image), folder.join(&image))?;
        let row = PairRow {
            id: format!("{}-{drive}", row.id),
            drive: format!("{}-{drive}", row.drive),
            image,
            ..row.clone()
        };
        writeln!(file, "{}", serde_json::to_string(&row)?)?;
    }
    Ok(file.flush()?)
}

/// A network of the published sizes that answers at once, with the centre.
struct CentreNetwork {
    table: NetworkSpec,
    spec: ModelSpec,
    parameters: Parameters,
}

impl CentreNetwork {
    fn new(table: &NetworkSpec) -> anyhow::Result<Self> {
        let small = named("compact").context("no preset compact")?.build(1)?;
        Ok(Self {
            table: table.clone(),
            spec: table.describe(),
            parameters: small.parameters().clone(),
        })
    }
}

impl CrossViewModel for CentreNetwork {
    fn describe(&self) -> &ModelSpec {
        &self.spec
    }

    fn table(&self) -> NetworkSpec {
        self.table.clone()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn forward(
        &mut self,
        _: &mut Tape,
        input: &Input,
        _: ForwardOptions,
    ) -> Result<Prediction, ModelError> {
        let side = self.spec.heatmap_side();
        let mut logits = vec![0.0; input.len() * side * side];
        for heatmap in logits.chunks_exact_mut(side * side) {
            heatmap[side / 2 * side + side / 2] = 10.0;
        }
        Ok(Prediction {
            levels: Vec::new(),
            logits: Some(Tensor::new(logits, &[input.len(), side * side])?),
            orientation: None,
            orientation_vectors: None,
            poses: Vec::new(),
        })
    }

    fn loss(
        &self,
        _: &mut Tape,
        _: &Prediction,
        _: &[PoseTarget],
        _: &LossConfig,
    ) -> Result<Loss, ModelError> {
        Err(ModelError::Input("it does not learn".into()))
    }

    fn boxed_clone(&self) -> Box<dyn CrossViewModel> {
        Box::new(Self {
            table: self.table.clone(),
            spec: self.spec.clone(),
            parameters: self.parameters.clone(),
        })
    }
}
