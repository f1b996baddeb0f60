//! Weighs the rows of a ground feature map into one descriptor: CCVPE's "height as channels"
//! convolution followed by its flattening.

use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "collapse_rows";

/// The weighted sum over rows plus a bias, flattened with the column outer and the channel inner:
/// `output[w * C + c] = bias + sum over h of weight[h] * input[c, h, w]`.
///
/// Columns are azimuth, so rolling the output by `C` entries turns the camera by one column.
///
/// # Shapes
/// `input` `[N, C, H, W]`, `weight` `[H]`, `bias` `[1]`; returns `[N, W * C]`.
///
/// # Errors
/// [`crate::Error::Shape`] when `input` has not four axes, or `weight` or `bias` does not fit.
pub fn collapse_rows(
    tape: &mut Tape,
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    let [_, _, h, _] = input.dims4(OP, "input")?;
    weight.expect_shape(OP, "weight, one for each row", &[h])?;
    bias.expect_shape(OP, "bias", &[1])?;
    match Device::common(OP, &[input, weight, bias])? {
        Device::Cpu => on_cpu(tape, input, weight, bias),
        Device::Cuda(cuda) => on_cuda(tape, &cuda, input, weight, bias),
    }
}

fn on_cpu(tape: &mut Tape, input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let mut data = vec![bias.data()[0]; n * w * c];
    for sample in 0..n {
        for channel in 0..c {
            for (row, weight) in weight.data().iter().enumerate() {
                let start = ((sample * c + channel) * h + row) * w;
                let pixels = &input.data()[start..start + w];
                for (column, pixel) in pixels.iter().enumerate() {
                    data[(sample * w + column) * c + channel] += weight * pixel;
                }
            }
        }
    }
    let mut output = Tensor::from_parts(data, &[n, w * c]);
    let saved = tape
        .needs_gradient(&[input, weight, bias])
        .then(|| (input.clone(), weight.clone()));
    tape.record(&mut output, &[input, weight, bias], move |gradient| {
        let (input, weight) = saved.expect("saved whenever recorded");
        let mut input_gradient = vec![0.0; input.len()];
        let mut weight_gradient = vec![0.0f64; h];
        for sample in 0..n {
            for channel in 0..c {
                for (row, (sum, weight)) in
                    weight_gradient.iter_mut().zip(weight.data()).enumerate()
                {
                    let start = ((sample * c + channel) * h + row) * w;
                    for column in 0..w {
                        let g = gradient.data()[(sample * w + column) * c + channel];
                        input_gradient[start + column] = weight * g;
                        *sum += f64::from(input.data()[start + column] * g);
                    }
                }
            }
        }
        let bias_gradient: f64 = gradient.data().iter().map(|g| f64::from(*g)).sum();
        let weight_gradient = weight_gradient.iter().map(|g| *g as f32).collect();
        Ok(vec![
            Some(Tensor::from_parts(input_gradient, input.shape())),
            Some(Tensor::from_parts(weight_gradient, &[h])),
            Some(Tensor::from_parts(vec![bias_gradient as f32], &[1])),
        ])
    });
    Ok(output)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/collapse_rows.cu",
    text: include_str!("collapse_rows.cu"),
    hot: &["collapse_rows_forward", "collapse_rows_to_input"],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static FORWARD: Kernel = kernel("collapse_rows_forward");
static TO_INPUT: Kernel = kernel("collapse_rows_to_input");
static TO_WEIGHT: Kernel = kernel("collapse_rows_to_weight");

parameters! {
    struct CollapseParameters {
        samples: u32,
        channels: u32,
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
    let [n, c, h, w] = input.dims4(OP, "input")?;
    count(OP, input.len())?;
    let parameters = CollapseParameters {
        samples: n as u32,
        channels: c as u32,
        rows: h as u32,
        columns: w as u32,
    };
    let mut output = cuda.any(n * w * c)?;
    let launch = Launch::new(&FORWARD).over(output.len());
    // SAFETY: collapse_rows_forward(input, weight, bias, output, CollapseParameters): extents as
    // checked by the caller; the kernel guards its index by samples · columns · channels, the
    // length of the output.
    unsafe {
        launch
            .input(input.buffer())
            .input(weight.buffer())
            .input(bias.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(output, &[n, w * c]);
    let saved = tape
        .needs_gradient(&[input, weight, bias])
        .then(|| (cuda.clone(), input.clone(), weight.clone()));
    tape.record(&mut output, &[input, weight, bias], move |gradient| {
        let (cuda, input, weight) = saved.expect("saved whenever recorded");
        let mut to_input = cuda.any(input.len())?;
        let launch = Launch::new(&TO_INPUT).over(input.len());
        // SAFETY: collapse_rows_to_input(weight, gradient, to_input, CollapseParameters): the
        // kernel guards its index by the length of the input; the gradient is like the output.
        unsafe {
            launch
                .input(weight.buffer())
                .input(gradient.buffer())
                .output(&mut to_input)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        let (mut to_weight, mut to_bias) = (cuda.any(h)?, cuda.any(1)?);
        // SAFETY: collapse_rows_to_weight(input, gradient, to_weight, to_bias,
        // CollapseParameters): a block for each row writes its weight's gradient, one more the
        // bias's; reads guarded by the extents.
        unsafe {
            Launch::new(&TO_WEIGHT)
                .grid([h + 1, 1, 1])
                .block([1024, 1, 1])
                .input(input.buffer())
                .input(gradient.buffer())
                .output(&mut to_weight)
                .output(&mut to_bias)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        Ok(vec![
            Some(Tensor::from_device(to_input, input.shape())),
            Some(Tensor::from_device(to_weight, &[h])),
            Some(Tensor::from_device(to_bias, &[1])),
        ])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn columns_are_outer_and_channels_inner() {
        // Two channels, two rows, two columns; the second row counts ten times.
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[1, 2, 2, 2]).unwrap();
        let weight = Tensor::new(vec![1.0, 10.0], &[2]).unwrap();
        let bias = Tensor::new(vec![0.5], &[1]).unwrap();
        let y = collapse_rows(&mut Tape::inference(), &x, &weight, &bias).unwrap();
        // column 0: channels 1+30, 5+70; column 1: 2+40, 6+80
        assert_eq!(y.data(), [31.5, 75.5, 42.5, 86.5]);
        assert_eq!(y.shape(), [1, 4]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [noise(&[2, 3, 4, 5], 1), noise(&[4], 2), noise(&[1], 3)];
        check_gradient(&inputs, 2e-3, |tape, x| {
            collapse_rows(tape, &x[0], &x[1], &x[2])
        });
    }

    #[test]
    fn weight_that_does_not_fit_the_rows_is_refused() {
        let x = Tensor::zeros(&[1, 2, 3, 4]);
        let message = collapse_rows(
            &mut Tape::inference(),
            &x,
            &Tensor::zeros(&[4]),
            &Tensor::zeros(&[1]),
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            message,
            "collapse_rows: weight, one for each row: expected [3], got [4]"
        );
    }
}
