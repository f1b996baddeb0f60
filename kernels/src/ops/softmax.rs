//! Logits to probabilities, sample by sample.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "softmax";

/// exp(x) divided by its sum over everything but the first axis.
///
/// # Shapes
/// `logits` `[N, ...]`; returns the same shape, each sample summing to 1.
///
/// # Errors
/// [`Error::Shape`] when `logits` has no axis or its samples are empty.
pub fn softmax(tape: &mut Tape, logits: &Tensor) -> Result<Tensor> {
    let m = sample_len(OP, "logits", logits)?;
    match logits.device() {
        Device::Cpu => {
            let mut output = forward_cpu(logits, m);
            let saved = tape.needs_gradient(&[logits]).then(|| output.clone());
            tape.record(&mut output, &[logits], move |gradient| {
                let output = saved.expect("saved whenever recorded");
                Ok(vec![Some(backward_cpu(&output, gradient, m))])
            });
            Ok(output)
        }
        Device::Cuda(cuda) => {
            let mut output = cuda::forward(&cuda, logits, m)?;
            let saved = tape.needs_gradient(&[logits]).then(|| output.clone());
            tape.record(&mut output, &[logits], move |gradient| {
                let output = saved.expect("saved whenever recorded");
                Ok(vec![Some(cuda::backward(&cuda, &output, gradient, m)?)])
            });
            Ok(output)
        }
    }
}

fn forward_cpu(logits: &Tensor, m: usize) -> Tensor {
    let mut data = vec![0.0; logits.len()];
    data.par_chunks_mut(m)
        .zip(logits.data().par_chunks(m))
        .for_each(|(output, logits)| {
            let log_sum = log_sum_exp(logits, 1.0);
            for (output, x) in output.iter_mut().zip(logits) {
                *output = (f64::from(*x) - log_sum).exp() as f32;
            }
        });
    Tensor::from_parts(data, logits.shape())
}

fn backward_cpu(output: &Tensor, gradient: &Tensor, m: usize) -> Tensor {
    let mut data = vec![0.0; output.len()];
    data.par_chunks_mut(m)
        .zip(output.data().par_chunks(m))
        .zip(gradient.data().par_chunks(m))
        .for_each(|((result, output), gradient)| {
            let mean: f64 = output
                .iter()
                .zip(gradient)
                .map(|(p, g)| f64::from(*p) * f64::from(*g))
                .sum();
            for ((result, p), g) in result.iter_mut().zip(output).zip(gradient) {
                *result = (f64::from(*p) * (f64::from(*g) - mean)) as f32;
            }
        });
    Tensor::from_parts(data, output.shape())
}

/// Elements of one sample: everything but the first axis.
pub(super) fn sample_len(op: &'static str, what: &'static str, tensor: &Tensor) -> Result<usize> {
    let len = tensor.shape().iter().skip(1).product();
    if tensor.shape().is_empty() || len == 0 {
        return Err(Error::shape(
            op,
            what,
            "[N, ...], not empty",
            tensor.shape(),
        ));
    }
    Ok(len)
}

/// log of the sum of exp(x / temperature), without overflow; summed in f64.
pub(super) fn log_sum_exp(logits: &[f32], temperature: f32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let inverse = 1.0 / temperature;
    let sum: f64 = logits
        .iter()
        .map(|x| f64::from(((x - max) * inverse).exp()))
        .sum();
    f64::from(max) / f64::from(temperature) + sum.ln()
}

pub(crate) mod cuda {
    //! The GPU side, and what the losses over a softmax share with it: for each sample the log
    //! of the softmax's denominator, the weight of its target, and the weighted sum of its logits.

    use super::OP;
    use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
    use crate::error::Result;
    use crate::tensor::Tensor;

    pub(crate) static SOURCE: Source = Source {
        name: "ops/softmax.cu",
        text: include_str!("softmax.cu"),
        hot: &["samples_partial", "softmax_forward", "softmax_backward"],
    };
    const fn kernel(entry: &'static str) -> Kernel {
        Kernel {
            source: &SOURCE,
            entry,
        }
    }
    static PARTIAL: Kernel = kernel("samples_partial");
    static COMBINE: Kernel = kernel("samples_combine");
    static FORWARD: Kernel = kernel("softmax_forward");
    static ALONG: Kernel = kernel("softmax_along");
    static BACKWARD: Kernel = kernel("softmax_backward");

    /// Elements that one block reduces, and the most blocks for one sample: the kernels add up
    /// what the blocks left with one thread for each.
    const SHARE: usize = 2048;
    const MOST_PARTS: usize = 256;
    /// What is known of a sample: log of the denominator, weight, weighted sum of logits.
    pub(crate) const STATISTICS: usize = 3;
    /// What a block knows of its part: largest, sum of exponentials, weight, weighted sum.
    const PARTIALS: usize = 4;

    parameters! {
        pub(crate) struct SampleParameters {
            /// Elements of one sample.
            length: u32,
            samples: u32,
            /// Blocks that share a sample.
            parts: u32,
            inverse_temperature: f32,
            /// Targets count strictly above it.
            threshold: f32,
        }
    }

    impl SampleParameters {
        pub(crate) fn new(op: &'static str, len: usize, m: usize) -> Result<Self> {
            count(op, len)?;
            Ok(Self {
                length: m as u32,
                samples: (len / m) as u32,
                parts: m.div_ceil(SHARE).min(MOST_PARTS) as u32,
                inverse_temperature: 1.0,
                threshold: f32::NEG_INFINITY,
            })
        }

        pub(crate) fn tempered(mut self, temperature: f32, threshold: f32) -> Self {
            self.inverse_temperature = 1.0 / temperature;
            self.threshold = threshold;
            self
        }

        fn grid(&self) -> [usize; 3] {
            [self.parts as usize, self.samples as usize, 1]
        }
    }

    /// [`STATISTICS`] for each sample.
    pub(crate) fn statistics(
        cuda: &Cuda,
        logits: &Tensor,
        target: Option<&Tensor>,
        parameters: &SampleParameters,
    ) -> Result<DeviceBuffer<f64>> {
        let [parts, samples, _] = parameters.grid();
        let mut partial = cuda.any::<f64>(samples * parts * PARTIALS)?;
        let mut statistics = cuda.any::<f64>(samples * STATISTICS)?;
        // SAFETY: samples_partial(logits, target or null, partial, SampleParameters): `parts`
        // blocks for each sample, each guarding its index by `length`; logits and target hold
        // samples · length elements, `partial` PARTIALS for each block.
        unsafe {
            Launch::new(&PARTIAL)
                .grid(parameters.grid())
                .input(logits.buffer())
                .input_or_null(target.map(Tensor::buffer))
                .output(&mut partial)
                .parameters(parameters)
                .enqueue(cuda)?;
        }
        // SAFETY: samples_combine(partial, statistics, SampleParameters): one block for each
        // sample, a thread for each of at most 256 parts; `partial` as above, `statistics` holds
        // STATISTICS for each sample.
        unsafe {
            Launch::new(&COMBINE)
                .grid([samples, 1, 1])
                .input(&partial)
                .output(&mut statistics)
                .parameters(parameters)
                .enqueue(cuda)?;
        }
        Ok(statistics)
    }

    pub(super) fn forward(cuda: &Cuda, logits: &Tensor, m: usize) -> Result<Tensor> {
        let parameters = SampleParameters::new(OP, logits.len(), m)?;
        let statistics = statistics(cuda, logits, None, &parameters)?;
        let mut output = cuda.any(logits.len())?;
        // SAFETY: softmax_forward(logits, statistics, output, SampleParameters): `parts` blocks
        // for each sample, each guarding its index by `length`; statistics as made above.
        unsafe {
            Launch::new(&FORWARD)
                .grid(parameters.grid())
                .input(logits.buffer())
                .input(&statistics)
                .output(&mut output)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        Ok(Tensor::from_device(output, logits.shape()))
    }

    pub(super) fn backward(
        cuda: &Cuda,
        output: &Tensor,
        gradient: &Tensor,
        m: usize,
    ) -> Result<Tensor> {
        let parameters = SampleParameters::new(OP, output.len(), m)?;
        let [parts, samples, _] = parameters.grid();
        let mut along = cuda.any::<f64>(samples * parts)?;
        // SAFETY: softmax_along(output, gradient, along, SampleParameters): `parts` blocks for
        // each sample, each guarding its index by `length` and writing its one element of `along`.
        unsafe {
            Launch::new(&ALONG)
                .grid(parameters.grid())
                .input(output.buffer())
                .input(gradient.buffer())
                .output(&mut along)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        let mut result = cuda.any(output.len())?;
        // SAFETY: softmax_backward(output, gradient, along, result, SampleParameters): as above;
        // every block reads the `parts` elements of `along` of its sample.
        unsafe {
            Launch::new(&BACKWARD)
                .grid(parameters.grid())
                .input(output.buffer())
                .input(gradient.buffer())
                .input(&along)
                .output(&mut result)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        Ok(Tensor::from_device(result, output.shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_logits_worked_by_hand() {
        // exp(0) : exp(ln 3) = 1 : 3
        let x = Tensor::new(vec![0.0, 3.0f32.ln(), 5.0, 5.0], &[2, 2]).unwrap();
        let y = softmax(&mut Tape::inference(), &x).unwrap();
        assert_close(y.data(), &[0.25, 0.75, 0.5, 0.5], 1e-6);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let x = Tensor::new(vec![1e4, 1e4, -1e4], &[1, 3]).unwrap();
        let y = softmax(&mut Tape::inference(), &x).unwrap();
        assert_close(y.data(), &[0.5, 0.5, 0.0], 1e-6);
    }

    #[test]
    fn nan_is_not_hidden() {
        let x = Tensor::new(vec![1.0, f32::NAN, 2.0], &[1, 3]).unwrap();
        let y = softmax(&mut Tape::inference(), &x).unwrap();
        assert!(y.data().iter().all(|y| y.is_nan()));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[3, 7], 1)], 2e-3, |tape, x| softmax(tape, &x[0]));
    }

    #[test]
    fn empty_samples_are_refused() {
        assert!(softmax(&mut Tape::inference(), &Tensor::zeros(&[2, 0])).is_err());
        assert!(softmax(&mut Tape::inference(), &Tensor::scalar(1.0)).is_err());
    }
}
