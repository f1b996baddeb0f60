//! Cases of `grid_sample`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    // Points all over an image of 5 × 7, and beyond it; the first on pixel centres and edges, one
    // far away, one that is no number.
    let grid = |[n, p, q]: [usize; 3]| {
        let mut points = noise(&[n, p, q, 2], 2).into_data();
        for xy in points.chunks_exact_mut(2) {
            xy[0] = 3.0 + 4.5 * xy[0];
            xy[1] = 2.0 + 3.5 * xy[1];
        }
        let special = [
            0.0,
            0.0,
            6.0,
            4.0,
            -1.0,
            2.0,
            7.0,
            1.5,
            2.0,
            -0.25,
            1e12,
            0.0,
            f32::NAN,
            1.0,
        ];
        points[..special.len()].copy_from_slice(&special);
        tensor(points, &[n, p, q, 2])
    };
    let case = |name, c: usize, [p, q]: [usize; 2], outside| {
        OpCase::new(name, &[&[2, c, 5, 7], &[2, p, q, 2]], move |tape, x| {
            grid_sample(tape, &x[0], &x[1], outside)
        })
        .input(1, grid([2, p, q]))
        // Sums over channels and points in another order.
        .tolerance(2e-6, 1e-5)
    };
    vec![
        case("grid_sample, empty outside", 3, [3, 5], Outside::Empty),
        case("grid_sample, zeros outside", 19, [3, 5], Outside::Zeros),
        case("grid_sample, border outside", 3, [3, 5], Outside::Border),
        case("grid_sample of many points", 2, [23, 31], Outside::Empty),
        case("grid_sample of an image alone", 3, [3, 5], Outside::Zeros).without_gradient(&[1]),
    ]
}
