//! One operation on small inputs, run on a GPU (or the emulator) and compared with the CPU.

use crossfix_kernels::cuda::Convolution;
use crossfix_kernels::testing::noise;
use crossfix_kernels::{Device, Result, Tape, Tensor};

type Run = Box<dyn Fn(&mut Tape, &[Tensor]) -> Result<Tensor> + Send + Sync>;

/// An operation with inputs. Values are reproducible; what an operation takes besides tensors is
/// fixed inside.
pub struct OpCase {
    /// The operation, and what is special about this case.
    pub name: String,
    /// On the host. All get gradients, except those `without_gradient`.
    pub inputs: Vec<Tensor>,
    /// Largest difference allowed, forward and backward, as [`crossfix_kernels::testing::assert_close`] counts.
    pub tolerance: [f32; 2],
    /// How dense convolutions are computed in it.
    convolution: Option<Convolution>,
    /// The most elements of im2col columns, if not the default.
    column_room: Option<usize>,
    pub(crate) without_gradient: Vec<usize>,
    run: Run,
}

/// The largest differences between a device and the CPU, as [`crossfix_kernels::testing::assert_close`] counts;
/// infinite where one side is not a number or has no gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Of the output.
    pub forward: f32,
    /// Of the gradients of all inputs.
    pub backward: f32,
}

impl OpCase {
    /// Inputs of these shapes, filled with [`noise`]; tolerance 2e-6 both ways, some roundings.
    pub fn new<F>(name: &str, shapes: &[&[usize]], run: F) -> Self
    where
        F: Fn(&mut Tape, &[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    {
        let seeds = 1..;
        Self {
            name: name.into(),
            inputs: shapes
                .iter()
                .zip(seeds)
                .map(|(s, seed)| noise(s, seed))
                .collect(),
            tolerance: [2e-6; 2],
            convolution: None,
            column_room: None,
            without_gradient: Vec::new(),
            run: Box::new(run),
        }
    }

    /// Replaces a random input.
    pub fn input(mut self, index: usize, value: Tensor) -> Self {
        self.inputs[index] = value;
        self
    }

    /// With dense convolutions computed in this way.
    pub fn convolution(mut self, convolution: Convolution) -> Self {
        self.convolution = Some(convolution);
        self
    }

    /// With at most this many elements of im2col columns at a time.
    pub fn column_room(mut self, numbers: usize) -> Self {
        self.column_room = Some(numbers);
        self
    }

    /// Whether it runs our own tensor-core kernels at a precision that has them.
    pub fn is_implicit(&self) -> bool {
        self.convolution == Some(Convolution::Implicit) && !self.name.contains("depthwise")
    }

    /// Inputs that are constants: no gradient is asked for them.
    pub fn without_gradient(mut self, inputs: &[usize]) -> Self {
        self.without_gradient = inputs.to_vec();
        self
    }

    /// Another tolerance, forward and backward. Say why where it is set.
    pub fn tolerance(mut self, forward: f32, backward: f32) -> Self {
        self.tolerance = [forward, backward];
        self
    }

    /// Output, and gradients of the inputs for a noisy gradient of the output, on `device`.
    ///
    /// # Errors
    /// The operation's own.
    pub fn run(&self, device: &Device) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let Device::Cuda(cuda) = device else {
            return self.run_on(device);
        };
        let usual = cuda.column_room();
        cuda.set_convolution(self.convolution);
        cuda.set_column_room(self.column_room.unwrap_or(usual));
        let made = self.run_on(device);
        cuda.set_convolution(None);
        cuda.set_column_room(usual);
        made
    }

    fn run_on(&self, device: &Device) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let inputs = self
            .inputs
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let input = input.to(device)?;
                let constant = self.without_gradient.contains(&index);
                Ok(if constant {
                    input
                } else {
                    input.with_gradient()
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut tape = Tape::training();
        let output = (self.run)(&mut tape, &inputs)?;
        let gradient = noise(output.shape(), 99).to(device)?;
        let gradients = tape.backward_from(&output, gradient)?;
        let of_input = |input| gradients.get(input).map(|g| g.to(&Device::Cpu)).transpose();
        let gradients = inputs.iter().map(of_input).collect::<Result<_>>()?;
        Ok((output.to(&Device::Cpu)?, gradients))
    }

    /// How far `device` is from the CPU.
    ///
    /// # Errors
    /// The operation's own.
    pub fn compare(&self, device: &Device) -> Result<Difference> {
        let (expected, expected_gradients) = self.run(&Device::Cpu)?;
        let (got, got_gradients) = self.run(device)?;
        let mut backward = 0.0f32;
        for pair in got_gradients.iter().zip(&expected_gradients) {
            backward = backward.max(match pair {
                (None, None) => 0.0,
                (Some(got), Some(expected)) => worst(got, expected),
                _ => f32::INFINITY,
            });
        }
        Ok(Difference {
            forward: worst(&got, &expected),
            backward,
        })
    }

    /// Whether two runs on `device` give the same bits.
    ///
    /// # Errors
    /// The operation's own.
    pub fn repeats_to_the_bit(&self, device: &Device) -> Result<bool> {
        let bits = |(output, gradients): (Tensor, Vec<Option<Tensor>>)| {
            let all = [Some(output)].into_iter().chain(gradients).flatten();
            let bits = all
                .flat_map(crossfix_kernels::Tensor::into_data)
                .map(f32::to_bits);
            bits.collect::<Vec<u32>>()
        };
        Ok(bits(self.run(device)?) == bits(self.run(device)?))
    }

    /// Whether a difference is within the tolerance.
    pub fn accepts(&self, difference: Difference) -> bool {
        difference.forward <= self.tolerance[0] && difference.backward <= self.tolerance[1]
    }
}

fn worst(got: &Tensor, expected: &Tensor) -> f32 {
    if got.shape() != expected.shape() {
        return f32::INFINITY;
    }
    let pairs = got.data().iter().zip(expected.data());
    pairs.fold(0.0, |worst, (got, expected)| {
        let difference = (got - expected).abs() / (1.0 + expected.abs());
        if difference.is_nan() {
            f32::INFINITY
        } else {
            worst.max(difference)
        }
    })
}
