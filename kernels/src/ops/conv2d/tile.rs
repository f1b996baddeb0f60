//! The two inner loops of a convolution, four rows at a time in vector registers.
//!
//! Every sum runs over its terms in order with one fused multiply-add each, so the result does
//! not depend on the width of the vectors.

use pulp::{Arch, Simd, WithSimd};

/// Rows of a tile: output channels, or taps of the kernel.
pub(super) const ROWS: usize = 4;
/// Columns of a panel: output pixels.
pub(super) const PANEL: usize = 64;
/// Columns the weight gradient handles at once, at most: five AVX-512 registers.
pub(super) const SPAN: usize = 80;
/// Columns that every machine handles at once.
pub(super) const UNIT: usize = 16;

/// Four rows of one panel.
pub(super) type Tile = [[f32; PANEL]; ROWS];

/// What becomes of a finished tile. A trait, not a closure, so that it can be inlined into the
/// loop and adopt its instruction set.
pub(super) trait Sink {
    fn take(&mut self, block: usize, tile: &Tile);
}

/// Calls `sink.take(block, tile)` with `tile[r][p] = Σₖ block[k][r] · panel[k][p]` for every block of
/// `blocks`: `depth` rows of each, of which those from `first` meet the rows of `panel`.
pub(super) fn panel_product(
    blocks: &[[f32; ROWS]],
    depth: usize,
    first: usize,
    panel: &[[f32; PANEL]],
    sink: impl Sink,
) {
    Arch::new().dispatch(PanelProduct {
        blocks,
        depth,
        first,
        panel,
        sink,
    });
}

struct PanelProduct<'a, F> {
    blocks: &'a [[f32; ROWS]],
    depth: usize,
    first: usize,
    panel: &'a [[f32; PANEL]],
    sink: F,
}

impl<F: Sink> WithSimd for PanelProduct<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut tile = [[0.0; PANEL]; ROWS];
        for (index, block) in self.blocks.chunks_exact(self.depth).enumerate() {
            let block = &block[self.first..][..self.panel.len()];
            // As many accumulators as the registers hold: the match is decided at compile time.
            match S::F32_LANES {
                16 => columns::<S, 4>(simd, block, self.panel, 0, &mut tile),
                8 => {
                    for from in (0..PANEL).step_by(UNIT) {
                        columns::<S, 2>(simd, block, self.panel, from, &mut tile);
                    }
                }
                lanes => {
                    for from in (0..PANEL).step_by(4 * lanes) {
                        columns::<S, 4>(simd, block, self.panel, from, &mut tile);
                    }
                }
            }
            self.sink.take(index, &tile);
        }
    }
}

#[inline(always)]
fn columns<S: Simd, const N: usize>(
    simd: S,
    block: &[[f32; ROWS]],
    panel: &[[f32; PANEL]],
    from: usize,
    tile: &mut Tile,
) {
    let width = N * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); N]; ROWS];
    for (factors, row) in block.iter().zip(panel) {
        let (values, _) = S::as_simd_f32s(&row[from..from + width]);
        for (sums, factor) in sums.iter_mut().zip(factors) {
            let factor = simd.splat_f32s(*factor);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = simd.mul_add_f32s(factor, *value, *sum);
            }
        }
    }
    for (row, sums) in tile.iter_mut().zip(sums) {
        let (row, _) = S::as_mut_simd_f32s(&mut row[from..from + width]);
        row.copy_from_slice(&sums);
    }
}

/// Where [`correlate`] finds its pixels: line by line, a fixed step apart.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub count: usize,
    pub pixels: usize,
    /// From one line to the next, and from one pixel to the next, in `values`.
    pub line_step: usize,
    pub pixel_step: usize,
}

/// `sums[r][j] = Σ over lines and pixels of factors[r][pixel] · values[pixel's place + j]`, for
/// the first `width` of j. `values` must extend [`SPAN`] beyond the last place.
pub(super) fn correlate(
    factors: [&[f32]; ROWS],
    values: &[f32],
    lines: Lines,
    width: usize,
    sums: &mut [[f32; SPAN]; ROWS],
) {
    Arch::new().dispatch(Correlate {
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
