//! Cases of `uncertainty_weighted`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new(
        "uncertainty_weighted",
        &[&[], &[1]],
        |tape, x| uncertainty_weighted(tape, &x[0], &x[1]),
    )]
}
