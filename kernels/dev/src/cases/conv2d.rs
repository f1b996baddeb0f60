//! Cases of `conv2d`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let zero = |padding, stride, groups| Conv2d {
        stride,
        padding,
        rows: Pad::Zero,
        columns: Pad::Zero,
        groups,
    };
    let round = |options| Conv2d {
        columns: Pad::Circular,
        ..options
    };
    let mirrored = |options| Conv2d {
        rows: Pad::Reflect,
        columns: Pad::Reflect,
        ..options
    };
    let case = |name: &str, shapes: &[&[usize]], options: Conv2d| {
        OpCase::new(name, shapes, move |tape, x| {
            conv2d(tape, &x[0], &x[1], x.get(2), &options)
        })
        // Sums of up to a few hundred products in another order.
        .tolerance(1e-5, 1e-5)
    };
    type Shapes = &'static [&'static [usize]];
    let dense: [(&str, Shapes, Conv2d); 5] = [
        (
            "3x3",
            &[&[2, 5, 9, 11], &[7, 5, 3, 3], &[7]],
            zero([1; 4], 1, 1),
        ),
        (
            "of several tiles",
            &[&[2, 9, 12, 13], &[70, 9, 3, 3], &[70]],
            zero([1; 4], 1, 1),
        ),
        (
            "stride 2, asymmetric",
            &[&[2, 3, 9, 10], &[8, 3, 3, 3]],
            zero([0, 1, 0, 1], 2, 1),
        ),
        (
            "round a panorama",
            &[&[2, 4, 6, 8], &[6, 4, 3, 3], &[6]],
            round(zero([1; 4], 1, 1)),
        ),
        (
            "mirrored",
            &[&[1, 4, 7, 6], &[6, 4, 5, 3]],
            mirrored(zero([2, 2, 1, 1], 1, 1)),
        ),
    ];
    let ways = [
        (Convolution::Implicit, "implicit"),
        (Convolution::Columns, "columns"),
        (Convolution::Window, "window"),
    ];
    let mut cases = Vec::new();
    for (name, shapes, options) in dense {
        for (way, way_name) in ways {
            // The input's gradient of several tiles sums 70 · 9 products of about 1/4: rounding 2⁻²⁴
            // each, on both sides.
            let backward = if name == "of several tiles" {
                2e-5
            } else {
                1e-5
            };
            let name = format!("conv2d {way_name}, {name}");
            let case = case(&name, shapes, options).tolerance(1e-5, backward);
            cases.push(case.convolution(way));
        }
    }
    // Columns in pieces: some samples, and some pixels of one.
    for room in [2 * 5 * 9 * 99, 5 * 9 * 30] {
        let name = format!("conv2d columns, {room} numbers at a time");
        let shapes: Shapes = &[&[3, 5, 9, 11], &[7, 5, 3, 3], &[7]];
        let case = case(&name, shapes, zero([1; 4], 1, 1));
        cases.push(case.convolution(Convolution::Columns).column_room(room));
    }
    // More strips than the blocks of a part take at once.
    let shapes: Shapes = &[&[2, 3, 60, 70], &[2, 3, 3, 3]];
    cases.push(
        case("conv2d window, in parts", shapes, zero([1; 4], 1, 1))
            // The weight's gradient sums 8400 products.
            .tolerance(1e-5, 4e-5)
            .convolution(Convolution::Window),
    );
    let depthwise: [(&str, Shapes, Conv2d); 7] = [
        ("3", &[&[2, 6, 9, 8], &[6, 1, 3, 3]], zero([1; 4], 1, 6)),
        (
            "3, stride 2",
            &[&[2, 2, 9, 10], &[2, 1, 3, 3]],
            zero([0, 1, 0, 1], 2, 2),
        ),
        (
            "5, with a bias",
            &[&[2, 3, 6, 7], &[3, 1, 5, 5], &[3]],
            zero([2; 4], 1, 3),
        ),
        (
            "5, stride 2, round",
            &[&[2, 3, 10, 12], &[3, 1, 5, 5], &[3]],
            round(zero([1, 2, 1, 2], 2, 3)),
        ),
        (
            "3, mirrored",
            &[&[1, 2, 5, 6], &[2, 1, 3, 3]],
            mirrored(zero([1; 4], 1, 2)),
        ),
        (
            "3 by 5",
            &[&[1, 2, 5, 6], &[2, 1, 3, 5]],
            zero([1, 1, 2, 2], 1, 2),
        ),
        (
            "3, in parts",
            &[&[3, 2, 50, 60], &[2, 1, 3, 3]],
            zero([1; 4], 1, 2),
        ),
    ];
    for (name, shapes, options) in depthwise {
        let name = format!("conv2d depthwise {name}");
        cases.push(case(&name, shapes, options));
        if name.ends_with("3, stride 2") {
            let tables = case(&format!("{name}, by tables"), shapes, options);
            cases.push(tables.convolution(Convolution::Implicit));
        }
    }
    cases.extend([
        case(
            "conv2d 1x1",
            &[&[3, 7, 5, 6], &[9, 7, 1, 1], &[9]],
            zero([0; 4], 1, 1),
        ),
        case(
            "conv2d 1x1 of many pixels",
            &[&[2, 3, 70, 61], &[2, 3, 1, 1]],
            zero([0; 4], 1, 1),
        )
        // The weight's gradient sums 8540 products.
        .tolerance(1e-5, 2e-5),
        case(
            "conv2d 1x1 of more samples than parts",
            &[&[5, 3, 24, 25], &[2, 3, 1, 1]],
            zero([0; 4], 1, 1),
        ),
        case(
            "conv2d in two groups",
            &[&[2, 6, 5, 7], &[8, 3, 3, 3], &[8]],
            zero([1; 4], 1, 2),
        )
        .convolution(Convolution::Implicit),
    ]);
    cases
}
