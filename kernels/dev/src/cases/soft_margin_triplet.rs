//! Cases of `soft_margin_triplet`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: [usize; 3], places: &'static [[usize; 2]], slope| {
        OpCase::new(name, &[&shape], move |tape, x| {
            soft_margin_triplet(tape, &x[0], places, slope)
        })
    };
    vec![
        case("soft_margin_triplet", [2, 5, 7], &[[0, 2], [4, 6]], 3.0),
        case(
            "soft_margin_triplet of large ones",
            [1, 19, 31],
            &[[7, 7]],
            100.0,
        ),
    ]
}
