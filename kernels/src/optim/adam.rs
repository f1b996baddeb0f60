//! The Adam optimiser.

use super::clip::{clip_factor, global_norm};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Gradients;
use crate::tensor::Tensor;
use rayon::prelude::*;

/// A named leaf that the optimiser updates.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The name in state dictionaries and messages.
    pub name: String,
    /// The value; a leaf with gradient. A step replaces it by a fresh one.
    pub value: Tensor,
}

impl Parameter {
    /// Makes `value` a leaf with gradient and names it.
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        Self {
            name: name.into(),
            value: value.with_gradient(),
        }
    }
}

/// Running moments of one parameter's gradient, where the parameter lies.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Steps this parameter took; those without a gradient do not count.
    pub step: u64,
    /// Running mean of the gradient.
    pub first: Tensor,
    /// Running mean of the squared gradient.
    pub second: Tensor,
}

/// What a checkpoint has to keep: the moments, by parameter index; `None` for a parameter that
/// never had a gradient.
#[derive(Debug, Clone, Default)]
pub struct AdamState {
    /// One entry for each parameter; empty before the first step.
    pub moments: Vec<Option<Moments>>,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Norm of all gradients together, before clipping.
    pub gradient_norm: f64,
}

/// The Adam optimiser, with `PyTorch`'s arithmetic: bias correction by each parameter's own step
/// count, weight decay as an addition to the gradient, epsilon added to the corrected root.
///
/// # Source
/// Adam: A Method for Stochastic Optimization (Kingma and Ba 2015), algorithm 1.
#[derive(Debug, Clone)]
pub struct Adam {
    /// Memory of the first and second moment.
    pub betas: [f64; 2],
    /// Keeps the division finite where gradients vanish.
    pub epsilon: f64,
    /// This times the parameter is added to its gradient.
    pub weight_decay: f64,
    /// Gradients longer than this, all together, are shortened to it.
    pub clip_norm: Option<f64>,
    /// The moments.
    pub state: AdamState,
}

impl Default for Adam {
    /// Betas 0.9 and 0.999, epsilon 1e-8, no weight decay, no clipping.
    fn default() -> Self {
        Self::new([0.9, 0.999], 1e-8, 0.0)
    }
}

impl Adam {
    /// An optimiser at its first step, without clipping. The learning rate comes with each step.
    pub fn new(betas: [f64; 2], epsilon: f64, weight_decay: f64) -> Self {
        Self {
            betas,
            epsilon,
            weight_decay,
            clip_norm: None,
            state: AdamState::default(),
        }
    }

    /// The same, shortening gradients whose length over all parameters exceeds `norm`.
    pub fn with_clip_norm(mut self, norm: f64) -> Self {
        self.clip_norm = Some(norm);
        self
    }

    /// Moves every parameter that has a gradient, and makes it a fresh leaf. The others keep
    /// their value to the bit, and take no weight decay.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when a gradient or the learning rate is NaN or infinite,
    /// [`Error::Shape`] when a gradient or the saved state does not fit the parameters,
    /// [`Error::Device`] when they lie on different devices. On an error nothing has changed.
    pub fn step(
        &mut self,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<StepReport> {
        check_rate(learning_rate)?;
        self.check_state(parameters)?;
        let values: Vec<&Tensor> = parameters.iter().map(|p| &p.value).collect();
        match Device::common("adam", &values)? {
            Device::Cpu => self.step_on_cpu(parameters, gradients, learning_rate),
            Device::Cuda(cuda) => self.step_on_cuda(&cuda, parameters, gradients, learning_rate),
        }
    }

    fn step_on_cpu(
        &mut self,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<StepReport> {
        let gradient_norm = global_norm(parameters, gradients)?;
        let factor = self
            .clip_norm
            .map_or(1.0, |max| clip_factor(gradient_norm, max));
        self.state.moments.resize(parameters.len(), None);
        let settings = self.settings(factor);
        let betas = self.betas;
        parameters
            .par_iter_mut()
            .zip(&mut self.state.moments)
            .for_each(|(parameter, moments)| {
                let Some(gradient) = gradients.get(&parameter.value) else {
                    return;
                };
                let shape = parameter.value.shape().to_vec();
                let moments = moments.get_or_insert_with(|| Moments {
                    step: 0,
                    first: Tensor::zeros(&shape),
                    second: Tensor::zeros(&shape),
                });
                moments.step += 1;
                // Taken out, so that the update is in place unless somebody else holds the value.
                let take = |tensor: &mut Tensor| {
                    std::mem::replace(tensor, Tensor::scalar(0.0)).into_data()
                };
                let mut data = take(&mut parameter.value);
                let mut first = take(&mut moments.first);
                let mut second = take(&mut moments.second);
                let coefficients = coefficients(betas, moments.step, learning_rate);
                let rows = (&mut data[..], &mut first[..], &mut second[..]);
                update(&settings, coefficients, gradient.data(), rows);
                moments.first = Tensor::from_parts(first, &shape);
                moments.second = Tensor::from_parts(second, &shape);
                parameter.value = Tensor::from_parts(data, &shape).with_gradient();
            });
        Ok(StepReport { gradient_norm })
    }

    /// The numbers that are the same for all parameters and steps.
    pub(super) fn settings(&self, factor: f64) -> Settings {
        let [beta1, beta2] = self.betas;
        Settings {
            factor: factor as f32,
            weight_decay: self.weight_decay as f32,
            // Complements in f64: 1 - 0.999 in f32 is off by 5e-5 of itself.
            first_share: (1.0 - beta1) as f32,
            second_share: (1.0 - beta2) as f32,
            epsilon: self.epsilon as f32,
        }
    }

    pub(super) fn check_state(&self, parameters: &[Parameter]) -> Result<()> {
        let moments = &self.state.moments;
        if !moments.is_empty() && moments.len() != parameters.len() {
            return Err(Error::shape(
                "adam",
                "parameters the state was saved for",
                moments.len(),
                parameters.len(),
            ));
        }
        for (moments, parameter) in moments.iter().zip(parameters) {
            if let Some(moments) = moments {
                let elements = [moments.first.len(), moments.second.len()];
                if elements != [parameter.value.len(); 2] {
                    return Err(Error::shape(
                        "adam",
                        "elements of saved moments",
                        parameter.value.shape(),
                        elements,
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The numbers that are the same for all parameters of one step.
pub(super) struct Settings {
    pub factor: f32,
    pub weight_decay: f32,
    pub first_share: f32,
    pub second_share: f32,
    pub epsilon: f32,
}

fn update(
    settings: &Settings,
    [step_size, inverse_root_correction]: [f32; 2],
    gradient: &[f32],
    (data, first, second): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let rows = data.iter_mut().zip(gradient).zip(first).zip(second);
    for (((x, g), first), second) in rows {
        let g = settings.factor * g + settings.weight_decay * *x;
        *first += settings.first_share * (g - *first);
        *second += settings.second_share * (g * g - *second);
        let root = second.sqrt() * inverse_root_correction + settings.epsilon;
        *x -= step_size * *first / root;
    }
}

/// Length of a parameter's step, and the correction of the root, at its `step`-th step.
pub(super) fn coefficients(betas: [f64; 2], step: u64, learning_rate: f64) -> [f32; 2] {
    let [beta1, beta2] = betas;
    let step = step as f64;
    [
        (learning_rate / (1.0 - beta1.powf(step))) as f32,
        (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
    ]
}

pub(super) fn check_rate(learning_rate: f64) -> Result<()> {
    if learning_rate.is_finite() {
        return Ok(());
    }
    Err(Error::NotFinite {
        op: "adam",
        what: format!("learning rate {learning_rate}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tape;
    use crate::testing::assert_close;

    /// Gradients that are what the test says.
    fn given(parameters: &[Parameter], values: &[Option<Vec<f32>>]) -> Gradients {
        let mut tape = Tape::training();
        let mut output = Tensor::scalar(0.0);
        let leaves: Vec<&Tensor> = parameters.iter().map(|p| &p.value).collect();
        let values = values
            .iter()
            .zip(&leaves)
            .map(|(v, leaf)| v.clone().map(|v| Tensor::from_parts(v, leaf.shape())))
            .collect();
        tape.record(&mut output, &leaves, move |_| Ok(values));
        tape.backward(&output).unwrap()
    }

    fn ten_steps(adam: &mut Adam) -> Parameter {
        let mut parameters = [Parameter::new(
            "p",
            Tensor::new(vec![1.0, -0.5, 2.0, 0.1], &[2, 2]).unwrap(),
        )];
        for t in 1..=10 {
            let slope = [0.3, -1.0, 2.0, 0.0];
            let drift = [0.1, 0.2, -0.3, 0.01];
            let p = parameters[0].value.data();
            let g = (0..4)
                .map(|i| p[i] * slope[i] + drift[i] * t as f32)
                .collect();
            let gradients = given(&parameters, &[Some(g)]);
            adam.step(&mut parameters, &gradients, 0.05).unwrap();
        }
        let [parameter] = parameters;
        parameter
    }

    // NumPy 2.4, float64, WD = 0 or 0.1; tolerance: ten steps in f32.
    //
    // p = np.array([1.0, -0.5, 2.0, 0.1]); m = np.zeros(4); v = np.zeros(4)
    // for t in range(1, 11):
    //     g = p*np.array([0.3, -1.0, 2.0, 0.0]) + np.array([0.1, 0.2, -0.3, 0.01])*t + WD*p
    //     m = 0.9*m + 0.1*g
    //     v = 0.999*v + 0.001*g*g
    //     p = p - 0.05/(1 - 0.9**t) * m / (np.sqrt(v)/np.sqrt(1 - 0.999**t) + 1e-8)
    #[test]
    fn ten_steps_agree_with_numpy() {
        let mut adam = Adam::default();
        let parameter = ten_steps(&mut adam);
        let expected = [0.492_356_26, -1.004_846, 1.546_699_8, -0.392_294_38];
        assert_close(parameter.value.data(), &expected, 1e-6);
        let moments = adam.state.moments[0].as_ref().unwrap();
        assert_eq!(moments.step, 10);
        let first = [0.556_519, 1.327_974_8, 1.029_899_6, 0.041_381_06];
        assert_close(moments.first.data(), &first, 1e-6);
        let second = [6.690_670_5e-3, 3.838_613e-2, 4.916_979_2e-2, 3.841_762_5e-5];
        assert_close(moments.second.data(), &second, 1e-6);
    }

    #[test]
    fn ten_steps_with_weight_decay_agree_with_numpy() {
        let parameter = ten_steps(&mut Adam::new([0.9, 0.999], 1e-8, 0.1));
        let expected = [0.491_912_73, -1.004_401_3, 1.543_043_4, -0.407_065_7];
        assert_close(parameter.value.data(), &expected, 1e-6);
    }

    #[test]
    fn the_first_step_is_as_long_as_the_learning_rate() {
        // Bias correction makes m / sqrt(v) the sign of the gradient.
        let mut parameters = [Parameter::new("p", Tensor::zeros(&[2]))];
        let gradients = given(&parameters, &[Some(vec![5.0, -0.001])]);
        Adam::default()
            .step(&mut parameters, &gradients, 0.1)
            .unwrap();
        assert_close(parameters[0].value.data(), &[-0.1, 0.1], 1e-5);
    }

    #[test]
    fn a_parameter_without_gradient_keeps_its_bits_and_its_leaf() {
        let mut parameters = [
            Parameter::new("moves", Tensor::full(&[2], 1.0)),
            Parameter::new("stays", Tensor::full(&[3], 0.3)),
        ];
        let stays = parameters[1].value.id();
        let gradients = given(&parameters, &[Some(vec![1.0, 1.0]), None]);
        let mut adam = Adam::new([0.9, 0.999], 1e-8, 0.1);
        adam.step(&mut parameters, &gradients, 0.1).unwrap();
        assert_eq!(parameters[1].value.id(), stays);
        assert_eq!(parameters[1].value.data(), [0.3; 3]);
        assert!(adam.state.moments[1].is_none());
        assert!(parameters[0].value.requires_gradient());
        assert!(parameters[0].value.data()[0] < 1.0);
    }

    #[test]
    fn a_broken_gradient_changes_nothing_and_is_named() {
        let mut parameters = [
            Parameter::new("good", Tensor::full(&[1], 1.0)),
            Parameter::new("bad", Tensor::full(&[1], 1.0)),
        ];
        let gradients = given(&parameters, &[Some(vec![1.0]), Some(vec![f32::NAN])]);
        let mut adam = Adam::default();
        let error = adam.step(&mut parameters, &gradients, 0.1).unwrap_err();
        assert!(error.to_string().contains("gradient of bad"), "{error}");
        assert!(parameters.iter().all(|p| p.value.data() == [1.0]));
        assert!(adam.state.moments.is_empty());
    }

    #[test]
    fn clipping_reports_the_norm_it_found() {
        let mut parameters = [Parameter::new("p", Tensor::zeros(&[2]))];
        let gradients = given(&parameters, &[Some(vec![3.0, 4.0])]);
        let mut adam = Adam::default().with_clip_norm(1.0);
        let report = adam.step(&mut parameters, &gradients, 0.1).unwrap();
        assert!((report.gradient_norm - 5.0).abs() < 1e-12);
        let first = &adam.state.moments[0].as_ref().unwrap().first;
        assert_close(first.data(), &[0.06, 0.08], 1e-6);
    }

    #[test]
    fn a_restored_state_continues_to_the_bit_and_a_foreign_one_is_refused() {
        let mut adam = Adam::default();
        ten_steps(&mut adam);
        let mut restored = Adam {
            state: adam.state.clone(),
            ..Adam::default()
        };
        let go_on = |adam: &mut Adam| ten_steps(adam).value.into_data();
        assert_eq!(go_on(&mut adam), go_on(&mut restored));

        let mut parameters = [Parameter::new("p", Tensor::zeros(&[3]))];
        let gradients = given(&parameters, &[Some(vec![1.0; 3])]);
        assert!(adam.step(&mut parameters, &gradients, 0.1).is_err());
    }
}
