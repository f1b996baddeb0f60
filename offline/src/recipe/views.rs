//! A network that is asked about each pair in several turned views, and answers with the mean of its heatmaps.

use super::headings::searches_all;
use crate::data::Dataset;
use crate::data::augment::Transform;
use crate::data::batch::batch_in_views;
use crate::data::sample::Sample;
use crate::model::loss::PoseTarget;
use crate::model::{CrossViewModel, GroundCamera, ModelError, ModelSpec};
use crate::predict::{PairPrediction, PredictError, from_heatmap, run_ahead};
use crate::run::Interrupt;
use std::ops::Range;

/// Refuses several views of networks whose ground image does not turn with the aerial image.
pub(super) fn check(views: usize, spec: &ModelSpec) -> Result<(), ModelError> {
    if views == 1 || (spec.camera == GroundCamera::Panorama && !searches_all(spec)) {
        return Ok(());
    }
    let preset = &spec.preset;
    Err(ModelError::Input(format!(
        "labeller.views is {views}, and only a network that sees the whole circle, near a given heading, can be asked in turned views; {preset:?} does not; set it to 1"
    )))
}

/// As [`predict_with`](crate::predict::predict_with), with the mean of the heatmaps of `views` views of each pair, each turned
/// back: the aerial image is turned by quarters and the panorama rolled with it. Of a prediction the places, the entropy
/// and the largest probability are those of the mean; it has no orientation and no levels.
pub(super) fn predict_turned<T: Send>(
    model: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    views: usize,
    interrupt: &Interrupt,
    keep: impl Fn(&Sample, PairPrediction, &[f32]) -> Result<T, PredictError>,
) -> Result<Vec<T>, PredictError> {
    let spec = model.describe().clone();
    let turns: Vec<Transform> = (0..views)
        .map(|quarter_turns| Transform {
            quarter_turns,
            ..Transform::default()
        })
        .collect();
    let turned: Vec<Vec<usize>> = turns.iter().map(|turn| cells_in(turn, &spec)).collect();
    // The views of a pair follow one another.
    let read = |numbers: Range<usize>| -> Result<_, PredictError> {
        let view = |number| Ok((pairs.pair(number / views)?, turns[number % views]));
        let in_views = numbers.clone().map(view);
        let in_views = in_views.collect::<Result<Vec<_>, PredictError>>()?;
        Ok((batch_in_views(&in_views, &spec)?, numbers))
    };
    let cells = spec.heatmap_side().pow(2);
    let mut mean = vec![0.0f32; cells];
    let mut all = Vec::with_capacity(pairs.len());
    run_ahead(
        "predict",
        model,
        pairs.len() * views,
        interrupt,
        read,
        |_, heatmaps, numbers| {
            for (place, number) in numbers.enumerate() {
                let heatmap = &heatmaps.data()[place * cells..][..cells];
                let (index, view) = (number / views, number % views);
                if view == 0 {
                    mean.fill(0.0);
                }
                for (mean, cell) in mean.iter_mut().zip(&turned[view]) {
                    *mean += heatmap[*cell] / views as f32;
                }
                if view + 1 == views {
                    let sample = pairs.sample(index);
                    let found = from_heatmap(&mean, |_| None, sample, &spec, false);
                    all.push(keep(sample, found, &mean)?);
                }
            }
            Ok(())
        },
    )?;
    Ok(all)
}

/// For each cell of a heatmap the cell of the same place in a view.
fn cells_in(view: &Transform, spec: &ModelSpec) -> Vec<usize> {
    let side = spec.heatmap_side();
    let cell = |cell: usize| {
        let target = PoseTarget {
            column: (cell % side) as f64 + 0.5,
            row: (cell / side) as f64 + 0.5,
            residual_rad: 0.0,
            weight: 1.0,
            map: None,
        };
        let seen = view.pose(&target, spec);
        seen.row as usize * side + seen.column as usize
    };
    (0..side * side).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pair;
    use crate::model::{Ccvpe, named, preset};
    use crate::predict::predict;
    use crate::train::tests::noise_pairs;

    /// A turned pair's views are the same as the pair's, so its mean heatmap is the turned one; a single view's is not.
    #[test]
    fn the_mean_of_all_views_turns_with_the_pair() {
        let mut model = Ccvpe::new(preset("compact").unwrap(), 3).unwrap();
        let spec = model.describe().clone();
        let plain: Vec<Pair> = noise_pairs(3, "compact").into_iter().map(|p| p.0).collect();
        let turn = Transform {
            quarter_turns: 1,
            ..Transform::default()
        };
        let turned: Vec<Pair> = plain.iter().map(turned_by_quarter).collect();
        let never = Interrupt::default();
        let map = |_: &Sample, _, heatmap: &[f32]| Ok(heatmap.to_vec());
        let back = cells_in(&turn, &spec);
        let difference = |ours: &[f32], theirs: &[f32]| {
            let largest = ours.iter().copied().fold(0.0f32, f32::max);
            let pairs = ours.iter().zip(back.iter().map(|cell| theirs[*cell]));
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max) / largest
        };
        let ours = predict_turned(&mut model, &plain, 4, &never, map).unwrap();
        let theirs = predict_turned(&mut model, &turned, 4, &never, map).unwrap();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours.iter().sum::<f32>() - 1.0).abs() < 1e-3);
            assert!(difference(ours, theirs) < 1e-3);
        }
        let one = |model: &mut Ccvpe, pairs: &[Pair]| {
            let found = predict(model, &pairs.to_vec(), true, &never).unwrap();
            found[0].heatmap.clone().unwrap()
        };
        let (ours, theirs) = (one(&mut model, &plain), one(&mut model, &turned));
        assert!(difference(&ours, &theirs) > 1e-2);
    }

    /// The aerial image turned clockwise by a quarter, and the panorama a quarter to the right.
    fn turned_by_quarter(pair: &Pair) -> Pair {
        let mut turned = pair.clone();
        let side = pair.aerial.width;
        let mut copy = |to: usize, from: usize| {
            turned.aerial.data[3 * to..3 * to + 3]
                .copy_from_slice(&pair.aerial.data[3 * from..3 * from + 3]);
        };
        for row in 0..side {
            for column in 0..side {
                // What was at the left is at the top.
                copy(row * side + column, (side - 1 - column) * side + row);
            }
        }
        let (width, rows) = (pair.ground.width, pair.ground.height);
        for row in 0..rows {
            for column in 0..width {
                let (to, from) = (
                    row * width + (column + width / 4) % width,
                    row * width + column,
                );
                turned.ground.data[3 * to..3 * to + 3]
                    .copy_from_slice(&pair.ground.data[3 * from..3 * from + 3]);
            }
        }
        turned
    }

    #[test]
    fn networks_that_cannot_be_asked_in_views_are_refused() {
        for (name, views, fits) in [
            ("compact", 4, true),
            ("ggcvt-compact", 4, true),
            ("compact-front", 1, true),
            ("compact-front", 4, false),
            ("compact-unknown-heading", 4, false),
        ] {
            let spec = named(name).unwrap().describe();
            assert_eq!(check(views, &spec).is_ok(), fits, "{name}");
        }
    }
}
