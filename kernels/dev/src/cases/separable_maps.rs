//! Cases of `separable_maps`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let shapes: [&[usize]; 3] = [&[3, 11], &[3, 7], &[3, 5]];
    vec![
        OpCase::new("separable_maps", &shapes, |_, x| {
            separable_maps(&x[0], &x[1], &x[2], 0.1)
        })
        .without_gradient(&[0, 1, 2]),
    ]
}
