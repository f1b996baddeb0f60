//! Cases of `layer_norm`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: [usize; 4]| {
        let c = shape[1];
        OpCase::new(name, &[&shape, &[c], &[c]], |tape, x| {
            layer_norm(tape, &x[0], &x[1], &x[2], 1e-5)
        })
        // Sums over channels and pixels in another order.
        .tolerance(5e-6, 2e-5)
    };
    vec![
        case("layer_norm", [3, 13, 5, 7]),
        case("layer_norm of few channels", [1, 2, 3, 3]),
        case("layer_norm of several blocks", [2, 8, 37, 31]),
    ]
}
