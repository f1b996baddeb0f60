//! Cases of `l2_normalise`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let mut short = noise(&[1, 3, 2, 2], 1).into_data();
    for channel in 0..3 {
        short[channel * 4] = 0.0;
    }
    vec![
        OpCase::new("l2_normalise", &[&[2, 37, 5, 7]], |tape, x| {
            l2_normalise(tape, &x[0], 1e-12)
        }),
        // Blocks that are full, and more channels than a thread has in flight.
        OpCase::new(
            "l2_normalise of many channels",
            &[&[1, 300, 4, 6]],
            |tape, x| l2_normalise(tape, &x[0], 1e-12),
        ),
        OpCase::new(
            "l2_normalise of many pixels",
            &[&[1, 3, 182, 181]],
            |tape, x| l2_normalise(tape, &x[0], 1e-12),
        ),
        OpCase::new("l2_normalise of a zero", &[&[1, 3, 2, 2]], |tape, x| {
            l2_normalise(tape, &x[0], 0.1)
        })
        .input(0, tensor(short, &[1, 3, 2, 2])),
    ]
}
