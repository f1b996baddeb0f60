//! The least that trains: a line fitted to noisy points with a tape and Adam.
//!
//! `cargo run --release -p crossfix-kernels --example fit_a_line`

use crossfix_kernels::optim::{Adam, Parameter};
use crossfix_kernels::{Result, Tape, Tensor, ops};

const POINTS: usize = 64;

fn main() -> Result<()> {
    // y = 2x − 1 with a little noise.
    let x: Vec<f32> = (0..POINTS).map(|i| i as f32 / POINTS as f32).collect();
    let noise = |i: usize| (i * 7919 % 100) as f32 / 1e3 - 0.05;
    let y: Vec<f32> = (0..POINTS).map(|i| 2.0 * x[i] - 1.0 + noise(i)).collect();
    let input = Tensor::new(x, &[POINTS, 1])?;

    let mut parameters = [
        Parameter::new("weight", Tensor::zeros(&[1, 1]).with_gradient()),
        Parameter::new("bias", Tensor::zeros(&[1]).with_gradient()),
    ];
    let mut adam = Adam::default();
    for step in 0..=1000 {
        let mut tape = Tape::training();
        let [weight, bias] = [0, 1].map(|index: usize| parameters[index].value.clone());
        let found = ops::linear(&mut tape, &input, &weight, &bias)?; // [N, 1]
        // Mean squared error has the gradient 2 (found − y) / N.
        let errors: Vec<f32> = found.data().iter().zip(&y).map(|(f, y)| f - y).collect();
        let slopes = errors
            .iter()
            .map(|error| 2.0 * error / POINTS as f32)
            .collect();
        let gradients = tape.backward_from(&found, Tensor::new(slopes, &[POINTS, 1])?)?;
        adam.step(&mut parameters, &gradients, 1e-2)?;
        if step % 250 == 0 {
            let loss = errors.iter().map(|error| error * error).sum::<f32>() / POINTS as f32;
            let [weight, bias] = [0, 1].map(|index: usize| parameters[index].value.data()[0]);
            println!("step {step:4}: y = {weight:.3} x {bias:+.3}, mean squared error {loss:.5}");
        }
    }
    Ok(())
}
