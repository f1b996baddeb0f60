//! The numbers of a network: named parameters and batch-norm statistics, and how they begin.

use crossfix_kernels::optim::Parameter;
use crossfix_kernels::{Device, Result, Tensor, ops::RunningStatistics};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Named parameters and running statistics, in the order the network was built.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    parameters: Vec<Parameter>,
    statistics_names: Vec<String>,
    statistics: Vec<RunningStatistics>,
}

/// Points at one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterId(usize);

/// Points at the statistics of one batch norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatisticsId(usize);

impl Parameters {
    /// The value of one parameter, a leaf of the tape.
    pub fn value(&self, id: ParameterId) -> &Tensor {
        &self.parameters[id.0].value
    }

    /// The name of one parameter.
    pub fn name(&self, id: ParameterId) -> &str {
        &self.parameters[id.0].name
    }

    /// The statistics of one batch norm.
    pub fn statistics(&self, id: StatisticsId) -> &RunningStatistics {
        &self.statistics[id.0]
    }

    /// The statistics of one batch norm, to update in training.
    pub fn statistics_mut(&mut self, id: StatisticsId) -> &mut RunningStatistics {
        &mut self.statistics[id.0]
    }

    /// All parameters, in order.
    pub fn all(&self) -> &[Parameter] {
        &self.parameters
    }

    /// All parameters, for the optimiser.
    pub fn all_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    /// Names of the batch norms, in order; their tensors are `NAME.running_mean` and
    /// `NAME.running_var`.
    pub fn statistics_names(&self) -> &[String] {
        &self.statistics_names
    }

    /// All statistics, in the order of [`Parameters::statistics_names`].
    pub fn all_statistics(&self) -> &[RunningStatistics] {
        &self.statistics
    }

    /// All statistics, to load.
    pub fn all_statistics_mut(&mut self) -> &mut [RunningStatistics] {
        &mut self.statistics
    }

    /// Where the numbers are, and so where the network runs.
    pub fn device(&self) -> Device {
        let first = self.parameters.first();
        first.map_or(Device::Cpu, |parameter| parameter.value.device())
    }

    /// Moves all numbers; the network runs there from now on.
    ///
    /// # Errors
    /// The device's own, such as no memory; the numbers are then where they were.
    pub fn move_to(&mut self, device: &Device) -> Result<()> {
        let values = self.parameters.iter().map(|p| p.value.to(device));
        let values = values.collect::<Result<Vec<_>>>()?;
        let statistics = self.statistics.iter().map(|s| s.to(device));
        self.statistics = statistics.collect::<Result<Vec<_>>>()?;
        for (parameter, value) in self.parameters.iter_mut().zip(values) {
            parameter.value = value.with_gradient();
        }
        Ok(())
    }

    /// Number of trainable values.
    pub fn count(&self) -> usize {
        self.parameters.iter().map(|p| p.value.len()).sum()
    }
}

/// Adds parameters with seeded starting values.
pub(crate) struct Builder {
    parameters: Parameters,
    rng: ChaCha8Rng,
}

impl Builder {
    pub fn new(seed: u64) -> Self {
        Self {
            parameters: Parameters::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    pub fn finish(self) -> Parameters {
        self.parameters
    }

    /// Uniform with the variance 2/`fan_in` (He et al. 2015), which keeps the size of the
    /// activations through rectified layers.
    pub fn weight(&mut self, name: String, shape: &[usize], fan_in: usize) -> ParameterId {
        let bound = (6.0 / fan_in as f32).sqrt();
        let data = (0..shape.iter().product::<usize>())
            .map(|_| self.rng.random_range(-bound..bound))
            .collect();
        self.add(name, data, shape)
    }

    pub fn constant(&mut self, name: String, length: usize, value: f32) -> ParameterId {
        self.add(name, vec![value; length], &[length])
    }

    /// A number without axes.
    pub fn scalar(&mut self, name: String, value: f32) -> ParameterId {
        self.add(name, vec![value], &[])
    }

    pub fn statistics(&mut self, name: String, channels: usize) -> StatisticsId {
        self.parameters.statistics_names.push(name);
        self.parameters
            .statistics
            .push(RunningStatistics::new(channels));
        StatisticsId(self.parameters.statistics.len() - 1)
    }

    fn add(&mut self, name: String, data: Vec<f32>, shape: &[usize]) -> ParameterId {
        let value = Tensor::new(data, shape).expect("as many values as the shape holds");
        let all = &mut self.parameters.parameters;
        all.push(Parameter::new(name, value));
        ParameterId(all.len() - 1)
    }
}
