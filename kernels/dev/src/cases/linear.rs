//! Cases of `linear`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new("linear", &[&[3, 37], &[19, 37], &[19]], |tape, x| {
            linear(tape, &x[0], &x[1], &x[2])
        })
        // Sums of 37 products in another order.
        .tolerance(1e-5, 1e-5),
    ]
}
