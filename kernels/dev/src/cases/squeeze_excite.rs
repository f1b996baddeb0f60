//! Cases of `squeeze_excite`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: [usize; 4], s: usize| {
        let c = shape[1];
        let shapes: [&[usize]; 5] = [&shape, &[s, c], &[s], &[c, s], &[c]];
        OpCase::new(name, &shapes, |tape, x| {
            squeeze_excite(tape, &x[0], &x[1], &x[2], &x[3], &x[4])
        })
        // Sums over a plane in another order.
        .tolerance(2e-6, 2e-5)
    };
    vec![
        case("squeeze_excite", [2, 6, 9, 10], 3),
        case("squeeze_excite of odd planes", [3, 5, 3, 7], 2),
        // Several blocks of channels and of hidden units, more samples than are summed at once,
        // and blocks that are full.
        case("squeeze_excite of many channels", [9, 270, 2, 4], 50),
        case("squeeze_excite of large planes", [1, 2, 70, 70], 1),
    ]
}
