//! Cases of `heatmap_entropy`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let shape = [3, 1, 50, 60];
    vec![OpCase::new("heatmap_entropy", &[&shape], |tape, x| {
        heatmap_entropy(tape, &x[0])
    })]
}
