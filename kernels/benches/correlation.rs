//! How long the spatial correlation takes directly and through spectra, forward and with its
//! gradients, at the published sizes of GGCVT and around the crossing point.
//!
//! `cargo bench -p crossfix-kernels --bench correlation`

use crossfix_kernels::ops::{Correlation, spatial_correlation};
use crossfix_kernels::{Result, Tape, testing::noise};
use std::time::Instant;

fn main() -> Result<()> {
    println!("channels template  map   direct ms  spectra ms  ratio   (with gradients)  chosen");
    let published = [(256, 25, 64), (128, 51, 128), (64, 102, 256)];
    let small = [
        (16, 3, 16),
        (16, 5, 16),
        (16, 8, 16),
        (16, 5, 32),
        (16, 8, 32),
        (16, 13, 32),
    ];
    for (channels, template, map) in published.into_iter().chain(small) {
        let inputs = [
            noise(&[1, channels, template, template], 1).with_gradient(),
            noise(&[1, channels, map, map], 2).with_gradient(),
        ];
        let forward = |method| {
            fastest(map, || {
                let tape = &mut Tape::inference();
                spatial_correlation(tape, &inputs[0], &inputs[1], method).map(drop)
            })
        };
        let both = |method| {
            fastest(map, || {
                let mut tape = Tape::training();
                let y = spatial_correlation(&mut tape, &inputs[0], &inputs[1], method)?;
                let gradient = noise(y.shape(), 3);
                tape.backward_from(&y, gradient).map(drop)
            })
        };
        let methods = [Correlation::Direct, Correlation::Fourier];
        let [direct, fourier] = methods.map(forward);
        let [direct_both, fourier_both] = methods.map(both);
        let chosen = forward(Correlation::Fastest)?;
        let (direct, fourier) = (direct?, fourier?);
        println!(
            "{channels:8} {template:8} {map:4} {direct:11.3} {fourier:11.3} {:6.1}   {:7.1}          {}",
            direct / fourier,
            direct_both? / fourier_both?,
            if (chosen - direct).abs() < (chosen - fourier).abs() {
                "direct"
            } else {
                "spectra"
            },
        );
    }
    Ok(())
}

/// Milliseconds of the fastest of a few runs.
fn fastest(map: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..if map < 128 { 20 } else { 3 } {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
