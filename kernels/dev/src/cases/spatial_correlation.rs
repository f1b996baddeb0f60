//! Cases of `spatial_correlation`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    use crossfix_kernels::ops::Correlation::{Direct, Fastest, Fourier};
    let case = |name, [n, c]: [usize; 2], [h, w]: [usize; 2], [rows, columns]: [usize; 2], how| {
        let shapes: [&[usize]; 2] = [&[n, c, h, w], &[n, c, rows, columns]];
        OpCase::new(name, &shapes, move |tape, x| {
            spatial_correlation(tape, &x[0], &x[1], how)
        })
        // Sums of up to two thousand terms in another order.
        .tolerance(1e-5, 1e-5)
    };
    vec![
        case("spatial_correlation", [2, 3], [3, 4], [8, 11], Fastest),
        case(
            "spatial_correlation, direct",
            [1, 2],
            [11, 35],
            [13, 37],
            Direct,
        ),
        case(
            "spatial_correlation, spectra",
            [2, 3],
            [5, 5],
            [16, 9],
            Fourier,
        ),
        case(
            "spatial_correlation, large spectra",
            [1, 4],
            [12, 9],
            [33, 70],
            Fourier,
        ),
        case(
            "spatial_correlation, spectra of a pixel",
            [2, 1],
            [1, 1],
            [1, 1],
            Fourier,
        ),
        case(
            "spatial_correlation of tiles",
            [1, 2],
            [3, 2],
            [36, 67],
            Direct,
        ),
        case(
            "spatial_correlation of everything",
            [2, 1],
            [5, 7],
            [5, 7],
            Direct,
        ),
        case(
            "spatial_correlation of a pixel",
            [1, 3],
            [1, 1],
            [1, 1],
            Direct,
        ),
    ]
}
