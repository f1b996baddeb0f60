//! The simulated places of the demo: where the teacher is at home, where the student adapts, and
//! where both are measured.

use crate::city::frames::{CameraKind, Headings};
use crate::city::style::Gap;
use crate::city::{AreaConfig, AreaName, Part, build_area};
use crate::data::pairs::truth::Truth;
use crate::data::{InMemory, MEMORY_BYTES, Pairs, PairsImages, Preparation};
use crate::model::ModelSpec;
use crate::progress;
use crate::simulate::{Contents, PairsPlan, write_pairs};
use anyhow::Context;
use std::path::{Path, PathBuf};

const SOURCE_TEST: (usize, usize) = (3, 400);
const ADAPT_DISTRICTS: usize = 4;
const ADAPT_DRIVES: usize = 12;
const TEST_DISTRICTS: usize = 3;
const TEST_DRIVES: usize = 6;
const TEST_LOGS: usize = 6;
const DRIVE_LENGTH_M: f64 = 450.0;
const SPACING_M: f64 = 4.5;

/// The pairs of each part, and where the drives' logs are.
pub struct Areas {
    /// Source places that the teacher was not trained on.
    pub source: InMemory<PairsImages>,
    /// Their truth.
    pub source_truth: Truth,
    /// Target drives to adapt on.
    pub adapt: InMemory<PairsImages>,
    /// The dataset of `adapt`; its truth is opened only to measure, and for the upper bound.
    pub adapt_folder: PathBuf,
    /// Target drives in other districts.
    pub test: InMemory<PairsImages>,
    /// Their truth.
    pub test_truth: Truth,
    /// The tile set around the test drives.
    pub test_tiles: PathBuf,
    /// Their logs.
    pub logs: Vec<PathBuf>,
}

impl Areas {
    /// Simulates below `out`, replacing what an earlier demo left there.
    pub fn simulate(out: &Path, seed: u64, part: Part, spec: &ModelSpec) -> anyhow::Result<Self> {
        let (districts, pairs) = SOURCE_TEST;
        let drives = |drives, logs| Contents::Drives {
            drives,
            length_m: DRIVE_LENGTH_M,
            spacing_m: SPACING_M,
            logs,
        };
        let make = |name: &str, area, part, districts, contents| {
            let folder = out.join(name);
            if folder.exists() {
                std::fs::remove_dir_all(&folder)
                    .with_context(|| format!("cannot replace {}", folder.display()))?;
            }
            let camera = if spec.ground_left_bin() {
                CameraKind::Front
            } else {
                CameraKind::Panorama
            };
            let area = build_area(AreaConfig {
                area,
                seed,
                gap: Gap::default(),
            });
            let plan = PairsPlan {
                headings: Headings::Measured,
                part,
                districts,
                contents,
                camera,
            };
            let written = write_pairs(&area, &plan, &folder, &progress::bar("simulate", 0))?;
            let pairs = Pairs::open(&folder)?;
            let tiles = pairs.tiles();
            let images = PairsImages::open(pairs, spec, Preparation::default())?;
            let pairs = InMemory::new(images, MEMORY_BYTES);
            anyhow::Ok((folder, pairs, tiles, written.logs))
        };
        let (source_folder, source, _, _) = make(
            "source",
            AreaName::Source,
            Part::Test,
            districts,
            Contents::Random { pairs },
        )?;
        let (adapt_folder, adapt, _, _) = make(
            "adapt",
            AreaName::Target,
            Part::Adapt,
            ADAPT_DISTRICTS,
            drives(ADAPT_DRIVES, 0),
        )?;
        let (test_folder, test, test_tiles, logs) = make(
            part.name(),
            AreaName::Target,
            part,
            TEST_DISTRICTS,
            drives(TEST_DRIVES, TEST_LOGS),
        )?;
        Ok(Self {
            source,
            source_truth: Truth::open(&source_folder)?,
            adapt,
            adapt_folder,
            test,
            test_truth: Truth::open(&test_folder)?,
            test_tiles,
            logs,
        })
    }
}
