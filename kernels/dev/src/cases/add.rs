//! Cases of `add`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new("add", &[&[2, 515], &[2, 515]], |tape, x| {
            add(tape, &x[0], &x[1])
        }),
        // Two gradients of one tensor are summed on its device.
        OpCase::new("add to itself", &[&[517]], |tape, x| {
            add(tape, &x[0], &x[0])
        }),
    ]
}
