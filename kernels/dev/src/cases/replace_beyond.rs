//! Cases of `replace_beyond`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let shape: [usize; 2] = [7, 3];
    let mut limits = noise(&shape, 2).into_data();
    limits[..3].copy_from_slice(&[0.0, f32::INFINITY, 0.5]);
    vec![
        OpCase::new("replace_beyond", &[&shape, &shape, &shape], |tape, x| {
            replace_beyond(tape, &x[0], &x[1], &x[2])
        })
        .input(1, tensor(limits, &shape))
        .without_gradient(&[1, 2]),
    ]
}
