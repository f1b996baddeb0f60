//! The sum of absolute differences.

use super::total::total;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "absolute_error";

/// `scale` times the sum of `|input - target|`. No gradient flows to `target`, nor to elements that
/// equal their target.
///
/// # Shapes
/// The same, any that is not empty; returns a scalar.
///
/// # Errors
/// [`crate::Error::Shape`] when they differ, [`crate::Error::Device`] when they lie apart,
/// [`crate::Error::OutOfMemory`], [`crate::Error::Cuda`].
pub fn absolute_error(
    tape: &mut Tape,
    input: &Tensor,
    target: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    target.expect_shape(OP, "target", input.shape())?;
    let device = Device::common(OP, &[input, target])?;
    let mut output = match &device {
        Device::Cpu => {
            let pairs = input.data().iter().zip(target.data());
            let errors = pairs.map(|(x, target)| (f64::from(*x) - f64::from(*target)).abs());
            Tensor::scalar((errors.sum::<f64>() * f64::from(scale)) as f32)
        }
        Device::Cuda(cuda) => sum_on_cuda(cuda, input, target, scale)?,
    };
    let saved = tape
        .needs_gradient(&[input])
        .then(|| (input.clone(), target.clone()));
    tape.record(&mut output, &[input], move |gradient| {
        let (input, target) = saved.expect("saved whenever recorded");
        let inputs = [&input, &target];
        Ok(vec![Some(match &device {
            Device::Cpu => backward_on_cpu(inputs, scale * gradient.item()?),
            Device::Cuda(cuda) => backward_on_cuda(cuda, inputs, gradient, scale)?,
        })])
    });
    Ok(output)
}

fn backward_on_cpu([input, target]: [&Tensor; 2], scale: f32) -> Tensor {
    let pairs = input.data().iter().zip(target.data());
    let slopes = pairs.map(|(x, target)| match x.partial_cmp(target) {
        Some(std::cmp::Ordering::Greater) => scale,
        Some(std::cmp::Ordering::Less) => -scale,
        _ => 0.0,
    });
    Tensor::from_parts(slopes.collect(), input.shape())
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/absolute_error.cu",
    text: include_str!("absolute_error.cu"),
    hot: &[],
};
static PARTIAL: Kernel = Kernel {
    source: &SOURCE,
    entry: "absolute_error_partial",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "absolute_error_backward",
};

/// Most blocks whose sums are added up.
const BLOCKS: usize = 256;

parameters! {
    struct AbsoluteParameters {
        count: u32,
        scale: f32,
    }
}

fn sum_on_cuda(cuda: &Cuda, input: &Tensor, target: &Tensor, scale: f32) -> Result<Tensor> {
    let parameters = AbsoluteParameters {
        count: count(OP, input.len())?,
        scale,
    };
    let blocks = input.len().div_ceil(1024).clamp(1, BLOCKS);
    let mut partial = cuda.any::<f64>(blocks)?;
    // SAFETY: absolute_error_partial(x, target, partial, AbsoluteParameters): the first two have
    // `count` elements, by which the kernel guards its index; each block writes its one sum.
    unsafe {
        Launch::new(&PARTIAL)
            .grid([blocks, 1, 1])
            .input(input.buffer())
            .input(target.buffer())
            .output(&mut partial)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    total(cuda, &partial, scale)
}

fn backward_on_cuda(
    cuda: &Cuda,
    [input, target]: [&Tensor; 2],
    gradient: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    let parameters = AbsoluteParameters {
        count: count(OP, input.len())?,
        scale,
    };
    let mut result = cuda.any(input.len())?;
    let launch = Launch::new(&BACKWARD).over(input.len());
    // SAFETY: absolute_error_backward(x, target, gradient, dx, AbsoluteParameters): as above, `dx`
    // like `x`, `gradient` one number.
    unsafe {
        launch
            .input(input.buffer())
            .input(target.buffer())
            .input(gradient.buffer())
            .output(&mut result)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(result, input.shape()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn differences_count_whatever_their_sign_and_equal_ones_do_not_pull() {
        let x = Tensor::new(vec![0.5, 1.0, -0.25], &[1, 3]).unwrap();
        let x = x.with_gradient();
        let target = Tensor::new(vec![0.0, 1.0, 0.0], &[1, 3]).unwrap();
        let mut tape = Tape::training();
        let error = absolute_error(&mut tape, &x, &target, 2.0).unwrap();
        assert_eq!(error.data(), [1.5]);
        let gradients = tape.backward(&error).unwrap();
        assert_eq!(gradients.get(&x).unwrap().data(), [2.0, 0.0, -2.0]);
        let other = Tensor::zeros(&[3, 1]);
        assert!(absolute_error(&mut Tape::inference(), &x, &other, 1.0).is_err());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let target = Tensor::full(&[2, 3], 3.0);
        check_gradient(&[noise(&[2, 3], 1)], 2e-3, |tape, x| {
            absolute_error(tape, &x[0], &target, 0.3)
        });
    }
}
