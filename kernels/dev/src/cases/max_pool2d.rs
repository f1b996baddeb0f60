//! Cases of `max_pool2d`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let ties = Tensor::full(&[1, 1, 4, 4], 1.0);
    vec![
        OpCase::new("max_pool2d with a rest", &[&[2, 3, 7, 9]], |tape, x| {
            max_pool2d(tape, &x[0], 2)
        }),
        OpCase::new("max_pool2d of equals", &[&[1, 1, 4, 4]], |tape, x| {
            max_pool2d(tape, &x[0], 4)
        })
        .input(0, ties),
    ]
}
