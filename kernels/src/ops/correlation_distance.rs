//! From a correlation to a distance: low where the views agree.

use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "correlation_distance";

/// `2 - 2 · correlation / max(√(energy · confidence), epsilon)`: the squared distance of two unit
/// vectors, were the confidence 1. Where the root is below `epsilon`, no gradient flows to energy
/// and confidence.
///
/// # Shapes
/// All three `[N, rows, columns]`; returns the same.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ, [`Error::Argument`] when `epsilon` is not positive,
/// [`Error::Device`] when the three lie on different devices.
pub fn correlation_distance(
    tape: &mut Tape,
    correlation: &Tensor,
    energy: &Tensor,
    confidence: &Tensor,
    epsilon: f32,
) -> Result<Tensor> {
    energy.expect_shape(OP, "energy", correlation.shape())?;
    confidence.expect_shape(OP, "confidence", correlation.shape())?;
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        let what = format!("epsilon {epsilon} is not positive");
        return Err(Error::argument(OP, what));
    }
    let inputs = [correlation, energy, confidence];
    let mut output = match Device::common(OP, &inputs)? {
        Device::Cpu => {
            let data = cpu::forward(inputs.map(Tensor::data), epsilon);
            Tensor::from_parts(data, correlation.shape())
        }
        Device::Cuda(cuda) => on_cuda_forward(&cuda, inputs, epsilon)?,
    };
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| inputs.map(Tensor::clone));
    tape.record(&mut output, &inputs, move |gradient| {
        let saved = saved.expect("saved whenever recorded");
        let given = saved.each_ref();
        let found = match gradient.device() {
            Device::Cpu => cpu::backward(given.map(Tensor::data), gradient.data(), epsilon)
                .map(|data| Tensor::from_parts(data, gradient.shape())),
            Device::Cuda(cuda) => on_cuda_backward(&cuda, given, gradient, epsilon)?,
        };
        Ok(found.map(Some).into())
    });
    Ok(output)
}

mod cpu {
    /// The length to divide by, and whether it follows its inputs.
    fn length(energy: f32, confidence: f32, epsilon: f32) -> (f32, bool) {
        let root = (energy * confidence).max(0.0).sqrt();
        if root < epsilon {
            (epsilon, false)
        } else {
            (root, true)
        }
    }

    pub fn forward([correlation, energy, confidence]: [&[f32]; 3], epsilon: f32) -> Vec<f32> {
        let pairs = correlation.iter().zip(energy).zip(confidence);
        pairs
            .map(|((c, e), q)| 2.0 - 2.0 * c / length(*e, *q, epsilon).0)
            .collect()
    }

    pub fn backward(
        [correlation, energy, confidence]: [&[f32]; 3],
        gradient: &[f32],
        epsilon: f32,
    ) -> [Vec<f32>; 3] {
        let mut found = [(); 3].map(|()| Vec::with_capacity(gradient.len()));
        for (i, g) in gradient.iter().enumerate() {
            let (c, e, q) = (correlation[i], energy[i], confidence[i]);
            let (length, moves) = length(e, q, epsilon);
            found[0].push(-2.0 * g / length);
            // d(1/√(e q))/de = -q / (2 √(e q)³)
            let slope = if moves { g * c / length.powi(3) } else { 0.0 };
            found[1].push(slope * q);
            found[2].push(slope * e);
        }
        found
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/correlation_distance.cu",
    text: include_str!("correlation_distance.cu"),
    hot: &[],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "correlation_distance_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "correlation_distance_backward",
};

parameters! {
    struct DistanceParameters {
        count: u32,
        epsilon: f32,
    }
}

fn on_cuda_forward(cuda: &Cuda, inputs: [&Tensor; 3], epsilon: f32) -> Result<Tensor> {
    let [correlation, energy, confidence] = inputs;
    let parameters = DistanceParameters {
        count: count(OP, correlation.len())?,
        epsilon,
    };
    let mut output = cuda.any(correlation.len())?;
    let launch = Launch::new(&FORWARD).over(correlation.len());
    // SAFETY: correlation_distance_forward(correlation, energy, confidence, output,
    // DistanceParameters): all have `count` elements, by which the kernel guards its index.
    unsafe {
        launch
            .input(correlation.buffer())
            .input(energy.buffer())
            .input(confidence.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, correlation.shape()))
}

fn on_cuda_backward(
    cuda: &Cuda,
    inputs: [&Tensor; 3],
    gradient: &Tensor,
    epsilon: f32,
) -> Result<[Tensor; 3]> {
    let [correlation, energy, confidence] = inputs;
    let parameters = DistanceParameters {
        count: count(OP, gradient.len())?,
        epsilon,
    };
    let elements = gradient.len();
    let (mut to_correlation, mut to_energy) = (cuda.any(elements)?, cuda.any(elements)?);
    let mut to_confidence = cuda.any(elements)?;
    let launch = Launch::new(&BACKWARD).over(elements);
    // SAFETY: correlation_distance_backward(correlation, energy, confidence, gradient,
    // to_correlation, to_energy, to_confidence, DistanceParameters): as above for all seven.
    unsafe {
        launch
            .input(correlation.buffer())
            .input(energy.buffer())
            .input(confidence.buffer())
            .input(gradient.buffer())
            .output(&mut to_correlation)
            .output(&mut to_energy)
            .output(&mut to_confidence)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let found = [to_correlation, to_energy, to_confidence];
    Ok(found.map(|buffer| Tensor::from_device(buffer, gradient.shape())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn distances_worked_by_hand() {
        let tensor = |values: [f32; 3]| Tensor::new(values.to_vec(), &[1, 1, 3]).unwrap();
        let (c, e, q) = (
            tensor([3.0, 0.5, 1e-3]),
            tensor([9.0, 4.0, 0.0]),
            tensor([1.0, 0.25, 1.0]),
        );
        let y = correlation_distance(&mut Tape::inference(), &c, &e, &q, 1e-2).unwrap();
        assert_close(y.data(), &[0.0, 1.0, 1.8], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let positive = |seed| {
            let data = noise(&[2, 2, 3], seed)
                .data()
                .iter()
                .map(|x| x * 0.3 + 1.0)
                .collect();
            Tensor::new(data, &[2, 2, 3]).unwrap()
        };
        check_gradient(
            &[noise(&[2, 2, 3], 1), positive(2), positive(3)],
            3e-3,
            |tape, x| correlation_distance(tape, &x[0], &x[1], &x[2], 1e-6),
        );
        check_gradient(
            &[noise(&[2, 2, 3], 1), positive(2), positive(3)],
            3e-3,
            |tape, x| correlation_distance(tape, &x[0], &x[1], &x[2], 5.0),
        );
    }

    #[test]
    fn different_shapes_and_a_zero_epsilon_are_refused() {
        let (a, b) = (noise(&[1, 2, 3], 1), noise(&[1, 3, 2], 2));
        let mut tape = Tape::inference();
        assert!(correlation_distance(&mut tape, &a, &b, &a, 1e-6).is_err());
        assert!(correlation_distance(&mut tape, &a, &a, &a, 0.0).is_err());
    }
}
