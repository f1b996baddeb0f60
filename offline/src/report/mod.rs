//! The HTML report: one file that opens anywhere, prints, and needs nothing from the network.
//!
//! The caller fills a [`ReportInput`] with numbers and pictures; [`render`] turns it into text.
//! Every part is optional, and a part that is absent leaves no trace. Nothing is measured here
//! except what a figure needs (a median, a radius, a share), so the tables show the caller's
//! numbers and no others.
//!
//! Files in the order data flows through them: [`input`] (what a report is made of),
//! [`picture`] (pixels to data URIs), [`overview`] (aerial pictures of tile sets), `run_folder`, `study_folder` and
//! [`label_drives`] (the input of a training, an ablation, and of an adaptation's labels), `run_story`, `covariance` and
//! `selection` (what these are asked for), `svg` and `viewport` (axes, lines, ground), then one file per kind of section ([`story`], `tables`, [`study`], `curves`, `error_map`, `pairs`, [`mod@label_map`],
//! [`features`], `drive`), and `html` (the page).

#![expect(
    clippy::format_push_string,
    reason = "write! into a String adds an unwrap to every line of markup; the page is made once"
)]

mod covariance;
mod curves;
mod drive;
mod error_map;
pub mod features;
mod html;
pub mod input;
pub mod label_drives;
pub mod label_map;
pub mod overview;
mod pairs;
pub mod picture;
mod run_folder;
mod run_story;
#[cfg(test)]
mod sample;
mod selection;
pub mod story;
pub mod study;
mod study_folder;
mod svg;
mod tables;
#[cfg(test)]
mod tests;
mod viewport;

use anyhow::Context;
use std::path::Path;

pub use covariance::{coverage_series, radius_95_m};
pub use features::{FeatureModel, Features};
pub use input::{
    Coverage, CoveragePoint, CoverageSeries, Drive, ErrorCurves, ErrorMap, ErrorMapModel,
    ErrorPoint, Headline, LabelQuality, MapPicture, ModelErrors, PairGroup, PairModel, PairPicture,
    Pairs, ProvenanceRow, ReportInput, Role, SummaryRow, SummaryTable, Table, Track, TrackSample,
    TrackState, TrainingCurve,
};
pub use label_drives::{kept_back, label_map, label_quality, read_labels};
pub use label_map::LabelMap;
pub use overview::Square;
pub use picture::{Picture, PictureError};
pub use run_folder::from_run;
pub use selection::select_pairs;
pub use story::StoryStep;
pub use study::{StudyRow, StudyTable};
pub use study_folder::from_study;

/// Largest report input that is read.
const MOST_BYTES: u64 = 256 << 20;

/// What a run has to show: from its folder, where `report-input.json` is preferred to `run.json` and that to an
/// ablation's `ablations.json`, or from a report input.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn open(path: &Path) -> anyhow::Result<ReportInput> {
    let kept = path.join("report-input.json");
    match (path.is_dir(), kept.is_file()) {
        (true, true) => read(&kept),
        (true, false)
            if !path.join("run.json").exists() && path.join(study_folder::FILE).exists() =>
        {
            from_study(path)
        }
        (true, false) => from_run(path),
        _ => read(path),
    }
}

fn read(path: &Path) -> anyhow::Result<ReportInput> {
    let cannot = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(cannot)?.len();
    anyhow::ensure!(
        bytes <= MOST_BYTES,
        "{} has {bytes} bytes; a report input has at most {MOST_BYTES}",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report input", path.display()))
}

/// Renders the report as one HTML document.
///
/// Text is escaped, numbers that are not finite show as a dash, and pictures past the size budget
/// are left out with a sentence saying so, which keeps the page under 6 MB.
pub fn render(input: &ReportInput) -> String {
    let mut page = html::Page::new(&input.title);
    page.verdict(&input.verdict, &input.headlines);
    // The order of the adaptation: what was done, what came of it, what was learned from, how it drives.
    story::section(&mut page, &input.story);
    tables::summary(&mut page, &input.summary);
    study::section(&mut page, input.study.as_ref());
    curves::error_curves(&mut page, &input.error_curves);
    error_map::section(&mut page, input.error_map.as_ref());
    pairs::section(&mut page, input.pairs.as_ref());
    label_map::section(&mut page, input.label_map.as_ref());
    curves::label_quality(&mut page, input.label_quality.as_ref());
    features::section(&mut page, input.features.as_ref());
    curves::training(&mut page, &input.training);
    drive::section(&mut page, input.drive.as_ref());
    curves::coverage(&mut page, input.coverage.as_ref());
    tables::extra(&mut page, &input.tables);
    tables::explanations(&mut page, input);
    tables::provenance(&mut page, &input.provenance, &input.reproduce);
    page.finish()
}

/// Renders the report and writes it to `path`, replacing what was there only once it is complete.
///
/// # Errors
/// Whatever the file system says, with the path in the message.
pub fn write(path: &Path, input: &ReportInput) -> std::io::Result<()> {
    let with_path = |error: std::io::Error| {
        std::io::Error::new(
            error.kind(),
            format!("cannot write the report to {}: {error}", path.display()),
        )
    };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, render(input)).map_err(with_path)?;
    std::fs::rename(&partial, path).map_err(with_path)
}
