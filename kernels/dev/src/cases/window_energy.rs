//! Cases of `window_energy`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: [usize; 4], window| {
        OpCase::new(name, &[&shape], move |tape, x| {
            window_energy(tape, &x[0], window)
        })
    };
    vec![
        case("window_energy", [2, 3, 7, 9], [3, 4]),
        case("window_energy of single pixels", [1, 2, 5, 3], [1, 1]),
        case("window_energy of everything", [2, 2, 5, 3], [5, 3]),
    ]
}
