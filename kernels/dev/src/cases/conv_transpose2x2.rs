//! Cases of `conv_transpose2x2`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, [n, c, h, w]: [usize; 4], outputs: usize| {
        let shapes: [&[usize]; 3] = [&[n, c, h, w], &[c, outputs, 2, 2], &[outputs]];
        OpCase::new(name, &shapes, |tape, x| {
            conv_transpose2x2(tape, &x[0], &x[1], &x[2])
        })
        // Sums of up to 60 products in another order.
        .tolerance(1e-5, 1e-5)
    };
    vec![
        case("conv_transpose2x2", [3, 7, 4, 5], 6),
        // Two neighbours at once.
        case("conv_transpose2x2 of even rows", [2, 3, 3, 6], 5),
    ]
}
