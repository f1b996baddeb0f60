use super::*;
use crate::error::Error;
use crate::testing::{assert_close, check_gradient, noise};

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

/// (input, weight, options) that between them take every path.
fn cases() -> Vec<([usize; 4], [usize; 4], Conv2d)> {
    use Pad::{Circular, Reflect, Zero};
    vec![
        // More taps or outputs than one panel is deep, rows that do not fill one.
        (
            [1, 2, 5, 5],
            [150, 2, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [1, 2, 4, 24],
            [3, 2, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [2, 3, 5, 7],
            [4, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [2, 3, 6, 8],
            [5, 3, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 3, 6, 8],
            [5, 3, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Circular, 1),
        ),
        (
            [2, 2, 6, 5],
            [3, 2, 5, 3],
            options(1, [2, 2, 1, 1], Reflect, Circular, 1),
        ),
        (
            [1, 2, 4, 6],
            [3, 2, 3, 3],
            options(1, [1, 1, 2, 0], Circular, Reflect, 1),
        ),
        (
            [2, 4, 5, 6],
            [6, 2, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 2),
        ),
        (
            [2, 4, 7, 19],
            [4, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 4),
        ),
        (
            [2, 4, 6, 8],
            [8, 1, 5, 5],
            options(2, [1, 2, 1, 2], Zero, Circular, 4),
        ),
        // Depthwise loops of fixed size: rows and columns that fill tiles, and that do not.
        (
            [2, 3, 9, 21],
            [3, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 3),
        ),
        (
            [1, 2, 12, 37],
            [2, 1, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Circular, 2),
        ),
        (
            [1, 2, 6, 70],
            [2, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Zero, 2),
        ),
        (
            [2, 2, 11, 35],
            [2, 1, 5, 5],
            options(2, [1, 2, 1, 2], Reflect, Zero, 2),
        ),
        // Several bands of rows, tiles of every height and width, a ragged end of both.
        (
            [1, 2, 37, 250],
            [2, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 2),
        ),
        (
            [2, 1, 19, 16],
            [1, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Zero, 1),
        ),
        (
            [1, 2, 3, 5],
            [2, 1, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 2),
        ),
        (
            [1, 3, 40, 90],
            [3, 1, 5, 5],
            options(2, [2, 2, 2, 2], Circular, Reflect, 3),
        ),
        // Depthwise with a step of 2: pairs of rows and columns that begin before the image, that
        // end beyond it, that wrap around; a plane smaller than its kernel; padding for which there
        // is no loop.
        (
            [1, 2, 21, 37],
            [2, 1, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 2),
        ),
        (
            [2, 2, 18, 66],
            [2, 1, 5, 5],
            options(2, [2, 2, 2, 2], Circular, Circular, 2),
        ),
        (
            [1, 2, 10, 36],
            [2, 1, 3, 3],
            options(2, [1, 1, 1, 1], Circular, Circular, 2),
        ),
        (
            [1, 2, 9, 40],
            [2, 1, 3, 3],
            options(2, [1, 1, 2, 0], Circular, Zero, 2),
        ),
        (
            [1, 2, 13, 35],
            [2, 1, 5, 5],
            options(2, [4, 3, 3, 4], Zero, Zero, 2),
        ),
        (
            [1, 2, 6, 12],
            [2, 1, 3, 3],
            options(2, [3, 4, 5, 3], Zero, Zero, 2),
        ),
        (
            [2, 3, 3, 3],
            [3, 1, 5, 5],
            options(2, [2, 2, 2, 2], Zero, Zero, 3),
        ),
        (
            [1, 3, 2, 2],
            [3, 1, 3, 3],
            options(2, [1, 0, 1, 0], Circular, Circular, 3),
        ),
        (
            [1, 2, 7, 9],
            [2, 1, 5, 5],
            options(2, [0, 0, 0, 0], Zero, Zero, 2),
        ),
        // Whole planes in one band, one after the other, as wide as a vector and a little wider.
        (
            [2, 3, 16, 16],
            [3, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Circular, 3),
        ),
        (
            [1, 3, 18, 17],
            [3, 1, 3, 3],
            options(1, [1, 1, 1, 1], Circular, Zero, 3),
        ),
        (
            [1, 3, 33, 8],
            [3, 1, 5, 5],
            options(1, [2, 2, 2, 2], Zero, Zero, 3),
        ),
        // Several blocks of pixels; a weight gradient in bands.
        (
            [1, 3, 64, 96],
            [68, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        // Many weights, and more outputs than stay in the cache.
        (
            [1, 40, 8, 16],
            [340, 40, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [3, 100, 4, 9],
            [90, 100, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [2, 5, 4, 6],
            [7, 5, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        (
            [2, 5, 5, 6],
            [7, 5, 1, 1],
            options(2, [0; 4], Zero, Zero, 1),
        ),
        (
            [1, 3, 4, 40],
            [2, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [1, 17, 9, 33],
            [19, 17, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 2, 4, 5],
            [3, 2, 4, 5],
            options(3, [0; 4], Zero, Zero, 1),
        ),
        // Planes as they lie: long rows with a ragged end, several bands, both strides.
        (
            [2, 3, 20, 70],
            [6, 3, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 3, 31, 150],
            [5, 3, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        // Panels turned around: rows of 8 times an odd number, every second pixel.
        (
            [2, 90, 3, 24],
            [85, 90, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 96, 5, 34],
            [80, 96, 3, 3],
            options(2, [1, 1, 1, 1], Reflect, Zero, 1),
        ),
        // Products of matrices: many rows, and large planes.
        (
            [2, 20, 4, 8],
            [40, 20, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        (
            [1, 3, 64, 64],
            [18, 3, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
    ]
}

/// Images too large for finite differences: what is left of rounding is.
fn large_cases() -> Vec<([usize; 4], [usize; 4], Conv2d)> {
    use Pad::{Circular, Reflect, Zero};
    vec![
        // Row by row: rows that are near and that are not, a ragged end of them and of the outputs.
        (
            [2, 3, 9, 262],
            [9, 3, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Circular, 1),
        ),
        (
            [1, 3, 140, 260],
            [4, 3, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [1, 2, 8, 67],
            [7, 2, 5, 3],
            options(1, [2, 2, 1, 1], Reflect, Reflect, 1),
        ),
        (
            [1, 20, 5, 150],
            [11, 20, 3, 3],
            options(1, [1, 1, 1, 1], Circular, Zero, 1),
        ),
        // Phases of rows and columns: both remainders of the padding, both kernels, channels that fill a
        // tile and that do not.
        (
            [2, 3, 10, 140],
            [7, 3, 3, 3],
            options(2, [0, 1, 0, 1], Zero, Zero, 1),
        ),
        (
            [1, 4, 10, 91],
            [5, 4, 3, 3],
            options(2, [1, 1, 2, 1], Circular, Zero, 1),
        ),
        (
            [1, 2, 11, 133],
            [6, 2, 5, 5],
            options(2, [2, 1, 3, 2], Zero, Zero, 1),
        ),
        // Two bands of planes as they lie, and what is copied for the second while the first is multiplied.
        (
            [1, 7, 90, 200],
            [5, 7, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Circular, 1),
        ),
        (
            [1, 2, 40, 200],
            [21, 2, 3, 3],
            options(2, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        // Two bands of panels turned around.
        (
            [1, 10, 300, 60],
            [17, 10, 3, 3],
            options(1, [1, 1, 1, 1], Zero, Zero, 1),
        ),
        (
            [2, 85, 30, 60],
            [18, 85, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        // Large planes in several bands with a ragged end: many rows from few planes, and back.
        (
            [1, 18, 71, 61],
            [85, 18, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
        (
            [2, 26, 67, 64],
            [9, 26, 1, 1],
            options(1, [0; 4], Zero, Zero, 1),
        ),
    ]
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
        let input = noise(&input, index as u64).with_gradient();
        let weight = noise(&weight, 100 + index as u64).with_gradient();
        let mut tape = Tape::training();
        let y = conv2d(&mut tape, &input, &weight, None, &options).unwrap();
        let seed = noise(y.shape(), 300 + index as u64);
        let gradients = tape.backward_from(&y, seed.clone()).unwrap();
        // Rounding: 2⁻²⁴ of partial sums that grow as √n, n times in random directions.
        let tolerance = |terms: usize| 1e-5 + 1e-8 * terms as f32;
        let kernel: usize = weight.shape()[2..].iter().product();
        let of_input = tolerance(weight.shape()[0] * kernel);
        let of_weight = tolerance(y.len() / y.shape()[1]);
        let mut to_input = vec![0.0; input.len()];
        let mut to_weight = vec![0.0; weight.len()];
        for_each_product(&input, &weight, &options, |output, at, tap| {
            let seed = f64::from(seed.data()[output]);
            to_input[at] += seed * f64::from(weight.data()[tap]);
            to_weight[tap] += seed * f64::from(input.data()[at]);
        });
        let found = |leaf| gradients.get(leaf).unwrap().data().to_vec();
        let rounded = |sums: Vec<f64>| -> Vec<f32> { sums.iter().map(|sum| *sum as f32).collect() };
        assert_close(&found(&input), &rounded(to_input), of_input);
        assert_close(&found(&weight), &rounded(to_weight), of_weight);
    }
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
