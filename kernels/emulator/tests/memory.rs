//! Memory and recorded steps behave on the emulator as on a GPU: the pool hands memory on, a
//! recording repeats its work on new inputs, and too much is refused with the way out.

use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::cuda::{Cuda, Step};
use crossfix_kernels::ops::{Augment, Augmented, Normalisation};
use crossfix_kernels::testing::{assert_close, noise};
use crossfix_kernels::{Device, Error, Pixels, Tape, Tensor, ops};

fn emulated(options: Options) -> (Cuda, Device) {
    let cuda = Cuda::with_driver(Box::new(Emulator::new(options)));
    (cuda.clone(), Device::Cuda(cuda))
}

/// Output and gradient of a small network, wherever `x` lies.
fn step(x: &Tensor) -> Result<Vec<Tensor>, Error> {
    let x = x.clone().with_gradient();
    let mut tape = Tape::training();
    let y = ops::silu(&mut tape, &x)?;
    let y = ops::roll(&mut tape, &y, 1, 3)?;
    let y = ops::add(&mut tape, &y, &x)?;
    let gradients = tape.backward_from(&y, y.detach())?;
    let gradient = gradients.get(&x).expect("x has one").clone();
    Ok(vec![y, gradient])
}

#[test]
fn a_recorded_step_repeats_its_work_on_new_inputs() {
    for checked in [false, true] {
        let (cuda, device) = emulated(Options {
            schedule: Schedule::Random(3),
            checked,
            ..Options::default()
        });
        let first = noise(&[4, 30], 1).to(&device).unwrap();
        step(&first).unwrap();
        let mut recorded = Step::record(&cuda, &[first], |x| step(&x[0])).unwrap();
        let allocations = cuda.memory().allocations;
        for seed in 2..5 {
            let x = noise(&[4, 30], seed);
            let expected = step(&x).unwrap();
            let got = recorded.run(&[x]).unwrap();
            for (got, expected) in got.iter().zip(&expected) {
                assert_close(&got.to_vec().unwrap(), expected.data(), 2e-6);
            }
        }
        assert_eq!(cuda.memory().allocations, allocations);
    }
}

/// Images as bytes and how each is changed, both inputs of a step: what arrives for one replay is
/// in no other.
#[test]
fn a_recorded_step_takes_bytes_and_their_augmentation() {
    const SHAPE: [usize; 4] = [2, 3, 4, 9];
    let how = Normalisation {
        mean: [0.4, 0.5, 0.6],
        sigma: [0.2, 0.3, 0.25],
        bf16: false,
    };
    let normalised = |images: &Pixels, samples: &Tensor| {
        let augment = Augmented {
            samples,
            wraps: true,
        };
        ops::normalise_images(images, &how, Some(augment))
    };
    let bytes = |seed: usize| {
        let bytes = (0..2 * 3 * 4 * 9).map(|i| ((i + seed) * 7919 % 256) as u8);
        Pixels::new(bytes.collect(), SHAPE).unwrap()
    };
    let augment = |seed: i32| {
        let sample = |roll: i32| Augment {
            roll,
            saturation: 0.5 + 0.1 * seed as f32,
            gain: [1.1, 0.9, 0.1 * seed as f32],
            offset: 5.0 * seed as f32,
        };
        Augment::tensor(&[sample(seed), sample(-2 * seed)])
    };
    for seed in [1, 2] {
        let (cuda, device) = emulated(Options {
            schedule: Schedule::Random(seed),
            checked: true,
            ..Options::default()
        });
        // Launched once, so that the kernel is compiled.
        let [there, numbers] = [(); 2].map(|()| augment(0).to(&device).unwrap());
        normalised(&bytes(0).to(&device).unwrap(), &numbers).unwrap();
        let work =
            |x: &[Tensor], images: &[Pixels]| Ok::<_, Error>(vec![normalised(&images[0], &x[0])?]);
        let mut recorded = Step::record_with(&cuda, &[there], &[bytes(0)], work).unwrap();
        for step in 1..6 {
            let (images, numbers) = (bytes(step), augment(step as i32));
            let expected = normalised(&images, &numbers).unwrap();
            let launched = normalised(&images.to(&device).unwrap(), &numbers.to(&device).unwrap());
            let launched = launched.unwrap().to_vec().unwrap();
            // Sometimes the bytes lie on the device already.
            let images = if step == 4 {
                images.to(&device).unwrap()
            } else {
                images
            };
            let got = recorded.run_with(&[numbers], &[images]).unwrap()[0]
                .to_vec()
                .unwrap();
            assert_eq!(got, launched, "step {step}");
            assert_close(&got, expected.data(), 2e-6);
        }
    }
}

#[test]
fn reading_a_value_while_recording_is_refused() {
    let (cuda, device) = emulated(Options::default());
    let x = noise(&[8], 1).to(&device).unwrap();
    let said = cuda.capture(|| x.to_vec()).err().expect("refused");
    assert!(said.to_string().contains("recorded"), "{said}");
    // The recording has ended, and the device works on.
    assert_close(&x.to_vec().unwrap(), noise(&[8], 1).data(), 0.0);
}

#[test]
fn memory_handed_on_holds_nothing_of_its_last_owner() {
    let (cuda, _) = emulated(Options::default());
    let address = |values: &[f32]| {
        let buffer = cuda.upload(values).unwrap();
        format!("{buffer:?}")
    };
    let first = address(&[1.0; 100]);
    let reused = cuda.any::<f32>(100).unwrap();
    assert_eq!(format!("{reused:?}"), first, "the pool reuses memory");
    assert!(reused.to_vec().unwrap().iter().all(|v| v.is_nan()));
}

#[test]
fn more_memory_than_there_is_is_refused_with_the_way_out() {
    let (cuda, device) = emulated(Options {
        memory_bytes: 1 << 20,
        ..Options::default()
    });
    let half = device.full(&[1 << 17], 0.0).unwrap();
    let said = device.full(&[1 << 18], 0.0).unwrap_err();
    assert!(matches!(said, Error::OutOfMemory { .. }), "{said:?}");
    assert!(said.to_string().contains("smaller batch"), "{said}");
    // What is dropped makes room for other sizes.
    drop(half);
    device.full(&[1 << 18], 0.0).unwrap();
    assert!(cuda.memory().in_use <= 1 << 20);
}

#[test]
fn a_kernel_that_does_not_compile_is_named_with_the_way_out() {
    let (_, device) = emulated(Options {
        broken_kernel: Some("roll_forward"),
        ..Options::default()
    });
    let x = noise(&[8], 1).to(&device).unwrap();
    let said = ops::roll(&mut Tape::inference(), &x, 0, 1).unwrap_err();
    assert!(matches!(said, Error::Compile { .. }), "{said:?}");
    let said = said.to_string();
    assert!(
        said.contains("ops/roll.cu") && said.contains("--device cpu"),
        "{said}"
    );
}
