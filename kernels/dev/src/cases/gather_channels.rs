//! Cases of `gather_channels`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![OpCase::new(
        "gather_channels",
        &[&[3, 5, 9, 11]],
        |tape, x| {
            let lists = [vec![4, 0, 2], vec![1, 1, 3], vec![0, 4, 4]];
            gather_channels(tape, &x[0], &lists)
        },
    )]
}
