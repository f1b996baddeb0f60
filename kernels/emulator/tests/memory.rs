//! Memory and recorded steps behave on the emulator as on a card: the pool hands memory on, a
//! recording repeats its work on new inputs, and too much is refused with the way out.

use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::cuda::{Cuda, Step};
use crossfix_kernels::testing::{assert_close, noise};
use crossfix_kernels::{Device, Error, Tape, Tensor, ops};

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
