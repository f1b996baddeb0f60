//! An adaptation with a recipe of one's own: simulate a few drives, take the shipped teacher, change
//! `paper`, adapt, and measure where nothing was trained.
//!
//! `cargo run --release -p crossfix-offline --example adapt -- FOLDER`

use anyhow::Context;
use crossfix_offline::city::frames::{CameraKind, Headings};
use crossfix_offline::city::style::Gap;
use crossfix_offline::city::{AreaConfig, AreaName, Part, build_area};
use crossfix_offline::data::pairs::truth::Truth;
use crossfix_offline::data::{InMemory, MEMORY_BYTES, Pairs, PairsImages, Preparation};
use crossfix_offline::evaluate::evaluate;
use crossfix_offline::model::weights;
use crossfix_offline::recipe::{Filter, adapt, defaults};
use crossfix_offline::run::{Interrupt, RunContext};
use crossfix_offline::simulate::{Contents, PairsPlan, write_pairs};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: adapt FOLDER")?;
    let folder = Path::new(&folder);
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let (mut teacher, _) = weights::load(&assets.join("teacher-compact.safetensors"))?;

    // Drives in the target area: some to adapt on, others to measure on.
    let area = build_area(AreaConfig {
        area: AreaName::Target,
        seed: 1,
        gap: Gap::default(),
    });
    let open = |part: Part| -> anyhow::Result<InMemory<PairsImages>> {
        let folder = folder.join(part.name());
        let plan = PairsPlan {
            headings: Headings::Measured,
            part,
            districts: 1,
            contents: Contents::Drives {
                drives: 3,
                length_m: 300.0,
                spacing_m: 5.0,
                logs: 0,
            },
            camera: CameraKind::Panorama,
        };
        write_pairs(&area, &plan, &folder, &indicatif::ProgressBar::hidden())?;
        let pairs = Pairs::open(&folder)?;
        let images = PairsImages::open(pairs, teacher.describe(), Preparation::default())?;
        Ok(InMemory::new(images, MEMORY_BYTES))
    };
    let (target, test) = (open(Part::Adapt)?, open(Part::Test)?);

    // A recipe is a value. This one keeps fewer labels than the paper, and learns them for longer.
    let mut recipe = defaults::paper(teacher.describe());
    recipe.filter = Filter::AuxiliaryStudent {
        keep: 0.6,
        keep_first: None,
    };
    recipe.fit.epochs = 4.0;

    let interrupt = Interrupt::default();
    let run = RunContext {
        seed: 1,
        folder: None,
        resume: false,
        interrupt: &interrupt,
        world: crossfix_offline::train::World::alone(),
    };
    let mut adapted = adapt(teacher.as_ref(), &target, &recipe, &run)?;
    println!(
        "{:.0} % of the labels were learned",
        100.0 * adapted.kept_fraction()
    );

    // Only here is a true position read.
    let truth = Truth::open(&folder.join(Part::Test.name()))?;
    for (name, model) in [("teacher", &mut teacher), ("student", &mut adapted.student)] {
        let (evaluation, _) = evaluate(model.as_mut(), &test, &truth, false, &interrupt)?;
        println!("{name}\n{}", evaluation.table());
    }
    Ok(())
}
