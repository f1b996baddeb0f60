//! Cases of `orientation_loss`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(
            "orientation_loss",
            &[&[3, 2, 9, 11], &[3, 1, 9, 11], &[3, 2]],
            |tape, x| orientation_loss(tape, &x[0], &x[1], &x[2]),
        )
        .without_gradient(&[1, 2]),
    ]
}
