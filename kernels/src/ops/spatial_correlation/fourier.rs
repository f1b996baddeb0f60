//! Correlation by FFT.
//!
//! Two channels travel as real and imaginary part of one complex image. With t = t₁ + i t₂ and
//! s = s₁ + i s₂, the real part of the correlation conj(t) ⋆ s is t₁ ⋆ s₁ + t₂ ⋆ s₂, just the sum we
//! want, so the spectra of the two channels are never separated. In the backward pass one factor is the
//! spectrum of the real gradient, and the two channels are again real and imaginary part.
//!
//! Spectra are kept transposed: FFT of rows, transpose, FFT of columns. An element-wise product does
//! not depend on the orientation.

use super::Plan;
use crate::buffer;
use rayon::prelude::*;
use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftDirection, FftPlanner};
use std::sync::Arc;

/// Spectra of the templates and of the maps, one for each pair of channels of each sample.
pub(super) struct Spectra {
    template: Vec<Vec<Complex32>>,
    search: Vec<Vec<Complex32>>,
}

/// Pairs of channels that one task adds up; fixed, so that the number of threads does not change
/// the sum.
const PAIRS: usize = 4;

/// The correlation, and the spectra when they are to be kept.
pub(super) fn forward(
    plan: &Plan,
    template: &[f32],
    search: &[f32],
    keep: bool,
) -> (Vec<f32>, Spectra) {
    let forth = Transform::new(plan, FftDirection::Forward);
    let back = Transform::new(plan, FftDirection::Inverse);
    let mut output = buffer::empty(template.len() / plan.template_len() * plan.places_len());
    let mut spectra = Spectra {
        template: Vec::new(),
        search: Vec::new(),
    };
    let [h, w] = plan.template;
    let samples = template
        .chunks_exact(plan.template_len())
        .zip(search.chunks_exact(plan.search_len()));
    for (template, search) in samples {
        let parts: Vec<_> = template
            .par_chunks(2 * PAIRS * h * w)
            .zip(search.par_chunks(2 * PAIRS * plan.search[0] * plan.search[1]))
            .map(|(template, search)| {
                let mut sum = vec![Complex32::ZERO; forth.len()];
                let mut kept = Vec::new();
                let pairs = template
                    .chunks(2 * h * w)
                    .zip(search.chunks(2 * plan.search[0] * plan.search[1]));
                for (template, search) in pairs {
                    let template = forth.spectrum(template, plan.template);
                    let search = forth.spectrum(search, plan.search);
                    for ((sum, t), s) in sum.iter_mut().zip(&template).zip(&search) {
                        *sum += t.conj() * s;
                    }
                    if keep {
                        kept.push((template, search));
                    }
                }
                (sum, kept)
            })
            .collect();
        let mut sum = vec![Complex32::ZERO; forth.len()];
        for (part, kept) in parts {
            for (sum, part) in sum.iter_mut().zip(part) {
                *sum += part;
            }
            for (template, search) in kept {
                spectra.template.push(template);
                spectra.search.push(search);
            }
        }
        let (image, scale) = back.image(sum, plan.places()[0]);
        for row in image.chunks_exact(back.columns).take(plan.places()[0]) {
            output.extend(row[..plan.places()[1]].iter().map(|z| z.re * scale));
        }
    }
    (output, spectra)
}

/// Gradients of the template, g ⋆ s, and of the map, the convolution of g with t.
pub(super) fn backward(plan: &Plan, spectra: Spectra, gradient: &[f32]) -> [Vec<f32>; 2] {
    let forth = Transform::new(plan, FftDirection::Forward);
    let back = Transform::new(plan, FftDirection::Inverse);
    let gradients: Vec<Vec<Complex32>> = gradient
        .par_chunks_exact(plan.places_len())
        .map(|gradient| forth.spectrum(gradient, plan.places()))
        .collect();
    let pairs = plan.channels.div_ceil(2);
    let run = |spectra: Vec<Vec<Complex32>>, size: [usize; 2], conjugate: bool| {
        let planes: Vec<Vec<f32>> = spectra
            .into_par_iter()
            .enumerate()
            .map(|(index, mut spectrum)| {
                for (z, g) in spectrum.iter_mut().zip(&gradients[index / pairs]) {
                    *z *= if conjugate { g.conj() } else { *g };
                }
                let (image, scale) = back.image(spectrum, size[0]);
                let both = 2 * (index % pairs) + 1 < plan.channels;
                let rows = || image.chunks_exact(back.columns).take(size[0]);
                let mut planes = Vec::with_capacity(2 * size[0] * size[1]);
                for row in rows() {
                    planes.extend(row[..size[1]].iter().map(|z| z.re * scale));
                }
                for row in rows().filter(|_| both) {
                    planes.extend(row[..size[1]].iter().map(|z| z.im * scale));
                }
                planes
            })
            .collect();
        planes.concat()
    };
    [
        run(spectra.search, plan.template, true),
        run(spectra.template, plan.search, false),
    ]
}

/// A two-dimensional transform of one size and direction.
struct Transform {
    rows: usize,
    columns: usize,
    along_rows: Arc<dyn Fft<f32>>,
    along_columns: Arc<dyn Fft<f32>>,
}

impl Transform {
    /// At least as large as the map, so that circular wrap-around only reaches outputs that are not read.
    fn new(plan: &Plan, direction: FftDirection) -> Self {
        let [rows, columns] = plan.search.map(fast_length);
        let mut planner = FftPlanner::new();
        Self {
            rows,
            columns,
            along_rows: planner.plan_fft(columns, direction),
            along_columns: planner.plan_fft(rows, direction),
        }
    }

    fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// The spectrum of one real plane, or of two as real and imaginary part, `[columns, rows]`.
    fn spectrum(&self, planes: &[f32], [rows, columns]: [usize; 2]) -> Vec<Complex32> {
        let (real, imaginary) = planes.split_at(rows * columns);
        let mut image = vec![Complex32::ZERO; self.len()];
        let lines = image.chunks_exact_mut(self.columns);
        for (row, line) in lines.take(rows).enumerate() {
            let here = row * columns..(row + 1) * columns;
            for (z, re) in line.iter_mut().zip(&real[here.clone()]) {
                z.re = *re;
            }
            if !imaginary.is_empty() {
                for (z, im) in line.iter_mut().zip(&imaginary[here]) {
                    z.im = *im;
                }
            }
        }
        // Rows of zeros have a spectrum of zeros.
        self.along_rows.process(&mut image[..rows * self.columns]);
        let mut transposed = vec![Complex32::ZERO; self.len()];
        transpose(&image, &mut transposed, self.columns, self.rows);
        self.along_columns.process(&mut transposed);
        transposed
    }

    /// Inverse FFT of a spectrum `[columns, rows]`, cropped to the first `rows` rows, and the
    /// normalisation factor that is left to the caller.
    fn image(&self, mut spectrum: Vec<Complex32>, rows: usize) -> (Vec<Complex32>, f32) {
        self.along_columns.process(&mut spectrum);
        let mut image = vec![Complex32::ZERO; self.len()];
        transpose(&spectrum, &mut image, self.rows, self.columns);
        self.along_rows.process(&mut image[..rows * self.columns]);
        (image, 1.0 / self.len() as f32)
    }
}

/// Transposes rows of `width` elements, `height` of them, in blocks that fit the cache.
fn transpose(from: &[Complex32], to: &mut [Complex32], width: usize, height: usize) {
    const SQUARE: usize = 16;
    for top in (0..height).step_by(SQUARE) {
        for left in (0..width).step_by(SQUARE) {
            for column in left..(left + SQUARE).min(width) {
                let bottom = (top + SQUARE).min(height);
                let line = &mut to[column * height + top..column * height + bottom];
                for (row, value) in (top..bottom).zip(line) {
                    *value = from[row * width + column];
                }
            }
        }
    }
}

/// The next length without prime factors above 5, which transform fast.
fn fast_length(at_least: usize) -> usize {
    let smooth = |length: &usize| {
        let mut rest = *length;
        for prime in [2, 3, 5] {
            while rest.is_multiple_of(prime) {
                rest /= prime;
            }
        }
        rest == 1
    };
    (at_least.max(1)..).find(smooth).unwrap_or(at_least.max(1))
}
