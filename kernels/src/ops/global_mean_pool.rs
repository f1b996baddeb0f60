//! Mean of each channel over the whole image.

use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, divider, pack, parameters, plane_block};
use crate::device::Device;
use crate::error::Result;
use crate::math::sum;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "global_mean_pool";

/// The mean over rows and columns.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, C]`.
///
/// # Errors
/// [`crate::Error::Shape`] when `input` is not an image batch.
pub fn global_mean_pool(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let shape @ [n, c, h, w] = input.dims4(OP, "input")?;
    let share = 1.0 / (h * w) as f32;
    let mut output = match input.device() {
        Device::Cpu => {
            let planes = input.data().chunks_exact(h * w);
            let data = planes.map(|plane| sum(plane) * share).collect();
            Tensor::from_parts(data, &[n, c])
        }
        Device::Cuda(cuda) => forward_cuda(&cuda, input, shape)?,
    };
    tape.record(&mut output, &[input], move |gradient| {
        let to_input = match gradient.device() {
            Device::Cpu => {
                let mut data = buffer::empty(n * c * h * w);
                for gradient in gradient.data() {
                    data.resize(data.len() + h * w, gradient * share);
                }
                Tensor::from_parts(data, &shape)
            }
            Device::Cuda(cuda) => backward_cuda(&cuda, gradient, shape)?,
        };
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/global_mean_pool.cu",
    text: include_str!("global_mean_pool.cu"),
    hot: &["global_mean_pool_forward", "global_mean_pool_backward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "global_mean_pool_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "global_mean_pool_backward",
};

parameters! {
    struct MeanPoolParameters {
        /// Packs of the images.
        count: u32,
        /// Whether they are four elements, else one.
        wide: u32,
        in_plane: [u32; 3],
        share: f32,
    }
}

fn parameters([n, c, h, w]: [usize; 4]) -> Result<MeanPoolParameters> {
    count(OP, n * c * h * w)?;
    let pack = pack(h * w);
    Ok(MeanPoolParameters {
        count: (n * c * h * w / pack) as u32,
        wide: u32::from(pack == 4),
        in_plane: divider(h * w / pack),
        share: 1.0 / (h * w) as f32,
    })
}

/// `[N, C]`.
pub(super) fn forward_cuda(cuda: &Cuda, input: &Tensor, shape: [usize; 4]) -> Result<Tensor> {
    let [n, c, ..] = shape;
    let mut output = cuda.any(n * c)?;
    let parameters = parameters(shape)?;
    let [packs, ..] = parameters.in_plane;
    let launch = Launch::new(&FORWARD)
        .grid([n * c, 1, 1])
        .block(plane_block(packs as usize));
    // SAFETY: global_mean_pool_forward(input, output, MeanPoolParameters): one block for each of
    // the planes of `in_plane` packs in `input`, which are as many as `output` has elements.
    unsafe {
        launch
            .input(input.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, &[n, c]))
}

fn backward_cuda(cuda: &Cuda, gradient: &Tensor, shape: [usize; 4]) -> Result<Tensor> {
    let mut result = cuda.any(shape.iter().product())?;
    let parameters = parameters(shape)?;
    let launch = Launch::new(&BACKWARD).over(parameters.count as usize);
    // SAFETY: global_mean_pool_backward(gradient, result, MeanPoolParameters): the result has
    // `count` packs, by which the kernel guards its index, `in_plane` for each of `gradient`.
    unsafe {
        launch
            .input(gradient.buffer())
            .output(&mut result)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(result, &shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn each_channel_becomes_its_mean() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 6.0, 0.0, 0.0, 0.0, -4.0], &[1, 2, 2, 2]).unwrap();
        let y = global_mean_pool(&mut Tape::inference(), &x).unwrap();
        assert_eq!((y.shape(), y.data()), ([1, 2].as_slice(), &[3.0, -1.0][..]));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 3, 2], 1)], 2e-3, |tape, inputs| {
            global_mean_pool(tape, &inputs[0])
        });
    }

    #[test]
    fn an_empty_batch_is_refused() {
        let empty = Tensor::zeros(&[0, 3, 4, 4]);
        assert!(global_mean_pool(&mut Tape::inference(), &empty).is_err());
    }
}
