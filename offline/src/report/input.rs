//! What a report is made of: plain data, serialisable, so that a run folder can keep it as
//! `report-input.json` and the page can be made again without the run.

use serde::{Deserialize, Serialize};

use super::features::Features;
use super::label_map::LabelMap;
use super::picture::Picture;
use super::story::StoryStep;
use super::study::StudyTable;

/// Everything a report may show. `Default` is an empty report; fill in what there is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportInput {
    /// The page's title.
    pub title: String,
    /// One paragraph in words: what was done and what came of it, good or bad.
    pub verdict: String,
    /// A few large numbers under the verdict.
    pub headlines: Vec<Headline>,
    /// What happened, step by step.
    pub story: Vec<StoryStep>,
    /// Tables of models against metrics.
    pub summary: Vec<SummaryTable>,
    /// Recipes beside each other over several areas.
    pub study: Option<StudyTable>,
    /// Ground and aerial pictures with heatmaps.
    pub pairs: Option<Pairs>,
    /// What the networks compare, in a plane.
    pub features: Option<Features>,
    /// Labels at their places.
    pub label_map: Option<LabelMap>,
    /// Cumulative error curves, one figure per area.
    pub error_curves: Vec<ErrorCurves>,
    /// Errors at their places on the aerial overview.
    pub error_map: Option<ErrorMap>,
    /// One replayed drive.
    pub drive: Option<Drive>,
    /// Is the published covariance honest?
    pub coverage: Option<Coverage>,
    /// Errors of kept and dropped pseudo ground truth.
    pub label_quality: Option<LabelQuality>,
    /// Loss and validation error, one entry per trained model.
    pub training: Vec<TrainingCurve>,
    /// Any further tables (drive, export parity, timing).
    pub tables: Vec<Table>,
    /// What falls short, one sentence each; shown, not hidden.
    pub notes: Vec<String>,
    /// Commands that make this report again, one per line.
    pub reproduce: Vec<String>,
    /// Seed, date (given from outside; the report never asks the clock), hashes, versions.
    pub provenance: Vec<ProvenanceRow>,
}

impl ReportInput {
    /// The same report without its pictures, for a small `report-input.json`.
    pub fn without_pictures(&self) -> Self {
        let mut bare = self.clone();
        for pair in bare.pairs.iter_mut().flat_map(|pairs| &mut pairs.pairs) {
            pair.ground = None;
            pair.aerial = None;
            for model in &mut pair.models {
                model.heatmap = None;
            }
        }
        if let Some(map) = &mut bare.error_map {
            map.map = None;
        }
        if let Some(drive) = &mut bare.drive {
            drive.map = None;
        }
        if let Some(labels) = &mut bare.label_map {
            labels.map = None;
        }
        bare
    }
}

/// Who a number belongs to. The role picks colour and line style, the same on the whole page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The model trained in the source area.
    Teacher,
    /// The auxiliary student, trained on one heatmap level to find outliers.
    Auxiliary,
    /// The adapted model.
    Student,
    /// Fine-tuned on true positions in the target area.
    UpperBound,
    /// The receiver alone.
    Gnss,
    /// The daemon's answer.
    Fused,
    /// The camera's answer without GNSS.
    VisualOnly,
    /// Where the vehicle was.
    Truth,
    /// Anything else, such as guessing the tile centre.
    #[default]
    Other,
}

/// One large number: `label` above, `value` large, `note` below.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Headline {
    /// What it is, in a few words.
    pub label: String,
    /// The number with its unit, already formatted.
    pub value: String,
    /// What it is compared with.
    pub note: String,
    /// True for good news, false for bad, absent for neither.
    pub good: Option<bool>,
}

/// A table of models against metrics. The first column is the one the others are compared with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SummaryTable {
    /// What was measured, where, on how many samples.
    pub caption: String,
    /// Column names with their roles, in the order of every row's values.
    pub models: Vec<(String, Role)>,
    /// The rows.
    pub rows: Vec<SummaryRow>,
}

/// One metric of every model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SummaryRow {
    /// Area, such as "target test"; consecutive rows of one area are grouped.
    pub area: String,
    /// Metric, such as "mean position error".
    pub metric: String,
    /// Its unit, such as "m" or "°".
    pub unit: String,
    /// True when the heatmap was masked to the coarse prior, false when not, absent when it does
    /// not matter.
    pub masked: Option<bool>,
    /// Whether more is better; errors leave this false.
    pub higher_is_better: bool,
    /// One value per model; absent when it was not measured.
    pub values: Vec<Option<f64>>,
}

/// A plain table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Table {
    /// Heading.
    pub title: String,
    /// A sentence under the heading.
    pub note: String,
    /// Column names.
    pub columns: Vec<String>,
    /// Cells, already formatted.
    pub rows: Vec<Vec<String>>,
}

/// One line of where this came from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProvenanceRow {
    /// "seed", "date", "command", "teacher sha256" ...
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Cumulative distribution of position error, several models in one figure.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorCurves {
    /// Which area, masked or not.
    pub caption: String,
    /// The models.
    pub models: Vec<ModelErrors>,
    /// Right end of the axis; absent picks one from the errors, at most 20 m.
    pub maximum_m: Option<f64>,
}

/// One model's position errors, one per sample, in any order. An error that is not finite counts
/// as never reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelErrors {
    /// The name to show.
    pub name: String,
    /// Colour and line style.
    pub role: Role,
    /// Errors in metres.
    pub errors_m: Vec<f64>,
}

/// How a model learned. The vectors may differ in length; empty ones are left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingCurve {
    /// The name to show.
    pub name: String,
    /// Colour and line style.
    pub role: Role,
    /// Training loss, of each step from step 1 or at `loss_steps`.
    pub loss: Vec<f64>,
    /// The steps that the losses are of; empty for every step.
    pub loss_steps: Vec<f64>,
    /// Mean position error on the validation area at even distances over the training.
    pub validation_error_m: Vec<f64>,
}

/// True errors of the pseudo ground truth that the outlier filter kept and dropped.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelQuality {
    /// What decided between the two.
    pub caption: String,
    /// Errors of the labels that were kept.
    pub kept_errors_m: Vec<f64>,
    /// Errors of the labels that the filter dropped.
    pub dropped_errors_m: Vec<f64>,
    /// Errors of the labels of drives of which none was learned: kept back to judge the student, as a rule.
    pub kept_back_errors_m: Vec<f64>,
}

/// Pictures of pairs, and how they were chosen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pairs {
    /// How these were chosen out of how many, so that nobody takes the best for the usual.
    pub selection: String,
    /// The pairs.
    pub pairs: Vec<PairPicture>,
}

/// Why a pair is shown. `select_pairs` sorts a test set into these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairGroup {
    /// Among those where the student gained most over the teacher.
    BestGain,
    /// Around the median change.
    Typical,
    /// Among those where the student lost most.
    WorstRegression,
    /// Chosen some other way; say how in [`Pairs::selection`].
    #[default]
    Other,
}

/// One ground image, its aerial patch, and what the models made of it.
///
/// Offsets are `[east, north]` in metres from the centre of the aerial patch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairPicture {
    /// The sample's id.
    pub id: String,
    /// Why it is shown.
    pub group: PairGroup,
    /// The ground strip as the network sees it.
    pub ground: Option<Picture>,
    /// The aerial patch, north up, square.
    pub aerial: Option<Picture>,
    /// Side of the aerial patch on the ground.
    pub aerial_side_m: f64,
    /// Where the camera was.
    pub truth_offset_m: Option<[f64; 2]>,
    /// The coarse fix.
    pub coarse_offset_m: Option<[f64; 2]>,
    /// Radius of the ring around the coarse fix; absent draws a small one.
    pub coarse_radius_m: Option<f64>,
    /// The models side by side, the teacher first.
    pub models: Vec<PairModel>,
}

/// One model's answer for one pair.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairModel {
    /// The name to show.
    pub name: String,
    /// Colour of the dot.
    pub role: Role,
    /// [`Picture::heatmap_overlay`] of its heatmap, covering the whole aerial patch.
    pub heatmap: Option<Picture>,
    /// Where it says the camera was.
    pub mode_offset_m: Option<[f64; 2]>,
    /// Distance from there to the truth.
    pub error_m: Option<f64>,
}

/// A north-up picture of the ground, tied to local east and north.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapPicture {
    /// The picture.
    pub picture: Picture,
    /// `[east, north]` of its top-left corner.
    pub top_left_m: [f64; 2],
    /// Ground size of one pixel of `picture` as stored (after any shrinking).
    pub metres_per_pixel: f64,
}

/// Errors at their places.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorMap {
    /// Which area and samples.
    pub caption: String,
    /// The aerial overview.
    pub map: Option<MapPicture>,
    /// One map per model, the teacher first.
    pub models: Vec<ErrorMapModel>,
    /// Error at which the colour saturates; absent picks the 95th percentile over all models.
    pub colour_limit_m: Option<f64>,
}

/// One model's errors with their places.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorMapModel {
    /// The name to show.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The points.
    pub points: Vec<ErrorPoint>,
}

/// One error at its place (the true position).
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorPoint {
    /// East of the local origin.
    pub east_m: f64,
    /// North of the local origin.
    pub north_m: f64,
    /// Position error.
    pub error_m: f64,
}

/// One drive: truth, GNSS and what the daemon made of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drive {
    /// Which drive.
    pub caption: String,
    /// The aerial overview; without it the tracks are drawn on plain ground.
    pub map: Option<MapPicture>,
    /// The tracks. Errors are measured against the one whose role is [`Role::Truth`].
    pub tracks: Vec<Track>,
}

/// One track, its samples in order of time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Track {
    /// The name to show.
    pub name: String,
    /// Colour and line style.
    pub role: Role,
    /// The samples.
    pub samples: Vec<TrackSample>,
}

/// One position of a track.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackSample {
    /// Seconds since the start of the drive.
    pub time_s: f64,
    /// East of the local origin.
    pub east_m: f64,
    /// North of the local origin.
    pub north_m: f64,
    /// Published horizontal covariance, east and north.
    pub covariance_m2: Option<[[f64; 2]; 2]>,
    /// What the daemon said about itself.
    pub state: Option<TrackState>,
}

/// The daemon's state, as in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackState {
    /// GNSS and camera agree.
    Ok,
    /// One of them is missing.
    Degraded,
    /// Neither; dead reckoning within its limit.
    Coasting,
    /// No position worth publishing.
    Lost,
}

/// Nominal against empirical coverage of the published covariance.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Coverage {
    /// Of what.
    pub caption: String,
    /// One line per track or model.
    pub series: Vec<CoverageSeries>,
}

/// One line of a coverage figure.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoverageSeries {
    /// The name to show.
    pub name: String,
    /// Colour and line style.
    pub role: Role,
    /// How many positions were counted.
    pub sample_count: usize,
    /// The points, by rising nominal coverage.
    pub points: Vec<CoveragePoint>,
}

/// One nominal probability and how often the truth really lay inside that region.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoveragePoint {
    /// Nominal probability, 0 to 1.
    pub nominal: f64,
    /// Share of the truth inside, 0 to 1.
    pub empirical: f64,
}
