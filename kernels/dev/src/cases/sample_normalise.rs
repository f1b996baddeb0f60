//! Cases of `sample_normalise`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: &[usize], epsilon| {
        OpCase::new(name, &[shape], move |tape, x| {
            sample_normalise(tape, &x[0], epsilon)
        })
    };
    vec![
        case("sample_normalise", &[3, 5, 7, 3], 1e-12),
        case("sample_normalise of several blocks", &[2, 3, 43, 71], 1e-6),
        case("sample_normalise of a short sample", &[2, 5], 10.0),
    ]
}
