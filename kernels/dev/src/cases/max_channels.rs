//! Cases of `max_channels`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let ties = tensor([3.0, 1.0, 3.0, 2.0, 2.0, 0.0].to_vec(), &[1, 3, 1, 2]);
    vec![
        OpCase::new("max_channels", &[&[2, 20, 5, 7]], |tape, x| {
            max_channels(tape, &x[0])
        }),
        OpCase::new("max_channels of equals", &[&[1, 3, 1, 2]], |tape, x| {
            max_channels(tape, &x[0])
        })
        .input(0, ties),
    ]
}
