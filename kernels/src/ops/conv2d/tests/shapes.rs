//! Shapes to try convolutions with.

use super::super::{Conv2d, Geometry, Pad};
use super::options;
use crate::testing::noise;

/// Input, weight and options.
type Shape = ([usize; 4], [usize; 4], Conv2d);

/// (input, weight, options) that between them take every path.
pub(super) fn cases() -> Vec<Shape> {
    use Pad::{Circular, Reflect, Zero};
    vec![
        // More taps or outputs than one panel is deep, rows that do not fill one.
        (
            [1, 2, 5, 5],
            [150, 2, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [1, 2, 4, 24],
            [3, 2, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [2, 3, 5, 7],
            [4, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [2, 3, 6, 8],
            [5, 3, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 3, 6, 8],
            [5, 3, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Circular, 1),
        ),
        (
            [2, 2, 6, 5],
            [3, 2, 5, 3],
            options(1, [2, 2, 1, 1], Reflect, Circular, 1),
        ),
        (
            [1, 2, 4, 6],
            [3, 2, 3, 3],
            options(1, [1, 1, 2, 0], Circular, Reflect, 1),
        ),
        (
            [2, 4, 5, 6],
            [6, 2, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 2),
        ),
        (
            [2, 4, 7, 19],
            [4, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 4),
        ),
        (
            [2, 4, 6, 8],
            [8, 1, 5, 5],
            options(2, [1, 2, 1, 2], Zero, Circular, 4),
        ),
        // Depthwise loops of fixed size: rows and columns that fill tiles, and that do not.
        (
            [2, 3, 9, 21],
            [3, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 3),
        ),
        (
            [1, 2, 12, 37],
            [2, 1, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Circular, 2),
        ),
        (
            [1, 2, 6, 70],
            [2, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Zero, 2),
        ),
        (
            [2, 2, 11, 35],
            [2, 1, 5, 5],
            options(2, [1, 2, 1, 2], Reflect, Zero, 2),
        ),
        // Several bands of rows, tiles of every height and width, a ragged end of both.
        (
            [1, 2, 37, 250],
            [2, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 2),
        ),
        (
            [2, 1, 19, 16],
            [1, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Zero, 1),
        ),
        (
            [1, 2, 3, 5],
            [2, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 2),
        ),
        (
            [1, 3, 40, 90],
            [3, 1, 5, 5],
            options(2, [2, 2, 2, 2], Circular, Reflect, 3),
        ),
        // Depthwise with stride 2: pairs of rows and columns that begin before the image, that
        // end beyond it, that wrap around; a plane smaller than its kernel; padding for which there
        // is no loop.
        (
            [1, 2, 21, 37],
            [2, 1, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 2),
        ),
        (
            [2, 2, 18, 66],
            [2, 1, 5, 5],
            options(2, [2, 2, 2, 2], Circular, Circular, 2),
        ),
        (
            [1, 2, 10, 36],
            [2, 1, 3, 3],
            options(2, [1, 1, 1, 1], Circular, Circular, 2),
        ),
        (
            [1, 2, 9, 40],
            [2, 1, 3, 3],
            options(2, [1, 1, 2, 0], Circular, Zero, 2),
        ),
        (
            [1, 2, 13, 35],
            [2, 1, 5, 5],
            options(2, [4, 3, 3, 4], Zero, Zero, 2),
        ),
        (
            [1, 2, 6, 12],
            [2, 1, 3, 3],
            options(2, [3, 4, 5, 3], Zero, Zero, 2),
        ),
        (
            [2, 3, 3, 3],
            [3, 1, 5, 5],
            options(2, [2, 2, 2, 2], Zero, Zero, 3),
        ),
        (
            [1, 3, 2, 2],
            [3, 1, 3, 3],
            options(2, [1, 0, 1, 0], Circular, Circular, 3),
        ),
        (
            [1, 2, 7, 9],
            [2, 1, 5, 5],
            options(2, [0, 0, 0, 0], Zero, Zero, 2),
        ),
        // Whole planes in one band, one after the other, as wide as a vector and a little wider.
        (
            [2, 3, 16, 16],
            [3, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Circular, 3),
        ),
        (
            [1, 3, 18, 17],
            [3, 1, 3, 3],
            options(1, [1, 1, 1, 1], Circular, Zero, 3),
        ),
        (
            [1, 3, 33, 8],
            [3, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Zero, 3),
        ),
        // Several blocks of pixels; a weight gradient in bands.
        (
            [1, 3, 64, 96],
            [68, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        // Many weights, and more outputs than stay in the cache.
        (
            [1, 40, 8, 16],
            [340, 40, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [3, 100, 4, 9],
            [90, 100, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [2, 5, 4, 6],
            [7, 5, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        (
            [2, 5, 5, 6],
            [7, 5, 1, 1],
            options(2, [0; 4], Zero, Zero, 1),
        ),
        (
            [1, 3, 4, 40],
            [2, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [1, 17, 9, 33],
            [19, 17, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 2, 4, 5],
            [3, 2, 4, 5],
            options(3, [0; 4], Zero, Zero, 1),
        ),
        // Planes as they lie: long rows with a ragged end, several bands, both strides.
        (
            [2, 3, 20, 70],
            [6, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 3, 31, 150],
            [5, 3, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        // Transposed panels: rows of 8 times an odd number, stride 2.
        (
            [2, 90, 3, 24],
            [85, 90, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 96, 5, 34],
            [80, 96, 3, 3],
            options(2, [1, 1, 1, 1], Reflect, Zero, 1),
        ),
        // Products of matrices: many rows, and large planes.
        (
            [2, 20, 4, 8],
            [40, 20, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        (
            [1, 3, 64, 64],
            [18, 3, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
    ]
}

/// Images too large for finite differences: what is left of rounding is.
pub(super) fn large_cases() -> Vec<Shape> {
    use Pad::{Circular, Reflect, Zero};
    vec![
        // Row by row: rows that are near and that are not, a ragged end of them and of the outputs.
        (
            [2, 3, 9, 262],
            [9, 3, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Circular, 1),
        ),
        (
            [1, 3, 140, 260],
            [4, 3, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [1, 2, 8, 67],
            [7, 2, 5, 3],
            options(1, [2, 2, 1, 1], Reflect, Reflect, 1),
        ),
        (
            [1, 20, 5, 150],
            [11, 20, 3, 3],
            options(1, [1, 1, 1, 1], Circular, Zero, 1),
        ),
        // Phases of rows and columns: both remainders of the padding, both kernels, channels that fill a
        // tile and that do not.
        (
            [2, 3, 10, 140],
            [7, 3, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Zero, 1),
        ),
        (
            [1, 4, 10, 91],
            [5, 4, 3, 3],
            options(2, [1, 1, 2, 1], Circular, Zero, 1),
        ),
        (
            [1, 2, 11, 133],
            [6, 2, 5, 5],
            options(2, [2, 1, 3, 2], Zero, Zero, 1),
        ),
        // Two bands of planes as they lie, and what is copied for the second while the first is multiplied.
        (
            [1, 7, 90, 200],
            [5, 7, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 2, 40, 200],
            [21, 2, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        // Two bands of transposed panels.
        (
            [1, 10, 300, 60],
            [17, 10, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [2, 85, 30, 60],
            [18, 85, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        // Large planes in several bands with a ragged end: many rows from few planes, and back.
        (
            [1, 18, 71, 61],
            [85, 18, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        (
            [2, 26, 67, 64],
            [9, 26, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
    ]
}

/// Of so many shapes of any kind, most of them odd ones, those that fit together and take no long time.
pub(super) fn random_cases(count: usize) -> Vec<Shape> {
    let draws = noise(&[count, 20], 11);
    let cases = draws.data().chunks_exact(20).map(|draws| {
        // Uniform in -1..1.
        let mut draws = draws.iter().map(|draw| (draw + 1.0) / 2.0);
        let mut below = |n: usize| (draws.next().unwrap_or(0.0) * n as f32) as usize % n;
        let kernel = [
            [1, 1],
            [1, 1],
            [3, 3],
            [3, 3],
            [5, 5],
            [2, 2],
            [3, 2],
            [1, 4],
        ][below(8)];
        let stride = [1, 1, 2, 2, 3][below(5)];
        let padding = [kernel[0], kernel[0], kernel[1], kernel[1]].map(&mut below);
        let pads = [Pad::Zero, Pad::Circular, Pad::Reflect];
        let (rows, columns) = (pads[below(3)], pads[below(3)]);
        let width = [
            1 + below(20),
            40 + below(60),
            120 + below(200),
            64 << below(3),
        ][below(4)];
        let height = [1 + below(8), 1 + below(40)][below(2)];
        let batch = 1 + below(2);
        let few = [4, 12, 50][below(3)];
        let (channels, outputs) = (1 + below(few), 1 + below(40));
        let (weight, groups) = match below(4) {
            0 => ([channels, 1], channels),
            _ => ([outputs, channels], 1),
        };
        (
            [batch, channels, height, width],
            [weight[0], weight[1], kernel[0], kernel[1]],
            options(stride, padding, rows, columns, groups),
        )
    });
    let small = |(input, weight, options): &Shape| {
        Geometry::of_shapes(*input, *weight, options).is_ok_and(|g| {
            let products = g.batch * g.outputs * g.output_pixels() * g.group_taps();
            products <= 2_000_000
        })
    };
    cases.filter(small).collect()
}
