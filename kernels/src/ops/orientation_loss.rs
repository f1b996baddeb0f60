//! Squared error of the orientation field, counted near the true place.

use super::total::total;
use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "orientation_loss";

/// `(1/N) sum over samples and pixels of weight * |field - target|^2`, with the true orientation
/// the same at every pixel. No gradient flows to `weight` or `target`.
///
/// # Shapes and units
/// `field` `[N, 2, H, W]` (cos, sin); `weight` `[N, 1, H, W]`, a Gaussian with peak 1 that is not
/// normalised; `target` `[N, 2]` (cos, sin); returns a scalar.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
///
/// # Source
/// Convolutional Cross-View Pose Estimation (Xia et al. 2023), the orientation loss.
pub fn orientation_loss(
    tape: &mut Tape,
    field: &Tensor,
    weight: &Tensor,
    target: &Tensor,
) -> Result<Tensor> {
    let [n, _, h, w] = field.dims4(OP, "field")?;
    field.expect_shape(OP, "field", &[n, 2, h, w])?;
    weight.expect_shape(OP, "weight", &[n, 1, h, w])?;
    target.expect_shape(OP, "target", &[n, 2])?;
    match Device::common(OP, &[field, weight, target])? {
        Device::Cpu => on_cpu(tape, field, weight, target),
        Device::Cuda(cuda) => on_cuda(tape, &cuda, field, weight, target),
    }
}

fn on_cpu(tape: &mut Tape, field: &Tensor, weight: &Tensor, target: &Tensor) -> Result<Tensor> {
    let [n, _, h, w] = field.dims4(OP, "field")?;
    let pixels = (h * w).max(1);
    let mut loss = 0.0f64;
    for (plane, (field, target)) in field.data().chunks(pixels).zip(target.data()).enumerate() {
        let weight = &weight.data()[plane / 2 * pixels..];
        for (x, weight) in field.iter().zip(weight) {
            loss += f64::from(*weight) * f64::from(x - target).powi(2);
        }
    }
    let mut output = Tensor::scalar((loss / n.max(1) as f64) as f32);
    let saved = tape
        .needs_gradient(&[field])
        .then(|| (field.clone(), weight.clone(), target.clone()));
    tape.record(&mut output, &[field], move |gradient| {
        let (field, weight, target) = saved.expect("saved whenever recorded");
        let scale = 2.0 * gradient.item()? / n as f32;
        let mut data = buffer::empty(field.len());
        for (plane, (field, target)) in field.data().chunks(pixels).zip(target.data()).enumerate() {
            let weight = &weight.data()[plane / 2 * pixels..];
            data.extend(
                field
                    .iter()
                    .zip(weight)
                    .map(|(x, weight)| scale * weight * (x - target)),
            );
        }
        Ok(vec![Some(Tensor::from_parts(data, field.shape()))])
    });
    Ok(output)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/orientation_loss.cu",
    text: include_str!("orientation_loss.cu"),
    hot: &["orientation_loss_backward"],
};
static PARTIAL: Kernel = Kernel {
    source: &SOURCE,
    entry: "orientation_loss_partial",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "orientation_loss_backward",
};

/// Blocks whose sums are added up.
const BLOCKS: usize = 256;

parameters! {
    struct OrientationParameters {
        count: u32,
        pixels: u32,
        scale: f32,
    }
}

fn on_cuda(
    tape: &mut Tape,
    cuda: &Cuda,
    field: &Tensor,
    weight: &Tensor,
    target: &Tensor,
) -> Result<Tensor> {
    let [n, _, h, w] = field.dims4(OP, "field")?;
    let parameters = OrientationParameters {
        count: count(OP, field.len())?,
        pixels: (h * w) as u32,
        scale: 2.0 / n as f32,
    };
    let mut partial = cuda.any::<f64>(BLOCKS)?;
    // SAFETY: orientation_loss_partial(field, weight, target, partial, OrientationParameters):
    // `field` has `count` elements, by which the kernel guards its index, two planes of `pixels`
    // for each plane of `weight` and each pair of `target`; each block writes its one sum.
    unsafe {
        Launch::new(&PARTIAL)
            .grid([BLOCKS, 1, 1])
            .input(field.buffer())
            .input(weight.buffer())
            .input(target.buffer())
            .output(&mut partial)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = total(cuda, &partial, 1.0 / n as f32)?;
    let saved = tape
        .needs_gradient(&[field])
        .then(|| (cuda.clone(), field.clone(), weight.clone(), target.clone()));
    tape.record(&mut output, &[field], move |gradient| {
        let (cuda, field, weight, target) = saved.expect("saved whenever recorded");
        let mut result = cuda.any(field.len())?;
        let launch = Launch::new(&BACKWARD).over(field.len());
        // SAFETY: orientation_loss_backward(field, weight, target, gradient, result,
        // OrientationParameters): as above; `result` is like `field`, `gradient` one number.
        unsafe {
            launch
                .input(field.buffer())
                .input(weight.buffer())
                .input(target.buffer())
                .input(gradient.buffer())
                .output(&mut result)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        Ok(vec![Some(Tensor::from_device(result, field.shape()))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_samples_worked_by_hand() {
        // Sample 1: errors (1, 0) and (0, 0), weights 0.5 and 1: 0.5.
        // Sample 2: errors (0, 2) and (1, 1), weights 1 and 0.25: 4.5.
        let field =
            Tensor::new(vec![2.0, 1.0, 0.0, 0.0, 0.0, 1.0, 3.0, 2.0], &[2, 2, 1, 2]).unwrap();
        let weight = Tensor::new(vec![0.5, 1.0, 1.0, 0.25], &[2, 1, 1, 2]).unwrap();
        let target = Tensor::new(vec![1.0, 0.0, 0.0, 1.0], &[2, 2]).unwrap();
        let loss = orientation_loss(&mut Tape::inference(), &field, &weight, &target).unwrap();
        assert_close(loss.data(), &[f32::midpoint(0.5, 4.5)], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let weight = noise(&[2, 1, 2, 3], 2);
        let target = noise(&[2, 2], 3);
        check_gradient(&[noise(&[2, 2, 2, 3], 1)], 2e-3, |tape, x| {
            orientation_loss(tape, &x[0], &weight, &target)
        });
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let field = Tensor::zeros(&[1, 2, 3, 3]);
        let message = orientation_loss(
            &mut Tape::inference(),
            &field,
            &Tensor::zeros(&[1, 1, 3, 4]),
            &Tensor::zeros(&[1, 2]),
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            message,
            "orientation_loss: weight: expected [1, 1, 3, 3], got [1, 1, 3, 4]"
        );
    }
}
