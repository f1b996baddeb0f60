//! The best score over orientations: CCVPE's matching map.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "max_channels";

/// The largest channel of each pixel. The gradient goes to the winning channel only; of equal
/// channels the first wins, and NaN wins over everything so that it is not hidden.
///
/// # Shapes
/// `input` `[N, R, H, W]`; returns `[N, 1, H, W]`.
///
/// # Errors
/// [`Error::Shape`] when `input` has not four axes or no channel.
pub fn max_channels(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let [n, channels, h, w] = input.dims4(OP, "input")?;
    if channels == 0 {
        return Err(Error::shape(
            OP,
            "input",
            "at least one channel",
            input.shape(),
        ));
    }
    let pixels = (h * w).max(1);
    let mut data = vec![0.0f32; n * h * w];
    let mut winners = vec![0u32; n * h * w];
    data.par_chunks_mut(pixels)
        .zip(winners.par_chunks_mut(pixels))
        .zip(input.data().par_chunks(channels * pixels))
        .for_each(|((best, winners), input)| {
            best.copy_from_slice(&input[..pixels]);
            for (channel, row) in input.chunks_exact(pixels).enumerate().skip(1) {
                for ((best, winner), x) in best.iter_mut().zip(winners.iter_mut()).zip(row) {
                    let wins = *x > *best || x.is_nan();
                    *best = if wins { *x } else { *best };
                    *winner = if wins { channel as u32 } else { *winner };
                }
            }
        });
    let mut output = Tensor::from_parts(data, &[n, 1, h, w]);
    tape.record(&mut output, &[input], move |gradient| {
        let mut data = vec![0.0; n * channels * h * w];
        data.par_chunks_mut(channels * pixels)
            .zip(winners.par_chunks(pixels))
            .zip(gradient.data().par_chunks(pixels))
            .for_each(|((result, winners), gradient)| {
                for (pixel, (winner, g)) in winners.iter().zip(gradient).enumerate() {
                    result[*winner as usize * pixels + pixel] = *g;
                }
            });
        Ok(vec![Some(Tensor::from_parts(data, &[n, channels, h, w]))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_gradient;

    #[test]
    fn gradient_goes_to_the_first_of_equal_winners() {
        let x = Tensor::new(vec![1.0, 5.0, 3.0, 5.0, 3.0, 2.0], &[1, 3, 1, 2])
            .unwrap()
            .with_gradient();
        let mut tape = Tape::training();
        let y = max_channels(&mut tape, &x).unwrap();
        assert_eq!(y.data(), [3.0, 5.0]);
        let gradient = Tensor::new(vec![7.0, 9.0], &[1, 1, 1, 2]).unwrap();
        let gradients = tape.backward_from(&y, gradient).unwrap();
        assert_eq!(
            gradients.get(&x).unwrap().data(),
            [0.0, 9.0, 7.0, 0.0, 0.0, 0.0]
        );
    }

    #[test]
    fn nan_is_not_hidden() {
        let x = Tensor::new(vec![f32::NAN, 1.0, 2.0, f32::NAN], &[1, 2, 1, 2]).unwrap();
        let y = max_channels(&mut Tape::inference(), &x).unwrap();
        assert!(y.data().iter().all(|y| y.is_nan()));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        // Further apart than the finite step, so that the winner stays.
        let data = (0..48).map(|i| (i * 37 % 97) as f32 / 32.0).collect();
        let x = Tensor::new(data, &[2, 4, 2, 3]).unwrap();
        check_gradient(&[x], 2e-3, |tape, x| max_channels(tape, &x[0]));
    }

    #[test]
    fn input_without_channels_is_refused() {
        assert!(max_channels(&mut Tape::inference(), &Tensor::zeros(&[1, 0, 2, 2])).is_err());
    }
}
