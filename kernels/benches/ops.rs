//! The convolutions of the published network, and the other operations of a training step:
//! `cargo bench -p crossfix-kernels --bench ops`. Throughput is in operations (one multiply-add is
//! two) or elements. `RAYON_NUM_THREADS` sets the threads.

mod shapes;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossfix_kernels::ops::{self, Activation, BatchNormMode, RunningStatistics};
use crossfix_kernels::optim::{Adam, Parameter};
use crossfix_kernels::testing::noise;
use crossfix_kernels::{Tape, Tensor};
use std::time::Duration;

fn convolutions(criterion: &mut Criterion) {
    for shape in shapes::SHAPES {
        let input = noise(&shape.input(), 1).with_gradient();
        let weight = noise(&shape.weight(), 2).with_gradient();
        let options = shape.options();
        let mut group = criterion.benchmark_group("conv2d");
        group.throughput(Throughput::Elements(shape.flop() as u64));
        group.bench_function(BenchmarkId::new("forward", shape.name()), |bencher| {
            bencher.iter(|| {
                let mut tape = Tape::inference();
                ops::conv2d(&mut tape, &input, &weight, None, &options).expect("shapes that fit")
            });
        });
        group.throughput(Throughput::Elements(3 * shape.flop() as u64));
        group.bench_function(BenchmarkId::new("with backward", shape.name()), |bencher| {
            let gradient = {
                let mut tape = Tape::inference();
                let output = ops::conv2d(&mut tape, &input, &weight, None, &options);
                noise(output.expect("shapes that fit").shape(), 3)
            };
            bencher.iter(|| {
                let mut tape = Tape::training();
                let output = ops::conv2d(&mut tape, &input, &weight, None, &options);
                let output = output.expect("shapes that fit");
                tape.backward_from(&output, gradient.clone())
                    .expect("a gradient")
            });
        });
    }
}

fn others(criterion: &mut Criterion) {
    let image = noise(&[1, 144, 128, 128], 1).with_gradient();
    let (gamma, beta) = (Tensor::full(&[144], 1.0), Tensor::zeros(&[144]));
    let mut group = criterion.benchmark_group("others");
    group.throughput(Throughput::Elements(image.len() as u64));
    let gradient = noise(image.shape(), 2);
    group.bench_function("batch norm + silu 144 @128, with backward", |bencher| {
        bencher.iter(|| {
            let mut tape = Tape::training();
            let output = ops::batch_norm(
                &mut tape,
                &image,
                &gamma,
                &beta,
                &mut RunningStatistics::new(144),
                BatchNormMode::Train { momentum: 0.01 },
                1e-3,
                Activation::Silu,
            );
            tape.backward_from(&output.expect("shapes that fit"), gradient.clone())
                .expect("a gradient")
        });
    });
    let weights = [
        noise(&[6, 144], 3),
        noise(&[6], 4),
        noise(&[144, 6], 5),
        noise(&[144], 6),
    ];
    group.bench_function("squeeze-excite 144 @128, with backward", |bencher| {
        bencher.iter(|| {
            let mut tape = Tape::training();
            let [a, b, c, d] = &weights;
            let output = ops::squeeze_excite(&mut tape, &image, a, b, c, d);
            tape.backward_from(&output.expect("shapes that fit"), gradient.clone())
                .expect("a gradient")
        });
    });
    group.bench_function("adam, as many parameters", |bencher| {
        let mut parameters = vec![Parameter::new("image", image.clone())];
        let mut adam = Adam::default();
        bencher.iter(|| {
            let mut tape = Tape::training();
            let output = ops::scale(&mut tape, &parameters[0].value, 1.0).expect("any shape");
            let gradients = tape.backward_from(&output, gradient.clone());
            adam.step(&mut parameters, &gradients.expect("a gradient"), 1e-3)
        });
    });
    let (aerial, ground) = (noise(&[1, 320, 32, 32], 7), noise(&[1, 320], 8));
    let shifts: Vec<isize> = (0..20).map(|bin| bin * 16).collect();
    group.throughput(Throughput::Elements((2 * 20 * aerial.len()) as u64));
    group.bench_function("rolled matching 320 @32, 20 bins", |bencher| {
        bencher.iter(|| {
            let mut tape = Tape::inference();
            ops::rolled_matching(&mut tape, &aerial, &ground, &shifts, 0)
        });
    });
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = convolutions, others
}
criterion_main!(all);
