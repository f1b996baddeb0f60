//! How often the gate decides as true positions would: areas that a teacher can be adapted to, one
//! where it finds nothing, and datasets with planted faults.
//!
//! `cargo run --release -p crossfix-offline --example gate_study -- FOLDER [SEEDS [FAULT_SEED]]`
//!
//! SEEDS is such as `1-9`; FAULT_SEED (default: the first) is the area that faults are planted in. Each
//! area's line is kept in FOLDER/areas.jsonl, so that a study that was stopped goes on. Areas that the
//! gate refuses before training are not trained on.

use anyhow::Context;
use crossfix_calibration::RgbImage;
use crossfix_offline::city::frames::{CameraKind, Headings};
use crossfix_offline::city::style::Gap;
use crossfix_offline::city::{AreaConfig, AreaName, Part, build_area};
use crossfix_offline::data::pairs::truth::Truth;
use crossfix_offline::data::pairs::{DatasetManifest, PairRow};
use crossfix_offline::data::{
    Dataset, DatasetError, InMemory, MEMORY_BYTES, Pair, Pairs, PairsImages, Preparation, Sample,
};
use crossfix_offline::evaluate::evaluate;
use crossfix_offline::model::weights;
use crossfix_offline::recipe::{AdaptError, Verdict, adapt, defaults};
use crossfix_offline::run::{Interrupt, RunContext};
use crossfix_offline::simulate::{Contents, PairsPlan, write_pairs};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// A dataset that is not what it claims.
#[derive(Clone, Copy)]
enum Fault {
    /// Of its rows.
    Rows(fn(&mut PairRow)),
    /// Of its pictures.
    Pictures(fn(&mut Pair)),
    /// Each row has the picture of another one.
    Shuffled,
}

const FAULTS: [(&str, Fault); 12] = [
    (
        "heading-enu",
        Fault::Rows(|row| row.heading_deg = heading(90.0 - row.heading_deg)),
    ),
    (
        "heading-radians",
        Fault::Rows(|row| row.heading_deg = heading(row.heading_deg).to_radians()),
    ),
    (
        "heading-mirrored",
        Fault::Rows(|row| row.heading_deg = heading(-row.heading_deg)),
    ),
    (
        "heading-opposite",
        Fault::Rows(|row| row.heading_deg = heading(row.heading_deg + 180.0)),
    ),
    (
        "odometry-feet",
        Fault::Rows(|row| scale(row, 3.280_84, 1.0)),
    ),
    (
        "odometry-degrees",
        Fault::Rows(|row| scale(row, 1.0, 57.295_78)),
    ),
    (
        "odometry-clockwise",
        Fault::Rows(|row| scale(row, 1.0, -1.0)),
    ),
    (
        "time-milliseconds",
        Fault::Rows(|row| row.time_ns /= 1_000_000),
    ),
    (
        "photos-upside-down",
        Fault::Pictures(|pair| turn(&mut pair.ground)),
    ),
    (
        "photos-mirrored",
        Fault::Pictures(|pair| mirror(&mut pair.ground)),
    ),
    (
        "tiles-scaled",
        Fault::Pictures(|pair| zoom(&mut pair.aerial, 1.4)),
    ),
    ("photos-shuffled", Fault::Shuffled),
];

fn heading(degrees: f64) -> f64 {
    degrees.rem_euclid(360.0)
}

fn scale(row: &mut PairRow, length: f64, turn: f64) {
    if let Some(step) = &mut row.odometry {
        step.forward_m *= length;
        step.left_m *= length;
        step.yaw_rad *= turn;
    }
}

/// Moves pixels: `from` gives the source of each target (column, row).
fn moved(image: &mut RgbImage, from: impl Fn(usize, usize) -> [usize; 2]) {
    let old = image.data.clone();
    for row in 0..image.height {
        for column in 0..image.width {
            let [c, r] = from(column, row);
            let (to, at) = ((row * image.width + column) * 3, (r * image.width + c) * 3);
            image.data[to..to + 3].copy_from_slice(&old[at..at + 3]);
        }
    }
}

fn turn(image: &mut RgbImage) {
    let (width, height) = (image.width, image.height);
    moved(image, |column, row| [width - 1 - column, height - 1 - row]);
}

fn mirror(image: &mut RgbImage) {
    let width = image.width;
    moved(image, |column, row| [width - 1 - column, row]);
}

fn zoom(image: &mut RgbImage, factor: f64) {
    let (width, height) = (image.width, image.height);
    let near = |at: usize, side: usize| {
        let half = side as f64 / 2.0;
        ((at as f64 + 0.5 - half) / factor + half) as usize
    };
    moved(image, |column, row| {
        [near(column, width), near(row, height)]
    });
}

/// A dataset whose pictures are changed on the way.
struct Changed<'a> {
    inner: &'a dyn Dataset,
    change: Option<fn(&mut Pair)>,
}

impl Dataset for Changed<'_> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        self.inner.sample(index)
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        let pair = self.inner.pair(index)?;
        let Some(change) = self.change else {
            return Ok(pair);
        };
        let mut pair = Arc::unwrap_or_clone(pair);
        change(&mut pair);
        Ok(Arc::new(pair))
    }

    fn margin_px(&self) -> usize {
        self.inner.margin_px()
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .context("usage: gate_study FOLDER [SEEDS [FAULT_SEED]]")?;
    let folder = Path::new(&folder);
    let seeds = arguments.next().unwrap_or_else(|| "1-9".into());
    let (first, last) = seeds.split_once('-').unwrap_or((&seeds, &seeds));
    let (first, last): (u64, u64) = (first.parse()?, last.parse()?);
    let fault_seed = arguments.next().map_or(Ok(first), |text| text.parse())?;
    fs::create_dir_all(folder)?;
    let path = folder.join("areas.jsonl");
    let known = fs::read_to_string(&path).unwrap_or_default();
    let mut rows: Vec<Value> = known
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let mut study = |name: String, seed, gap, fault| -> anyhow::Result<()> {
        if rows.iter().any(|row| row["area"] == name.as_str()) {
            return Ok(());
        }
        let row = area(folder, &name, seed, gap, fault)?;
        println!("{row}");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        writeln!(file?, "{row}")?;
        rows.push(row);
        Ok(())
    };
    for seed in first..=last {
        study(format!("seed-{seed}"), seed, Gap::default(), None)?;
    }
    let everything = Gap {
        geometry: 1.0,
        palette: 1.0,
        sensor: 1.0,
        marking: true,
    };
    for seed in [fault_seed, fault_seed + 1] {
        study(format!("hopeless-{seed}"), seed, everything, None)?;
    }
    for (name, fault) in FAULTS {
        study(
            format!("{name}-{fault_seed}"),
            fault_seed,
            Gap::default(),
            Some(fault),
        )?;
    }
    let count = |wrong: bool, refused: bool| {
        let of = rows
            .iter()
            .filter(|row| row["should_refuse"] == wrong && row["refused"] == refused);
        of.count()
    };
    println!("                 adapted  refused");
    println!(
        "good areas      {:>8} {:>8}",
        count(false, false),
        count(false, true)
    );
    println!(
        "to be refused   {:>8} {:>8}",
        count(true, false),
        count(true, true)
    );
    Ok(())
}

/// One area: what the gate says, and what true positions say where it was trained on.
fn area(
    folder: &Path,
    name: &str,
    seed: u64,
    gap: Gap,
    fault: Option<Fault>,
) -> anyhow::Result<Value> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let (mut teacher, _) = weights::load(&assets.join("teacher-compact.safetensors"))?;
    let folder = folder.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let city = build_area(AreaConfig {
        area: AreaName::Target,
        seed,
        gap,
    });
    let write = |part: Part, districts, drives| -> anyhow::Result<()> {
        let plan = PairsPlan {
            headings: Headings::Measured,
            part,
            districts,
            contents: Contents::Drives {
                drives,
                length_m: 450.0,
                spacing_m: 4.5,
                logs: 0,
            },
            camera: CameraKind::Panorama,
        };
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&city, &plan, &folder.join(part.name()), &hidden)?;
        Ok(())
    };
    write(Part::Adapt, 4, 12)?;
    write(Part::Test, 3, 6)?;
    let target = folder.join(Part::Adapt.name());
    plant(&target, fault)?;
    let spec = teacher.describe().clone();
    let open = |folder: &Path| -> anyhow::Result<InMemory<PairsImages>> {
        let images = PairsImages::open(Pairs::open(folder)?, &spec, Preparation::default())?;
        Ok(InMemory::new(images, MEMORY_BYTES))
    };
    let pairs = open(&target)?;
    let changed = Changed {
        inner: &pairs,
        change: match fault {
            Some(Fault::Pictures(change)) => Some(change),
            _ => None,
        },
    };
    let interrupt = Interrupt::default();
    let run = RunContext {
        seed,
        folder: None,
        resume: false,
        interrupt: &interrupt,
        world: crossfix_offline::train::World::alone(),
    };
    let recipe = defaults::consensus(&spec);
    let test = open(&folder.join(Part::Test.name()))?;
    let truth = Truth::open(&folder.join(Part::Test.name()))?;
    let mean_m = |model: &mut dyn crossfix_offline::model::CrossViewModel| {
        let measured = evaluate(model, &test, &truth, false, &interrupt);
        measured.map(|(evaluation, _)| evaluation.unmasked.mean_m)
    };
    let (verdict, student_m): (Verdict, Option<f64>) =
        match adapt(teacher.as_ref(), &changed, &recipe, &run) {
            Err(AdaptError::Refused(verdict)) => (verdict, None),
            Err(error) => return Err(error.into()),
            Ok(mut adapted) => {
                let student_m = mean_m(adapted.student.as_mut())?;
                (adapted.verdict, Some(student_m))
            }
        };
    let teacher_m = mean_m(teacher.as_mut())?;
    // A dataset with a fault is to be refused; others where a student is worse than its teacher, or
    // the teacher hardly better than guessing.
    let worse = student_m.is_some_and(|student_m| student_m >= teacher_m);
    let should_refuse = fault.is_some() || worse || teacher_m > 10.0;
    let findings = verdict.findings.iter();
    let measured = findings.map(|finding| (finding.check.clone(), json!(finding.value)));
    let measured: serde_json::Map<String, Value> = measured.collect();
    let refusals = verdict.findings.iter().filter(|finding| finding.refuses);
    Ok(json!({
        "area": name,
        "teacher_m": teacher_m,
        "student_m": student_m,
        "should_refuse": should_refuse,
        "refused": verdict.refuses(),
        "because": refusals.map(|finding| finding.what.clone()).collect::<Vec<_>>(),
        "measured": measured,
    }))
}

/// Rewrites the rows of a dataset with its fault.
fn plant(folder: &Path, fault: Option<Fault>) -> anyhow::Result<()> {
    let mut rows = Pairs::open(folder)?.rows;
    DatasetManifest::read(folder)?;
    match fault {
        Some(Fault::Rows(change)) => rows.iter_mut().for_each(change),
        Some(Fault::Shuffled) => {
            let images: Vec<String> = rows.iter().map(|row| row.image.clone()).collect();
            for (index, row) in rows.iter_mut().enumerate() {
                row.image.clone_from(&images[index * 397 % images.len()]);
            }
        }
        Some(Fault::Pictures(_)) | None => return Ok(()),
    }
    let text = rows.iter().map(serde_json::to_string);
    let text = text.collect::<Result<Vec<_>, _>>()?.join("\n");
    fs::write(folder.join("pairs.jsonl"), text + "\n")?;
    Ok(())
}
