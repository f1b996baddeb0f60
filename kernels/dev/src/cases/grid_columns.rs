//! Cases of `grid_columns`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new("grid_columns", &[&[3, 9, 11, 2]], |_, x| {
            grid_columns(&x[0], 0.25)
        })
        .without_gradient(&[0]),
    ]
}
