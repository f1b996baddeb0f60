//! What a network compares: a descriptor of the ground view and one of the aerial image at a place, before
//! either has seen the other.

use super::ccvpe::{Ccvpe, L2_EPSILON, NormalisedInput};
use super::{CcvpeSpec, CrossViewModel, Extent, ForwardOptions, Input, ModelError, NORMALISATION};
use crossfix_kernels::{Device, Tape, Tensor};

/// The descriptors of one pair at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewDescriptors {
    /// Of the ground view, of length 1.
    pub ground: Vec<f32>,
    /// Of the aerial image at the place: all its channels.
    pub aerial: Vec<f32>,
    /// The channel of `aerial` that the first of `ground` is compared with; the others follow, from the last on
    /// with the first.
    pub first: usize,
}

impl ViewDescriptors {
    /// The channels of another pair's aerial image that this pair's ground view would be compared with, of length
    /// 1 (or 0 where they are all 0).
    pub fn window(&self, other: &Self) -> Vec<f32> {
        let channels = other.aerial.len().max(1);
        let places = (0..self.ground.len()).map(|index| (self.first + index) % channels);
        unit(places.filter_map(|place| other.aerial.get(place).copied()))
    }

    /// Cosine of this pair's ground view and another's aerial image, -1 to 1: the score that the network's first
    /// level would give them.
    pub fn cosine(&self, other: &Self) -> f64 {
        dot(&self.ground, &self.window(other))
    }
}

/// Scaled to length 1; zeros stay zeros.
pub(super) fn unit(values: impl IntoIterator<Item = f32>) -> Vec<f32> {
    let values: Vec<f32> = values.into_iter().collect();
    let squared: f32 = values.iter().map(|value| value * value).sum();
    let length = squared.sqrt().max(L2_EPSILON);
    values.into_iter().map(|value| value / length).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(a * b));
    products.sum()
}

/// Row and column of the cell that holds a place, in metres east and north of the middle; places beyond the
/// map end on its edge.
fn cell_of(spec: &CcvpeSpec, [east_m, north_m]: [f64; 2]) -> [usize; 2] {
    let grid = spec.levels[0].grid;
    let cell_m = spec.metres_per_pixel * spec.aerial_px as f64 / grid as f64;
    let index = |metres: f64| {
        let index = (grid as f64 / 2.0 + metres / cell_m).floor();
        index.clamp(0.0, grid as f64 - 1.0) as usize
    };
    [index(-north_m), index(east_m)]
}

impl Ccvpe {
    /// The first level's descriptors at a place of each pair, metres east and north of the aerial image's middle:
    /// the ground view's, and the aerial cell's as it is compared at the searched orientation that fits best (the
    /// given heading, where no other is searched).
    pub(super) fn first_level(
        &mut self,
        input: &Input,
        places_m: &[[f64; 2]],
    ) -> Result<Vec<ViewDescriptors>, ModelError> {
        let spec = self.spec().clone();
        input.check(&spec)?;
        let device = self.parameters().device();
        let [ground, aerial] = input.normalised(&device, &NORMALISATION, !spec.ground_left_bin)?;
        let images = NormalisedInput {
            ground,
            aerial,
            ground_left_bin: input.ground_left_bin.clone(),
        };
        let mut seen: [Option<Tensor>; 2] = [None, None];
        let mut watch = |name: &str, value: &Tensor| {
            let layers = [
                "grd_feature_to_descriptor1.2",
                "sat_feature_to_descriptors.1",
            ];
            if let Some(index) = layers.iter().position(|layer| *layer == name) {
                seen[index] = Some(value.clone());
            }
        };
        let options = ForwardOptions::evaluation(Extent::Levels(1));
        self.forward_normalised(&mut Tape::inference(), &images, options, Some(&mut watch))?;
        let [Some(ground), Some(aerial)] = seen else {
            return Err(ModelError::Input(
                "the pass showed no descriptors; this is a bug".into(),
            ));
        };
        let (ground, aerial) = (ground.to(&Device::Cpu)?, aerial.to(&Device::Cpu)?);
        let [samples, channels, grid, _] = aerial.dims4("first_level", "aerial descriptors")?;
        let length = ground.len() / samples.max(1);
        let of_sample = |(sample, place_m): (usize, &[f64; 2])| {
            let [row, column] = cell_of(&spec, *place_m);
            let at = |channel: usize| ((sample * channels + channel) * grid + row) * grid + column;
            let left = input.ground_left_bin.get(sample).copied().unwrap_or(0) as isize;
            let found = ViewDescriptors {
                ground: unit(ground.data()[sample * length..][..length].iter().copied()),
                aerial: (0..channels)
                    .map(|channel| aerial.data()[at(channel)])
                    .collect(),
                first: 0,
            };
            let turned = spec.searched_bins().into_iter().map(|bin| {
                let shift = (bin + left) * spec.levels[0].shift as isize;
                let first = shift + spec.window_offset(0) as isize;
                ViewDescriptors {
                    first: first.rem_euclid(channels as isize) as usize,
                    ..found.clone()
                }
            });
            let best = turned.max_by(|a, b| a.cosine(a).total_cmp(&b.cosine(b)));
            best.unwrap_or(found)
        };
        Ok((0..samples).zip(places_m).map(of_sample).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{named, preset};
    use super::*;
    use crate::data::plain_batch;
    use crate::data::sample::{Pair, Sample};
    use crate::model::GroundProjection;
    use crate::model::ggcvt::loss::true_cell;
    use crossfix_calibration::RgbImage;

    fn pair(ground: (usize, usize), aerial_px: usize, seed: usize) -> Pair {
        let image = |width: usize, height: usize| RgbImage {
            width,
            height,
            data: (0..width * height * 3)
                .map(|index| ((index * (seed + 7) * 2_654_435_761) >> 13) as u8)
                .collect(),
        };
        let projection = GroundProjection::Panorama {
            metres_per_pixel: 0.5,
            turn_rad: 0.0,
        };
        Pair {
            sample: Sample::unplaced(format!("{seed}"), projection),
            ground: image(ground.0, ground.1),
            aerial: image(aerial_px, aerial_px),
        }
    }

    /// What is shown is what the network compares: its score at that cell is the cosine.
    #[test]
    fn the_cosine_is_the_score_of_the_first_level() {
        for name in ["compact", "ggcvt-compact"] {
            let mut model = named(name).unwrap().build(3).unwrap();
            let spec = model.describe().clone();
            let size = (spec.ground_columns, spec.ground_rows);
            let pairs = [pair(size, spec.aerial_px, 1), pair(size, spec.aerial_px, 2)];
            let input = plain_batch(&pairs, &spec).unwrap();
            let places = [[3.0, -9.0], [-11.0, 14.0]];
            let found = model.view_descriptors(&input, &places).unwrap().unwrap();
            assert_eq!(found.len(), 2);
            let options = ForwardOptions::evaluation(Extent::Levels(1));
            let levels = model
                .forward(&mut Tape::inference(), &input, options)
                .unwrap();
            let scores = &levels.levels[0];
            for (sample, pair) in found.iter().enumerate() {
                let cosine = pair.cosine(pair);
                let per_sample = scores.len() / 2;
                let of_sample = &scores.data()[sample * per_sample..][..per_sample];
                let close = if name == "compact" {
                    let ccvpe = preset(name).unwrap();
                    let [row, column] = cell_of(&ccvpe, places[sample]);
                    let score = of_sample[row * ccvpe.levels[0].grid + column];
                    (cosine - f64::from(score)).abs() < 1e-5
                } else {
                    // The score is minus 2 - 2 c / √confidence; of a sigmoid's confidence.
                    let [east, north] = places[sample].map(|metres| metres / 4.0);
                    let [row, column] = true_cell(13, [-north, east]);
                    let score = f64::from(of_sample[row * 13 + column]);
                    let ratio = (1.0 + score / 2.0) / cosine;
                    (1.0..2.5).contains(&ratio)
                };
                assert!(close, "{name}: {cosine}, {sample}");
            }
        }
    }

    #[test]
    fn a_ground_view_is_compared_with_its_own_part_of_the_circle() {
        let pair = |first: usize| ViewDescriptors {
            ground: vec![1.0, 0.0],
            aerial: vec![0.0, 0.0, 3.0, 4.0],
            first,
        };
        assert!((pair(2).cosine(&pair(0)) - 0.6).abs() < 1e-6);
        // From the last channel on with the first.
        assert!((pair(3).cosine(&pair(0)) - 1.0).abs() < 1e-6);
        assert!(pair(0).cosine(&pair(0)).abs() < 1e-6);
    }
}
