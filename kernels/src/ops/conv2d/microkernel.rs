//! The microkernel of every dense convolution: register tiles of up to twelve rows times a panel of 32
//! columns.
//!
//! Every sum runs over its terms in order with one fused multiply-add each, so the result depends
//! neither on the vector width nor on the grouping of rows.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a narrower instruction set"
)]

use super::vector::unrolled;
use crate::simd;
use pulp::{Simd, WithSimd};

/// The most rows of a register tile: output channels, or taps of the kernel.
pub(super) const ROWS: usize = 12;
/// Rows of the smallest register tile; row counts are rounded up to it.
pub(super) const UNIT: usize = 4;
/// Columns of a panel: output pixels, or taps of the kernel.
pub(super) const PANEL: usize = 32;
/// Columns that are contiguous in an image whose width is a multiple of it.
pub(super) const RUN: usize = 16;
/// The most terms of a sum in one panel: a panel takes 24 KiB of the L1 cache then.
pub(super) const DEPTH: usize = 192;

/// The packed left matrix, rows of [`DEPTH`] terms; a multiple of [`UNIT`] rows.
pub(super) type Rows = [[f32; DEPTH]];

/// The right matrix.
pub(super) trait Values {
    /// For each term of the sum, the `N` vectors of columns that begin at `from`.
    fn terms<S: Simd, const N: usize>(&self, from: usize) -> impl Iterator<Item = [S::f32s; N]>;
}

/// Stores finished sums. A trait, not a closure, so that it is inlined into the loop and compiled for
/// its instruction set.
pub(super) trait Sink {
    /// Sums of the rows from `row` and the columns from `from`.
    fn take<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        row: usize,
        from: usize,
        sums: &[[S::f32s; N]; R],
    );
}

/// Passes the sums Σₖ rows[r][k] · values[k][p] of all rows and columns to `sink`; the columns of several
/// panels are consecutive. A tile of rows visits all panels in turn, so that the sink writes long runs
/// of columns.
pub(super) fn panel_product<V: Values>(rows: &Rows, panels: &[V], sink: impl Sink) {
    simd::dispatch(PanelProduct { rows, panels, sink });
}

/// Rows of the next tile, of `left` rows.
#[inline(always)]
pub(super) fn height(lanes: usize, left: usize) -> usize {
    match (lanes, left) {
        // Two tiles of 8 use the execution units better than one of 12 and one of 4.
        (16, 16) => 8,
        (16, ROWS..) => ROWS,
        (16, 8..) => 8,
        _ => UNIT,
    }
}

struct PanelProduct<'a, V, K> {
    rows: &'a Rows,
    panels: &'a [V],
    sink: K,
}

impl<V: Values, K: Sink> WithSimd for PanelProduct<'_, V, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut row = 0;
        while row < self.rows.len() {
            let rows = &self.rows[row..];
            // As many sums as the registers hold: the match is decided at compile time.
            row += match (S::F32_LANES, height(S::F32_LANES, rows.len())) {
                (16, ROWS) => self.tiles::<S, ROWS, 2>(simd, row),
                (16, 8) => self.tiles::<S, 8, 2>(simd, row),
                (8 | 16, _) => self.tiles::<S, UNIT, 2>(simd, row),
                _ => self.tiles::<S, UNIT, 4>(simd, row),
            };
        }
    }
}

impl<V: Values, K: Sink> PanelProduct<'_, V, K> {
    /// Returns the number of rows it took.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const N: usize>(&mut self, simd: S, row: usize) -> usize {
        let rows = self.rows[row..].first_chunk::<R>().expect("whole units");
        for (panel, values) in self.panels.iter().enumerate() {
            for from in (0..PANEL).step_by(N * S::F32_LANES) {
                let mut sums = [[simd.splat_f32s(0.0); N]; R];
                for (k, values) in (0..DEPTH).zip(values.terms::<S, N>(from)) {
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let factor = simd.splat_f32s(row[k]);
                        for n in 0..N {
                            sums[n] = simd.mul_add_f32s(factor, values[n], sums[n]);
                        }
                    }
                }
                // Copied element by element, so that the sums stay in registers whatever the sink
                // does with the copy; a closure might be compiled for a narrower instruction set.
                let mut found = [[simd.splat_f32s(0.0); N]; R];
                unrolled!(r in R => {
                    for n in 0..N {
                        found[r][n] = sums[r][n];
                    }
                });
                self.sink.take(simd, row, panel * PANEL + from, &found);
            }
        }
        R
    }
}

/// Packs a matrix of `rows` × `depth` for [`panel_product`], in slices of `piece` terms: for each slice
/// all rows, zeros beyond the last.
pub(super) fn pack(
    rows: usize,
    depth: usize,
    piece: usize,
    mut copy: impl FnMut(usize, usize, &mut [f32]),
    packed: &mut Rows,
) {
    let padded = rows.next_multiple_of(UNIT);
    for (index, packed) in packed.chunks_exact_mut(padded).enumerate() {
        let first = index * piece;
        let length = piece.min(depth - first);
        for (row, packed) in packed.iter_mut().enumerate() {
            if row < rows {
                copy(row, first, &mut packed[..length]);
            } else {
                packed[..length].fill(0.0);
            }
        }
    }
}

/// Packed rows of a matrix of `rows` × `depth` in slices of `piece` terms.
pub(super) fn packed_rows(rows: usize, depth: usize, piece: usize) -> usize {
    rows.next_multiple_of(UNIT) * depth.div_ceil(piece)
}

/// Terms of a slice, where `depth` terms are cut into as few slices as possible, about equally long.
pub(super) fn piece(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(DEPTH))
}
