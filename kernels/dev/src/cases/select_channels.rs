//! Cases of `select_channels`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new(
        "select_channels, one twice",
        &[&[2, 5, 3, 7]],
        |tape, x| select_channels(tape, &x[0], &[4, 0, 4]),
    )]
}
