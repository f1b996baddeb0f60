//! A loss weighed by a learnt uncertainty, among several.

use crate::cuda::{Kernel, Launch, Source, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "uncertainty_weighted";

/// `e^(-s) loss + s` with the learnt s, `log_variance`.
///
/// # Shapes
/// One number each; returns a scalar.
///
/// # Errors
/// [`Error::Shape`] when one is not a single number, [`Error::Device`] when they lie on different devices,
/// [`Error::OutOfMemory`], [`Error::Cuda`].
///
/// # Source
/// Multi-Task Learning Using Uncertainty to Weigh Losses (Kendall et al. 2018), equation 7, with s
/// for log σ² and without its halves.
pub fn uncertainty_weighted(
    tape: &mut Tape,
    loss: &Tensor,
    log_variance: &Tensor,
) -> Result<Tensor> {
    for (what, tensor) in [("loss", loss), ("log variance", log_variance)] {
        if tensor.len() != 1 {
            return Err(Error::shape(OP, what, "one number", tensor.shape()));
        }
    }
    let inputs = [loss, log_variance];
    let Device::Cuda(cuda) = Device::common(OP, &inputs)? else {
        let (l, s) = (loss.item()?, log_variance.item()?);
        let weight = (-s).exp();
        let mut output = Tensor::scalar(weight * l + s);
        let shapes = inputs.map(|tensor| tensor.shape().to_vec());
        tape.record(&mut output, &inputs, move |gradient| {
            let g = gradient.item()?;
            let slopes = [g * weight, g * (1.0 - weight * l)]
                .into_iter()
                .zip(&shapes);
            let slopes = slopes.map(|(slope, shape)| Some(Tensor::from_parts(vec![slope], shape)));
            Ok(slopes.collect())
        });
        return Ok(output);
    };
    let parameters = UncertaintyParameters { count: 1 };
    let mut output = cuda.any(1)?;
    // SAFETY: uncertainty_weighted_forward(loss, log_variance, y, UncertaintyParameters): one
    // number each, which one thread reads and writes.
    unsafe {
        Launch::new(&FORWARD)
            .block([32, 1, 1])
            .input(loss.buffer())
            .input(log_variance.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(&cuda)?;
    }
    let mut output = Tensor::from_device(output, &[]);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (cuda, inputs.map(Tensor::clone)));
    tape.record(&mut output, &inputs, move |gradient| {
        let (cuda, [loss, log_variance]) = saved.expect("saved whenever recorded");
        let (mut to_loss, mut to_log_variance) = (cuda.any(1)?, cuda.any(1)?);
        // SAFETY: uncertainty_weighted_backward(loss, log_variance, gradient, to_loss,
        // to_log_variance, UncertaintyParameters): as above.
        unsafe {
            Launch::new(&BACKWARD)
                .block([32, 1, 1])
                .input(loss.buffer())
                .input(log_variance.buffer())
                .input(gradient.buffer())
                .output(&mut to_loss)
                .output(&mut to_log_variance)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        Ok(vec![
            Some(Tensor::from_device(to_loss, loss.shape())),
            Some(Tensor::from_device(to_log_variance, log_variance.shape())),
        ])
    });
    Ok(output)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/uncertainty_weighted.cu",
    text: include_str!("uncertainty_weighted.cu"),
    hot: &[],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "uncertainty_weighted_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "uncertainty_weighted_backward",
};

parameters! {
    struct UncertaintyParameters {
        count: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn a_loss_of_two_at_half_the_weight() {
        let loss = Tensor::scalar(2.0);
        let log_variance = Tensor::scalar(2f32.ln());
        let weighed = uncertainty_weighted(&mut Tape::inference(), &loss, &log_variance).unwrap();
        assert_close(weighed.data(), &[1.0 + 2f32.ln()], 1e-7);
        let two = Tensor::zeros(&[2]);
        assert!(uncertainty_weighted(&mut Tape::inference(), &loss, &two).is_err());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[], 1), noise(&[1], 2)], 2e-3, |tape, x| {
            uncertainty_weighted(tape, &x[0], &x[1])
        });
    }
}
