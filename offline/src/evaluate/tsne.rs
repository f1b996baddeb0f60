//! Points of many dimensions in a plane, so that near ones stay near: t-SNE, the same picture each time.
//!
//! Source: Visualizing Data using t-SNE (van der Maaten, Hinton 2008), by the crate `bhtsne`.

use bhtsne::tSNE;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Neighbours that a point looks at, about.
const PERPLEXITY: f32 = 20.0;
const STEPS: usize = 500;
const SEED: u64 = 1;

/// Lays points out in a plane whose unit means nothing. Fewer than four stay at the middle, and so do points
/// that are not all finite.
///
/// The crate starts at random and sums in whatever order threads finish, so the start is drawn here and one
/// thread sums.
pub fn layout(points: &[Vec<f32>]) -> Vec<[f64; 2]> {
    let middle = vec![[0.0; 2]; points.len()];
    let sound = points.iter().flatten().all(|value| value.is_finite());
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).build() else {
        return middle;
    };
    if points.len() < 4 || !sound {
        return middle;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let start: Vec<f32> = (0..2 * points.len())
        .map(|_| 1e-2 * (rng.random::<f32>() - 0.5))
        .collect();
    // The crate asks for at least three times as many neighbours.
    let perplexity = PERPLEXITY.min((points.len() - 1) as f32 / 3.0);
    let places = pool.install(|| {
        let mut tsne: tSNE<f32, Vec<f32>> = tSNE::new(points);
        tsne.perplexity(perplexity)
            .epochs(STEPS)
            .initial_embedding(start)
            .exact(squared_distance);
        tsne.embedding()
    });
    let places = places.chunks_exact(2);
    places
        .map(|place| [f64::from(place[0]), f64::from(place[1])])
        .collect()
}

#[expect(clippy::ptr_arg, reason = "the type that bhtsne passes")]
fn squared_distance(a: &Vec<f32>, b: &Vec<f32>) -> f32 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2));
    squares.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_groups_stay_apart_and_the_picture_is_the_same_again() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut point = |group: usize| -> Vec<f32> {
            let group = 4.0 * group as f32;
            (0..16).map(|_| group + rng.random::<f32>()).collect()
        };
        let points: Vec<Vec<f32>> = (0..80).map(|index| point(index / 40)).collect();
        let places = layout(&points);
        assert_eq!(places, layout(&points));
        let mean = |part: &[[f64; 2]]| {
            [0, 1].map(|axis| part.iter().map(|place| place[axis]).sum::<f64>() / part.len() as f64)
        };
        let (a, b) = (mean(&places[..40]), mean(&places[40..]));
        let from =
            |to: [f64; 2]| move |place: &[f64; 2]| (place[0] - to[0]).hypot(place[1] - to[1]);
        let widest = places[..40].iter().map(from(a)).fold(0.0, f64::max);
        assert!(from(a)(&b) > widest, "{a:?} {b:?} {widest}");
    }

    #[test]
    fn too_few_points_and_broken_ones_stay_at_the_middle() {
        assert_eq!(layout(&[vec![1.0], vec![2.0]]), [[0.0; 2]; 2]);
        let broken = vec![vec![f32::NAN]; 9];
        assert_eq!(layout(&broken), [[0.0; 2]; 9]);
    }
}
