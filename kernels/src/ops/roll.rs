//! Rolls a tensor along one axis. Rolling a panorama's columns turns the camera.

use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Moves every element `shift` places up along `axis`; what falls off one end comes in at the
/// other. Negative shifts move down; any shift is taken modulo the axis length.
///
/// # Errors
/// [`Error::Argument`] when there is no such axis; on a device [`Error::OutOfMemory`] and
/// [`Error::Cuda`], as for all operations.
pub fn roll(tape: &mut Tape, input: &Tensor, axis: usize, shift: isize) -> Result<Tensor> {
    if axis >= input.shape().len() {
        return Err(Error::argument(
            "roll",
            format!("axis {axis} of a tensor shaped {:?}", input.shape()),
        ));
    }
    let spans = Spans::new(input.shape(), axis);
    let mut output = rolled(input, spans, shift)?;
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(rolled(gradient, spans, -shift)?)])
    });
    Ok(output)
}

/// How an axis lies in memory.
#[derive(Clone, Copy)]
struct Spans {
    /// Length of the axis.
    length: usize,
    /// Elements of all axes after it.
    inner: usize,
}

impl Spans {
    fn new(shape: &[usize], axis: usize) -> Self {
        Self {
            length: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        }
    }

    /// Elements of the axis and all axes after it.
    fn span(self) -> usize {
        self.length * self.inner
    }

    /// The element of a span that comes first in the result.
    fn from(self, shift: isize) -> usize {
        (-shift).rem_euclid(self.length as isize) as usize * self.inner
    }
}

fn rolled(input: &Tensor, spans: Spans, shift: isize) -> Result<Tensor> {
    if input.is_empty() {
        return Ok(input.detach());
    }
    match input.device() {
        Device::Cpu => Ok(cpu(input, spans, shift)),
        Device::Cuda(cuda) => on_device(&cuda, input, spans, shift),
    }
}

fn cpu(input: &Tensor, spans: Spans, shift: isize) -> Tensor {
    let from = spans.from(shift);
    let mut output = buffer::empty(input.len());
    for span in input.data().chunks_exact(spans.span()) {
        output.extend_from_slice(&span[from..]);
        output.extend_from_slice(&span[..from]);
    }
    Tensor::from_parts(output, input.shape())
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/roll.cu",
    text: include_str!("roll.cu"),
    hot: &["roll_forward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "roll_forward",
};

parameters! {
    struct RollParameters {
        count: u32,
        span: u32,
        from: u32,
    }
}

fn on_device(cuda: &Cuda, input: &Tensor, spans: Spans, shift: isize) -> Result<Tensor> {
    let parameters = RollParameters {
        count: count("roll", input.len())?,
        span: spans.span() as u32,
        from: spans.from(shift) as u32,
    };
    let mut output = cuda.any(input.len())?;
    let launch = Launch::new(&FORWARD).over(input.len());
    // SAFETY: roll_forward(input, output, RollParameters): both have `count` elements; the kernel
    // guards its index by `count` and reads within the span of that index, which divides `count`.
    unsafe {
        launch
            .input(input.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, input.shape()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn elements_move_up_and_come_back_in() {
        let x = Tensor::new((0..8).map(|v| v as f32).collect(), &[2, 4]).unwrap();
        let mut tape = Tape::inference();
        let y = roll(&mut tape, &x, 1, 1).unwrap();
        assert_eq!(y.data(), [3., 0., 1., 2., 7., 4., 5., 6.]);
        let y = roll(&mut tape, &x, 0, -3).unwrap();
        assert_eq!(y.data(), [4., 5., 6., 7., 0., 1., 2., 3.]);
    }

    #[test]
    fn rolling_back_restores() {
        let x = noise(&[2, 3, 5, 2], 1);
        let mut tape = Tape::inference();
        let there = roll(&mut tape, &x, 2, 12).unwrap();
        assert_eq!(roll(&mut tape, &there, 2, -12).unwrap().data(), x.data());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 4], 1)], 2e-3, |tape, inputs| {
            roll(tape, &inputs[0], 1, 2)
        });
    }

    #[test]
    fn missing_axis_is_refused() {
        assert!(roll(&mut Tape::inference(), &noise(&[2, 3], 1), 2, 1).is_err());
    }
}
