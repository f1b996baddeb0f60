//! Cases of `absolute_error`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: &[usize]| {
        OpCase::new(name, &[shape, shape], |tape, x| {
            absolute_error(tape, &x[0], &x[1], 0.7)
        })
        .without_gradient(&[1])
    };
    vec![
        case("absolute_error", &[4, 3]),
        case("absolute_error of many", &[3, 1111]),
    ]
}
