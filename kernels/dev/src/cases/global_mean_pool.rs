//! Cases of `global_mean_pool`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: [usize; 4]| {
        OpCase::new(name, &[&shape], |tape, x| global_mean_pool(tape, &x[0]))
    };
    vec![
        case("global_mean_pool", [2, 3, 17, 19]),
        case("global_mean_pool by fours", [2, 3, 6, 10]),
        // More than the threads of a block read at once.
        case("global_mean_pool of large planes", [1, 1, 142, 130]),
    ]
}
