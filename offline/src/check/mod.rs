//! `crossfix check`: everything that is wrong with a dataset, at once, each with its remedy.
//!
//! The parts in the order of their cost: [`text`] reads every line, [`pictures`] every header and as many
//! pictures as asked for, [`places`] the tiles around the pairs, [`drives`] holds headings, odometry and times
//! against the course (the gate of [`recipe`](crate::recipe)), [`network`] the data against a network, and asks
//! the network itself whether another reading of the headings, of the camera or of the scale fits better.
//!
//! `adapt`, `train` and `evaluate` run all of it first, with a sample of the pictures.

mod drives;
mod network;
mod pictures;
mod places;
mod report;
#[cfg(test)]
mod tests;
mod text;

pub use pictures::decode_all;
pub use report::{Found, Report};

use crate::data::pairs::{DatasetManifest, PairRow, headings};
use crate::model::{CrossViewModel, ModelSpec};
use crate::run::Interrupt;
use std::path::Path;
use std::time::Instant;

/// Pictures and tiles that are decoded of a dataset whose `depth` is a sample.
pub const SAMPLE: usize = 200;

/// How much is looked at.
#[derive(Default)]
pub struct Look<'a> {
    /// Pictures and tiles to decode, spread over the dataset; nothing decodes all.
    pub sample: Option<usize>,
    /// Whether `truth.jsonl` is looked at, where there is one. Adaptation never does.
    pub truth: bool,
    /// Whether headings that are not known are found along drives, as adaptation does.
    pub find_headings: bool,
    /// What the data are for.
    pub spec: Option<&'a ModelSpec>,
    /// The network itself, to be asked.
    pub network: Option<&'a mut dyn CrossViewModel>,
}

/// A dataset's rows that can be used, with their lines.
struct Rows<'a> {
    folder: &'a Path,
    manifest: Option<DatasetManifest>,
    rows: Vec<(usize, PairRow)>,
}

impl Rows<'_> {
    /// Replaces headings that are not known by those that drives tell.
    fn find_headings(&mut self) {
        let mut found: Vec<PairRow> = self.rows.iter().map(|(_, row)| row.clone()).collect();
        if headings::find(&mut found).is_some() {
            for ((_, row), found) in self.rows.iter_mut().zip(found) {
                *row = found;
            }
        }
    }

    /// Every n-th row, so that there are about `sample` of them.
    fn spread(&self, sample: Option<usize>) -> Vec<usize> {
        let step = sample.map_or(1, |sample| self.rows.len().div_ceil(sample.max(1)));
        (0..self.rows.len()).step_by(step.max(1)).collect()
    }
}

/// Looks at the pairs dataset in `folder`.
///
/// # Errors
/// When the network cannot be run, or was asked to stop. What is wrong with the data is in the report.
pub fn pairs(folder: &Path, look: Look, interrupt: &Interrupt) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let mut report = Report::of(folder);
    let mut rows = text::read(folder, &mut report);
    report.pairs = rows.rows.len();
    text::order_and_clocks(&rows, &mut report);
    let truth = if look.truth {
        text::truth(&rows, &mut report)
    } else {
        None
    };
    pictures::look(&rows, look.sample, &mut report);
    let tiles = places::look(&rows, look.spec, look.sample, &mut report);
    // Positions that are somewhere else say nothing of headings.
    let misread = report.found.iter().any(|found| found.check == "positions");
    if !misread {
        let truth = truth.as_ref();
        drives::look(&rows, truth, look.spec, look.find_headings, &mut report);
    }
    if let (Some(spec), Some(manifest)) = (look.spec, &rows.manifest) {
        network::fits(spec, manifest, tiles.as_ref(), &rows, &mut report);
    }
    // A network is asked about data that are otherwise right.
    if let (Some(model), false, true) = (look.network, report.refuses(), tiles.is_some()) {
        if look.find_headings {
            rows.find_headings();
        }
        network::ask(model, &mut rows, interrupt, &mut report)?;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}
