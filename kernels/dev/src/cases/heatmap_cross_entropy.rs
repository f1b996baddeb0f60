//! Cases of `heatmap_cross_entropy`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let shape = [3, 1, 50, 60];
    let target = noise(&shape, 7).into_data();
    let target = target.iter().map(|x| x.max(0.0).powi(6)).collect();
    vec![
        OpCase::new("heatmap_cross_entropy", &[&shape, &shape], |tape, x| {
            heatmap_cross_entropy(tape, &x[0], &x[1])
        })
        .input(1, tensor(target, &shape))
        .without_gradient(&[1]),
    ]
}
