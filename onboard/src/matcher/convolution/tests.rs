use proptest::prelude::*;
use tract_onnx::tract_core::ops::cnn::{PaddingSpec, PoolSpec};

use super::*;

/// Any sizes, and a seed for the numbers.
#[derive(Debug, Clone)]
struct Case {
    channels: usize,
    outputs: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    before: [usize; 2],
    after: [usize; 2],
}

fn cases() -> impl Strategy<Value = Case> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (
        1usize..60,
        1usize..30,
        pair(5..40),
        pair(1..6),
        1usize..4,
        pair(0..4),
        pair(0..4),
    )
        .prop_map(
            |(channels, outputs, input, kernel, stride, before, after)| Case {
                channels,
                outputs,
                input,
                kernel,
                stride,
                before,
                after,
            },
        )
}

fn numbers(count: usize, factor: usize) -> Vec<f32> {
    (0..count)
        .map(|at| ((at * factor) % 257) as f32 / 128.0 - 1.0)
        .collect()
}

fn model(case: &Case) -> TypedModel {
    let [height, width] = case.input;
    let mut model = TypedModel::default();
    let image = f32::fact([1, case.channels, height, width]);
    let image = model.add_source("image", image).unwrap();
    let shape = [case.outputs, case.channels, case.kernel[0], case.kernel[1]];
    let weight = numbers(shape.iter().product(), 7919);
    let weight = Tensor::from_shape(&shape, &weight).unwrap();
    let weight = model.add_const("weight", weight).unwrap();
    let bias = tensor1(&numbers(case.outputs, 31));
    let bias = model.add_const("bias", bias).unwrap();
    let conv = Conv {
        pool_spec: PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: TVec::from_slice(&case.kernel),
            padding: PaddingSpec::Explicit(
                TVec::from_slice(&case.before),
                TVec::from_slice(&case.after),
            ),
            dilations: None,
            strides: Some(tvec![case.stride; 2]),
            input_channels: case.channels,
            output_channels: case.outputs,
        },
        kernel_fmt: KernelFormat::OIHW,
        group: 1,
        q_params: None,
    };
    let output = model
        .wire_node("conv", conv, &[image, weight, bias])
        .unwrap();
    model.select_output_outlets(&output).unwrap();
    model
}

/// The definition, in double precision.
fn expected(case: &Case, image: &[f32]) -> Vec<f64> {
    let [height, width] = case.input;
    let [rows, columns] = case.kernel;
    let weight = numbers(case.outputs * case.channels * rows * columns, 7919);
    let bias = numbers(case.outputs, 31);
    let side = |axis: usize| {
        (case.input[axis] + case.before[axis] + case.after[axis] - case.kernel[axis]) / case.stride
            + 1
    };
    let mut output = Vec::new();
    for o in 0..case.outputs {
        for y in 0..side(0) {
            for x in 0..side(1) {
                let mut sum = f64::from(bias[o]);
                for c in 0..case.channels {
                    for (ky, kx) in (0..rows).flat_map(|ky| (0..columns).map(move |kx| (ky, kx))) {
                        let from = (y * case.stride + ky).checked_sub(case.before[0]);
                        let from = from.zip((x * case.stride + kx).checked_sub(case.before[1]));
                        if let Some((y, x)) = from.filter(|(y, x)| *y < height && *x < width) {
                            let weight =
                                weight[((o * case.channels + c) * rows + ky) * columns + kx];
                            sum +=
                                f64::from(weight) * f64::from(image[(c * height + y) * width + x]);
                        }
                    }
                }
                output.push(sum);
            }
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_replaced_convolution_is_the_definition(case in cases()) {
        let mut model = model(&case);
        replace_convolutions(&mut model).unwrap();
        prop_assert!(model.nodes().iter().any(tract_onnx::prelude::Node::op_is::<Convolution>));
        let [height, width] = case.input;
        let image = numbers(case.channels * height * width, 104_729);
        let input = Tensor::from_shape(&[1, case.channels, height, width], &image).unwrap();
        let plan = model.into_runnable().unwrap();
        // Twice, so that what the first run left in the scratch shows.
        for _ in 0..2 {
            let found = plan.run(tvec![input.clone().into()]).unwrap();
            let found = found[0].try_as_plain_ram().unwrap();
            let found = found.as_slice::<f32>().unwrap();
            let expected = expected(&case, &image);
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                let difference = (f64::from(*found) - expected).abs();
                prop_assert!(difference < 1e-3, "{} {}", found, expected);
            }
        }
    }
}

#[test]
fn what_is_no_plain_convolution_stays_with_tract() {
    let case = Case {
        channels: 4,
        outputs: 4,
        input: [9, 9],
        kernel: [3, 3],
        stride: 1,
        before: [1, 1],
        after: [1, 1],
    };
    let left_alone = |change: &dyn Fn(&mut Conv)| {
        let mut model = model(&case);
        let conv = model
            .nodes
            .iter_mut()
            .find(|node| node.op_is::<Conv>())
            .unwrap();
        change(conv.op_as_mut::<Conv>().unwrap());
        replace_convolutions(&mut model).unwrap();
        model
            .nodes()
            .iter()
            .all(|node| !node.op_is::<Convolution>())
    };
    assert!(!left_alone(&|_| {}));
    assert!(left_alone(&|conv| conv.group = 4));
    assert!(left_alone(
        &|conv| conv.pool_spec.dilations = Some(tvec![2, 1])
    ));
    assert!(left_alone(
        &|conv| conv.pool_spec.strides = Some(tvec![2, 1])
    ));
    assert!(left_alone(
        &|conv| conv.pool_spec.data_format = DataFormat::NHWC
    ));
}
