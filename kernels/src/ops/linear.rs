//! Fully connected layer.

use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Matrix, Product, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::gemm::{Strides, gemm};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "linear";

/// x · wᵀ + b.
///
/// # Shapes
/// `input` `[N, I]`; `weight` `[O, I]`; `bias` `[O]`; returns `[N, O]`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn linear(tape: &mut Tape, input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let [_, i] = input.dims2(OP, "input")?;
    let [o, _] = weight.dims2(OP, "weight")?;
    weight.expect_shape(OP, "weight for this input", &[o, i])?;
    bias.expect_shape(OP, "bias", &[o])?;
    match Device::common(OP, &[input, weight, bias])? {
        Device::Cpu => on_cpu(tape, input, weight, bias),
        Device::Cuda(cuda) => on_cuda(tape, &cuda, input, weight, bias),
    }
}

fn on_cpu(tape: &mut Tape, input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let ([n, i], [o, _]) = (input.dims2(OP, "input")?, weight.dims2(OP, "weight")?);
    let mut data = bias.data().repeat(n);
    gemm(
        [n, o, i],
        &mut data,
        true,
        (input.data(), Strides::row_major(i)),
        (weight.data(), Strides::transposed(i)),
    );
    let mut output = Tensor::from_parts(data, &[n, o]);
    let inputs = [input, weight, bias];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), weight.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, weight) = saved.expect("saved whenever recorded");
        let mut input_gradient = vec![0.0; n * i];
        gemm(
            [n, i, o],
            &mut input_gradient,
            false,
            (gradient.data(), Strides::row_major(o)),
            (weight.data(), Strides::row_major(i)),
        );
        let mut weight_gradient = vec![0.0; o * i];
        gemm(
            [o, i, n],
            &mut weight_gradient,
            false,
            (gradient.data(), Strides::transposed(o)),
            (input.data(), Strides::row_major(i)),
        );
        let mut bias_gradient = vec![0.0; o];
        for row in gradient.data().chunks_exact(o) {
            for (sum, value) in bias_gradient.iter_mut().zip(row) {
                *sum += value;
            }
        }
        Ok(vec![
            Some(Tensor::from_parts(input_gradient, &[n, i])),
            Some(Tensor::from_parts(weight_gradient, &[o, i])),
            Some(Tensor::from_parts(bias_gradient, &[o])),
        ])
    });
    Ok(output)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/linear.cu",
    text: include_str!("linear.cu"),
    hot: &[],
};
static TO_BIAS: Kernel = Kernel {
    source: &SOURCE,
    entry: "linear_to_bias",
};

parameters! {
    struct LinearParameters {
        rows: u32,
        columns: u32,
    }
}

fn on_cuda(
    tape: &mut Tape,
    cuda: &Cuda,
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    let ([n, i], [o, _]) = (input.dims2(OP, "input")?, weight.dims2(OP, "weight")?);
    let mut output = cuda.any(n * o)?;
    let x = Matrix::row_major(input.buffer(), i);
    Product::new([n, o, i], x, Matrix::transposed(weight.buffer(), i))
        .bias(bias.buffer())
        .enqueue(&mut output)?;
    let mut output = Tensor::from_device(output, &[n, o]);
    let inputs = [input, weight, bias];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (cuda.clone(), input.clone(), weight.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (cuda, input, weight) = saved.expect("saved whenever recorded");
        let (mut to_input, mut to_weight) = (cuda.any(n * i)?, cuda.any(o * i)?);
        let w = Matrix::row_major(weight.buffer(), i);
        Product::new([n, i, o], Matrix::row_major(gradient.buffer(), o), w)
            .enqueue(&mut to_input)?;
        let x = Matrix::row_major(input.buffer(), i);
        Product::new([o, i, n], Matrix::transposed(gradient.buffer(), o), x)
            .enqueue(&mut to_weight)?;
        Ok(vec![
            Some(Tensor::from_device(to_input, &[n, i])),
            Some(Tensor::from_device(to_weight, &[o, i])),
            Some(Tensor::from_device(
                column_sums(&cuda, gradient.buffer(), [n, o])?,
                &[o],
            )),
        ])
    });
    Ok(output)
}

fn column_sums(cuda: &Cuda, matrix: &DeviceBuffer, [n, o]: [usize; 2]) -> Result<DeviceBuffer> {
    count(OP, matrix.len())?;
    let parameters = LinearParameters {
        rows: n as u32,
        columns: o as u32,
    };
    let mut sums = cuda.any(o)?;
    let launch = Launch::new(&TO_BIAS).over(o);
    // SAFETY: linear_to_bias(gradient, sums, LinearParameters): `sums` has `columns` elements, by
    // which the kernel guards its index, the gradient `rows` for each of them.
    unsafe {
        launch
            .input(matrix)
            .output(&mut sums)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn worked_by_hand() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0], &[1, 3]).unwrap();
        let w = Tensor::new(vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[2, 3]).unwrap();
        let b = Tensor::new(vec![0.5, -1.0], &[2]).unwrap();
        let y = linear(&mut Tape::inference(), &x, &w, &b).unwrap();
        assert_eq!(y.data(), [1.5, 5.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [noise(&[3, 5], 1), noise(&[4, 5], 2), noise(&[4], 3)];
        check_gradient(&inputs, 3e-3, |tape, inputs| {
            linear(tape, &inputs[0], &inputs[1], &inputs[2])
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut tape = Tape::inference();
        let (x, w, b) = (noise(&[3, 5], 1), noise(&[4, 6], 2), noise(&[4], 3));
        let message = linear(&mut tape, &x, &w, &b).unwrap_err().to_string();
        assert_eq!(
            message,
            "linear: weight for this input: expected [4, 5], got [4, 6]"
        );
        assert!(linear(&mut tape, &Tensor::zeros(&[0, 6]), &w, &b).is_err());
    }
}
