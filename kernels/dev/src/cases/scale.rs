//! Cases of `scale`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new("scale", &[&[2, 515]], |tape, x| {
        scale(tape, &x[0], -1.7)
    })]
}
