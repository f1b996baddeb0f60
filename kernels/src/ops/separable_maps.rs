//! Maps made of two profiles, such as the Gaussian targets of a loss: what goes to a device is as
//! long as their sides, not as large as the maps.

use crate::cuda::{Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const OP: &str = "separable_maps";

/// `output[n, c, i, j] = weights[n, c] · (rows[n, i] · columns[n, j])`, where a product of
/// profiles below `least` counts as 0. No gradient flows through.
///
/// # Shapes
/// `columns` `[N, W]`, `rows` `[N, H]`, `weights` `[N, C]`; returns `[N, C, H, W]`.
///
/// # Errors
/// [`Error::Shape`] when the samples differ in number, [`Error::Device`] when the inputs lie on
/// different devices, [`Error::OutOfMemory`], [`Error::Cuda`].
pub fn separable_maps(
    columns: &Tensor,
    rows: &Tensor,
    weights: &Tensor,
    least: f32,
) -> Result<Tensor> {
    let [n, width] = columns.dims2(OP, "columns")?;
    let [_, height] = rows.dims2(OP, "rows")?;
    let [_, channels] = weights.dims2(OP, "weights")?;
    if [rows.shape()[0], weights.shape()[0]] != [n; 2] {
        let got = [rows.shape()[0], weights.shape()[0]];
        return Err(Error::shape(OP, "samples of rows and weights", n, got));
    }
    let shape = [n, channels, height, width];
    let elements = shape.iter().product();
    let Device::Cuda(cuda) = Device::common(OP, &[columns, rows, weights])? else {
        let mut data = Vec::with_capacity(elements);
        let samples = columns.data().chunks_exact(width);
        let samples = samples.zip(rows.data().chunks_exact(height));
        for ((columns, rows), weights) in samples.zip(weights.data().chunks_exact(channels)) {
            for weight in weights {
                for row in rows {
                    let cells = columns.iter().map(|column| row * column);
                    let cut = |value| if value < least { 0.0 } else { weight * value };
                    data.extend(cells.map(cut));
                }
            }
        }
        return Ok(Tensor::from_parts(data, &shape));
    };
    let parameters = SeparableParameters {
        count: count(OP, elements)?,
        channels: channels as u32,
        height: height as u32,
        width: width as u32,
        least,
    };
    let mut output = cuda.any(elements)?;
    let launch = Launch::new(&KERNEL).over(elements);
    // SAFETY: separable_maps(columns, rows, weights, output, SeparableParameters): `output` has
    // `count` elements, by which the kernel guards its index; profiles and weights have `width`,
    // `height` and `channels` elements for each sample, checked above.
    unsafe {
        launch
            .input(columns.buffer())
            .input(rows.buffer())
            .input(weights.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(&cuda)?;
    }
    Ok(Tensor::from_device(output, &shape))
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/separable_maps.cu",
    text: include_str!("separable_maps.cu"),
    hot: &["separable_maps"],
};
static KERNEL: Kernel = Kernel {
    source: &SOURCE,
    entry: "separable_maps",
};

parameters! {
    struct SeparableParameters {
        count: u32,
        channels: u32,
        height: u32,
        width: u32,
        least: f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data: &[f32], shape: &[usize]) -> Tensor {
        Tensor::new(data.to_vec(), shape).unwrap()
    }

    #[test]
    fn profiles_multiply_and_what_is_too_small_is_cut() {
        let columns = tensor(&[1.0, 2.0, 0.25], &[1, 3]);
        let rows = tensor(&[0.5, 3.0], &[1, 2]);
        let weights = tensor(&[1.0, -2.0], &[1, 2]);
        let maps = separable_maps(&columns, &rows, &weights, 0.2).unwrap();
        assert_eq!(maps.shape(), [1, 2, 2, 3]);
        let plain = [0.5, 1.0, 0.0, 3.0, 6.0, 0.75];
        assert_eq!(maps.data()[..6], plain);
        assert_eq!(maps.data()[6..], plain.map(|value| -2.0 * value));
    }

    #[test]
    fn samples_that_differ_in_number_are_refused() {
        let profile = Tensor::zeros(&[2, 3]);
        for weights in [[1, 2], [3, 2]] {
            let weights = Tensor::zeros(&weights);
            assert!(separable_maps(&profile, &profile, &weights, 0.0).is_err());
        }
    }
}
