//! Cases of `upsample2x`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new("upsample2x", &[&[2, 3, 5, 7]], |tape, x| {
        upsample2x(tape, &x[0])
    })]
}
