//! Cases of `roll`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new("roll", &[&[2, 3, 5, 7]], |tape, x| roll(tape, &x[0], 2, 3)),
        OpCase::new(
            "roll of the first axis, down",
            &[&[4, 3, 100]],
            |tape, x| roll(tape, &x[0], 0, -9),
        ),
    ]
}
