//! Cases of `softmax`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new("softmax", &[&[3, 4, 37]], |tape, x| softmax(tape, &x[0])),
        OpCase::new("softmax of several blocks", &[&[2, 5000]], |tape, x| {
            softmax(tape, &x[0])
        }),
    ]
}
