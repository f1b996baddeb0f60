//! Measures a network on a published dataset, with its published metrics.

use crate::data::ahead::Workers;
use crate::data::samples::{Job, batches_ahead};
use crate::data::{Samples, Shown};
use crate::metrics::ggcvt::GgcvtSummary;
use crate::metrics::published::{Outcome, PublishedSummary};
use crate::model::{CrossViewModel, Extent, ForwardOptions, GroundCamera, ModelError, NetworkKind};
use crate::predict::{arg_max, batch_size};
use crate::progress;
use crossfix_kernels::Tape;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// The figures that a kind of network was published with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Measured {
    /// Of heatmaps that cover the aerial image.
    Ccvpe(PublishedSummary),
    /// Of distance maps around its middle.
    Ggcvt(GgcvtSummary),
}

impl Measured {
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

/// Runs a network over samples, read ahead of it. What a sample draws (such as the turn of a
/// panorama) depends on `seed` and its number alone. `vehicle_frame` says that the true angle is
/// the vehicle's heading.
///
/// # Errors
/// [`ModelError`] when a sample cannot be read or does not fit the network.
pub fn evaluate_samples(
    model: &mut dyn CrossViewModel,
    samples: &dyn Samples,
    seed: u64,
    vehicle_frame: bool,
) -> Result<Measured, ModelError> {
    let spec = model.describe().clone();
    samples.check(&spec)?;
    let size = batch_size(&spec);
    let side = spec.heatmap_side();
    let jobs = |number: u64| -> Vec<Job> {
        let first = number as usize * size;
        (first..samples.len().min(first + size))
            .map(|index| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(index as u64);
                samples.draw(index, &mut rng)
            })
            .collect()
    };
    let bar = progress::bar("evaluate", samples.len() as u64);
    let mut outcomes = Vec::with_capacity(samples.len());
    let batches = samples.len().div_ceil(size) as u64;
    batches_ahead(0..batches, Workers::default(), &spec, jobs, |batches| {
        for batch in batches {
            let mut batch = batch.map_err(ModelError::from)?;
            for view in &mut batch.input.views {
                *view = spec.measured_view(*view);
            }
            let options = ForwardOptions::evaluation(Extent::Everything);
            let prediction = model.forward(&mut Tape::inference(), &batch.input, options)?;
            let prediction = prediction.to_host()?;
            let heatmaps = prediction.heatmaps()?;
            let heatmaps = heatmaps.host("evaluate").map_err(ModelError::from)?;
            let fields = prediction.orientation.as_ref();
            let fields = fields.map(|field| field.host("evaluate")).transpose();
            let fields = fields.map_err(ModelError::from)?;
            for (index, shown) in batch.shown.iter().enumerate() {
                let cells = side * side;
                let heatmap = &heatmaps[index * cells..][..cells];
                let field = fields.map(|field| &field[index * 2 * cells..][..2 * cells]);
                outcomes.push(outcome(heatmap, field, side, shown));
            }
            bar.inc(batch.shown.len() as u64);
        }
        Ok::<_, ModelError>(())
    })?;
    bar.finish_and_clear();
    Ok(match spec.kind {
        NetworkKind::Ccvpe => Measured::Ccvpe(PublishedSummary::of(&outcomes, side, vehicle_frame)),
        NetworkKind::Ggcvt => {
            let places = side as f64;
            let centre = match spec.camera {
                GroundCamera::CalibratedPinhole { .. } => places / 2.0,
                _ => (places + 1.0) / 2.0,
            };
            Measured::Ggcvt(GgcvtSummary::of(&outcomes, side, centre, vehicle_frame))
        }
    })
}

fn outcome(heatmap: &[f32], field: Option<&[f32]>, side: usize, shown: &Shown) -> Outcome {
    let peak = arg_max(heatmap, |_| true).unwrap_or(0);
    let [column, row] = Outcome::true_peak(shown, side);
    Outcome {
        peak: [peak % side, peak / side],
        direction: field.map(|field| [field[peak], field[side * side + peak]]),
        probability_at_truth: f64::from(heatmap[row * side + column]),
        shown: *shown,
    }
}
