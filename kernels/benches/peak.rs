//! What the convolutions of the published network reach of what this machine can do:
//! `cargo bench -p crossfix-kernels --bench peak -- [THREADS [REPEATS]] [narrow]
//! [only=NAME]`, where `narrow` keeps to AVX2 and NAME is part of a shape's name.
//!
//! The peak is that of independent fused multiply-adds in the widest vectors that the run-time
//! choice takes, on as many threads; bandwidth is that of a copy between arrays as large as the
//! operation's input and output. What binds is the lesser of the peak and of what that bandwidth
//! allows when input, weight and output move once. Least time of the repeats throughout: on a
//! machine that does other work, run it with real-time priority (`chrt -f 5`).

mod shapes;

use crossfix_kernels::testing::noise;
use crossfix_kernels::{Tape, ops};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use shapes::{SHAPES, Shape};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let threads = numbers.next().unwrap_or(1);
    let repeats = numbers.next().unwrap_or(10);
    crossfix_kernels::simd::narrow(std::env::args().any(|argument| argument == "narrow"));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("threads").install(|| report(threads, repeats));
}

fn report(threads: usize, repeats: usize) {
    let megabytes = 1 << 20;
    println!(
        "{threads} threads: FMA peak {:.1} GFLOP/s; copy of 64 MB {:.1} GB/s, of 1 MB {:.1} GB/s",
        (0..repeats)
            .map(|_| peak(threads, 1 << 20))
            .fold(0.0, f64::max),
        copy_bandwidth(16 * megabytes, 16 * megabytes, repeats),
        copy_bandwidth(megabytes / 4, megabytes / 4, 20 * repeats),
    );
    println!(
        "share of the peak, which is measured beside each shape as the clock moves, and of what binds"
    );
    println!(
        "{:30} {:>6} {:>8} {:>5} {:>4} {:>9} {:>5} {:>4} {:>9} {:>5} {:>4}",
        "GFLOP/s",
        "peak",
        "forward",
        "peak",
        "roof",
        "input",
        "peak",
        "roof",
        "weight",
        "peak",
        "roof"
    );
    let only = std::env::args().filter_map(|a| Some(a.strip_prefix("only=")?.to_owned()));
    let only: Vec<String> = only.collect();
    for shape in SHAPES {
        if !only.is_empty() && !only.iter().any(|only| shape.name().contains(only)) {
            continue;
        }
        let input_len: usize = shape.input().iter().product();
        let weight_len: usize = shape.weight().iter().product();
        let bandwidth = copy_bandwidth(input_len, shape.output_len(), repeats);
        let bytes = 4.0 * (input_len + weight_len + shape.output_len()) as f64;
        let ([forward, weight, both], peak) = times_s(shape, threads, repeats);
        let bound = peak.min(bandwidth * shape.flop() / bytes);
        let line: String = [forward, both - weight, weight]
            .iter()
            .map(|seconds| {
                let rate = shape.flop() / seconds / 1e9;
                let (of_peak, of_bound) = (100.0 * rate / peak, 100.0 * rate / bound);
                format!(" {rate:8.1} {of_peak:5.0} {of_bound:5.0}")
            })
            .collect();
        println!("{:30} {peak:6.1}{line}", shape.name());
    }
}

/// Seconds of the forward pass, of the weight's gradient, and of both gradients; and the best GFLOP/s
/// of multiplications in registers in between.
fn times_s(shape: &Shape, threads: usize, repeats: usize) -> ([f64; 3], f64) {
    let (input, weight) = (noise(&shape.input(), 1), noise(&shape.weight(), 2));
    let options = shape.options();
    let weight = weight.with_gradient();
    let leaf = input.clone().with_gradient();
    let mut least = [f64::INFINITY; 3];
    let mut best = 0.0f64;
    for _ in 0..repeats {
        best = best.max(peak(threads, 1 << 18));
        for (input, place) in [(&input, 1), (&leaf, 2)] {
            let mut tape = Tape::training();
            let start = Instant::now();
            let output = ops::conv2d(&mut tape, input, &weight, None, &options);
            let output = output.expect("shapes that fit");
            least[0] = least[0].min(start.elapsed().as_secs_f64());
            let gradient = output.detach();
            let start = Instant::now();
            let gradients = tape.backward_from(&output, gradient);
            least[place] = least[place].min(start.elapsed().as_secs_f64());
            black_box(gradients.expect("a gradient"));
        }
    }
    (least, best)
}

/// GFLOP/s of all threads together.
fn peak(threads: usize, steps: usize) -> f64 {
    let start = Instant::now();
    let flop: usize = (0..threads)
        .into_par_iter()
        .with_max_len(1)
        .map(|_| arch().dispatch(Multiply { steps }))
        .sum();
    flop as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// The vectors that the convolutions take.
fn arch() -> Arch {
    #[cfg(target_arch = "x86_64")]
    if std::env::args().any(|argument| argument == "narrow")
        && let Some(avx2) = pulp::x86::V3::try_new()
    {
        return Arch::V3(avx2);
    }
    Arch::new()
}

struct Multiply {
    steps: usize,
}

impl WithSimd for Multiply {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        const SUMS: usize = 12;
        let factor = simd.splat_f32s(black_box(0.5));
        let mut sums = [simd.splat_f32s(black_box(1.0)); SUMS];
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, factor);
            }
        }
        black_box(sums);
        2 * SUMS * S::F32_LANES * self.steps
    }
}

/// GB/s read and written together, by all threads.
fn copy_bandwidth(from: usize, to: usize, repeats: usize) -> f64 {
    let source = vec![1.0f32; from.max(to)];
    let mut target = vec![0.0f32; to];
    // Reads all of a source that is larger than the target, several pieces onto one.
    let rounds = from.div_ceil(to);
    let mut least = f64::INFINITY;
    for _ in 0..repeats {
        let start = Instant::now();
        for round in 0..rounds {
            let source = &source[round * to..][..to.min(source.len() - round * to)];
            target
                .par_chunks_mut(16 * 1024)
                .zip(source.par_chunks(16 * 1024))
                .for_each(|(target, source)| target[..source.len()].copy_from_slice(source));
        }
        least = least.min(start.elapsed().as_secs_f64());
        black_box(&target);
    }
    4.0 * (rounds * to + from) as f64 / least / 1e9
}
