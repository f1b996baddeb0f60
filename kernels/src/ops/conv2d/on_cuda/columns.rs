//! Dense convolutions as matrix products of columns in memory (explicit im2col), a piece of the
//! image at a time: the pieces stay small, and the products are the vendor's.

use super::{ENOUGH_BLOCKS, Pass, add_bias, kernel, reduce};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Matrix, Precision, Product, parameters};
use crate::error::Result;

static COLUMNS: Kernel = kernel("conv2d_columns");
static ARRANGE: Kernel = kernel("conv2d_arrange_weight");

parameters! {
    struct ColumnsParameters {
        channels: u32,
        pixels: u32,
        first: u32,
        columns: u32,
        row_taps: u32,
        column_taps: u32,
        input_width: u32,
        input_plane: u32,
        first_sample: u32,
    }
}
parameters! {
    struct ArrangeParameters {
        rows: u32,
        depth: u32,
        weight_row: u32,
    }
}

/// Some pixels of some samples.
#[derive(Clone, Copy)]
struct Piece {
    first_sample: usize,
    samples: usize,
    first: usize,
    pixels: usize,
}

/// Pieces of at most `room` numbers: whole samples where one fits, else parts of one.
fn pieces(pass: &Pass, room: usize) -> Vec<Piece> {
    let (depth, pixels) = (pass.depth(), pass.pixels());
    let mut found = Vec::new();
    let samples = (room / (depth * pixels)).clamp(1, pass.samples);
    // Products like rows whose length is a multiple of their tiles.
    let pixels = match room / depth {
        most if most >= pixels => pixels,
        most if most >= 128 => most / 128 * 128,
        most => most.max(1),
    };
    for first_sample in (0..pass.samples).step_by(samples) {
        for first in (0..pass.pixels()).step_by(pixels) {
            found.push(Piece {
                first_sample,
                samples: samples.min(pass.samples - first_sample),
                first,
                pixels: pixels.min(pass.pixels() - first),
            });
        }
    }
    found
}

/// How long a pass takes on an H200, about.
pub(super) fn expected_ms(cuda: &Cuda, pass: &Pass) -> f64 {
    let per_ms = match cuda.precision() {
        Precision::F32 => 35e9,
        Precision::Tf32 | Precision::Bf16 => 200e9,
    };
    let columns = 4.0 * (pass.depth() * pass.pixels() * pass.samples) as f64;
    // Written and read; the cache helps.
    pass.operations() as f64 / per_ms
        + 2.0 * columns / 4e9
        + 0.004 * pieces(pass, cuda.column_room()).len() as f64
}

/// The columns of a piece: `[samples, depth, pixels]`.
fn columns_of(
    cuda: &Cuda,
    pass: &Pass,
    piece: Piece,
    input: &DeviceBuffer,
) -> Result<DeviceBuffer> {
    const THREADS: usize = 256;
    let [channels, pixels, width] = pass.input;
    let parameters = ColumnsParameters {
        channels: channels as u32,
        pixels: piece.pixels as u32,
        first: piece.first as u32,
        columns: pass.columns_from.outputs() as u32,
        row_taps: pass.rows_from.taps as u32,
        column_taps: pass.columns_from.taps as u32,
        input_width: width as u32,
        input_plane: pixels as u32,
        first_sample: piece.first_sample as u32,
    };
    let rows = cuda.constant(&pass.rows_from.table)?;
    let columns = cuda.constant(&pass.columns_from.table)?;
    let mut found = cuda.any(piece.samples * pass.depth() * piece.pixels)?;
    // A thread takes some channels, so that it finds its pixel's place once for them.
    let blocks = piece.pixels.div_ceil(THREADS);
    let shares = (4 * ENOUGH_BLOCKS)
        .div_ceil(blocks * piece.samples)
        .min(channels);
    // SAFETY: conv2d_columns(input, row table, column table, found, ColumnsParameters): 256
    // threads; pixels beyond the piece are guarded, channels stride over the second axis of the
    // grid; the tables hold rows and columns of the image or -1; `found` has room for the piece.
    unsafe {
        Launch::new(&COLUMNS)
            .grid([blocks, shares, piece.samples])
            .input(input)
            .input(&rows)
            .input(&columns)
            .output(&mut found)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(found)
}

/// The weight as a matrix `[rows, depth]`, in the order of the columns.
fn arranged(cuda: &Cuda, pass: &Pass, weight: &DeviceBuffer) -> Result<DeviceBuffer> {
    const THREADS: usize = 256;
    let parameters = ArrangeParameters {
        rows: pass.rows as u32,
        depth: pass.depth() as u32,
        weight_row: pass.weight_steps[0] as u32,
    };
    let taps = cuda.constant(&pass.taps())?;
    let mut found = cuda.any(pass.rows * pass.depth())?;
    // SAFETY: conv2d_arrange_weight(weight, taps, found, ArrangeParameters): 256 threads; products
    // beyond the last are guarded, rows stride over the second axis; the taps hold offsets of
    // weights within one row.
    unsafe {
        Launch::new(&ARRANGE)
            .grid([pass.depth().div_ceil(THREADS), pass.rows.min(1024), 1])
            .input(weight)
            .input(&taps)
            .output(&mut found)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(found)
}

pub(super) fn run(
    cuda: &Cuda,
    pass: &Pass,
    [input, weight]: [&DeviceBuffer; 2],
    bias: Option<&DeviceBuffer>,
    output: &mut DeviceBuffer,
) -> Result<()> {
    let (depth, pixels) = (pass.depth(), pass.pixels());
    let made = pass.turned.then(|| arranged(cuda, pass, weight));
    let made = made.transpose()?;
    let weight = Matrix::row_major(made.as_ref().unwrap_or(weight), depth);
    for piece in pieces(pass, cuda.column_room()) {
        let columns = columns_of(cuda, pass, piece, input)?;
        let seen = Matrix::row_major(&columns, piece.pixels).batched(depth * piece.pixels);
        let first = piece.first_sample * pass.rows * pixels + piece.first;
        Product::new([pass.rows, piece.pixels, depth], weight, seen)
            .batch(piece.samples)
            .to(first, pixels, pass.rows * pixels)
            .enqueue(output)?;
    }
    match bias {
        Some(bias) => add_bias(cuda, output, bias, [pass.samples, pass.rows, pixels]),
        None => Ok(()),
    }
}

/// The gradient of a forward pass's weight.
pub(super) fn to_weight(
    cuda: &Cuda,
    pass: &Pass,
    input: &DeviceBuffer,
    gradient: &DeviceBuffer,
    found: &mut DeviceBuffer,
) -> Result<()> {
    let (depth, pixels) = (pass.depth(), pass.pixels());
    let pieces = pieces(pass, cuda.column_room());
    let products: usize = pieces.iter().map(|piece| piece.samples).sum();
    let mut sum = Sum::new(
        [pass.rows, depth],
        products,
        pieces[0].pixels,
        cuda.column_room(),
    );
    let mut partial = sum.room(cuda)?;
    for piece in pieces {
        let columns = columns_of(cuda, pass, piece, input)?;
        for sample in 0..piece.samples {
            let first = (piece.first_sample + sample) * pass.rows * pixels + piece.first;
            let gradient = Matrix::row_major(gradient, pixels).at(first);
            let seen = Matrix::transposed(&columns, piece.pixels).at(sample * depth * piece.pixels);
            let to = partial.as_mut().unwrap_or(found);
            sum.add(gradient, seen, piece.pixels, to)?;
        }
    }
    sum.finish(cuda, partial, found)
}

/// A sum over samples and pixels of products `[rows, pixels] · [pixels, columns]`: long rows make few
/// and small tiles, so each is cut into parts, which are added up in the end. Large results are few
/// parts: they are added up as they come.
pub(super) struct Sum {
    rows: usize,
    columns: usize,
    products: usize,
    parts: usize,
    done: usize,
}

impl Sum {
    /// Of this many products, with at most this many pixels, and room for so many partial sums.
    pub fn new([rows, columns]: [usize; 2], products: usize, pixels: usize, room: usize) -> Self {
        const TILE: usize = 64;
        const FEWEST_PIXELS: usize = 2048;
        let tiles = rows.div_ceil(TILE) * columns.div_ceil(TILE);
        let parts = (ENOUGH_BLOCKS / 2)
            .div_ceil(tiles)
            .min(pixels / FEWEST_PIXELS)
            .min(room / (rows * columns * products))
            .max(1);
        Self {
            rows,
            columns,
            products,
            parts,
            done: 0,
        }
    }

    fn size(&self) -> usize {
        self.rows * self.columns
    }

    /// Whether results are kept apart until the end.
    fn are_apart(&self) -> bool {
        self.parts > 1
    }

    fn room(&self, cuda: &Cuda) -> Result<Option<DeviceBuffer>> {
        let room = self.products * self.parts * self.size();
        self.are_apart().then(|| cuda.zeros(room)).transpose()
    }

    /// The next product.
    fn add(&mut self, a: Matrix, b: Matrix, pixels: usize, to: &mut DeviceBuffer) -> Result<()> {
        let size = self.size();
        if !self.are_apart() {
            let product = Product::new([self.rows, self.columns, pixels], a, b);
            let product = if self.done == 0 {
                product
            } else {
                product.accumulate()
            };
            self.done += 1;
            return product.enqueue(to);
        }
        // Parts of a length that products like; what is left over is a part of its own.
        let length = pixels.div_ceil(self.parts).next_multiple_of(16).min(pixels);
        let (whole, rest) = (pixels / length, pixels % length);
        let first = self.done * self.parts * size;
        Product::new(
            [self.rows, self.columns, length],
            a.batched(length),
            b.batched(length),
        )
        .batch(whole)
        .to(first, self.columns, size)
        .enqueue(to)?;
        if rest > 0 {
            let (a, b) = (a.further(whole * length), b.further(whole * length));
            Product::new([self.rows, self.columns, rest], a, b)
                .to(first, self.columns, size)
                .accumulate()
                .enqueue(to)?;
        }
        self.done += 1;
        Ok(())
    }

    fn finish(
        &self,
        cuda: &Cuda,
        partial: Option<DeviceBuffer>,
        found: &mut DeviceBuffer,
    ) -> Result<()> {
        match partial {
            Some(partial) => reduce(cuda, &partial, self.products * self.parts, found, 0),
            None => Ok(()),
        }
    }

    /// Of `gradient` `[products, rows, pixels]` and `images` `[products, columns, pixels]`.
    pub fn of_images(
        mut self,
        cuda: &Cuda,
        gradient: &DeviceBuffer,
        images: &DeviceBuffer,
        found: &mut DeviceBuffer,
    ) -> Result<()> {
        let pixels = images.len() / (self.products * self.columns);
        if !self.are_apart() {
            let mut partial = cuda.any(self.products * self.size())?;
            let a = Matrix::row_major(gradient, pixels).batched(self.rows * pixels);
            let b = Matrix::transposed(images, pixels).batched(self.columns * pixels);
            Product::new([self.rows, self.columns, pixels], a, b)
                .batch(self.products)
                .enqueue(&mut partial)?;
            return reduce(cuda, &partial, self.products, found, 0);
        }
        let mut partial = self.room(cuda)?;
        for sample in 0..self.products {
            let a = Matrix::row_major(gradient, pixels).at(sample * self.rows * pixels);
            let b = Matrix::transposed(images, pixels).at(sample * self.columns * pixels);
            self.add(a, b, pixels, partial.as_mut().unwrap_or(found))?;
        }
        self.finish(cuda, partial, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::{Conv2d, Pad, geometry::Geometry};

    const ROOM: usize = 16 << 20;

    fn pass(input: [usize; 4], outputs: usize) -> Pass {
        let options = Conv2d {
            stride: 1,
            padding: [1; 4],
            rows: Pad::Zero,
            columns: Pad::Zero,
            groups: 1,
        };
        let weight = [outputs, input[1], 3, 3];
        Pass::forward(&Geometry::of_shapes(input, weight, &options).unwrap())
    }

    #[test]
    fn pieces_cover_every_pixel_once() {
        for (input, most) in [
            ([8, 1344, 16, 16], 8),
            ([3, 16, 512, 512], 1),
            ([5, 20, 40, 33], 5),
        ] {
            let pass = pass(input, 8);
            let mut seen = vec![0; pass.samples * pass.pixels()];
            for piece in pieces(&pass, ROOM) {
                assert!(piece.samples <= most);
                assert!(piece.samples * piece.pixels * pass.depth() <= ROOM);
                for sample in piece.first_sample..piece.first_sample + piece.samples {
                    let first = sample * pass.pixels() + piece.first;
                    seen[first..first + piece.pixels]
                        .iter_mut()
                        .for_each(|n| *n += 1);
                }
            }
            assert!(seen.iter().all(|n| *n == 1));
        }
    }

    #[test]
    fn long_sums_are_cut_and_large_results_are_not() {
        let parts = |rows, columns, pixels| Sum::new([rows, columns], 8, pixels, ROOM).parts;
        assert_eq!(parts(16, 96, 65536), 32);
        assert_eq!(parts(640, 12096, 256), 1);
        assert_eq!(parts(16, 96, 300), 1);
        let room = Sum::new([64, 576], 64, 65536, ROOM);
        assert!(room.products * room.parts * room.size() <= ROOM);
    }
}
