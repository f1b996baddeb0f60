//! Replaces what reaches a limit, such as the shifts of a pose optimiser that run away.

use crate::cuda::{Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "replace_beyond";

/// `replacements` where `|input| ≥ limits`, else `input`. What was replaced carries no gradient on,
/// and none flows to limits and replacements. A limit of 0 replaces any number, an infinite one
/// keeps any; what is no number stays.
///
/// # Shapes
/// All three the same, any; returns it.
///
/// # Errors
/// [`crate::Error::Shape`] when they differ, [`crate::Error::Device`] when they lie apart,
/// [`crate::Error::OutOfMemory`], [`crate::Error::Cuda`].
pub fn replace_beyond(
    tape: &mut Tape,
    input: &Tensor,
    limits: &Tensor,
    replacements: &Tensor,
) -> Result<Tensor> {
    limits.expect_shape(OP, "limits", input.shape())?;
    replacements.expect_shape(OP, "replacements", input.shape())?;
    let device = Device::common(OP, &[input, limits, replacements])?;
    let pick = |far, x, replacement| if far { replacement } else { x };
    let mut output = chosen(&device, &FORWARD, [input, limits, replacements], pick)?;
    let saved = tape
        .needs_gradient(&[input])
        .then(|| (input.clone(), limits.clone()));
    tape.record(&mut output, &[input], move |gradient| {
        let (input, limits) = saved.expect("saved whenever recorded");
        let pick = |far, _, gradient| if far { 0.0 } else { gradient };
        let to_input = chosen(&device, &BACKWARD, [&input, &limits, gradient], pick)?;
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

/// On the CPU selects, where a value is beyond its limit, from the third tensor, else from the first.
fn chosen(
    device: &Device,
    kernel: &'static Kernel,
    [x, limits, other]: [&Tensor; 3],
    pick: fn(bool, f32, f32) -> f32,
) -> Result<Tensor> {
    let Device::Cuda(cuda) = device else {
        let all = x.data().iter().zip(limits.data()).zip(other.data());
        let data = all.map(|((x, limit), other)| pick(x.abs() >= *limit, *x, *other));
        return Ok(Tensor::from_parts(data.collect(), x.shape()));
    };
    let parameters = ReplaceParameters {
        count: count(OP, x.len())?,
    };
    let mut output = cuda.any(x.len())?;
    let launch = Launch::new(kernel).over(x.len());
    // SAFETY: both kernels take (x, limits, replacements or gradient, output, ReplaceParameters),
    // all of `count` elements, by which they guard the index.
    unsafe {
        launch
            .input(x.buffer())
            .input(limits.buffer())
            .input(other.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, x.shape()))
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/replace_beyond.cu",
    text: include_str!("replace_beyond.cu"),
    hot: &[],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "replace_beyond_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "replace_beyond_backward",
};

parameters! {
    struct ReplaceParameters {
        count: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_its_limit_is_replaced_and_gets_no_gradient() {
        let tensor = |data: [f32; 6]| Tensor::new(data.into(), &[2, 3]).unwrap();
        let input = tensor([0.5, -2.5, 7.0, 2.0, 0.0, f32::NAN]).with_gradient();
        let limits = tensor([2.0, 2.0, f32::INFINITY, 2.0, 0.0, 0.0]);
        let replacements = tensor([10.0, 11.0, 12.0, 13.0, 14.0, 15.0]);
        let mut tape = Tape::training();
        let output = replace_beyond(&mut tape, &input, &limits, &replacements).unwrap();
        assert_eq!(output.data()[..5], [0.5, 11.0, 7.0, 13.0, 14.0]);
        assert!(output.data()[5].is_nan());
        let gradient = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let gradients = tape.backward_from(&output, gradient).unwrap();
        let expected = [1.0, 0.0, 3.0, 0.0, 0.0, 6.0];
        assert_eq!(gradients.get(&input).unwrap().data(), expected);
    }

    #[test]
    fn shapes_that_differ_are_refused() {
        let tape = &mut Tape::inference();
        let [x, other] = [[2, 3], [3, 2]].map(|shape| Tensor::zeros(&shape));
        assert!(replace_beyond(tape, &x, &other, &x).is_err());
        assert!(replace_beyond(tape, &x, &x, &other).is_err());
    }
}
