//! Cases of `weighted_info_nce`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let shape = [3, 5, 20, 30];
    let mut target = noise(&shape, 7).into_data();
    for value in &mut target {
        *value = value.max(0.0).powi(6);
    }
    // The last sample has no cell above the threshold.
    target[2 * 3000..].fill(0.005);
    let target = tensor(target, &shape);
    vec![
        OpCase::new("weighted_info_nce", &[&shape, &shape], |tape, x| {
            weighted_info_nce(tape, &x[0], &x[1], 0.1, 0.01)
        })
        .input(1, target)
        .without_gradient(&[1]),
    ]
}
