//! What the tests of every operation share: seeded inputs, comparison with an explanation,
//! gradients checked against finite differences, and threads in place of processes.

use crate::communicator::Communicator;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// Deterministic values in (-1, 1), different for each seed; never exactly equal to each other,
/// so that maxima have one winner.
pub fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(0x1234_5678_9abc_def1);
    let mut data = crate::buffer::any(shape.iter().product());
    data.fill_with(|| {
        // splitmix64 (Steele, Lea, Flood 2014)
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    });
    Tensor::from_parts(data, shape)
}

/// A thread that takes the part of a process.
#[derive(Debug)]
struct ThreadRank {
    rank: usize,
    exchange: Arc<Exchange>,
}

#[derive(Debug)]
struct Exchange {
    all_there: Barrier,
    shares: Mutex<Vec<Vec<f64>>>,
}

impl Communicator for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shares().len()
    }

    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<()> {
        let share: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let sums = crate::communicator::sums(self, &share)?;
        for (value, sum) in values.iter_mut().zip(sums) {
            *value = sum as f32;
        }
        Ok(())
    }

    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        self.shares()[self.rank] = values.to_vec();
        self.exchange.all_there.wait();
        let all = self.shares().concat();
        // Nobody brings the next values before all have these.
        self.exchange.all_there.wait();
        Ok(all)
    }
}

impl ThreadRank {
    fn shares(&self) -> std::sync::MutexGuard<'_, Vec<Vec<f64>>> {
        let shares = self.exchange.shares.lock();
        shares.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` in `size` threads that communicate as processes do; returns what each made.
///
/// # Panics
/// When one of them does. The others may then wait for ever.
pub fn in_processes<R: Send>(
    size: usize,
    work: impl Fn(Arc<dyn Communicator>) -> R + Sync,
) -> Vec<R> {
    let exchange = Arc::new(Exchange {
        all_there: Barrier::new(size),
        shares: Mutex::new(vec![Vec::new(); size]),
    });
    std::thread::scope(|scope| {
        let threads = (0..size).map(|rank| {
            let exchange = exchange.clone();
            let work = &work;
            scope.spawn(move || work(Arc::new(ThreadRank { rank, exchange })))
        });
        let threads: Vec<_> = threads.collect();
        let results = threads.into_iter().map(ScopedJoinHandle::join);
        results
            .map(|result| result.expect("no process panics"))
            .collect()
    })
}

/// Panics, with index, expected, got and the largest difference, unless all elements agree to
/// `tolerance` (absolute plus relative to the expected value).
///
/// # Panics
/// When they do not agree.
pub fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "lengths differ");
    let mut worst = (0, 0.0f32);
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let difference = (got - expected).abs() / (1.0 + expected.abs());
        // NaN counts as the largest difference.
        if difference > worst.1 || (difference.is_nan() && !worst.1.is_nan()) {
            worst = (index, difference);
        }
    }
    assert!(
        worst.1 <= tolerance,
        "element {}: expected {}, got {} (difference {:e}, tolerance {tolerance:e})",
        worst.0,
        expected[worst.0],
        got[worst.0],
        worst.1
    );
}

/// Checks the gradient of `op` with respect to each of `inputs` against central differences.
/// The loss is a weighted sum of the sine of the output, so that the incoming gradient
/// differs from element to element. Up to 64 elements of each input are tried.
///
/// # Panics
/// When a gradient is missing or differs by more than `tolerance`.
pub fn check_gradient<F>(inputs: &[Tensor], tolerance: f32, op: F)
where
    F: Fn(&mut Tape, &[Tensor]) -> Result<Tensor>,
{
    let loss = |inputs: &[Tensor]| -> f64 {
        let output = op(&mut Tape::inference(), inputs).expect("op runs");
        output
            .data()
            .iter()
            .enumerate()
            .map(|(i, y)| weight(i) * (f64::from(*y) + phase(i)).sin())
            .sum()
    };
    let leaves: Vec<Tensor> = inputs
        .iter()
        .map(|input| input.clone().with_gradient())
        .collect();
    let mut tape = Tape::training();
    let output = op(&mut tape, &leaves).expect("op runs");
    let bent = output
        .data()
        .iter()
        .enumerate()
        .map(|(i, y)| (weight(i) * (f64::from(*y) + phase(i)).cos()) as f32);
    let gradient = Tensor::from_parts(bent.collect(), output.shape());
    let gradients = tape
        .backward_from(&output, gradient)
        .expect("backward runs");
    for (which, leaf) in leaves.iter().enumerate() {
        let analytic = gradients
            .get(leaf)
            .unwrap_or_else(|| panic!("input {which} got no gradient"));
        assert_eq!(
            analytic.shape(),
            leaf.shape(),
            "gradient of input {which} has the wrong shape"
        );
        let stride = leaf.len().div_ceil(64).max(1);
        for index in (0..leaf.len()).step_by(stride) {
            let step = 2e-3 * leaf.data()[index].abs().max(1.0);
            let moved = |by: f32| {
                let mut data = leaf.data().to_vec();
                data[index] += by;
                let mut moved = inputs.to_vec();
                moved[which] = Tensor::from_parts(data, leaf.shape());
                loss(&moved)
            };
            let numeric = ((moved(step) - moved(-step)) / f64::from(2.0 * step)) as f32;
            let got = analytic.data()[index];
            assert!(
                (got - numeric).abs() <= tolerance * (1.0 + numeric.abs()),
                "gradient of input {which} at {index}: finite difference {numeric}, backward {got}"
            );
        }
    }
}

fn weight(index: usize) -> f64 {
    0.3 + 0.7 * ((index * 37 % 101) as f64 / 101.0)
}

fn phase(index: usize) -> f64 {
    (index * 13 % 29) as f64 / 29.0
}

#[cfg(test)]
mod tests {
    #[test]
    #[should_panic(expected = "element 1")]
    fn nan_is_close_to_nothing() {
        super::assert_close(&[1.0, f32::NAN, 1.0], &[1.0, 1.0, 1.0], 1e-3);
    }
}
