//! A rectangle cut from every image of a batch.

use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "crop2d";

/// Rows `top..top + height` and columns `left..left + width` of each channel.
///
/// # Shapes
/// `input` `[N, C, H, W]`; `corner` is [top, left], `size` [height, width]; returns
/// `[N, C, height, width]`.
///
/// # Errors
/// [`Error::Shape`] when the rectangle is empty or reaches beyond the image.
pub fn crop2d(
    tape: &mut Tape,
    input: &Tensor,
    corner: [usize; 2],
    size: [usize; 2],
) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let [top, left] = corner;
    let [height, width] = size;
    if height == 0 || width == 0 || top + height > h || left + width > w {
        return Err(Error::shape(
            OP,
            "rectangle inside the image",
            format!("rows and columns within {:?}", [h, w]),
            format!("{size:?} from {corner:?}"),
        ));
    }
    let (whole, cut) = ([n, c, h, w], [n, c, height, width]);
    let parameters = move |written: [usize; 4]| CropParameters {
        count: written.iter().product::<usize>() as u32,
        width: w as u32,
        pixels: (h * w) as u32,
        top: top as u32,
        left: left as u32,
        cut_height: height as u32,
        cut_width: width as u32,
    };
    let mut output = match input.device() {
        Device::Cpu => {
            let data = cpu::forward(input.data(), [h, w], corner, size);
            Tensor::from_parts(data, &cut)
        }
        Device::Cuda(cuda) => {
            count(OP, input.len())?;
            on_cuda(&cuda, &FORWARD, input, cut, parameters(cut))?
        }
    };
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(match gradient.device() {
            Device::Cpu => {
                let data = cpu::backward(gradient.data(), [h, w], corner, size);
                Tensor::from_parts(data, &whole)
            }
            Device::Cuda(cuda) => on_cuda(&cuda, &BACKWARD, gradient, whole, parameters(whole))?,
        })])
    });
    Ok(output)
}

mod cpu {
    use crate::buffer;

    pub fn forward(
        input: &[f32],
        [h, w]: [usize; 2],
        [top, left]: [usize; 2],
        [height, width]: [usize; 2],
    ) -> Vec<f32> {
        let planes = input.chunks_exact(h * w);
        let mut output = buffer::empty(planes.len() * height * width);
        for plane in planes {
            for row in plane.chunks_exact(w).skip(top).take(height) {
                output.extend_from_slice(&row[left..left + width]);
            }
        }
        output
    }

    /// The gradient inside the rectangle, zero around it.
    pub fn backward(
        gradient: &[f32],
        [h, w]: [usize; 2],
        [top, left]: [usize; 2],
        [height, width]: [usize; 2],
    ) -> Vec<f32> {
        let planes = gradient.chunks_exact(height * width);
        let mut input = buffer::zeros(planes.len() * h * w);
        for (input, plane) in input.chunks_exact_mut(h * w).zip(planes) {
            let rows = input.chunks_exact_mut(w).skip(top);
            for (row, values) in rows.zip(plane.chunks_exact(width)) {
                row[left..left + width].copy_from_slice(values);
            }
        }
        input
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/crop2d.cu",
    text: include_str!("crop2d.cu"),
    hot: &["crop2d_forward", "crop2d_backward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "crop2d_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "crop2d_backward",
};

parameters! {
    struct CropParameters {
        count: u32,
        width: u32,
        pixels: u32,
        top: u32,
        left: u32,
        cut_height: u32,
        cut_width: u32,
    }
}

/// From `from` to a tensor shaped `written`.
fn on_cuda(
    cuda: &Cuda,
    kernel: &'static Kernel,
    from: &Tensor,
    written: [usize; 4],
    parameters: CropParameters,
) -> Result<Tensor> {
    let mut output = cuda.any(written.iter().product())?;
    let launch = Launch::new(kernel).over(output.len());
    // SAFETY: crop2d_forward or _backward(from, output, CropParameters): the output has `count`
    // elements, by which the kernel guards its index; one of the two holds planes of `pixels`, the
    // other as many rectangles, which lie inside (checked by the caller).
    unsafe {
        launch
            .input(from.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, &written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn a_rectangle_worked_by_hand() {
        let x = Tensor::new((0..12).map(|v| v as f32).collect(), &[1, 1, 3, 4]).unwrap();
        let y = crop2d(&mut Tape::inference(), &x, [1, 2], [2, 1]).unwrap();
        assert_eq!((y.shape(), y.data()), (&[1, 1, 2, 1][..], &[6.0, 10.0][..]));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 2, 4, 5], 1)], 2e-3, |tape, x| {
            crop2d(tape, &x[0], [1, 0], [2, 3])
        });
    }

    #[test]
    fn a_rectangle_beyond_the_image_is_refused() {
        let x = noise(&[1, 1, 3, 4], 1);
        assert!(crop2d(&mut Tape::inference(), &x, [1, 2], [2, 3]).is_err());
        assert!(crop2d(&mut Tape::inference(), &x, [0, 0], [0, 3]).is_err());
    }
}
