//! Nearest-neighbour enlargement to twice the side.

use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "upsample2x";

/// Every pixel four times, as a 2 × 2 square.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, C, 2H, 2W]`.
///
/// # Errors
/// [`crate::Error::Shape`] when `input` is not an image batch.
pub fn upsample2x(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let (small, large) = ([n, c, h, w], [n, c, 2 * h, 2 * w]);
    let mut output = match input.device() {
        Device::Cpu => Tensor::from_parts(cpu::forward(input.data(), w), &large),
        Device::Cuda(cuda) => on_cuda(&cuda, &FORWARD, input, small, large)?,
    };
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(match gradient.device() {
            Device::Cpu => Tensor::from_parts(cpu::backward(gradient.data(), w), &small),
            Device::Cuda(cuda) => on_cuda(&cuda, &BACKWARD, gradient, small, small)?,
        })])
    });
    Ok(output)
}

mod cpu {
    use crate::buffer;
    use rayon::prelude::*;

    pub fn forward(input: &[f32], width: usize) -> Vec<f32> {
        let mut output = buffer::any(4 * input.len());
        output
            .par_chunks_exact_mut(4 * width)
            .zip(input.par_chunks_exact(width))
            .for_each(|(rows, row)| {
                let (first, second) = rows.split_at_mut(2 * width);
                for (pair, x) in first.as_chunks_mut::<2>().0.iter_mut().zip(row) {
                    *pair = [*x; 2];
                }
                second.copy_from_slice(first);
            });
        output
    }

    pub fn backward(gradient: &[f32], width: usize) -> Vec<f32> {
        let mut input = buffer::any(gradient.len() / 4);
        input
            .par_chunks_exact_mut(width)
            .zip(gradient.par_chunks_exact(4 * width))
            .for_each(|(row, rows)| {
                let (first, second) = rows.split_at(2 * width);
                let pairs = first
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .zip(second.as_chunks::<2>().0);
                for (x, ([a, b], [c, d])) in row.iter_mut().zip(pairs) {
                    *x = (a + b) + (c + d);
                }
            });
        input
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/upsample2x.cu",
    text: include_str!("upsample2x.cu"),
    hot: &["upsample2x_forward", "upsample2x_backward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "upsample2x_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "upsample2x_backward",
};

parameters! {
    struct UpsampleParameters {
        count: u32,
        width: u32,
    }
}

/// From `from` to a tensor shaped `to`; the images are `small`, or twice its sides.
fn on_cuda(
    cuda: &Cuda,
    kernel: &'static Kernel,
    from: &Tensor,
    small: [usize; 4],
    to: [usize; 4],
) -> Result<Tensor> {
    let elements = small.iter().product::<usize>();
    count(OP, 4 * elements)?;
    let parameters = UpsampleParameters {
        count: elements as u32,
        width: small[3] as u32,
    };
    let mut output = cuda.any(to.iter().product())?;
    let launch = Launch::new(kernel).over(elements);
    // SAFETY: upsample2x_forward or _backward(from, output, UpsampleParameters): one of the two has
    // `count` elements, by which the kernel guards its index, the other four for each of them.
    unsafe {
        launch
            .input(from.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, &to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn every_pixel_becomes_a_square() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 4.0], &[1, 2, 1, 2]).unwrap();
        let y = upsample2x(&mut Tape::inference(), &x).unwrap();
        assert_eq!(y.shape(), [1, 2, 2, 4]);
        let (a, b) = ([1., 1., 2., 2.], [3., 3., 4., 4.]);
        assert_eq!(y.data(), [a, a, b, b].concat());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 2, 3, 2], 1)], 2e-3, |tape, x| {
            upsample2x(tape, &x[0])
        });
    }

    #[test]
    fn a_matrix_is_refused() {
        assert!(upsample2x(&mut Tape::inference(), &noise(&[3, 2], 1)).is_err());
    }
}
