//! The inner loop: output channels times pixels, in vector registers.
//!
//! Every sum runs over its taps in order with one fused multiply-add each, so the result does not
//! depend on the width of the vectors.

use pulp::{Arch, Simd, WithSimd};

/// Output channels that share their taps' pixels; channel counts are rounded up to it.
const UNIT: usize = 4;
/// Pixels that every tile width divides. Images need this many values behind them, and rows of sums
/// are a multiple of it.
pub(super) const SLACK: usize = 96;
/// Taps of a sum that are in the cache together, at most.
const DEPTH: usize = 384;

/// A convolution's numbers in the order in which the loop reads them.
#[derive(Debug)]
pub(super) struct Weights {
    /// For each unit of output channels, for each tap, one weight of each channel.
    units: Vec<Vec<[f32; UNIT]>>,
    bias: Vec<[f32; UNIT]>,
}

impl Weights {
    /// From `weight` [output, tap].
    pub fn new(weight: &[f32], bias: &[f32]) -> Self {
        let taps = weight.len() / bias.len();
        let of = |values: &dyn Fn(usize) -> f32, unit: usize| {
            std::array::from_fn(|row| {
                let output = unit * UNIT + row;
                if output < bias.len() {
                    values(output)
                } else {
                    0.0
                }
            })
        };
        let units = 0..bias.len().div_ceil(UNIT);
        Self {
            units: units
                .clone()
                .map(|unit| {
                    let tap = |tap: usize| of(&|output| weight[output * taps + tap], unit);
                    (0..taps).map(tap).collect()
                })
                .collect(),
            bias: units.map(|unit| of(&|output| bias[output], unit)).collect(),
        }
    }

    /// Rows of sums: output channels, rounded up.
    pub fn rows(&self) -> usize {
        self.units.len() * UNIT
    }
}

/// Writes bias + Σ weight · image[tap + pixel] to `sums`, a row of `step` for each output channel.
pub(super) fn multiply(
    weights: &Weights,
    taps: &[usize],
    image: &[f32],
    sums: &mut [f32],
    step: usize,
) {
    Arch::new().dispatch(Product {
        weights,
        taps,
        image,
        sums,
        step,
    });
}

struct Product<'a> {
    weights: &'a Weights,
    taps: &'a [usize],
    image: &'a [f32],
    sums: &'a mut [f32],
    step: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums as the registers hold: the match is decided at compile time.
        match S::F32_LANES {
            16 => self.tiles::<S, 2, 3>(simd),
            8 => self.tiles::<S, 3, 1>(simd),
            _ => self.tiles::<S, 3, 2>(simd),
        }
    }
}

impl Product<'_> {
    /// Tiles of `N` vectors of pixels and up to `U` units of output channels.
    #[inline(always)]
    fn tiles<S: Simd, const N: usize, const U: usize>(mut self, simd: S) {
        let pieces = self.taps.len().div_ceil(DEPTH);
        let depth = self.taps.len().div_ceil(pieces);
        for from in (0..self.taps.len()).step_by(depth) {
            for pixel in (0..self.step).step_by(N * S::F32_LANES) {
                let units = self.weights.units.len();
                let mut unit = 0;
                while unit < units {
                    // Two middling tiles keep the registers busier than a large and a small one.
                    unit += match units - unit {
                        2 | 4 if U >= 2 => self.tile::<S, N, 2>(simd, from, depth, pixel, unit),
                        1 => self.tile::<S, N, 1>(simd, from, depth, pixel, unit),
                        _ => self.tile::<S, N, U>(simd, from, depth, pixel, unit),
                    };
                }
            }
        }
    }

    /// Adds the taps `from..from + depth`; returns the number of units it took.
    #[inline(always)]
    fn tile<S: Simd, const N: usize, const U: usize>(
        &mut self,
        simd: S,
        from: usize,
        depth: usize,
        pixel: usize,
        unit: usize,
    ) -> usize {
        let taps = &self.taps[from..(from + depth).min(self.taps.len())];
        let weights: [&[[f32; UNIT]]; U] =
            std::array::from_fn(|u| &self.weights.units[unit + u][from..][..taps.len()]);
        let image = &self.image[pixel..];
        let row = |u: usize, r: usize| ((unit + u) * UNIT + r) * self.step + pixel;
        let mut sums: [[[S::f32s; N]; UNIT]; U] = std::array::from_fn(|u| {
            std::array::from_fn(|r| {
                if from == 0 {
                    [simd.splat_f32s(self.weights.bias[unit + u][r]); N]
                } else {
                    let (kept, _) = S::as_simd_f32s(&self.sums[row(u, r)..][..N * S::F32_LANES]);
                    std::array::from_fn(|n| kept[n])
                }
            })
        });
        for (k, tap) in taps.iter().enumerate() {
            let (values, _) = S::as_simd_f32s(&image[*tap..][..N * S::F32_LANES]);
            let values: [S::f32s; N] = std::array::from_fn(|n| values[n]);
            for (sums, weights) in sums.iter_mut().zip(weights) {
                for (sums, weight) in sums.iter_mut().zip(weights[k]) {
                    let weight = simd.splat_f32s(weight);
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = simd.mul_add_f32s(weight, value, *sum);
                    }
                }
            }
        }
        for u in 0..U {
            for r in 0..UNIT {
                let at = row(u, r);
                let kept = &mut self.sums[at..at + N * S::F32_LANES];
                let (kept, _) = S::as_mut_simd_f32s(kept);
                kept[..N].copy_from_slice(&sums[u][r]);
            }
        }
        U
    }
}
