//! Cases of `crop2d`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, corner, size| {
        OpCase::new(name, &[&[2, 3, 5, 7]], move |tape, x| {
            crop2d(tape, &x[0], corner, size)
        })
    };
    vec![
        case("crop2d", [1, 2], [3, 4]),
        case("crop2d of one corner", [4, 6], [1, 1]),
        case("crop2d of everything", [0, 0], [5, 7]),
    ]
}
