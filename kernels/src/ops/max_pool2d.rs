//! Maximum over square windows that tile the image.

use crate::buffer;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The largest value in each `window` × `window` square; the first of equals wins and gets the
/// whole gradient. NaN wins over any number. Rows and columns that fill no window are dropped.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, C, H / window, W / window]`, rounded down.
///
/// # Errors
/// [`Error::Shape`] when the image is smaller than one window; [`Error::Argument`] for window 0.
pub fn max_pool2d(tape: &mut Tape, input: &Tensor, window: usize) -> Result<Tensor> {
    const OP: &str = "max_pool2d";
    let [n, c, h, w] = input.dims4(OP, "input")?;
    if window == 0 {
        return Err(Error::argument(OP, "window 0 holds nothing; use 1 or more"));
    }
    let (rows, columns) = (h / window, w / window);
    if rows == 0 || columns == 0 {
        return Err(Error::shape(
            OP,
            "image",
            format!("at least {window} × {window}"),
            [h, w],
        ));
    }
    let shape = [n, c, rows, columns];
    let mut data = Vec::with_capacity(n * c * rows * columns);
    let mut winners = Vec::with_capacity(data.capacity());
    for plane in 0..n * c {
        for row in 0..rows {
            for column in 0..columns {
                let corner = (plane * h + row * window) * w + column * window;
                let mut winner = corner;
                for y in 0..window {
                    for x in 0..window {
                        let here = corner + y * w + x;
                        let (value, best) = (input.data()[here], input.data()[winner]);
                        if value > best || (value.is_nan() && !best.is_nan()) {
                            winner = here;
                        }
                    }
                }
                data.push(input.data()[winner]);
                winners.push(winner);
            }
        }
    }
    let mut output = Tensor::from_parts(data, &shape);
    tape.record(&mut output, &[input], move |gradient| {
        let mut data = buffer::zeros(n * c * h * w);
        for (winner, gradient) in winners.iter().zip(gradient.data()) {
            data[*winner] += gradient;
        }
        Ok(vec![Some(Tensor::from_parts(data, &[n, c, h, w]))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn the_largest_of_each_window_stays() {
        let x = [1., 5., 2., 0., 9., 3., 4., 8., 1., 7., 6., 0., 0., 0., 9.];
        let x = Tensor::new(x.to_vec(), &[1, 1, 3, 5]).unwrap();
        let y = max_pool2d(&mut Tape::inference(), &x, 2).unwrap();
        assert_eq!(y.shape(), [1, 1, 1, 2]);
        assert_eq!(y.data(), [5.0, 8.0]);
    }

    #[test]
    fn nan_wins() {
        let x = Tensor::new(vec![1.0, f32::NAN, 3.0, 2.0], &[1, 1, 2, 2]).unwrap();
        let y = max_pool2d(&mut Tape::inference(), &x, 2).unwrap();
        assert!(y.data()[0].is_nan());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[1, 2, 5, 4], 3)], 2e-3, |tape, inputs| {
            max_pool2d(tape, &inputs[0], 2)
        });
    }

    #[test]
    fn a_window_larger_than_the_image_is_refused() {
        let x = noise(&[1, 1, 2, 4], 1);
        assert!(max_pool2d(&mut Tape::inference(), &x, 3).is_err());
        assert!(max_pool2d(&mut Tape::inference(), &x, 0).is_err());
    }
}
