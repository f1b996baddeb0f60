//! Soft-margin triplet loss: the distance at the true position against the distances everywhere else.

use super::total::total;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "soft_margin_triplet";

/// The mean over samples and wrong places of `log(1 + exp(slope · (distance at the true place -
/// distance there)))`.
///
/// As published, the true place itself is in the sum (it adds log 2) but not in the count.
///
/// # Shapes
/// `distances` `[N, rows, columns]`, more than one place; `places` one [row, column] for each
/// sample; returns a scalar.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit; [`Error::Argument`] when a place does not exist; on
/// a device [`Error::Cuda`] while a step is being recorded, because its replays would look at the
/// same places: see [`soft_margin_triplet_at`].
///
/// # Source
/// CVM-Net (Hu et al. 2018), equation 5, the weighted soft-margin loss; slope 10 in GGCVT.
pub fn soft_margin_triplet(
    tape: &mut Tape,
    distances: &Tensor,
    places: &[[usize; 2]],
    slope: f32,
) -> Result<Tensor> {
    let [_, rows, columns] = dims(distances)?;
    let places = place_numbers(places, [rows, columns])?;
    soft_margin_triplet_at(tape, distances, &places.to(&distances.device())?, slope)
}

/// Places of maps of this size, as the tensor that [`soft_margin_triplet_at`] takes.
///
/// # Shapes
/// Pairs [row, column]; returns `[N]`.
///
/// # Errors
/// [`Error::Argument`] when a place does not exist.
pub fn place_numbers(places: &[[usize; 2]], [rows, columns]: [usize; 2]) -> Result<Tensor> {
    let outside = |place: &&[usize; 2]| place[0] >= rows || place[1] >= columns;
    if let Some(place) = places.iter().find(outside) {
        let what = format!("place {place:?} lies outside {rows} rows and {columns} columns");
        return Err(Error::argument(OP, what));
    }
    // Whole numbers below 2^24 are exact in f32.
    if rows * columns >= 1 << 24 {
        let what = format!("{rows} rows and {columns} columns are too many to number");
        return Err(Error::argument(OP, what));
    }
    let numbers = places.iter().map(|[r, c]| (r * columns + c) as f32);
    Tensor::new(numbers.collect(), &[places.len()])
}

/// As [`soft_margin_triplet`] at places that are a tensor, so that they can be an input of a
/// recorded step. No gradient flows to them. A number that is no place means the nearest that is.
///
/// # Shapes
/// `distances` `[N, rows, columns]`, more than one place; `places` `[N]` of [`place_numbers`];
/// returns a scalar.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, [`Error::Device`] when the two lie on different
/// devices, [`Error::Cuda`].
pub fn soft_margin_triplet_at(
    tape: &mut Tape,
    distances: &Tensor,
    places: &Tensor,
    slope: f32,
) -> Result<Tensor> {
    let [n, rows, columns] = dims(distances)?;
    places.expect_shape(OP, "one place for each sample", &[n])?;
    if let Device::Cuda(cuda) = Device::common(OP, &[distances, places])? {
        return on_cuda(tape, &cuda, distances, places, slope);
    }
    let last = rows * columns - 1;
    let places = places.data().iter();
    let indices: Vec<usize> = places.map(|place| (*place as usize).min(last)).collect();
    let loss = cpu::forward(distances.data(), &indices, slope);
    let mut output = Tensor::scalar(loss);
    let saved = tape.needs_gradient(&[distances]).then(|| distances.clone());
    tape.record(&mut output, &[distances], move |gradient| {
        let distances = saved.expect("saved whenever recorded");
        let data = cpu::backward(distances.data(), &indices, slope, gradient.item()?);
        Ok(vec![Some(Tensor::from_parts(data, distances.shape()))])
    });
    Ok(output)
}

fn dims(distances: &Tensor) -> Result<[usize; 3]> {
    match *distances.shape() {
        [n, rows, columns] if n > 0 && rows * columns > 1 => Ok([n, rows, columns]),
        _ => {
            let expected = "[N, rows, columns], at least two places";
            Err(Error::shape(OP, "distances", expected, distances.shape()))
        }
    }
}

mod cpu {
    fn count(distances: &[f32], places: &[usize]) -> f64 {
        (distances.len() - places.len()) as f64
    }

    pub fn forward(distances: &[f32], places: &[usize], slope: f32) -> f32 {
        let samples = distances.chunks_exact(distances.len() / places.len());
        let terms = samples.zip(places).flat_map(|(sample, place)| {
            let here = f64::from(sample[*place]);
            sample
                .iter()
                .map(move |there| softplus(f64::from(slope) * (here - f64::from(*there))))
        });
        (terms.sum::<f64>() / count(distances, places)) as f32
    }

    pub fn backward(distances: &[f32], places: &[usize], slope: f32, gradient: f32) -> Vec<f32> {
        let slope = f64::from(slope);
        let scale = slope * f64::from(gradient) / count(distances, places);
        let samples = distances.chunks_exact(distances.len() / places.len());
        let mut result = Vec::with_capacity(distances.len());
        for (sample, place) in samples.zip(places) {
            let here = f64::from(sample[*place]);
            let first = result.len();
            let mut sum = 0.0;
            for there in sample {
                let pull = scale * logistic(slope * (here - f64::from(*there)));
                sum += pull;
                result.push(-pull as f32);
            }
            // The true place's own term moves neither way.
            let own = scale * logistic(0.0);
            result[first + place] = (sum - own) as f32;
        }
        result
    }

    fn softplus(x: f64) -> f64 {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }

    fn logistic(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/soft_margin_triplet.cu",
    text: include_str!("soft_margin_triplet.cu"),
    hot: &[],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "soft_margin_triplet_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "soft_margin_triplet_backward",
};

parameters! {
    struct TripletParameters {
        length: u32,
        slope: f32,
        scale: f32,
    }
}

fn on_cuda(
    tape: &mut Tape,
    cuda: &Cuda,
    distances: &Tensor,
    places: &Tensor,
    slope: f32,
) -> Result<Tensor> {
    count(OP, distances.len())?;
    let samples = places.len();
    let places = places.detach();
    let wrong = (distances.len() - samples) as f32;
    let parameters = TripletParameters {
        length: (distances.len() / samples) as u32,
        slope,
        scale: slope / wrong,
    };
    let mut sums = cuda.any::<f64>(samples)?;
    // SAFETY: soft_margin_triplet_forward(distances, places, sums, TripletParameters): one block
    // for each sample, guarding its index by `length`, below which it moves each place; one place
    // and one sum for each sample.
    unsafe {
        Launch::new(&FORWARD)
            .grid([samples, 1, 1])
            .input(distances.buffer())
            .input(places.buffer())
            .output(&mut sums)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = total(cuda, &sums, 1.0 / wrong)?;
    let saved = tape
        .needs_gradient(&[distances])
        .then(|| (cuda.clone(), distances.clone(), places));
    tape.record(&mut output, &[distances], move |gradient| {
        let (cuda, distances, places) = saved.expect("saved whenever recorded");
        let mut result = cuda.any(distances.len())?;
        // SAFETY: soft_margin_triplet_backward(distances, places, gradient, result,
        // TripletParameters): as above; `result` is like `distances`, `gradient` one number.
        unsafe {
            Launch::new(&BACKWARD)
                .grid([samples, 1, 1])
                .input(distances.buffer())
                .input(places.buffer())
                .input(gradient.buffer())
                .output(&mut result)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        Ok(vec![Some(Tensor::from_device(result, distances.shape()))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn three_places_worked_by_hand() {
        // Differences 0, ln 3 and -ln 3 at slope 1: log 2, log 4, log 4/3 over two wrong places.
        let x = Tensor::new(vec![1.0, 1.0 - 3f32.ln(), 1.0 + 3f32.ln()], &[1, 1, 3]).unwrap();
        let loss = soft_margin_triplet(&mut Tape::inference(), &x, &[[0, 0]], 1.0).unwrap();
        assert_close(loss.data(), &[(2.0f32 * 4.0 * 4.0 / 3.0).ln() / 2.0], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 4], 1)], 3e-3, |tape, x| {
            soft_margin_triplet(tape, &x[0], &[[0, 2], [2, 3]], 3.0)
        });
    }

    #[test]
    fn large_differences_do_not_overflow() {
        let x = Tensor::new(vec![1e4, -1e4, 0.0], &[1, 1, 3]).unwrap();
        let loss = soft_margin_triplet(&mut Tape::inference(), &x, &[[0, 0]], 10.0).unwrap();
        assert_close(loss.data(), &[1.5e5], 1e-5);
    }

    #[test]
    fn a_number_that_is_no_place_means_the_nearest() {
        let x = noise(&[3, 2, 3], 1);
        let at = |places: Vec<f32>| {
            let places = Tensor::new(places, &[3]).unwrap();
            let loss = soft_margin_triplet_at(&mut Tape::inference(), &x, &places, 2.0);
            loss.unwrap().into_data()
        };
        assert_eq!(at(vec![-1.0, 6.0, f32::NAN]), at(vec![0.0, 5.0, 0.0]));
        assert_ne!(at(vec![0.0, 5.0, 0.0]), at(vec![0.0, 4.0, 0.0]));
    }

    #[test]
    fn a_place_outside_is_refused() {
        let x = noise(&[1, 2, 3], 1);
        let mut tape = Tape::inference();
        assert!(soft_margin_triplet(&mut tape, &x, &[[2, 0]], 10.0).is_err());
        assert!(soft_margin_triplet(&mut tape, &x, &[], 10.0).is_err());
    }
}
