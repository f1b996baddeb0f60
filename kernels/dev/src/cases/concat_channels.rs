//! Cases of `concat_channels`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, [h, w]: [usize; 2]| {
        let shapes: [&[usize]; 3] = [&[2, 3, h, w], &[2, 1, h, w], &[2, 7, h, w]];
        OpCase::new(name, &shapes, |tape, x| {
            concat_channels(tape, &[&x[0], &x[1], &x[2]])
        })
    };
    vec![
        case("concat_channels", [4, 5]),
        case("concat_channels of odd planes", [3, 5]),
        // Some blocks are full.
        case("concat_channels of large planes", [36, 40]),
    ]
}
