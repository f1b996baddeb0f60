//! Convolutions of small images, which tract would make by gathering: half of a frame's time.
//!
//! tract runs the rest of the graph. A convolution here reads a padded copy of its input in place:
//! with the output as wide as the padded rows, each tap of the kernel sees all output pixels side by
//! side, and the few sums between two rows are dropped at the end. A stride of 2 sorts the columns
//! and rows of the copy by their remainder first, so that the same holds.

mod layout;
mod product;

use std::cell::RefCell;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::nn::DataFormat;

use layout::Layout;
use product::{SLACK, Weights};

/// Replaces each convolution that [`Convolution`] can run.
pub(super) fn replace_convolutions(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes.len() {
        let node = &model.nodes[id];
        let Some(op) = Convolution::of(model, node)? else {
            continue;
        };
        TypedModelPatch::replace_single_op(model, node, &node.inputs[..1], op)?.apply(model)?;
    }
    Ok(())
}

thread_local! {
    /// The padded copy of the input, and the sums; kept between convolutions.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A convolution `[1, C, H, W]` to `[1, O, H', W']` with known weights, padded with zeros.
#[derive(Debug, Clone)]
struct Convolution(Arc<Known>);

/// What is known before the first image.
#[derive(Debug)]
struct Known {
    layout: Layout,
    taps: Vec<usize>,
    weights: Weights,
    outputs: usize,
}

impl Convolution {
    /// The same as `node`, or nothing where that is no convolution, or one of another kind.
    fn of(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Self>> {
        let Some(conv) = node.op_as::<Conv>() else {
            return Ok(None);
        };
        let [image, weight, bias] = model.node_input_facts(node.id)?[..] else {
            return Ok(None);
        };
        let (spec, f32) = (&conv.pool_spec, f32::datum_type());
        let (Some(shape), Some(weight), Some(bias)) =
            (image.shape.as_concrete(), &weight.konst, &bias.konst)
        else {
            return Ok(None);
        };
        let fits = conv.q_params.is_none()
            && conv.group == 1
            && conv.kernel_fmt == KernelFormat::OIHW
            && spec.data_format == DataFormat::NCHW
            && spec.kernel_shape.len() == 2
            && spec.dilations().iter().all(|dilation| *dilation == 1)
            && spec.stride(0) == spec.stride(1)
            && [image.datum_type, weight.datum_type(), bias.datum_type()] == [f32; 3]
            && shape[0] == 1;
        if !fits {
            return Ok(None);
        }
        let padding = spec.computed_padding(&shape[2..]);
        let layout = Layout {
            channels: shape[1],
            input: [shape[2], shape[3]],
            output: [padding[0].convoluted, padding[1].convoluted],
            kernel: [spec.kernel_shape[0], spec.kernel_shape[1]],
            stride: spec.stride(0),
            before: [padding[0].pad_before, padding[1].pad_before],
        };
        let outputs = spec.output_channels;
        let weights = outputs * layout.channels * layout.kernel.iter().product::<usize>();
        let sides = [layout.output, layout.kernel].concat();
        if sides.contains(&0) || weight.len() != weights || ![1, outputs].contains(&bias.len()) {
            return Ok(None);
        }
        let bias = bias.try_as_plain_ram()?.as_slice::<f32>()?;
        let bias = match bias {
            [one] => vec![*one; outputs],
            each => each.to_vec(),
        };
        let weight = weight.try_as_plain_ram()?.as_slice::<f32>()?;
        Ok(Some(Self(Arc::new(Known {
            taps: layout.taps(),
            layout,
            weights: Weights::new(weight, &bias),
            outputs,
        }))))
    }
}

// Two convolutions with equal weights are not worth finding.
impl PartialEq for Convolution {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Convolution {}

impl Op for Convolution {
    fn name(&self) -> StaticName {
        "CrossfixConvolution".into()
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    op_as_typed_op!();
}

impl EvalOp for Convolution {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Known {
            layout,
            taps,
            weights,
            outputs,
        } = &*self.0;
        let image = args_1!(inputs);
        let image = image.try_as_plain_ram()?.as_slice::<f32>()?;
        let [height, width] = layout.output;
        let mut output = Tensor::zero::<f32>(&[1, *outputs, height, width])?;
        SCRATCH.with_borrow_mut(|[padded, sums]| {
            layout.pad(image, SLACK, padded);
            let step = layout.pixels().next_multiple_of(SLACK);
            sums.resize(sums.len().max(weights.rows() * step), 0.0);
            product::multiply(weights, taps, padded, sums, step);
            let mut plain = output.try_as_plain_ram_mut()?;
            let output = plain.as_slice_mut::<f32>()?;
            for (plane, sums) in output
                .chunks_exact_mut(height * width)
                .zip(sums.chunks_exact(step))
            {
                let lines = plane
                    .chunks_exact_mut(width)
                    .zip(sums.chunks(layout.pitch()));
                lines.for_each(|(line, sums)| line.copy_from_slice(&sums[..width]));
            }
            TractResult::Ok(())
        })?;
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Convolution {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let Known {
            layout, outputs, ..
        } = &*self.0;
        let [height, width] = layout.input;
        ensure!(
            inputs.len() == 1
                && inputs[0].shape.as_concrete() == Some(&[1, layout.channels, height, width])
        );
        let [height, width] = layout.output;
        Ok(tvec!(f32::fact([1, *outputs, height, width])))
    }

    as_op!();
}

#[cfg(test)]
mod tests;
