//! Measures a network on a published dataset, with its published metrics.

use crate::data::batch::read_batch;
use crate::data::examples::{Example, Examples};
use crate::metrics::ggcvt::GgcvtSummary;
use crate::metrics::published::{Outcome, PublishedSummary};
use crate::model::{CrossViewModel, GroundCamera, ModelError, NetworkKind};
use crate::predict::{PredictError, arg_max, run_ahead};
use crate::run::Interrupt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::ops::Range;

/// The figures that a kind of network was published with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PublishedEvaluation {
    /// Of heatmaps that cover the aerial image.
    Ccvpe(PublishedSummary),
    /// Of distance maps around its middle.
    Ggcvt(GgcvtSummary),
}

impl PublishedEvaluation {
    /// Samples measured.
    pub fn count(&self) -> usize {
        match self {
            Self::Ccvpe(summary) => summary.position_m.count,
            Self::Ggcvt(summary) => summary.published.position_m.count,
        }
    }

    /// The table that people read.
    pub fn table(&self) -> String {
        match self {
            Self::Ccvpe(summary) => summary.table(),
            Self::Ggcvt(summary) => summary.table(),
        }
    }
}

/// Runs a network over examples, read ahead of it. What an example draws (such as the turn of a
/// panorama) depends on `seed` and its number alone. `vehicle_frame`: the true angle is
/// the vehicle's heading.
///
/// # Errors
/// [`PredictError`] when an example cannot be read or does not fit the network, or on request.
pub fn evaluate_published(
    model: &mut dyn CrossViewModel,
    examples: &dyn Examples,
    seed: u64,
    vehicle_frame: bool,
    interrupt: &Interrupt,
) -> Result<PublishedEvaluation, PredictError> {
    let spec = model.describe().clone();
    examples.check(&spec)?;
    let side = spec.heatmap_side();
    let read = |indices: Range<usize>| -> Result<_, PredictError> {
        let drawn = indices.map(|index| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64);
            examples.draw(index, &mut rng)
        });
        let mut batch = read_batch(drawn.collect(), &spec)?;
        for projection in &mut batch.input.projections {
            *projection = spec.evaluation_projection(*projection);
        }
        Ok((batch.input, batch.examples))
    };
    let mut outcomes = Vec::with_capacity(examples.len());
    run_ahead(
        "evaluate",
        model,
        examples.len(),
        interrupt,
        read,
        |prediction, heatmaps, examples| {
            let heatmaps = heatmaps.host("evaluate").map_err(ModelError::from)?;
            let fields = prediction.orientation.as_ref();
            let fields = fields.map(|field| field.host("evaluate")).transpose();
            let fields = fields.map_err(ModelError::from)?;
            let cells = side * side;
            for (index, example) in examples.iter().enumerate() {
                let heatmap = &heatmaps[index * cells..][..cells];
                let field = fields.map(|field| &field[index * 2 * cells..][..2 * cells]);
                outcomes.push(outcome(heatmap, field, side, example));
            }
            Ok(())
        },
    )?;
    Ok(match spec.kind {
        NetworkKind::Ccvpe => {
            PublishedEvaluation::Ccvpe(PublishedSummary::of(&outcomes, side, vehicle_frame))
        }
        NetworkKind::Ggcvt => {
            let places = side as f64;
            let centre = match spec.camera {
                GroundCamera::CalibratedPinhole { .. } => places / 2.0,
                _ => f64::midpoint(places, 1.0),
            };
            PublishedEvaluation::Ggcvt(GgcvtSummary::of(&outcomes, side, centre, vehicle_frame))
        }
    })
}

fn outcome(heatmap: &[f32], field: Option<&[f32]>, side: usize, example: &Example) -> Outcome {
    let peak = arg_max(heatmap, |_| true).unwrap_or(0);
    let [column, row] = Outcome::true_peak(example, side);
    Outcome {
        peak: [peak % side, peak / side],
        direction: field.map(|field| [field[peak], field[side * side + peak]]),
        probability_at_truth: f64::from(heatmap[row * side + column]),
        example: example.clone(),
    }
}
