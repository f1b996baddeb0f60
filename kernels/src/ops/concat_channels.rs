//! Joins image batches along their channels: decoder features beside skip features.

use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source, THREADS, count, divider, pack, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The channels of every input, one input after the other.
///
/// # Shapes
/// `inputs` `[N, Cᵢ, H, W]`; returns `[N, ΣCᵢ, H, W]`.
///
/// # Errors
/// [`Error::Argument`] without inputs; [`Error::Shape`] when N, H or W differ; [`Error::Device`]
/// when they lie on several devices.
pub fn concat_channels(tape: &mut Tape, inputs: &[&Tensor]) -> Result<Tensor> {
    const OP: &str = "concat_channels";
    let Some(first) = inputs.first() else {
        return Err(Error::argument(
            OP,
            "nothing to join; give at least one input",
        ));
    };
    let [batch, _, height, width] = first.dims4(OP, "first input")?;
    let mut spans = Vec::with_capacity(inputs.len());
    let mut channels = 0;
    for input in inputs {
        let [_, here, ..] = input.dims4(OP, "input")?;
        input.expect_shape(OP, "input", &[batch, here, height, width])?;
        channels += here;
        spans.push(here * height * width);
    }
    let shape = [batch, channels, height, width];
    let mut output = match Device::common(OP, inputs)? {
        Device::Cpu => join_cpu(inputs, &spans, &shape),
        Device::Cuda(cuda) => join_cuda(&cuda, inputs, &spans, &shape)?,
    };
    tape.record(&mut output, inputs, move |gradient| {
        let parts = match gradient.device() {
            Device::Cpu => part_cpu(gradient, &spans, &shape),
            Device::Cuda(cuda) => part_cuda(&cuda, gradient, &spans, &shape)?,
        };
        Ok(parts.into_iter().map(Some).collect())
    });
    Ok(output)
}

/// The shape of the part that has `span` elements in each sample.
fn part_shape(span: usize, &[batch, _, height, width]: &[usize; 4]) -> [usize; 4] {
    [batch, span / (height * width), height, width]
}

fn join_cpu(inputs: &[&Tensor], spans: &[usize], shape: &[usize; 4]) -> Tensor {
    let mut data = buffer::empty(shape.iter().product());
    for sample in 0..shape[0] {
        for (input, span) in inputs.iter().zip(spans) {
            data.extend_from_slice(&input.data()[sample * span..][..*span]);
        }
    }
    Tensor::from_parts(data, shape)
}

fn part_cpu(joined: &Tensor, spans: &[usize], shape: &[usize; 4]) -> Vec<Tensor> {
    let room = |span: &usize| buffer::empty(shape[0] * span);
    let mut parts: Vec<Vec<f32>> = spans.iter().map(room).collect();
    let mut rest = joined.data();
    for _ in 0..shape[0] {
        for (part, span) in parts.iter_mut().zip(spans) {
            part.extend_from_slice(&rest[..*span]);
            rest = &rest[*span..];
        }
    }
    let parts = parts.into_iter().zip(spans);
    parts
        .map(|(part, span)| Tensor::from_parts(part, &part_shape(*span, shape)))
        .collect()
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/concat_channels.cu",
    text: include_str!("concat_channels.cu"),
    hot: &["concat_join", "concat_part"],
};
static JOIN: Kernel = Kernel {
    source: &SOURCE,
    entry: "concat_join",
};
static PART: Kernel = Kernel {
    source: &SOURCE,
    entry: "concat_part",
};

/// Packs that a thread of the kernels moves.
const IN_FLIGHT: usize = 4;

parameters! {
    /// In packs of four elements or, where planes are no multiple of that, of one.
    struct ConcatParameters {
        /// Of the part.
        count: u32,
        wide: u32,
        in_sample: [u32; 3],
        joined_span: u32,
        offset: u32,
    }
}

impl ConcatParameters {
    fn blocks(&self) -> usize {
        (self.count as usize).div_ceil(IN_FLIGHT * THREADS as usize)
    }
}

/// Where each part lies in the joined samples.
fn placed<'a>(
    spans: &'a [usize],
    &[batch, channels, height, width]: &'a [usize; 4],
) -> impl Iterator<Item = Result<ConcatParameters>> + 'a {
    let pack = pack(height * width);
    let joined_span = channels * height * width;
    spans.iter().scan(0, move |offset, span| {
        let here = *offset;
        *offset += span;
        Some(count("concat_channels", batch * joined_span).and_then(|_| {
            Ok(ConcatParameters {
                count: count("concat_channels", batch * span / pack)?,
                wide: u32::from(pack == 4),
                in_sample: divider(span / pack),
                joined_span: (joined_span / pack) as u32,
                offset: (here / pack) as u32,
            })
        }))
    })
}

fn join_cuda(
    cuda: &Cuda,
    inputs: &[&Tensor],
    spans: &[usize],
    shape: &[usize; 4],
) -> Result<Tensor> {
    let mut joined = cuda.any(shape.iter().product())?;
    for (input, parameters) in inputs.iter().zip(placed(spans, shape)) {
        let parameters = parameters?;
        let launch = Launch::new(&JOIN).grid([parameters.blocks(), 1, 1]);
        // SAFETY: concat_join(part, joined, ConcatParameters): the part has `count` packs, by
        // which the kernel guards its index; sample s of it goes to s · joined_span + offset, and
        // offset + span ends within joined_span, of which `joined` has one for each sample.
        unsafe {
            launch
                .input(input.buffer())
                .output(&mut joined)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
    }
    Ok(Tensor::from_device(joined, shape))
}

fn part_cuda(
    cuda: &Cuda,
    joined: &Tensor,
    spans: &[usize],
    shape: &[usize; 4],
) -> Result<Vec<Tensor>> {
    let parts = spans.iter().zip(placed(spans, shape));
    parts
        .map(|(span, parameters)| {
            let mut part = cuda.any(shape[0] * span)?;
            let parameters = parameters?;
            let launch = Launch::new(&PART).grid([parameters.blocks(), 1, 1]);
            // SAFETY: concat_part(joined, part, ConcatParameters): as concat_join, the other way.
            unsafe {
                launch
                    .input(joined.buffer())
                    .output(&mut part)
                    .parameters(&parameters)
                    .enqueue(cuda)?;
            }
            Ok(Tensor::from_device(part, &part_shape(*span, shape)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn channels_follow_each_other_within_a_sample() {
        let a = Tensor::new(vec![1.0, 2.0], &[2, 1, 1, 1]).unwrap();
        let b = Tensor::new(vec![3.0, 4.0, 5.0, 6.0], &[2, 2, 1, 1]).unwrap();
        let y = concat_channels(&mut Tape::inference(), &[&a, &b]).unwrap();
        assert_eq!(y.shape(), [2, 3, 1, 1]);
        assert_eq!(y.data(), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [noise(&[2, 1, 2, 2], 1), noise(&[2, 3, 2, 2], 2)];
        check_gradient(&inputs, 2e-3, |tape, inputs| {
            concat_channels(tape, &[&inputs[0], &inputs[1], &inputs[0]])
        });
    }

    #[test]
    fn different_sizes_are_refused() {
        let mut tape = Tape::inference();
        let (a, b) = (noise(&[1, 2, 4, 4], 1), noise(&[1, 3, 2, 4], 2));
        let message = concat_channels(&mut tape, &[&a, &b])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("[1, 3, 4, 4]") && message.contains("[1, 3, 2, 4]"),
            "{message}"
        );
        assert!(concat_channels(&mut tape, &[]).is_err());
    }
}
