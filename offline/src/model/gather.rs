//! Picks channels for each sample on its own; [`crossfix_kernels::ops::select_channels`] picks
//! the same for the whole batch.

use crossfix_kernels::{Error, Result, Tape, Tensor};

/// `output[n, r] = input[n, channels[n][r]]`.
///
/// # Shapes
/// `input` `[N, C, H, W]`, one list of equal length R for each sample; returns `[N, R, H, W]`.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Argument`] when lists and samples don't fit.
pub(super) fn gather_channels(
    tape: &mut Tape,
    input: &Tensor,
    channels: &[Vec<usize>],
) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4("gather_channels", "input")?;
    let picked = channels.first().map_or(0, Vec::len);
    if channels.len() != n || channels.iter().any(|list| list.len() != picked) {
        return Err(Error::shape("gather_channels", "lists", n, channels.len()));
    }
    if let Some(bad) = channels.iter().flatten().find(|channel| **channel >= c) {
        let what = format!("channel {bad} of {c} does not exist");
        return Err(Error::argument("gather_channels", what));
    }
    let plane = h * w;
    let mut data = Vec::with_capacity(n * picked * plane);
    for (sample, list) in channels.iter().enumerate() {
        for channel in list {
            let from = (sample * c + channel) * plane;
            data.extend_from_slice(&input.data()[from..from + plane]);
        }
    }
    let mut output = Tensor::new(data, &[n, picked, h, w])?;
    let channels = channels.to_vec();
    let shape = input.shape().to_vec();
    tape.record(&mut output, &[input], move |gradient| {
        let mut data = vec![0.0; n * c * plane];
        let sources = gradient.data().chunks_exact(plane);
        let targets = channels
            .iter()
            .enumerate()
            .flat_map(|(sample, list)| list.iter().map(move |channel| sample * c + channel));
        for (target, source) in targets.zip(sources) {
            let to = &mut data[target * plane..(target + 1) * plane];
            to.iter_mut().zip(source).for_each(|(to, from)| *to += from);
        }
        Ok(vec![Some(Tensor::new(data, &shape)?)])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_kernels::testing::{check_gradient, noise};

    #[test]
    fn each_sample_reads_its_own_channels() {
        let x = Tensor::new((0..6).map(|v| v as f32).collect(), &[2, 3, 1, 1]).unwrap();
        let y = gather_channels(&mut Tape::inference(), &x, &[vec![2, 0], vec![1, 1]]).unwrap();
        assert_eq!(y.data(), [2.0, 0.0, 4.0, 4.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 2, 2], 1)], 2e-3, |tape, inputs| {
            gather_channels(tape, &inputs[0], &[vec![2, 0], vec![1, 1]])
        });
    }
}
