//! Cases of `rolled_matching`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let zero = Tensor::zeros(&[2, 12]);
    vec![
        OpCase::new("rolled_matching", &[&[2, 12, 5, 7], &[2, 12]], |tape, x| {
            rolled_matching_of(tape, x, &[0, 3, 6, 9], 0)
        })
        .tolerance(1e-5, 1e-5),
        // Blocks of rolled descriptors, more channels than a thread has in flight, and packs of
        // four pixels.
        OpCase::new(
            "rolled_matching of many channels",
            &[&[2, 300, 4, 6], &[2, 290]],
            |tape, x| rolled_matching_of(tape, x, &[0, 15, 290, 100], 2),
        )
        .tolerance(1e-5, 1e-5),
        OpCase::new(
            "rolled_matching of a window",
            &[&[2, 20, 5, 3], &[2, 7]],
            |tape, x| rolled_matching_of(tape, x, &[0, 5, -5, 10, 0], 3),
        )
        .tolerance(1e-5, 1e-5),
        OpCase::new(
            "rolled_matching without a descriptor",
            &[&[2, 12, 2, 3], &[2, 12]],
            |tape, x| rolled_matching_of(tape, x, &[0, 1], 0),
        )
        .input(1, zero),
    ]
}

fn rolled_matching_of(
    tape: &mut Tape,
    x: &[Tensor],
    shifts: &[isize],
    offset: usize,
) -> Result<Tensor> {
    rolled_matching(tape, &x[0], &x[1], shifts, offset)
}
