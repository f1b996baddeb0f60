//! Adam on a device moves parameters as it does on the CPU.

use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::cuda::Cuda;
use crossfix_kernels::ops::RunningStatistics;
use crossfix_kernels::optim::{Adam, Guard, Parameter};
use crossfix_kernels::testing::{assert_close, noise};
use crossfix_kernels::{Device, Gradients, Result, Tape, Tensor};

fn emulated(seed: u64) -> Device {
    let options = Options {
        schedule: Schedule::Random(seed),
        ..Options::default()
    };
    Device::Cuda(Cuda::with_driver(Box::new(Emulator::new(options))))
}

/// More than one launch's worth, of many sizes, two of them for several blocks; the last never has a
/// gradient.
fn parameters(device: &Device) -> Vec<Parameter> {
    (0..70)
        .map(|i| {
            let shape = match i {
                3 => [9 * 8192 + 3],
                40 => [2 * 8192],
                _ => [1 + i as usize * 37 % 500],
            };
            let value = noise(&shape, i).to(device).unwrap();
            Parameter::new(format!("p{i}"), value)
        })
        .collect()
}

/// One step with gradients drawn from `seed`, those of `broken` not a number.
fn step(
    adam: &mut Adam,
    parameters: &mut [Parameter],
    seed: u64,
    broken: Option<usize>,
) -> Result<f64> {
    let gradients = gradients(parameters, seed, broken)?;
    Ok(adam.step(parameters, &gradients, 0.01)?.gradient_norm)
}

fn gradients(parameters: &[Parameter], seed: u64, broken: Option<usize>) -> Result<Gradients> {
    let mut tape = Tape::training();
    let mut loss = Tensor::scalar(0.0);
    let leaves: Vec<&Tensor> = parameters.iter().map(|p| &p.value).collect();
    let gradient = |(i, leaf): (usize, &&Tensor)| {
        if i + 1 == leaves.len() {
            return Ok(None);
        }
        let gradient = match broken {
            Some(broken) if broken == i => Tensor::full(leaf.shape(), f32::NAN),
            _ => noise(leaf.shape(), seed + 1000 * i as u64),
        };
        gradient.to(&leaf.device()).map(Some)
    };
    let gradients: Result<Vec<_>> = leaves.iter().enumerate().map(gradient).collect();
    tape.record(&mut loss, &leaves, move |_| gradients);
    tape.backward(&loss)
}

#[test]
fn ten_clipped_steps_with_weight_decay_agree_with_the_processor() {
    let adam = || Adam::new([0.9, 0.999], 1e-8, 0.01).with_clip_norm(1.0);
    let (mut here, mut there) = (adam(), adam());
    let device = emulated(1);
    let (mut ours, mut theirs) = (parameters(&Device::Cpu), parameters(&device));
    for seed in 0..10 {
        let norm = step(&mut here, &mut ours, seed, None).unwrap();
        let got = step(&mut there, &mut theirs, seed, None).unwrap();
        assert!((got / norm - 1.0).abs() < 1e-6, "{got} is not {norm}");
    }
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_close(&theirs.value.to_vec().unwrap(), ours.value.data(), 1e-6);
        assert!(theirs.value.requires_gradient());
    }
    let untouched = noise(ours[69].value.shape(), 69);
    assert_eq!(theirs[69].value.to_vec().unwrap(), untouched.data());
    assert!(there.state.moments[69].is_none());
    for (here, there) in here.state.moments.iter().zip(&there.state.moments).take(69) {
        let (here, there) = (here.as_ref().unwrap(), there.as_ref().unwrap());
        assert_eq!(there.step, 10);
        assert_close(&there.first.to_vec().unwrap(), here.first.data(), 1e-6);
        assert_close(&there.second.to_vec().unwrap(), here.second.data(), 1e-6);
    }
}

#[test]
fn a_broken_gradient_is_named_and_changes_nothing() {
    let device = emulated(2);
    let mut adam = Adam::default();
    let mut parameters = parameters(&device);
    for steps_before in [0, 1] {
        let before: Vec<Vec<f32>> = values(&parameters);
        let error = step(&mut adam, &mut parameters, 5, Some(66)).unwrap_err();
        assert!(error.to_string().contains("gradient of p66"), "{error}");
        assert_eq!(values(&parameters), before);
        match adam.state.moments.first() {
            None => assert_eq!(steps_before, 0),
            Some(moments) => assert_eq!(moments.as_ref().unwrap().step, steps_before),
        }
        step(&mut adam, &mut parameters, 6, None).unwrap();
    }
}

/// The loss and the gradients of each step; the loss of step 3 is not finite though its gradients
/// are, which no optimiser would notice.
#[test]
fn a_guard_keeps_the_last_good_state_and_the_log_of_the_steps_before() {
    let Device::Cuda(cuda) = emulated(4) else {
        unreachable!()
    };
    let device = Device::Cuda(cuda.clone());
    let mut adam = Adam::default();
    let mut parameters = parameters(&device);
    step(&mut adam, &mut parameters, 0, None).unwrap();
    // More than one launch's worth; each has its own memory.
    let fresh = |_| RunningStatistics::new(70).to(&device).unwrap();
    let mut statistics: Vec<_> = (0..40).map(fresh).collect();
    let mut guard = Guard::new(&cuda, 2, 4, parameters.len(), &statistics).unwrap();
    let mut good = None;
    for number in 1..=5u32 {
        let loss = if number == 3 {
            f32::INFINITY
        } else {
            number as f32
        };
        let row = Tensor::new(vec![loss, -1.0], &[2])
            .unwrap()
            .to(&device)
            .unwrap();
        for statistics in &mut statistics {
            statistics.mean = Tensor::full(&[70], number as f32).to(&device).unwrap();
        }
        let gradients = gradients(&parameters, u64::from(number), None).unwrap();
        let coefficients = adam.begin_step(0.01).unwrap().to(&device).unwrap();
        let watched = (&mut guard, &row);
        adam.enqueue_guarded(&mut parameters, &gradients, &coefficients, watched)
            .unwrap();
        guard.keep(&mut statistics).unwrap();
        if number == 2 {
            good = Some(values(&parameters));
        }
    }
    let report = guard.begin_report().unwrap().wait().unwrap();
    assert!(report.stopped);
    assert_eq!(report.steps, 2);
    assert_eq!(report.values(0)[..2], [1.0, -1.0]);
    assert_eq!(report.values(1)[..2], [2.0, -1.0]);
    assert_eq!(report.values(2)[0], f32::INFINITY);
    assert!(report.values(1)[2] > 0.0, "the length of the gradients");
    assert_eq!(values(&parameters), good.unwrap());
    for statistics in &statistics {
        assert_eq!(statistics.mean.to_vec().unwrap(), [2.0; 70]);
        assert_eq!(statistics.variance.to_vec().unwrap(), [1.0; 70]);
    }
    let lengths = guard.broken_lengths().unwrap();
    assert_eq!(lengths.len(), 71);
    assert!(lengths.iter().all(|length| length.is_finite()) && lengths[0] > 0.0);
}

fn values(parameters: &[Parameter]) -> Vec<Vec<f32>> {
    parameters
        .iter()
        .map(|p| p.value.to_vec().unwrap())
        .collect()
}
