//! The gradient of few weights: four outputs at a time against the whole image, which is small
//! enough to stay in the cache and is read in place.

use super::geometry::Geometry;
use crate::math::add_assign;
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};

/// Outputs at a time.
const ROWS: usize = 4;
/// Taps at a time, at most: five AVX-512 registers.
const SPAN: usize = 80;
/// Taps that every machine handles at once.
const UNIT: usize = 16;
/// Elements of an image that stay in the second-level cache.
const SMALL_IMAGE: usize = 128 * 1024;
/// Elements of an image that are read again and again, a few rows at a time.
const BAND: usize = 16 * 1024;
/// Outputs for which a larger image is not read too often.
const FEW_OUTPUTS: usize = 16;
/// Weights that do not repay the copies that the product of matrices makes.
const FEW_WEIGHTS: usize = 64 * 1024;

/// Whether this is the better way for this convolution.
pub(super) fn fits(g: &Geometry) -> bool {
    let image = g.padded_height() * g.padded_width() * g.channels;
    let (outputs, taps) = (g.outputs, g.group_taps());
    let few_passes = image <= SMALL_IMAGE || taps <= SPAN || outputs <= FEW_OUTPUTS;
    outputs * taps <= FEW_WEIGHTS && few_passes
}

/// Adds the gradient of one sample, for as many outputs as `gradient` has, to `found`
/// [output, kernel row, kernel column, channel of the group].
pub(super) fn add_weight_gradient(
    g: &Geometry,
    image: &[f32],
    gradient: &[f32],
    found: &mut [f32],
) {
    let (pixels, taps) = (g.output_pixels(), g.group_taps());
    let channels = g.channels / g.groups;
    let outputs = found.len() / taps / g.groups;
    let row_taps = g.kernel_width * channels;
    let span = balanced_span(row_taps);
    let line = g.padded_width() * channels;
    let band = (BAND / (g.stride * line)).clamp(1, g.output_height);
    let padded_len = ((band - 1) * g.stride + g.kernel_height) * line;
    scratch::with([padded_len + SPAN], |[padded]| {
        let groups = image
            .chunks_exact(channels * g.pixels())
            .zip(gradient.chunks_exact(outputs * pixels))
            .zip(found.chunks_exact_mut(outputs * taps));
        for ((image, gradient), found) in groups {
            for first_row in (0..g.output_height).step_by(band) {
                let rows = band.min(g.output_height - first_row);
                let there = ((rows - 1) * g.stride + g.kernel_height) * line;
                g.pad_interleaved(image, first_row * g.stride, &mut padded[..there]);
                let lines = Lines {
                    count: rows,
                    pixels: g.output_width,
                    line_step: g.stride * line,
                    pixel_step: g.stride * channels,
                };
                for first in (0..outputs).step_by(ROWS) {
                    // Beyond the last output, repeat it; those sums are dropped below.
                    let factors = std::array::from_fn(|row| {
                        let output = (first + row).min(outputs - 1);
                        &gradient[output * pixels + first_row * g.output_width..]
                            [..rows * g.output_width]
                    });
                    for ky in 0..g.kernel_height {
                        for from in (0..row_taps).step_by(span) {
                            let width = span.min(row_taps - from);
                            let values = &padded[ky * line + from..];
                            let mut sums = [[0.0; SPAN]; ROWS];
                            correlate(factors, values, lines, width, &mut sums);
                            for (output, sums) in (first..outputs).zip(&sums) {
                                let at = (output * g.kernel_height + ky) * row_taps + from;
                                add_assign(&mut found[at..at + width], &sums[..width]);
                            }
                        }
                    }
                }
            }
        }
    });
}

/// Cuts `taps` into as few spans as possible, about equally long.
fn balanced_span(taps: usize) -> usize {
    taps.div_ceil(taps.div_ceil(SPAN)).next_multiple_of(UNIT)
}

/// Where [`correlate`] finds its pixels: line by line, a fixed step apart.
#[derive(Clone, Copy)]
struct Lines {
    count: usize,
    pixels: usize,
    /// From one line to the next, and from one pixel to the next, in `values`.
    line_step: usize,
    pixel_step: usize,
}

/// `sums[r][j] = Σ over lines and pixels of factors[r][pixel] · values[pixel's place + j]`, for
/// the first `width` of j. `values` must extend [`SPAN`] beyond the last place.
fn correlate(
    factors: [&[f32]; ROWS],
    values: &[f32],
    lines: Lines,
    width: usize,
    sums: &mut [[f32; SPAN]; ROWS],
) {
    simd::dispatch(Correlate {
        factors,
        values,
        lines,
        width,
        sums,
    });
}

struct Correlate<'a> {
    factors: [&'a [f32]; ROWS],
    values: &'a [f32],
    lines: Lines,
    width: usize,
    sums: &'a mut [[f32; SPAN]; ROWS],
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let units = self.width.div_ceil(UNIT);
        match (S::F32_LANES, units) {
            (16, 1) => self.span::<S, 1>(simd, 0),
            (16, 2) => self.span::<S, 2>(simd, 0),
            (16, 3) => self.span::<S, 3>(simd, 0),
            (16, 4) => self.span::<S, 4>(simd, 0),
            (16, _) => self.span::<S, 5>(simd, 0),
            (8, _) => (0..units).for_each(|unit| self.span::<S, 2>(simd, unit * UNIT)),
            (4, _) => (0..units).for_each(|unit| self.span::<S, 4>(simd, unit * UNIT)),
            _ => (0..units * UNIT).for_each(|from| self.span::<S, 1>(simd, from)),
        }
    }
}

impl Correlate<'_> {
    #[inline(always)]
    fn span<S: Simd, const N: usize>(&mut self, simd: S, from: usize) {
        let width = N * S::F32_LANES;
        let lines = self.lines;
        let mut sums = [[simd.splat_f32s(0.0); N]; ROWS];
        for line in 0..lines.count {
            let pixels = line * lines.pixels..(line + 1) * lines.pixels;
            let [a, b, c, d] = self.factors.map(|row| &row[pixels.clone()]);
            let mut place = line * lines.line_step + from;
            for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
                let (values, _) = S::as_simd_f32s(&self.values[place..place + width]);
                place += lines.pixel_step;
                for (sums, factor) in sums.iter_mut().zip([a, b, c, d]) {
                    let factor = simd.splat_f32s(*factor);
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = simd.mul_add_f32s(factor, *value, *sum);
                    }
                }
            }
        }
        for (row, sums) in self.sums.iter_mut().zip(sums) {
            let (row, _) = S::as_mut_simd_f32s(&mut row[from..from + width]);
            row.copy_from_slice(&sums);
        }
    }
}
