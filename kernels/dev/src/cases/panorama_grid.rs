//! Cases of `panorama_grid`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, side, views: [f32; 6]| {
        let panorama = Panorama {
            side,
            image: [20, 80],
            cell_px: 8.0,
            height_m: 2.0,
            top_rad: 0.1,
            span_rad: 3.0,
        };
        OpCase::new(name, &[&[3, 2]], move |_, x| {
            panorama_grid(&x[0], &panorama)
        })
        .input(0, tensor(views.into(), &[3, 2]))
        .without_gradient(&[0])
    };
    vec![
        case("panorama_grid", 17, [0.1, 0.3, 0.07, -2.9, 0.2, 7.5]),
        case(
            "panorama_grid of an even side",
            22,
            [0.1, 3.1, 0.07, -0.01, 0.2, 0.001],
        ),
    ]
}
