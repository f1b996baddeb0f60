//! Stochastic depth: drops the residual branch of whole samples in training.

use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "drop_connect";

/// Zero for the samples not in `keep`, and `input / keep_probability` for the others, so that the
/// expected value stays. The caller draws `keep`, so this operation is deterministic.
///
/// # Shapes
/// `input` `[N, ...]`, `keep` of length N; returns the shape of `input`.
///
/// # Errors
/// [`Error::Shape`] when `keep` has not one entry for each sample, [`Error::Argument`] when
/// `keep_probability` is not in (0, 1]; on a device [`Error::Cuda`] while a step is being recorded,
/// because its replays would drop the same samples: see [`drop_connect_by`].
///
/// # Source
/// Deep Networks with Stochastic Depth (Huang et al. 2016), with the scaling of `EfficientNet`.
pub fn drop_connect(
    tape: &mut Tape,
    input: &Tensor,
    keep: &[bool],
    keep_probability: f32,
) -> Result<Tensor> {
    let factors = drop_connect_factors(keep, keep_probability)?;
    let factors = Tensor::new(factors, &[keep.len()])?.to(&input.device())?;
    drop_connect_by(tape, input, &factors)
}

/// What [`drop_connect_by`] multiplies each sample by: 0, or 1 / `keep_probability` where it is
/// kept.
///
/// # Errors
/// [`Error::Argument`] when `keep_probability` is not in (0, 1].
pub fn drop_connect_factors(keep: &[bool], keep_probability: f32) -> Result<Vec<f32>> {
    if !(keep_probability > 0.0 && keep_probability <= 1.0) {
        return Err(Error::argument(
            OP,
            format!("keep probability {keep_probability} is not in (0, 1]"),
        ));
    }
    let factor = |keep: &bool| if *keep { 1.0 / keep_probability } else { 0.0 };
    Ok(keep.iter().map(factor).collect())
}

/// As [`drop_connect`] by factors that are a tensor, so that they can be an input of a recorded
/// step. No gradient flows to them.
///
/// # Shapes
/// `input` `[N, ...]`, `factors` `[N]` of [`drop_connect_factors`]; returns the shape of `input`.
///
/// # Errors
/// [`Error::Shape`] when there is not one factor for each sample, [`Error::Device`] when the two
/// lie on different devices, [`Error::Cuda`].
pub fn drop_connect_by(tape: &mut Tape, input: &Tensor, factors: &Tensor) -> Result<Tensor> {
    if input.shape().first() != Some(&factors.len()) {
        return Err(Error::shape(
            OP,
            "samples in keep and input",
            factors.len(),
            input.shape(),
        ));
    }
    let device = Device::common(OP, &[input, factors])?;
    let factors = factors.detach();
    let scale = move |tensor: &Tensor| match &device {
        Device::Cpu => Ok(scale_samples(tensor, factors.data())),
        Device::Cuda(cuda) => scale_samples_cuda(cuda, tensor, factors.buffer()),
    };
    let mut output = scale(input)?;
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(scale(gradient)?)])
    });
    Ok(output)
}

fn scale_samples(tensor: &Tensor, factors: &[f32]) -> Tensor {
    let mut data = Vec::with_capacity(tensor.len());
    let sample_len = tensor.len().checked_div(factors.len()).unwrap_or(0).max(1);
    for (sample, factor) in tensor.data().chunks(sample_len).zip(factors) {
        // Zero times NaN would be NaN: a dropped sample is 0 whatever it held.
        let kept = *factor > 0.0;
        data.extend(sample.iter().map(|x| if kept { factor * x } else { 0.0 }));
    }
    Tensor::from_parts(data, tensor.shape())
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/drop_connect.cu",
    text: include_str!("drop_connect.cu"),
    hot: &[],
};
static SCALE: Kernel = Kernel {
    source: &SOURCE,
    entry: "drop_connect_scale",
};

parameters! {
    struct DropParameters {
        count: u32,
        length: u32,
    }
}

fn scale_samples_cuda(cuda: &Cuda, tensor: &Tensor, factors: &DeviceBuffer) -> Result<Tensor> {
    if tensor.is_empty() {
        return Ok(tensor.detach());
    }
    let parameters = DropParameters {
        count: count(OP, tensor.len())?,
        length: (tensor.len() / factors.len()) as u32,
    };
    let mut output = cuda.any(tensor.len())?;
    let launch = Launch::new(&SCALE).over(tensor.len());
    // SAFETY: drop_connect_scale(input, factors, output, DropParameters): both tensors have
    // `count` elements, by which the kernel guards its index, `length` for each factor.
    unsafe {
        launch
            .input(tensor.buffer())
            .input(factors)
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, tensor.shape()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn kept_samples_are_scaled_and_dropped_ones_are_zero() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
        let y = drop_connect(&mut Tape::inference(), &x, &[false, true], 0.5).unwrap();
        assert_eq!(y.data(), [0.0, 0.0, 6.0, 8.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[3, 2, 2, 2], 1)], 2e-3, |tape, x| {
            drop_connect(tape, &x[0], &[true, false, true], 0.8)
        });
    }

    #[test]
    fn keep_of_another_length_and_impossible_probabilities_are_refused() {
        let x = Tensor::zeros(&[2, 3]);
        let tape = &mut Tape::inference();
        assert!(drop_connect(tape, &x, &[true; 3], 0.5).is_err());
        assert!(drop_connect(tape, &x, &[true; 2], 0.0).is_err());
        assert!(drop_connect(tape, &x, &[true; 2], f32::NAN).is_err());
        assert!(drop_connect_by(tape, &x, &Tensor::zeros(&[3])).is_err());
    }
}
