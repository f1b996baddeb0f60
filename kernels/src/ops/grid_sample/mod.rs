//! Reads images at real-valued places, bilinearly.

mod cpu;
pub(crate) mod on_cuda;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "grid_sample";

/// What a point reads that is not between four pixel centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outside {
    /// Zero as a whole. The last row and column of pixel centres count as outside: with
    /// neighbours ⌊x⌋ and ⌊x⌋ + 1 they have only one. GGCVT's rule.
    Empty,
    /// The bilinear mixture in which the neighbours outside are zero.
    Zeros,
    /// The nearest point of the image.
    Border,
}

/// Samples `input` at the points of `grid`, bilinearly.
///
/// Gradients flow to the image and to the coordinates; on a pixel centre, where the slope jumps,
/// the one towards larger coordinates is taken. A coordinate that is not a number reads 0.
///
/// On a device the image's gradient is summed in 64-bit integers, whose sums do not depend on the
/// order, so runs agree to the bit; a unit is at most 2⁻²⁸ of the plane's largest incoming gradient.
/// Where that is infinite or NaN, the whole plane's gradient becomes NaN.
///
/// # Shapes and units
/// `input` `[N, C, H, W]`; `grid` `[N, P, Q, 2]` as (x, y) in pixels, (0, 0) the centre of the
/// top-left pixel; returns `[N, C, P, Q]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, [`Error::Device`] when the inputs lie on different devices.
///
/// # Source
/// Spatial Transformer Networks (Jaderberg et al. 2015), equation 5.
pub fn grid_sample(
    tape: &mut Tape,
    input: &Tensor,
    grid: &Tensor,
    outside: Outside,
) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let [samples, p, q, pair] = grid.dims4(OP, "grid")?;
    if samples != n || pair != 2 {
        let expected = format!("[{n}, P, Q, 2]");
        return Err(Error::shape(OP, "grid", expected, grid.shape()));
    }
    let size = Size {
        channels: c,
        height: h,
        width: w,
        points: p * q,
    };
    let inputs = [input, grid];
    if let Device::Cuda(cuda) = Device::common(OP, &inputs)? {
        return on_cuda::grid_sample(tape, &cuda, inputs, &size, outside);
    }
    let data = cpu::forward(&size, outside, input.data(), grid.data());
    let mut output = Tensor::from_parts(data, &[n, c, p, q]);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), grid.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, grid) = saved.expect("saved whenever recorded");
        let gradient = gradient.data();
        let to_input = input.requires_gradient().then(|| {
            let data = cpu::input_gradient(&size, outside, grid.data(), gradient);
            Tensor::from_parts(data, input.shape())
        });
        let to_grid = grid.requires_gradient().then(|| {
            let data = cpu::grid_gradient(&size, outside, input.data(), grid.data(), gradient);
            Tensor::from_parts(data, grid.shape())
        });
        Ok(vec![to_input, to_grid])
    });
    Ok(output)
}

struct Size {
    channels: usize,
    height: usize,
    width: usize,
    /// Of one sample's grid.
    points: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    fn points(xy: &[f32]) -> Tensor {
        Tensor::new(xy.to_vec(), &[1, 1, xy.len() / 2, 2]).unwrap()
    }

    fn square() -> Tensor {
        Tensor::new(vec![1.0, 2.0, 3.0, 5.0], &[1, 1, 2, 2]).unwrap()
    }

    #[test]
    fn points_between_pixels_are_mixed() {
        let grid = points(&[0.0, 0.0, 0.5, 0.0, 0.25, 0.5]);
        for outside in [Outside::Empty, Outside::Zeros, Outside::Border] {
            let y = grid_sample(&mut Tape::inference(), &square(), &grid, outside).unwrap();
            // 0.5 (1 + 0.25 (2 - 1)) + 0.5 (3 + 0.25 (5 - 3))
            assert_eq!(y.data(), [1.0, 1.5, 2.375], "{outside:?}");
        }
    }

    #[test]
    fn points_outside_follow_the_rule() {
        let grid = points(&[-0.5, 0.0, 1.0, 0.0, 0.0, 1.75, 9e9, 0.0, f32::NAN, 0.0]);
        let cases = [
            (Outside::Empty, [0.0, 0.0, 0.0, 0.0, 0.0]),
            (Outside::Zeros, [0.5, 2.0, 0.75, 0.0, 0.0]),
            (Outside::Border, [1.0, 2.0, 3.0, 2.0, 0.0]),
        ];
        for (outside, expected) in cases {
            let y = grid_sample(&mut Tape::inference(), &square(), &grid, outside).unwrap();
            assert_close(y.data(), &expected, 1e-7);
        }
    }

    #[test]
    fn gradient_matches_finite_differences() {
        // Centres of cells and beyond the edge, so that no step crosses a kink.
        let coordinates = [0.4, 1.6, 2.3, 0.5, 0.6, 0.5, -0.4, 1.5, 2.6, 9.0, 1.5, 2.4];
        let grid = Tensor::new(coordinates.to_vec(), &[1, 2, 3, 2]).unwrap();
        for outside in [Outside::Empty, Outside::Zeros, Outside::Border] {
            let inputs = [noise(&[1, 3, 3, 4], 1), grid.clone()];
            check_gradient(&inputs, 3e-3, |tape, x| {
                grid_sample(tape, &x[0], &x[1], outside)
            });
        }
    }

    #[test]
    fn grids_of_another_batch_or_without_pairs_are_refused() {
        let mut tape = Tape::inference();
        let x = noise(&[2, 1, 3, 3], 1);
        let wrong = [[1, 2, 2, 2], [2, 2, 2, 3]];
        for shape in wrong {
            let grid = Tensor::zeros(&shape);
            assert!(grid_sample(&mut tape, &x, &grid, Outside::Empty).is_err());
        }
    }
}
