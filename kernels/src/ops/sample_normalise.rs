//! Unit length over all values of a sample: GGCVT compares whole feature maps, not pixels.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "sample_normalise";

/// Each sample divided by max(the length of all its values as one vector, `epsilon`).
///
/// Lengths are summed in f64: over the four million values of a feature map, a plain f32 sum
/// loses four of its seven digits. A sample shorter than `epsilon` is divided by the constant,
/// and so is its gradient.
///
/// # Shapes
/// `input` `[N, ...]`; returns the same.
///
/// # Errors
/// [`Error::Shape`] when `input` has no axis or empty samples, [`Error::Argument`] when `epsilon`
/// is not positive.
pub fn sample_normalise(tape: &mut Tape, input: &Tensor, epsilon: f32) -> Result<Tensor> {
    let sample_len = super::softmax::sample_len(OP, "input", input)?;
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(Error::argument(
            OP,
            format!("epsilon {epsilon} is not positive"),
        ));
    }
    let cuda = match input.device() {
        Device::Cpu => return Ok(on_cpu(tape, input, sample_len, epsilon)),
        Device::Cuda(cuda) => cuda,
    };
    let parameters = cuda::SampleNormaliseParameters::new(input.len(), sample_len, epsilon)?;
    let squares = cuda::dots(&cuda, [input, input], &parameters)?;
    let mut output = cuda::forward(&cuda, input, &squares, &parameters)?;
    let saved = tape.needs_gradient(&[input]).then(|| output.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let output = saved.expect("saved whenever recorded");
        let to_input = cuda::backward(&cuda, [&output, gradient], &squares, &parameters)?;
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

fn on_cpu(tape: &mut Tape, input: &Tensor, sample_len: usize, epsilon: f32) -> Tensor {
    let lengths = cpu::lengths(input.data(), sample_len);
    let data = cpu::forward(input.data(), &lengths, epsilon);
    let mut output = Tensor::from_parts(data, input.shape());
    let saved = tape.needs_gradient(&[input]).then(|| output.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let output = saved.expect("saved whenever recorded");
        let data = cpu::backward(output.data(), gradient.data(), &lengths, epsilon);
        Ok(vec![Some(Tensor::from_parts(data, output.shape()))])
    });
    output
}

mod cpu {
    use crate::buffer;
    use crate::math::for_each_cpu;
    use rayon::prelude::*;

    pub fn lengths(input: &[f32], sample_len: usize) -> Vec<f64> {
        input
            .par_chunks_exact(sample_len)
            .map(|sample| dot(sample, sample).sqrt())
            .collect()
    }

    pub fn forward(input: &[f32], lengths: &[f64], epsilon: f32) -> Vec<f32> {
        let sample_len = input.len() / lengths.len();
        let mut output = buffer::any(input.len());
        output
            .par_chunks_exact_mut(sample_len)
            .zip(input.par_chunks_exact(sample_len))
            .zip(lengths.par_iter())
            .for_each(|((output, input), length)| {
                combine(output, input, input, inverse(*length, epsilon), 0.0);
            });
        output
    }

    /// d(x / |x|) = (g - y (y · g)) / |x|, and g / epsilon for a short sample.
    pub fn backward(output: &[f32], gradient: &[f32], lengths: &[f64], epsilon: f32) -> Vec<f32> {
        let sample_len = output.len() / lengths.len();
        let mut result = buffer::any(output.len());
        result
            .par_chunks_exact_mut(sample_len)
            .zip(output.par_chunks_exact(sample_len))
            .zip(gradient.par_chunks_exact(sample_len))
            .zip(lengths.par_iter())
            .for_each(|(((result, output), gradient), length)| {
                let inverse = inverse(*length, epsilon);
                let along = if *length > f64::from(epsilon) {
                    dot(output, gradient)
                } else {
                    0.0
                };
                combine(result, gradient, output, inverse, -along * inverse);
            });
        result
    }

    fn inverse(length: f64, epsilon: f32) -> f64 {
        // NaN must not become epsilon.
        1.0 / if length < f64::from(epsilon) {
            f64::from(epsilon)
        } else {
            length
        }
    }

    for_each_cpu! {
        fn combine(output: &mut [f32], a: &[f32], b: &[f32], of_a: f64, of_b: f64) {
            for ((y, a), b) in output.iter_mut().zip(a).zip(b) {
                *y = (f64::from(*a) * of_a + f64::from(*b) * of_b) as f32;
            }
        }
    }

    for_each_cpu! {
        fn dot(a: &[f32], b: &[f32]) -> f64 {
            const LANES: usize = 16;
            let (a, a_rest) = a.as_chunks::<LANES>();
            let (b, b_rest) = b.as_chunks::<LANES>();
            let mut sums = [0.0f64; LANES];
            for (a, b) in a.iter().zip(b) {
                for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                    *sum += f64::from(*a) * f64::from(*b);
                }
            }
            let rest = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b));
            sums.iter().sum::<f64>() + rest.sum::<f64>()
        }
    }
}

pub(crate) mod cuda {
    use super::OP;
    use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
    use crate::error::Result;
    use crate::tensor::Tensor;

    pub(crate) static SOURCE: Source = Source {
        name: "ops/sample_normalise.cu",
        text: include_str!("sample_normalise.cu"),
        hot: &[
            "sample_normalise_dots",
            "sample_normalise_forward",
            "sample_normalise_backward",
        ],
    };
    const fn kernel(entry: &'static str) -> Kernel {
        Kernel {
            source: &SOURCE,
            entry,
        }
    }
    static DOTS: Kernel = kernel("sample_normalise_dots");
    static FORWARD: Kernel = kernel("sample_normalise_forward");
    static BACKWARD: Kernel = kernel("sample_normalise_backward");

    /// Elements that one block sums, and the most blocks for one sample: who reads the sums has a
    /// thread for each.
    const SHARE: usize = 4096;
    const MOST_PARTS: usize = 256;

    parameters! {
        pub(super) struct SampleNormaliseParameters {
            length: u32,
            parts: u32,
            epsilon: f32,
        }
    }

    impl SampleNormaliseParameters {
        pub(super) fn new(elements: usize, sample_len: usize, epsilon: f32) -> Result<Self> {
            count(OP, elements)?;
            Ok(Self {
                length: sample_len as u32,
                parts: sample_len.div_ceil(SHARE).min(MOST_PARTS) as u32,
                epsilon,
            })
        }

        fn grid(&self, tensor: &Tensor) -> [usize; 3] {
            [self.parts as usize, tensor.len() / self.length as usize, 1]
        }
    }

    /// For each sample the shares of its blocks in the sum of a · b.
    pub(super) fn dots(
        cuda: &Cuda,
        [a, b]: [&Tensor; 2],
        parameters: &SampleNormaliseParameters,
    ) -> Result<DeviceBuffer<f64>> {
        let [parts, samples, _] = parameters.grid(a);
        let mut dots = cuda.any(parts * samples)?;
        // SAFETY: sample_normalise_dots(a, b, dots, SampleNormaliseParameters): `parts` blocks for
        // each sample, each guarding its index by `length`, with one sum each; a and b are shaped
        // alike.
        unsafe {
            Launch::new(&DOTS)
                .grid(parameters.grid(a))
                .input(a.buffer())
                .input(b.buffer())
                .output(&mut dots)
                .parameters(parameters)
                .enqueue(cuda)?;
        }
        Ok(dots)
    }

    pub(super) fn forward(
        cuda: &Cuda,
        input: &Tensor,
        squares: &DeviceBuffer<f64>,
        parameters: &SampleNormaliseParameters,
    ) -> Result<Tensor> {
        let mut output = cuda.any(input.len())?;
        // SAFETY: sample_normalise_forward(input, squares, output, SampleNormaliseParameters): as
        // above, `squares` as `dots` made them, a thread for each of at most 256 parts.
        unsafe {
            Launch::new(&FORWARD)
                .grid(parameters.grid(input))
                .input(input.buffer())
                .input(squares)
                .output(&mut output)
                .parameters(parameters)
                .enqueue(cuda)?;
        }
        Ok(Tensor::from_device(output, input.shape()))
    }

    pub(super) fn backward(
        cuda: &Cuda,
        [output, gradient]: [&Tensor; 2],
        squares: &DeviceBuffer<f64>,
        parameters: &SampleNormaliseParameters,
    ) -> Result<Tensor> {
        let along = dots(cuda, [output, gradient], parameters)?;
        let mut result = cuda.any(output.len())?;
        // SAFETY: sample_normalise_backward(output, gradient, squares, along, result,
        // SampleNormaliseParameters): as above, all tensors shaped alike.
        unsafe {
            Launch::new(&BACKWARD)
                .grid(parameters.grid(output))
                .input(output.buffer())
                .input(gradient.buffer())
                .input(squares)
                .input(&along)
                .output(&mut result)
                .parameters(parameters)
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
    fn each_sample_gets_length_one() {
        let x = Tensor::new(vec![3.0, 0.0, 4.0, 0.0, 0.0, -2.0], &[2, 1, 3]).unwrap();
        let y = sample_normalise(&mut Tape::inference(), &x, 1e-12).unwrap();
        assert_close(y.data(), &[0.6, 0.0, 0.8, 0.0, 0.0, -1.0], 1e-7);
    }

    #[test]
    fn long_samples_keep_their_digits() {
        let side = 1 << 21;
        let y = sample_normalise(
            &mut Tape::inference(),
            &Tensor::full(&[1, side], 0.1),
            1e-12,
        );
        let expected = (1.0 / (side as f64).sqrt()) as f32;
        let worst = (y.unwrap().data()[7] / expected - 1.0).abs();
        assert!(worst < 1e-6, "{worst:e}");
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 5, 2, 3], 1)], 3e-3, |tape, x| {
            sample_normalise(tape, &x[0], 1e-12)
        });
    }

    #[test]
    fn short_samples_are_divided_by_epsilon_in_value_and_gradient() {
        check_gradient(&[noise(&[1, 2, 2], 1)], 3e-3, |tape, x| {
            sample_normalise(tape, &x[0], 10.0)
        });
    }

    #[test]
    fn empty_samples_and_a_zero_epsilon_are_refused() {
        let mut tape = Tape::inference();
        assert!(sample_normalise(&mut tape, &Tensor::zeros(&[2, 0]), 1e-12).is_err());
        assert!(sample_normalise(&mut tape, &noise(&[2, 3], 1), 0.0).is_err());
    }
}
