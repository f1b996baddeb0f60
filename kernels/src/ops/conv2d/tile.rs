//! The inner loop of every dense convolution: twelve rows times a panel of 32 columns, in vector
//! registers.
//!
//! Every sum runs over its terms in order with one fused multiply-add each, so the result does
//! not depend on the width of the vectors, nor on how rows are grouped.

use pulp::{Arch, Simd, WithSimd};

/// Rows of a tile, at most: output channels, or taps of the kernel.
pub(super) const ROWS: usize = 12;
/// Rows of the smallest tile; row counts are rounded up to it.
pub(super) const UNIT: usize = 4;
/// Columns of a panel: output pixels, or taps of the kernel.
pub(super) const PANEL: usize = 32;
/// Columns that lie side by side in an image whose rows are a multiple of it.
pub(super) const RUN: usize = 16;
/// Terms of a sum that are in the cache together, at most: a panel takes 24 KiB then.
pub(super) const DEPTH: usize = 192;

/// The left factors, one row of [`DEPTH`] terms each; a multiple of [`UNIT`] rows.
pub(super) type Rows = [[f32; DEPTH]];

/// The right factors.
pub(super) trait Values {
    /// For each term of the sum, the `N` vectors of columns that begin at `from`.
    fn terms<S: Simd, const N: usize>(&self, from: usize) -> impl Iterator<Item = [S::f32s; N]>;
}

/// What becomes of finished sums. A trait, not a closure, so that it can be inlined into the loop
/// and adopt its instruction set.
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

/// Hands `sink` the sums Σₖ rows[r][k] · values[k][p] of all rows and columns.
pub(super) fn panel_product(rows: &Rows, values: impl Values, sink: impl Sink) {
    Arch::new().dispatch(PanelProduct { rows, values, sink });
}

struct PanelProduct<'a, V, K> {
    rows: &'a Rows,
    values: V,
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
            row += match (S::F32_LANES, rows.len()) {
                // Two middling tiles keep the units busier than a large and a small one.
                (16, 16) => self.tile::<S, 8, 2>(simd, row, 0),
                (16, ROWS..) => self.tile::<S, ROWS, 2>(simd, row, 0),
                (16, 8..) => self.tile::<S, 8, 2>(simd, row, 0),
                (16, _) => self.tile::<S, UNIT, 2>(simd, row, 0),
                (8, _) => {
                    self.tile::<S, UNIT, 2>(simd, row, 0);
                    self.tile::<S, UNIT, 2>(simd, row, PANEL / 2)
                }
                (lanes, _) => {
                    let tiles = (0..PANEL).step_by(4 * lanes);
                    tiles.for_each(|from| _ = self.tile::<S, UNIT, 4>(simd, row, from));
                    UNIT
                }
            };
        }
    }
}

impl<V: Values, K: Sink> PanelProduct<'_, V, K> {
    /// Returns the number of rows it took.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        row: usize,
        from: usize,
    ) -> usize {
        let rows = self.rows[row..].first_chunk().expect("whole units");
        let sums = sums::<S, R, N>(simd, rows, self.values.terms::<S, N>(from));
        self.sink.take(simd, row, from, &sums);
        R
    }
}

#[inline(always)]
fn sums<S: Simd, const R: usize, const N: usize>(
    simd: S,
    rows: &[[f32; DEPTH]; R],
    values: impl Iterator<Item = [S::f32s; N]>,
) -> [[S::f32s; N]; R] {
    let mut sums = [[simd.splat_f32s(0.0); N]; R];
    for (k, values) in (0..DEPTH).zip(values) {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let factor = simd.splat_f32s(row[k]);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = simd.mul_add_f32s(factor, value, *sum);
            }
        }
    }
    // Element by element, so that the sums stay in registers whatever becomes of the copy.
    std::array::from_fn(|r| std::array::from_fn(|n| sums[r][n]))
}

/// Copies a matrix of `rows` × `depth`, cut into pieces of `piece` terms, to where
/// [`panel_product`] wants it: for each piece all rows, those beyond the last zero.
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

/// Rows of packed factors for a matrix of `rows` × `depth` in pieces of `piece`.
pub(super) fn packed_rows(rows: usize, depth: usize, piece: usize) -> usize {
    rows.next_multiple_of(UNIT) * depth.div_ceil(piece)
}

/// Cuts `depth` terms into as few pieces as possible, about equally long.
pub(super) fn piece(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(DEPTH))
}
