mod shapes;

use super::*;
use crate::error::Error;
use crate::testing::{assert_close, check_gradient, noise};
use shapes::{cases, large_cases, random_cases};

fn options(stride: usize, padding: [usize; 4], rows: Pad, columns: Pad, groups: usize) -> Conv2d {
    Conv2d {
        stride,
        padding,
        rows,
        columns,
        groups,
    }
}

/// The definition: calls `term` with the elements of output, input and weight of every product,
/// output by output.
fn for_each_product(
    input: &Tensor,
    weight: &Tensor,
    o: &Conv2d,
    mut term: impl FnMut(usize, usize, usize),
) {
    let [batch, channels, height, width] = input.dims4("test", "input").unwrap();
    let [outputs, per_group, kh, kw] = weight.dims4("test", "weight").unwrap();
    let [top, bottom, left, right] = o.padding;
    let source = |at: isize, length: usize, pad: Pad| -> Option<usize> {
        let n = length as isize;
        match pad {
            _ if (0..n).contains(&at) => Some(at as usize),
            Pad::Zero => None,
            Pad::Circular => Some(at.rem_euclid(n) as usize),
            Pad::Reflect if at < 0 => Some((-at) as usize),
            Pad::Reflect => Some((2 * n - 2 - at) as usize),
        }
    };
    let mut output = 0;
    for n in 0..batch {
        for out in 0..outputs {
            let group = out / (outputs / o.groups);
            for y in 0..=(height + top + bottom - kh) / o.stride {
                for x in 0..=(width + left + right - kw) / o.stride {
                    for (c, ky, kx) in (0..per_group).flat_map(|c| {
                        (0..kh).flat_map(move |ky| (0..kw).map(move |kx| (c, ky, kx)))
                    }) {
                        let row = (y * o.stride + ky) as isize - top as isize;
                        let column = (x * o.stride + kx) as isize - left as isize;
                        if let (Some(row), Some(column)) = (
                            source(row, height, o.rows),
                            source(column, width, o.columns),
                        ) {
                            let channel = group * per_group + c;
                            let at = ((n * channels + channel) * height + row) * width + column;
                            let tap = ((out * per_group + c) * kh + ky) * kw + kx;
                            term(output, at, tap);
                        }
                    }
                    output += 1;
                }
            }
        }
    }
}

/// One multiplication at a time in f64.
fn by_definition(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, o: &Conv2d) -> Vec<f32> {
    let shape = Geometry::new(input, weight, bias, o)
        .unwrap()
        .output_shape();
    let pixels = shape[2] * shape[3];
    let channel = |output: usize| output / pixels % shape[1];
    let bias = |output: usize| bias.map_or(0.0, |b| f64::from(b.data()[channel(output)]));
    let mut sums: Vec<f64> = (0..shape.iter().product()).map(bias).collect();
    for_each_product(input, weight, o, |output, at, tap| {
        sums[output] += f64::from(input.data()[at]) * f64::from(weight.data()[tap]);
    });
    sums.into_iter().map(|sum| sum as f32).collect()
}

#[test]
fn three_by_three_worked_by_hand() {
    let input = Tensor::new((1..=9).map(|v| v as f32).collect(), &[1, 1, 3, 3]).unwrap();
    // Left neighbour plus ten times the pixel below.
    let weight = Tensor::new(vec![0., 0., 0., 1., 0., 0., 0., 10., 0.], &[1, 1, 3, 3]).unwrap();
    let bias = Tensor::new(vec![0.5], &[1]).unwrap();
    let mut tape = Tape::inference();
    let zero = options(1, [1; 4], Pad::Zero, Pad::Zero, 1);
    let y = conv2d(&mut tape, &input, &weight, Some(&bias), &zero).unwrap();
    let expected = [40.5, 51.5, 62.5, 70.5, 84.5, 95.5, 0.5, 7.5, 8.5];
    assert_eq!(y.data(), expected);
    let circular = options(1, [1; 4], Pad::Zero, Pad::Circular, 1);
    let y = conv2d(&mut tape, &input, &weight, Some(&bias), &circular).unwrap();
    let expected = [43.5, 51.5, 62.5, 76.5, 84.5, 95.5, 9.5, 7.5, 8.5];
    assert_eq!(y.data(), expected);
}

#[test]
fn every_path_agrees_with_the_definition() {
    let cases = cases().into_iter().chain(large_cases());
    for (index, (input, weight, options)) in cases.enumerate() {
        let input = noise(&input, index as u64);
        let weight = noise(&weight, 100 + index as u64);
        let bias = noise(&weight.shape()[..1], 200 + index as u64);
        let mut tape = Tape::inference();
        for bias in [None, Some(&bias)] {
            let y = conv2d(&mut tape, &input, &weight, bias, &options).unwrap();
            let expected = by_definition(&input, &weight, bias, &options);
            assert_close(y.data(), &expected, 1e-5);
        }
    }
}

#[test]
fn gradients_agree_with_the_definition() {
    let cases = cases().into_iter().chain(large_cases());
    for (index, (input, weight, options)) in cases.enumerate() {
        assert_gradients(index as u64, &input, &weight, &options);
    }
}

/// Odd shapes meet the edges of tiles, bands and panels that no list thinks of.
#[test]
fn random_shapes_agree_with_the_definition() {
    let cases = random_cases(600);
    assert!(cases.len() > 200, "{}", cases.len());
    for (index, (input, weight, options)) in cases.into_iter().enumerate() {
        let [values, weights] = [noise(&input, 1), noise(&weight, 2)];
        let y = conv2d(&mut Tape::inference(), &values, &weights, None, &options).unwrap();
        let expected = by_definition(&values, &weights, None, &options);
        assert_close(y.data(), &expected, 1e-5);
        assert_gradients(index as u64, &input, &weight, &options);
    }
}

fn assert_gradients(seed: u64, input: &[usize; 4], weight: &[usize; 4], options: &Conv2d) {
    let input = noise(input, seed).with_gradient();
    let weight = noise(weight, 100 + seed).with_gradient();
    let mut tape = Tape::training();
    let y = conv2d(&mut tape, &input, &weight, None, options).unwrap();
    let toward = noise(y.shape(), 300 + seed);
    let gradients = tape.backward_from(&y, toward.clone()).unwrap();
    // Rounding: 2⁻²⁴ of partial sums that grow as √n, n times in random directions.
    let tolerance = |terms: usize| 1e-5 + 1e-8 * terms as f32;
    let kernel: usize = weight.shape()[2..].iter().product();
    let of_input = tolerance(weight.shape()[0] * kernel);
    let of_weight = tolerance(y.len() / y.shape()[1]);
    let mut to_input = vec![0.0; input.len()];
    let mut to_weight = vec![0.0; weight.len()];
    for_each_product(&input, &weight, options, |output, at, tap| {
        let toward = f64::from(toward.data()[output]);
        to_input[at] += toward * f64::from(weight.data()[tap]);
        to_weight[tap] += toward * f64::from(input.data()[at]);
    });
    let found = |leaf| gradients.get(leaf).unwrap().data().to_vec();
    let rounded = |sums: Vec<f64>| -> Vec<f32> { sums.iter().map(|sum| *sum as f32).collect() };
    assert_close(&found(&input), &rounded(to_input), of_input);
    assert_close(&found(&weight), &rounded(to_weight), of_weight);
}

#[test]
fn gradients_match_finite_differences() {
    for (index, (input, weight, options)) in cases().into_iter().enumerate() {
        let input = noise(&input, index as u64);
        let weight = noise(&weight, 100 + index as u64);
        let bias = noise(&weight.shape()[..1], 200 + index as u64);
        check_gradient(&[input, weight, bias], 5e-3, |tape, inputs| {
            conv2d(tape, &inputs[0], &inputs[1], Some(&inputs[2]), &options)
        });
    }
}

#[test]
fn thread_count_does_not_change_a_bit() {
    let run = |threads, input: [usize; 4], weight: [usize; 4], stride: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let padding = [weight[2] / 2; 4];
            let groups = input[1] / weight[1];
            let input = noise(&input, 1).with_gradient();
            let bias = noise(&weight[..1], 3).with_gradient();
            let weight = noise(&weight, 2).with_gradient();
            let options = options(stride, padding, Pad::Zero, Pad::Circular, groups);
            let mut tape = Tape::training();
            let y = conv2d(&mut tape, &input, &weight, Some(&bias), &options).unwrap();
            let seed = noise(y.shape(), 4);
            let gradients = tape.backward_from(&y, seed).unwrap();
            let mut bits = y.data().to_vec();
            for leaf in [&input, &weight, &bias] {
                bits.extend(gradients.get(leaf).unwrap().data());
            }
            bits
        })
    };
    for (input, weight, stride) in [
        ([5, 6, 16, 24], [7, 6, 3, 3], 1),
        ([2, 9, 20, 70], [10, 9, 3, 3], 1),
        ([1, 20, 64, 64], [33, 20, 1, 1], 1),
        ([1, 33, 71, 61], [20, 33, 1, 1], 1),
        ([2, 17, 16, 16], [49, 17, 1, 1], 1),
        ([2, 5, 16, 16], [35, 5, 1, 1], 1),
        ([1, 600, 1, 1], [300, 600, 1, 1], 1),
        ([1, 7, 90, 200], [9, 7, 3, 3], 1),
        ([1, 10, 300, 60], [33, 10, 3, 3], 1),
        ([1, 90, 3, 24], [85, 90, 3, 3], 1),
        ([2, 85, 30, 60], [18, 85, 1, 1], 1),
        ([1, 2, 40, 200], [21, 2, 3, 3], 1),
        ([1, 3, 21, 280], [35, 3, 3, 3], 2),
        // Depthwise: several tasks of planes.
        ([2, 40, 40, 40], [40, 1, 5, 5], 1),
        ([2, 40, 40, 40], [40, 1, 3, 3], 2),
        ([2, 40, 41, 40], [40, 1, 5, 5], 2),
    ] {
        let [one, three] = [1, 3].map(|threads| run(threads, input, weight, stride));
        assert_eq!(one, three, "{input:?}");
    }
}

/// Everything that a convolution computes, for all cases.
fn all_bits() -> Vec<u32> {
    let mut bits = Vec::new();
    let cases = cases().into_iter().chain(large_cases());
    let cases = cases.chain(random_cases(300));
    for (index, (input, weight, options)) in cases.enumerate() {
        let input = noise(&input, index as u64).with_gradient();
        let weight = noise(&weight, 100 + index as u64).with_gradient();
        let mut tape = Tape::training();
        let y = conv2d(&mut tape, &input, &weight, None, &options).unwrap();
        let gradients = tape.backward_from(&y, noise(y.shape(), 4)).unwrap();
        let values = y.data().iter();
        let values = values.chain(gradients.get(&input).unwrap().data());
        bits.extend(
            values
                .chain(gradients.get(&weight).unwrap().data())
                .map(|v| v.to_bits()),
        );
    }
    bits
}

/// Of AVX-512 or whatever is widest here, of AVX2, of NEON, of single numbers.
#[test]
fn width_of_vectors_does_not_change_a_bit() {
    let widest = all_bits();
    for lanes in [8, 4, 1] {
        // Other tests that run meanwhile meet it too, and must not notice.
        crate::simd::narrow_to(lanes);
        let narrow = all_bits();
        crate::simd::narrow_to(0);
        assert_eq!(widest, narrow, "{lanes} lanes");
    }
}

/// Some loops begin where a cache line does, which is elsewhere in every run.
#[test]
fn place_in_memory_does_not_change_a_bit() {
    for (input, weight) in [
        ([1, 24, 67, 64], [8, 24, 1, 1]),
        ([1, 8, 67, 64], [24, 8, 1, 1]),
        ([2, 10, 33, 40], [3, 10, 1, 1]),
        ([1, 3, 20, 140], [9, 3, 3, 3]),
        ([1, 40, 9, 20], [24, 40, 3, 3]),
    ] {
        let [input, weight] = [noise(&input, 5), noise(&weight, 6)];
        let padding = [weight.shape()[2] / 2; 4];
        let options = options(1, padding, Pad::Zero, Pad::Zero, 1);
        let g = Geometry::new(&input, &weight, None, &options).unwrap();
        let gradient = noise(&[g.batch, g.outputs, g.output_height, g.output_width], 7);
        let moved = |values: &Tensor, by: usize| {
            let mut room = vec![0.0; by];
            room.extend(values.data());
            room
        };
        let found = |by: usize| {
            let image = &moved(&input, by)[by..];
            let gradient = &moved(&gradient, by)[by..];
            let results = [
                forward(&g, image, weight.data(), None),
                super::input_gradient(&g, weight.data(), gradient),
                super::weight_gradient(&g, image, gradient),
            ];
            results.map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        let first = found(0);
        for by in 1..16 {
            assert_eq!(found(by), first, "{:?} {by} further on", g.channels);
        }
    }
}

/// A frozen weight or bias, and an input that is an image, get no gradient.
#[test]
fn gradients_that_nobody_asks_for_are_not_computed() {
    let same = options(1, [1; 4], Pad::Zero, Pad::Zero, 1);
    for wanted in 0..8 {
        let leaf = |index: u64, shape: &[usize]| {
            let values = noise(shape, index);
            if wanted >> index & 1 == 1 {
                values.with_gradient()
            } else {
                values
            }
        };
        let inputs = [
            leaf(0, &[1, 2, 5, 6]),
            leaf(1, &[3, 2, 3, 3]),
            leaf(2, &[3]),
        ];
        let [x, w, b] = &inputs;
        let mut tape = Tape::training();
        let y = conv2d(&mut tape, x, w, Some(b), &same).unwrap();
        let gradients = tape.backward_from(&y, noise(y.shape(), 4)).unwrap();
        for (index, input) in inputs.iter().enumerate() {
            let is_wanted = wanted >> index & 1 == 1;
            assert_eq!(
                gradients.get(input).is_some(),
                is_wanted,
                "{wanted} {index}"
            );
        }
        let g = Geometry::new(x, w, Some(b), &same).unwrap();
        let found = backward(&g, x, w, &y);
        let found = found.iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(found, [wanted & 1 == 1, wanted >> 1 & 1 == 1]);
    }
}

#[test]
fn nan_stays_visible() {
    let mut data = noise(&[1, 1, 4, 4], 1).into_data();
    data[5] = f32::NAN;
    let input = Tensor::new(data, &[1, 1, 4, 4]).unwrap();
    let weight = noise(&[1, 1, 3, 3], 2);
    let options = options(1, [1; 4], Pad::Zero, Pad::Zero, 1);
    let y = conv2d(&mut Tape::inference(), &input, &weight, None, &options).unwrap();
    assert!(y.data()[5].is_nan());
    assert!(y.data()[15].is_finite());
}

#[test]
fn bad_shapes_are_refused_with_both_shapes() {
    let mut tape = Tape::inference();
    let same = options(1, [1; 4], Pad::Zero, Pad::Zero, 1);
    let input = noise(&[1, 3, 4, 4], 1);
    let error = conv2d(&mut tape, &input, &noise(&[2, 4, 3, 3], 2), None, &same).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("conv2d") && message.contains("[2, 3, 3, 3]"),
        "{message}"
    );
    assert!(message.contains("[2, 4, 3, 3]"), "{message}");

    let weight = noise(&[2, 3, 3, 3], 2);
    let empty = Tensor::zeros(&[0, 3, 4, 4]);
    assert!(matches!(
        conv2d(&mut tape, &empty, &weight, None, &same),
        Err(Error::Shape { .. })
    ));
    let small = noise(&[1, 3, 1, 1], 1);
    let valid = options(1, [0; 4], Pad::Zero, Pad::Zero, 1);
    assert!(matches!(
        conv2d(&mut tape, &small, &weight, None, &valid),
        Err(Error::Shape { .. })
    ));
    for wrong in [
        options(0, [1; 4], Pad::Zero, Pad::Zero, 1),
        options(1, [1; 4], Pad::Zero, Pad::Zero, 2),
        options(1, [1; 4], Pad::Zero, Pad::Zero, 0),
        options(1, [4; 4], Pad::Reflect, Pad::Zero, 1),
        options(1, [5; 4], Pad::Zero, Pad::Circular, 1),
    ] {
        let result = conv2d(&mut tape, &input, &weight, None, &wrong);
        assert!(matches!(result, Err(Error::Argument { .. })), "{wrong:?}");
    }
}
