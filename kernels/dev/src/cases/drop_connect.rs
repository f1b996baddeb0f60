//! Cases of `drop_connect`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new("drop_connect", &[&[3, 4, 5, 6]], |tape, x| {
        drop_connect(tape, &x[0], &[true, false, true], 0.8)
    })]
}
