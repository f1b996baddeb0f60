//! True positions, in a file of their own.
//!
//! Supervised training, evaluation and the recipe `oracle` use this module; no other part of
//! adaptation does, and a test adapts with `truth.jsonl` deleted.

use super::lines::read_lines;
use super::{check_heading, check_position};
use crate::data::error::DatasetError;
use crate::data::pose::{cell_from_offset, wrap_rad, yaw_from_heading};
use crate::data::sample::{Dataset, Sample};
use crate::model::ModelSpec;
use crate::model::loss::PoseTarget;
use crossfix_calibration::{Geodetic, LocalFrame};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// A line of `truth.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthRow {
    /// The pair's id.
    pub id: String,
    /// True position, WGS 84.
    pub latitude_deg: f64,
    /// True position, WGS 84.
    pub longitude_deg: f64,
    /// True heading, degrees clockwise from true north.
    pub heading_deg: f64,
}

/// True positions by pair, read from `truth.jsonl`.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    rows: HashMap<String, TruthRow>,
}

impl Truth {
    /// Reads `truth.jsonl` of the dataset in `folder`.
    ///
    /// # Errors
    /// [`DatasetError`] with the line and the fix.
    pub fn open(folder: &Path) -> Result<Self, DatasetError> {
        let rows: Vec<TruthRow> =
            read_lines(&folder.join("truth.jsonl"), check_truth, |row| &row.id)?;
        let rows = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        Ok(Self { rows })
    }

    /// The truth of one pair.
    pub fn get(&self, id: &str) -> Option<&TruthRow> {
        self.rows.get(id)
    }

    /// Pairs whose truth is known.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no truth is known.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Where a sample's camera really was, relative to its images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TruePose {
    /// Metres east and north of the aerial image's centre.
    pub offset_m: [f64; 2],
    /// True yaw.
    pub yaw_rad: f64,
    /// True yaw minus [`Sample::yaw_rad`], in (-π, π].
    pub residual_rad: f64,
}

impl TruePose {
    /// The pose in heatmap cells.
    pub fn target(&self, spec: &ModelSpec) -> PoseTarget {
        let [column, row] = cell_from_offset(self.offset_m, spec);
        PoseTarget {
            column,
            row,
            residual_rad: self.residual_rad,
            weight: 1.0,
            map: None,
        }
    }
}

/// Where the sample's camera really was, if the truth knows the sample.
pub fn true_pose(sample: &Sample, truth: &Truth) -> Option<TruePose> {
    let row = truth.get(&sample.id)?;
    let place = Geodetic::new(row.latitude_deg, row.longitude_deg, sample.centre.height_m).ok()?;
    let offset = LocalFrame::new(sample.centre).enu_from_geodetic(place);
    let yaw_rad = yaw_from_heading(row.heading_deg);
    Some(TruePose {
        offset_m: [offset.east(), offset.north()],
        yaw_rad,
        residual_rad: wrap_rad(yaw_rad - sample.yaw_rad),
    })
}

/// True poses as labels: of samples whose truth is known and lies in their aerial image, margin
/// included.
///
/// # Errors
/// [`DatasetError`] when an image that decides it cannot be read.
pub fn true_labels(
    dataset: &dyn Dataset,
    truth: &Truth,
    spec: &ModelSpec,
) -> Result<Vec<(usize, PoseTarget)>, DatasetError> {
    let side = spec.heatmap_side() as f64;
    let cells_per_pixel = spec.metres_per_pixel / spec.metres_per_cell();
    let inside = |target: &PoseTarget, margin_px: usize| {
        let margin = margin_px as f64 * cells_per_pixel;
        let inside = |cell: f64| cell > 0.5 - margin && cell < side - 0.5 + margin;
        inside(target.column) && inside(target.row)
    };
    let mut labels = Vec::with_capacity(dataset.len());
    for index in 0..dataset.len() {
        let Some(pose) = true_pose(dataset.sample(index), truth) else {
            continue;
        };
        let target = pose.target(spec);
        // Not every image has its margin: tiles may end before.
        let counts = inside(&target, 0)
            || inside(&target, dataset.margin_px()) && {
                let side_px = dataset.pair(index)?.aerial.width;
                inside(&target, side_px.saturating_sub(spec.aerial_px) / 2)
            };
        if counts {
            labels.push((index, target));
        }
    }
    Ok(labels)
}

fn check_truth(row: &TruthRow) -> Result<(), String> {
    check_position(row.latitude_deg, row.longitude_deg)?;
    check_heading(row.heading_deg)
}
