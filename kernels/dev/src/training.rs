//! A small network with its optimiser, trained on one batch: on the CPU, on a device, and
//! on a device as a recorded step. A training run in miniature.

use crossfix_kernels::cuda::Step;
use crossfix_kernels::optim::{Adam, Parameter};
use crossfix_kernels::testing::noise;
use crossfix_kernels::{Device, Error, Result, Tape, Tensor, ops};

const LEARNING_RATE: f64 = 0.01;

/// Network, optimiser and batch.
pub(super) struct Training {
    device: Device,
    parameters: Vec<Parameter>,
    adam: Adam,
    input: Tensor,
    target: Tensor,
}

impl Training {
    /// The same numbers on every device.
    pub fn new(device: &Device) -> Result<Self> {
        let parameter = |name: &str, shape: &[usize], seed| {
            let fan_in = shape.last().copied().unwrap_or(1);
            let value = noise(shape, seed);
            let scale = 1.0 / (fan_in as f32).sqrt();
            let data = value.data().iter().map(|x| x * scale).collect();
            let value = Tensor::new(data, shape)?.to(device)?;
            Ok(Parameter::new(name, value))
        };
        let target = noise(&[8, 1, 12, 13], 12);
        let target = target.data().iter().map(|y| y.abs()).collect();
        Ok(Self {
            device: device.clone(),
            parameters: vec![
                parameter("hidden.weight", &[40, 24], 1)?,
                parameter("hidden.bias", &[40], 2)?,
                parameter("output.weight", &[156, 40], 3)?,
                parameter("output.bias", &[156], 4)?,
            ],
            adam: Adam::default().with_clip_norm(0.5),
            input: noise(&[8, 24], 11).to(device)?,
            target: Tensor::new(target, &[8, 1, 12, 13])?.to(device)?,
        })
    }

    fn loss(
        tape: &mut Tape,
        parameters: &[Parameter],
        input: &Tensor,
        target: &Tensor,
    ) -> Result<Tensor> {
        let [w1, b1, w2, b2] = [0, 1, 2, 3].map(|index: usize| &parameters[index].value);
        let hidden = ops::linear(tape, input, w1, b1)?;
        let hidden = ops::silu(tape, &hidden)?;
        let logits = ops::linear(tape, &hidden, w2, b2)?;
        let logits = ops::reshape(tape, &logits, target.shape())?;
        ops::heatmap_cross_entropy(tape, &logits, target)
    }

    /// One step; returns the loss before it.
    pub fn step(&mut self) -> Result<f32> {
        let mut tape = Tape::training();
        let loss = Self::loss(&mut tape, &self.parameters, &self.input, &self.target)?;
        let gradients = tape.backward(&loss)?;
        self.adam
            .step(&mut self.parameters, &gradients, LEARNING_RATE)?;
        loss.item()
    }

    /// Records a step, which then goes on where this training is. At least one step was done.
    pub fn record(mut self) -> Result<Recorded> {
        let Device::Cuda(cuda) = self.device.clone() else {
            return Err(Error::argument("record", "needs a device"));
        };
        let coefficients = Tensor::zeros(&[self.parameters.len(), 2]).to(&self.device)?;
        let inputs = [self.input.clone(), self.target.clone(), coefficients];
        let step = Step::record(&cuda, &inputs, |inputs| {
            let mut tape = Tape::training();
            let loss = Self::loss(&mut tape, &self.parameters, &inputs[0], &inputs[1])?;
            let gradients = tape.backward(&loss)?;
            let lengths = self
                .adam
                .enqueue(&mut self.parameters, &gradients, &inputs[2])?;
            Ok(vec![loss, lengths])
        })?;
        Ok(Recorded {
            step,
            training: self,
        })
    }

    /// All parameters, one after the other.
    pub fn values(&self) -> Result<Vec<f32>> {
        let values = self.parameters.iter().map(|p| p.value.to_vec());
        Ok(values.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// A training whose steps are replays.
pub(super) struct Recorded {
    step: Step,
    training: Training,
}

impl Recorded {
    /// As [`Training::step`].
    pub fn step(&mut self) -> Result<f32> {
        let coefficients = self.training.adam.begin_step(LEARNING_RATE)?;
        let inputs = [
            self.training.input.clone(),
            self.training.target.clone(),
            coefficients,
        ];
        self.step.run(&inputs)?[0].item()
    }

    /// As [`Training::values`].
    pub fn values(&self) -> Result<Vec<f32>> {
        self.training.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_lowers_the_loss() {
        let mut training = Training::new(&Device::Cpu).unwrap();
        let losses: Vec<f32> = (0..10).map(|_| training.step().unwrap()).collect();
        assert!(
            losses.windows(2).all(|pair| pair[1] < pair[0]),
            "{losses:?}"
        );
    }
}
