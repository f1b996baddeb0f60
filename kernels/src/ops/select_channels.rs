//! Picks channels by index: the orientations inside a heading prior.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "select_channels";

/// The channels of `input` named by `channels`, in that order; a channel may be named twice, and
/// its gradients then add up.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, channels.len(), H, W]`.
///
/// # Errors
/// [`Error::Shape`] when `input` has not four axes, [`Error::Argument`] when an index is not
/// below C or none is given.
pub fn select_channels(tape: &mut Tape, input: &Tensor, channels: &[usize]) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    if channels.is_empty() {
        return Err(Error::argument(OP, "no channel is named"));
    }
    if let Some(channel) = channels.iter().find(|channel| **channel >= c) {
        return Err(Error::argument(
            OP,
            format!(
                "channel {channel} of an input with shape {:?}",
                input.shape()
            ),
        ));
    }
    let pixels = h * w;
    let mut data = Vec::with_capacity(n * channels.len() * pixels);
    for sample in 0..n {
        for channel in channels {
            let start = (sample * c + channel) * pixels;
            data.extend_from_slice(&input.data()[start..start + pixels]);
        }
    }
    let mut output = Tensor::from_parts(data, &[n, channels.len(), h, w]);
    let channels = channels.to_vec();
    tape.record(&mut output, &[input], move |gradient| {
        let mut data = vec![0.0; n * c * pixels];
        for sample in 0..n {
            for (index, channel) in channels.iter().enumerate() {
                let from = (sample * channels.len() + index) * pixels;
                let to = (sample * c + channel) * pixels;
                let sums = data[to..to + pixels].iter_mut();
                for (sum, g) in sums.zip(&gradient.data()[from..from + pixels]) {
                    *sum += g;
                }
            }
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
    fn channels_come_in_the_order_named() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1, 3, 1, 2]).unwrap();
        let y = select_channels(&mut Tape::inference(), &x, &[2, 0, 2]).unwrap();
        assert_eq!(y.data(), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        assert_eq!(y.shape(), [1, 3, 1, 2]);
    }

    #[test]
    fn gradients_of_a_channel_named_twice_add_up() {
        check_gradient(&[noise(&[2, 3, 2, 2], 1)], 2e-3, |tape, x| {
            select_channels(tape, &x[0], &[1, 0, 1, 2])
        });
    }

    #[test]
    fn a_channel_that_is_not_there_is_refused() {
        let x = Tensor::zeros(&[1, 3, 2, 2]);
        let message = select_channels(&mut Tape::inference(), &x, &[0, 3])
            .unwrap_err()
            .to_string();
        assert!(message.contains('3') && message.contains("[1, 3, 2, 2]"));
        assert!(select_channels(&mut Tape::inference(), &x, &[]).is_err());
    }
}
