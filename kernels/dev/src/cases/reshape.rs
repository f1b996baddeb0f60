//! Cases of `reshape`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new("reshape", &[&[2, 6]], |tape, x| {
        reshape(tape, &x[0], &[3, 4])
    })]
}
