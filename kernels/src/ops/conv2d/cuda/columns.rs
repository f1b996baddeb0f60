//! Dense convolutions by explicit im2col: columns are written to memory, a slice of the pixels at a
//! time to bound the memory, and multiplied by cuBLASLt.

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
    let made = pass.flipped.then(|| arranged(cuda, pass, weight));
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
    let mut sum = Sum::new(cuda, [pass.rows, depth], products, pieces[0].pixels);
    let are_alike = pieces.iter().all(|piece| piece.pixels == pieces[0].pixels);
    let mut partial = sum.room(cuda, are_alike)?;
    for piece in pieces {
        let columns = columns_of(cuda, pass, piece, input)?;
        let first = piece.first_sample * pass.rows * pixels + piece.first;
        let gradient = Matrix::row_major(gradient, pixels).at(first);
        let seen = Matrix::transposed(&columns, piece.pixels);
        sum.add(
            (gradient, pass.rows * pixels),
            (seen, depth * piece.pixels),
            [piece.samples, piece.pixels],
            partial.as_mut().unwrap_or(found),
        )?;
    }
    sum.finish(cuda, partial, found)
}

/// A sum over samples and pixels of products `[rows, pixels] · [pixels, columns]`. Long rows make
/// few and small tiles, so they are cut into parts, and all parts are added up in the end. Results
/// too large for that are added up as they come.
pub(in crate::ops) struct Sum {
    rows: usize,
    columns: usize,
    products: usize,
    parts: usize,
    are_apart: bool,
    done: usize,
}

/// Images of a piece that are summed over: the first sample's, and elements to the next one's.
type Images<'a> = (Matrix<'a>, usize);

impl Sum {
    /// Of this many products, with at most this many pixels.
    pub fn new(cuda: &Cuda, [rows, columns]: [usize; 2], products: usize, pixels: usize) -> Self {
        const TILE: usize = 64;
        // A block takes this many pixels in about the time of a launch.
        let worth_a_part = match cuda.precision() {
            Precision::F32 => 256,
            Precision::Tf32 | Precision::Bf16 => 512,
        };
        let blocks = rows.div_ceil(TILE) * columns.div_ceil(TILE) * products;
        let parts = if blocks < ENOUGH_BLOCKS / 2 {
            (4 * ENOUGH_BLOCKS / blocks).clamp(1, (pixels / worth_a_part).max(1))
        } else {
            1
        };
        let fit = cuda.column_room() / (rows * columns * products);
        let mut sum = Self {
            rows,
            columns,
            products,
            parts: parts.min(fit).max(1),
            are_apart: fit > 0,
            done: 0,
        };
        sum.parts = pixels.div_ceil(sum.length(pixels));
        sum
    }

    /// Pixels of a part: a length that products like. The last one may be shorter.
    fn length(&self, pixels: usize) -> usize {
        let even = pixels.div_ceil(self.parts);
        even.next_multiple_of(16).min(pixels)
    }

    fn size(&self) -> usize {
        self.rows * self.columns
    }

    /// For the results of all parts. Where some products have fewer pixels, and so maybe fewer parts,
    /// than others, the rest is 0.
    fn room(&self, cuda: &Cuda, are_alike: bool) -> Result<Option<DeviceBuffer>> {
        let room = self.products * self.parts * self.size();
        let take = || {
            if are_alike {
                cuda.any(room)
            } else {
                cuda.zeros(room)
            }
        };
        self.are_apart.then(take).transpose()
    }

    /// The products of some samples.
    fn add(
        &mut self,
        (a, a_step): Images,
        (b, b_step): Images,
        [samples, pixels]: [usize; 2],
        to: &mut DeviceBuffer,
    ) -> Result<()> {
        let size = self.size();
        let product = |pixels, a, b| Product::new([self.rows, self.columns, pixels], a, b);
        if !self.are_apart {
            for sample in 0..samples {
                let (a, b) = (a.further(sample * a_step), b.further(sample * b_step));
                let product = product(pixels, a, b);
                let is_first = self.done + sample == 0;
                let product = if is_first {
                    product
                } else {
                    product.accumulate()
                };
                product.enqueue(to)?;
            }
            self.done += samples;
            return Ok(());
        }
        // One launch for each sample or for each part, whichever are fewer.
        let length = self.length(pixels);
        let (whole, rest) = (pixels / length, pixels % length);
        let first = |sample: usize, part: usize| ((self.done + sample) * self.parts + part) * size;
        if whole >= samples {
            for sample in 0..samples {
                let (a, b) = (a.further(sample * a_step), b.further(sample * b_step));
                product(length, a.batched(length), b.batched(length))
                    .batch(whole)
                    .to(first(sample, 0), self.columns, size)
                    .enqueue(to)?;
            }
        } else {
            for part in 0..whole {
                let (a, b) = (a.further(part * length), b.further(part * length));
                product(length, a.batched(a_step), b.batched(b_step))
                    .batch(samples)
                    .to(first(0, part), self.columns, self.parts * size)
                    .enqueue(to)?;
            }
        }
        if rest > 0 {
            let (a, b) = (a.further(whole * length), b.further(whole * length));
            product(rest, a.batched(a_step), b.batched(b_step))
                .batch(samples)
                .to(first(0, whole), self.columns, self.parts * size)
                .enqueue(to)?;
        }
        self.done += samples;
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
        let mut partial = self.room(cuda, true)?;
        self.add(
            (Matrix::row_major(gradient, pixels), self.rows * pixels),
            (Matrix::transposed(images, pixels), self.columns * pixels),
            [self.products, pixels],
            partial.as_mut().unwrap_or(found),
        )?;
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
}
