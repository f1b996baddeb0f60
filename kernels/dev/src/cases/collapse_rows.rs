//! Cases of `collapse_rows`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new(
        "collapse_rows",
        &[&[2, 7, 3, 11], &[3], &[1]],
        |tape, x| collapse_rows(tape, &x[0], &x[1], &x[2]),
    )]
}
