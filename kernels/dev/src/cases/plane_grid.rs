//! Cases of `plane_grid`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let plane = |side| Plane {
        side,
        metres_per_cell: 1.6,
        height_m: 1.65,
        shift_range_m: 20.0,
        heading_range_rad: 0.2,
        stride: 8.0,
    };
    let case = |name, side| {
        let cameras = vec![
            580.0, 480.0, 496.0, 125.0, 600.0, 610.0, 510.0, 120.0, 3.0, 2.0, 4.0, 1.0,
        ];
        OpCase::new(name, &[&[3, 3], &[3, 4]], move |tape, x| {
            plane_grid(tape, &x[0], &x[1], &plane(side))
        })
        .input(1, tensor(cameras, &[3, 4]))
        .without_gradient(&[1])
    };
    vec![
        case("plane_grid", 9),
        case("plane_grid of many cells", 70),
        OpCase::new("plane_grid, cells in front", &[&[3, 3]], move |_, x| {
            plane_in_front(&x[0], &plane(11))
        })
        .input(0, noise(&[3, 3], 5))
        .without_gradient(&[0]),
    ]
}
