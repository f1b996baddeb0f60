//! How well a network's two views agree, by its own descriptors: numbers first, a picture beside them.

use super::tsne::layout;
use crate::data::batch::plain_batch;
use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::sample::Dataset;
use crate::model::{CrossViewModel, ViewDescriptors};
use crate::predict::{PredictError, batch_size};
use crate::run::Interrupt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How far the descriptors of pairs go together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewAgreement {
    /// Share of ground views whose nearest aerial descriptor, of all pairs' at their own places, is their own;
    /// chance is one over the number of pairs.
    pub nearest_is_own: f64,
    /// Mean cosine of a ground view and its own place.
    pub own_cosine: f64,
    /// Mean cosine of a ground view and another pair's place.
    pub other_cosine: f64,
}

impl ViewAgreement {
    /// Of every ground view against every place. A place that is as near as the own one counts as nearer, so
    /// that descriptors which are all the same agree with nothing.
    pub fn of(pairs: &[ViewDescriptors]) -> Self {
        let of_one = |(index, pair): (usize, &ViewDescriptors)| {
            let cosines: Vec<f64> = pairs.iter().map(|other| pair.cosine(other)).collect();
            let own = cosines[index];
            let others = cosines
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index);
            let (nearer, sum) = others.fold((0, 0.0), |(nearer, sum), (_, cosine)| {
                // A cosine that is no number is no hit.
                (nearer + usize::from(!(*cosine < own)), sum + cosine)
            });
            [f64::from(u8::from(nearer == 0)), own, sum]
        };
        let of_all: Vec<[f64; 3]> = pairs.par_iter().enumerate().map(of_one).collect();
        let count = pairs.len().max(1) as f64;
        let mean = |part: usize| of_all.iter().map(|one| one[part]).sum::<f64>() / count;
        Self {
            nearest_is_own: mean(0),
            own_cosine: mean(1),
            other_cosine: mean(2) / (count - 1.0).max(1.0),
        }
    }
}

/// What a page shows of one network's descriptors.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// The numbers.
    pub agreement: ViewAgreement,
    /// Each pair's ground view and its place, laid out in a plane by t-SNE.
    pub plane: Vec<[[f64; 2]; 2]>,
}

impl Views {
    /// Measures descriptors and lays them out.
    pub fn of(pairs: &[ViewDescriptors]) -> Self {
        let ground = pairs.iter().map(|pair| pair.ground.clone());
        let aerial = pairs.iter().map(|pair| pair.window(pair));
        let points: Vec<Vec<f32>> = ground.chain(aerial).collect();
        let places = layout(&points);
        let (ground, aerial) = places.split_at(places.len() / 2);
        let both = ground.iter().zip(aerial);
        Self {
            agreement: ViewAgreement::of(pairs),
            plane: both.map(|(ground, aerial)| [*ground, *aerial]).collect(),
        }
    }
}

/// At most `most` samples whose true place is known, at even distances, with it: metres east and north of the
/// middle of their aerial images.
pub fn placed_samples(dataset: &dyn Dataset, truth: &Truth, most: usize) -> Vec<(usize, [f64; 2])> {
    let known = dataset.samples().enumerate();
    let known =
        known.filter_map(|(index, sample)| Some((index, true_pose(sample, truth)?.offset_m)));
    let known: Vec<(usize, [f64; 2])> = known.collect();
    let count = most.min(known.len());
    (0..count).map(|n| known[n * known.len() / count]).collect()
}

/// The descriptors of samples at places. `None` for a network that has none.
///
/// # Errors
/// [`PredictError`] when a sample cannot be read or does not fit the network, or on request.
pub fn view_descriptors(
    model: &mut dyn CrossViewModel,
    dataset: &dyn Dataset,
    samples: &[(usize, [f64; 2])],
    interrupt: &Interrupt,
) -> Result<Option<Vec<ViewDescriptors>>, PredictError> {
    let spec = model.describe().clone();
    let mut found = Vec::with_capacity(samples.len());
    for batch in samples.chunks(batch_size(&spec)) {
        if interrupt.asked() {
            return Err(PredictError::Interrupted);
        }
        let read = batch.par_iter().map(|(index, _)| dataset.pair(*index));
        let pairs = read.collect::<Result<Vec<_>, _>>()?;
        let places: Vec<[f64; 2]> = batch.iter().map(|(_, place)| *place).collect();
        let input = plain_batch(&pairs, &spec)?;
        let Some(descriptors) = model.view_descriptors(&input, &places)? else {
            return Ok(None);
        };
        found.extend(descriptors);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Random places, and ground views that are theirs up to noise.
    pub fn planted(count: usize, noise: f32) -> Vec<ViewDescriptors> {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut draw = |scale: f32| -> Vec<f32> {
            (0..32)
                .map(|_| scale * (rng.random::<f32>() - 0.5))
                .collect()
        };
        let pair = |_| {
            let aerial = draw(1.0);
            let noisy = aerial
                .iter()
                .zip(draw(noise))
                .map(|(value, noise)| value + noise);
            ViewDescriptors {
                ground: noisy.collect(),
                aerial,
                first: 0,
            }
        };
        (0..count).map(pair).collect()
    }

    #[test]
    fn planted_views_find_their_place_and_shuffled_ones_find_it_by_chance() {
        let pairs = planted(60, 0.2);
        let found = ViewAgreement::of(&pairs);
        assert_eq!(found.nearest_is_own, 1.0);
        assert!(found.own_cosine > found.other_cosine + 0.5, "{found:?}");
        // Every ground view goes to the next pair: none finds its own.
        let mut shuffled = pairs.clone();
        for (index, pair) in shuffled.iter_mut().enumerate() {
            pair.ground = pairs[(index + 1) % pairs.len()].ground.clone();
        }
        let found = ViewAgreement::of(&shuffled);
        assert_eq!(found.nearest_is_own, 0.0);
        // Ground views that know nothing: about one in sixty, over several draws.
        let mut hits = 0.0;
        for seed in 0..20 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut blind = pairs.clone();
            for pair in &mut blind {
                pair.ground = (0..32).map(|_| rng.random::<f32>() - 0.5).collect();
            }
            hits += ViewAgreement::of(&blind).nearest_is_own / 20.0;
        }
        assert!((0.25 / 60.0..3.0 / 60.0).contains(&hits), "{hits}");
    }

    #[test]
    fn views_that_are_all_the_same_find_nothing() {
        let mut pairs = planted(10, 0.0);
        let (ground, aerial) = (pairs[0].ground.clone(), pairs[0].aerial.clone());
        for pair in &mut pairs {
            (pair.ground, pair.aerial) = (ground.clone(), aerial.clone());
        }
        assert_eq!(ViewAgreement::of(&pairs).nearest_is_own, 0.0);
    }

    #[test]
    fn views_that_are_no_numbers_find_nothing() {
        let mut pairs = planted(10, 0.0);
        for pair in &mut pairs {
            pair.ground.fill(f32::NAN);
        }
        assert_eq!(ViewAgreement::of(&pairs).nearest_is_own, 0.0);
    }

    #[test]
    fn pairs_that_agree_lie_together_in_the_plane() {
        let distance = |[a, b]: &[[f64; 2]; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        let mean = |views: &Views| views.plane.iter().map(distance).sum::<f64>() / 60.0;
        let spread = |views: &Views| {
            let places = views.plane.iter().map(|pair| pair[0]);
            places.map(|place| place[0].hypot(place[1])).sum::<f64>() / 60.0
        };
        let together = Views::of(&planted(60, 0.2));
        let apart = Views::of(&planted(60, 20.0));
        assert_eq!(together.plane.len(), 60);
        let (near, far) = (
            mean(&together) / spread(&together),
            mean(&apart) / spread(&apart),
        );
        assert!(near < 0.3 && far > 0.6, "{near} {far}");
    }
}
