//! Measures a network on a published dataset, with its published metrics.

use crate::dataset::ahead::Workers;
use crate::dataset::samples::{Job, batches_ahead};
use crate::dataset::{Samples, Shown};
use crate::metrics::published::{Outcome, PublishedSummary};
use crate::model::{CrossViewModel, Extent, ForwardOptions, ModelError};
use crate::predict::{arg_max, batch_size};
use crate::progress;
use crossfix_kernels::Tape;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

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
) -> Result<PublishedSummary, ModelError> {
    let spec = model.spec().clone();
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
            let batch = batch.map_err(ModelError::from)?;
            let options = ForwardOptions::evaluation(Extent::Everything);
            let prediction = model.forward(&mut Tape::inference(), &batch.input, options)?;
            let prediction = prediction.to_host()?;
            let heatmaps = prediction.heatmaps()?;
            let fields = prediction.orientation.as_ref();
            for (index, shown) in batch.shown.iter().enumerate() {
                let cells = side * side;
                let heatmap = &heatmaps.data()[index * cells..][..cells];
                let field = fields.map(|field| &field.data()[index * 2 * cells..][..2 * cells]);
                outcomes.push(outcome(heatmap, field, side, shown));
            }
            bar.inc(batch.shown.len() as u64);
        }
        Ok::<_, ModelError>(())
    })?;
    bar.finish_and_clear();
    Ok(PublishedSummary::of(&outcomes, side, vehicle_frame))
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
