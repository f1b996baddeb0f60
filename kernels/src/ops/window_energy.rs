//! Sum of squares in a window that slides over a map: the squared length of what a template of
//! that size is compared with.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "window_energy";

/// `output[n, a, b] = Σ over c, i < h, j < w of input[n, c, a + i, b + j]²`.
///
/// # Shapes
/// `input` `[N, C, H, W]`, `window` [h, w]; returns `[N, H - h + 1, W - w + 1]`.
///
/// # Errors
/// [`Error::Shape`] when the window is empty or larger than the map.
pub fn window_energy(tape: &mut Tape, input: &Tensor, window: [usize; 2]) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    if window.contains(&0) || window[0] > h || window[1] > w {
        let expected = format!("1 to {h} rows, 1 to {w} columns");
        return Err(Error::shape(OP, "window", expected, window));
    }
    let size = [c, h, w];
    let places = [h - window[0] + 1, w - window[1] + 1];
    let mut output = match input.device() {
        Device::Cpu => {
            let data = cpu::forward(size, window, input.data());
            Tensor::from_parts(data, &[n, places[0], places[1]])
        }
        Device::Cuda(cuda) => cuda::forward(&cuda, input, window)?,
    };
    let saved = tape.needs_gradient(&[input]).then(|| input.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let input = saved.expect("saved whenever recorded");
        Ok(vec![Some(match gradient.device() {
            Device::Cpu => {
                let data = cpu::backward(size, places, input.data(), gradient.data());
                Tensor::from_parts(data, input.shape())
            }
            Device::Cuda(cuda) => cuda::backward(&cuda, &input, window, gradient)?,
        })])
    });
    Ok(output)
}

mod cpu {
    use crate::buffer;
    use rayon::prelude::*;

    pub fn forward([c, h, w]: [usize; 3], window: [usize; 2], input: &[f32]) -> Vec<f32> {
        let samples: Vec<Vec<f32>> = input
            .par_chunks_exact(c * h * w)
            .map(|sample| {
                let mut squares = vec![0.0f64; h * w];
                for plane in sample.chunks_exact(h * w) {
                    for (sum, x) in squares.iter_mut().zip(plane) {
                        *sum += f64::from(*x) * f64::from(*x);
                    }
                }
                let table = Sums::new(&squares, w);
                let rows = 0..=h - window[0];
                let places = rows.flat_map(|a| (0..=w - window[1]).map(move |b| (a, b)));
                let sums = places.map(|(a, b)| table.over([a, a + window[0]], [b, b + window[1]]));
                sums.map(|sum| sum as f32).collect()
            })
            .collect();
        samples.concat()
    }

    /// A pixel counts for every window that holds it: 2 x times the sum of their gradients.
    pub fn backward(
        [c, h, w]: [usize; 3],
        [rows, columns]: [usize; 2],
        input: &[f32],
        gradient: &[f32],
    ) -> Vec<f32> {
        let mut result = buffer::any(input.len());
        // Windows beginning at a cover pixel y when y - (h - rows) <= a <= y.
        let covering = |at: usize, length: usize, places: usize| {
            [at.saturating_sub(length - places), (at + 1).min(places)]
        };
        result
            .par_chunks_exact_mut(c * h * w)
            .zip(input.par_chunks_exact(c * h * w))
            .zip(gradient.par_chunks_exact(rows * columns))
            .for_each(|((result, input), gradient)| {
                let gradient: Vec<f64> = gradient.iter().map(|g| f64::from(*g)).collect();
                let table = Sums::new(&gradient, columns);
                let twice: Vec<f32> = (0..h)
                    .flat_map(|y| (0..w).map(move |x| (y, x)))
                    .map(|(y, x)| {
                        table.over(covering(y, h, rows), covering(x, w, columns)) as f32 * 2.0
                    })
                    .collect();
                let planes = result
                    .chunks_exact_mut(h * w)
                    .zip(input.chunks_exact(h * w));
                for (result, input) in planes {
                    for ((result, x), twice) in result.iter_mut().zip(input).zip(&twice) {
                        *result = x * twice;
                    }
                }
            });
        result
    }

    /// Summed-area table: any rectangle from four numbers.
    struct Sums {
        stride: usize,
        table: Vec<f64>,
    }

    impl Sums {
        fn new(values: &[f64], width: usize) -> Self {
            let stride = width + 1;
            let mut table = vec![0.0; (values.len() / width + 1) * stride];
            for (row, values) in values.chunks_exact(width).enumerate() {
                let mut sum = 0.0;
                for (column, value) in values.iter().enumerate() {
                    sum += value;
                    table[(row + 1) * stride + column + 1] = table[row * stride + column + 1] + sum;
                }
            }
            Self { stride, table }
        }

        /// Sum over [from, to) rows and columns.
        fn over(&self, [top, bottom]: [usize; 2], [left, right]: [usize; 2]) -> f64 {
            let at = |row: usize, column: usize| self.table[row * self.stride + column];
            at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
        }
    }
}

pub(crate) mod cuda {
    //! Without a summed-area table: on a GPU adding a hundred neighbours is fast, and it avoids the
    //! cancellation of large sums.

    use super::OP;
    use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
    use crate::error::Result;
    use crate::tensor::Tensor;

    pub(crate) static SOURCE: Source = Source {
        name: "ops/window_energy.cu",
        text: include_str!("window_energy.cu"),
        hot: &[
            "window_energy_squares",
            "window_energy_slide",
            "window_energy_to_input",
        ],
    };
    const fn kernel(entry: &'static str) -> Kernel {
        Kernel {
            source: &SOURCE,
            entry,
        }
    }
    static SQUARES: Kernel = kernel("window_energy_squares");
    static SLIDE: Kernel = kernel("window_energy_slide");
    static TO_INPUT: Kernel = kernel("window_energy_to_input");

    parameters! {
        struct EnergyParameters {
            count: u32,
            channels: u32,
            pixels: u32,
        }
    }

    parameters! {
        struct SlideParameters {
            count: u32,
            inner: u32,
            length: u32,
            out_length: u32,
            behind: u32,
            window: u32,
            factor: f32,
        }
    }

    pub(super) fn forward(cuda: &Cuda, input: &Tensor, window: [usize; 2]) -> Result<Tensor> {
        let [n, c, h, w] = input.dims4(OP, "input")?;
        count(OP, input.len())?;
        let parameters = EnergyParameters {
            count: (n * h * w) as u32,
            channels: c as u32,
            pixels: (h * w) as u32,
        };
        let mut squares = cuda.any(n * h * w)?;
        let launch = Launch::new(&SQUARES).over(squares.len());
        // SAFETY: window_energy_squares(input, squares, EnergyParameters): `squares` has `count`
        // elements, by which the kernel guards its index, the input `channels` for each of them.
        unsafe {
            launch
                .input(input.buffer())
                .output(&mut squares)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        let [rows, columns] = [h - window[0] + 1, w - window[1] + 1];
        let slide = |outer, inner, length, window| SlideParameters {
            count: (outer * inner * (length - window + 1)) as u32,
            inner: inner as u32,
            length: length as u32,
            out_length: (length - window + 1) as u32,
            behind: 0,
            window: window as u32,
            factor: 1.0,
        };
        let along = slid(cuda, &squares, slide(n * h, 1, w, window[1]))?;
        let output = slid(cuda, &along, slide(n, columns, h, window[0]))?;
        Ok(Tensor::from_device(output, &[n, rows, columns]))
    }

    pub(super) fn backward(
        cuda: &Cuda,
        input: &Tensor,
        window: [usize; 2],
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let [n, c, h, w] = input.dims4(OP, "input")?;
        let slide = |outer, inner, length, window, factor| SlideParameters {
            count: (outer * inner * length) as u32,
            inner: inner as u32,
            length: (length - window + 1) as u32,
            out_length: length as u32,
            behind: window as u32 - 1,
            window: window as u32,
            factor,
        };
        let rows = h - window[0] + 1;
        let along = slide(n * rows, 1, w, window[1], 2.0);
        let along = slid(cuda, gradient.buffer(), along)?;
        let twice = slid(cuda, &along, slide(n, w, h, window[0], 1.0))?;
        let parameters = EnergyParameters {
            count: input.len() as u32,
            channels: c as u32,
            pixels: (h * w) as u32,
        };
        let mut result = cuda.any(input.len())?;
        let launch = Launch::new(&TO_INPUT).over(input.len());
        // SAFETY: window_energy_to_input(input, twice, result, EnergyParameters): input and result
        // have `count` elements, by which the kernel guards its index, `channels` planes of
        // `pixels` for each plane of `twice`.
        unsafe {
            launch
                .input(input.buffer())
                .input(&twice)
                .output(&mut result)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        Ok(Tensor::from_device(result, input.shape()))
    }

    /// Sums along an axis, each over a window.
    fn slid(cuda: &Cuda, from: &DeviceBuffer, parameters: SlideParameters) -> Result<DeviceBuffer> {
        let mut output = cuda.any(parameters.count as usize)?;
        let launch = Launch::new(&SLIDE).over(output.len());
        // SAFETY: window_energy_slide(from, output, SlideParameters): the output has `count`
        // elements, by which the kernel guards its index, lines of `out_length` places, `inner`
        // apart; `from` has as many lines of `length` places, where the kernel's windows end.
        unsafe {
            launch
                .input(from)
                .output(&mut output)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn windows_worked_by_hand() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, -1.0, 0.0, 2.0], &[1, 1, 2, 3]).unwrap();
        let y = window_energy(&mut Tape::inference(), &x, [2, 2]).unwrap();
        assert_close(y.data(), &[6.0, 17.0], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        for window in [[2, 3], [1, 1], [4, 5]] {
            check_gradient(&[noise(&[2, 2, 4, 5], 1)], 5e-3, |tape, x| {
                window_energy(tape, &x[0], window)
            });
        }
    }

    #[test]
    fn a_window_larger_than_the_map_is_refused() {
        let x = noise(&[1, 1, 2, 3], 1);
        assert!(window_energy(&mut Tape::inference(), &x, [3, 1]).is_err());
        assert!(window_energy(&mut Tape::inference(), &x, [0, 1]).is_err());
    }
}
