//! Pixels to what a network's first layer reads: rolled, coloured and normalised in one pass.

use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pixels::Pixels;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "normalise_images";

/// What the first layer expects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Mean of each channel, of values 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of values 0 to 1.
    pub sigma: [f32; 3],
    /// Whether results are rounded to bf16 (8 bits of mantissa, nearest, ties to even), as the
    /// first layer would do in that precision.
    pub bf16: bool,
}

impl Normalisation {
    /// Scale and offset that normalise pixels of `channel`: `1 / (255 sigma)`, `-mean / sigma`.
    pub fn affine(&self, channel: usize) -> (f32, f32) {
        let (mean, sigma) = (self.mean[channel], self.sigma[channel]);
        (1.0 / (255.0 * sigma), -mean / sigma)
    }
}

/// How one sample's image is changed before it is normalised: rolled, then its colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment {
    /// Columns that the content moves to the right.
    pub roll: i32,
    /// How far colours are from the pixel's grey, the mean of its channels; 1 leaves them.
    pub saturation: f32,
    /// Factor of red, green and blue.
    pub gain: [f32; 3],
    /// What is added to every channel, of values 0 to 255.
    pub offset: f32,
}

impl Default for Augment {
    /// Nothing changes: pixels keep their bits.
    fn default() -> Self {
        Self {
            roll: 0,
            saturation: 1.0,
            gain: [1.0; 3],
            offset: 0.0,
        }
    }
}

impl Augment {
    /// Numbers of a sample.
    pub const LEN: usize = 6;

    /// One for each sample, `[N, 6]`, in the order of the fields, as [`Augmented`] takes it.
    pub fn tensor(samples: &[Self]) -> Tensor {
        let numbers = samples.iter().flat_map(|sample| {
            let [red, green, blue] = sample.gain;
            let roll = sample.roll as f32;
            [roll, sample.saturation, red, green, blue, sample.offset]
        });
        Tensor::from_parts(numbers.collect(), &[samples.len(), Self::LEN])
    }
}

/// How each image of a batch is changed.
#[derive(Debug, Clone, Copy)]
pub struct Augmented<'a> {
    /// `[N, 6]`, for each sample what [`Augment::tensor`] makes; a tensor, so that a recorded step
    /// can be given another one.
    pub samples: &'a Tensor,
    /// Whether what is rolled out on one side comes in on the other, as round a whole circle.
    /// Otherwise black comes in, which no colours change.
    pub wraps: bool,
}

/// `(colour / 255 - mean) / sigma` for each channel, `colour` being the pixel rolled to the right and
/// `gain · (grey + saturation · (pixel - grey)) + offset`, kept within 0 to 255, where `grey` is
/// the mean of its channels.
///
/// Without `augment` pixels are what they are. A roll that is no whole number is rounded down, one
/// that is no number counts as 0, and one round a circle is taken modulo the width. Colours that are
/// no numbers stay so. No gradient flows to images.
///
/// # Shapes
/// `images` `[N, 3, H, W]`; returns `[N, 3, H, W]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, [`Error::Argument`] when a sigma is not positive,
/// [`Error::Device`] when `images` and `augment` lie on different devices.
pub fn normalise_images(
    images: &Pixels,
    how: &Normalisation,
    augment: Option<Augmented>,
) -> Result<Tensor> {
    let (shape, device) = (images.shape(), images.device());
    if shape.contains(&0) {
        let expected = "[N, 3, H, W], none of them 0";
        return Err(Error::shape(OP, "images", expected, shape));
    }
    if let Some(sigma) = how.sigma.iter().find(|s| !(**s > 0.0 && s.is_finite())) {
        return Err(Error::argument(
            OP,
            format!("sigma {sigma} is not positive"),
        ));
    }
    if let Some(augment) = augment {
        let samples = augment.samples;
        samples.expect_shape(OP, "augmentation", &[shape[0], Augment::LEN])?;
        if samples.device() != device {
            return Err(Error::Device {
                op: OP,
                first: device.describe(),
                second: samples.device().describe(),
            });
        }
    }
    match &device {
        Device::Cuda(cuda) => on_cuda(cuda, images, how, augment),
        Device::Cpu => {
            let data = cpu(images, how, augment)?;
            Ok(Tensor::from_parts(data, &shape))
        }
    }
}

fn cpu(images: &Pixels, how: &Normalisation, augment: Option<Augmented>) -> Result<Vec<f32>> {
    let [_, _, h, w] = images.shape();
    let images = images.host(OP)?;
    let wraps = augment.is_none_or(|augment| augment.wraps);
    let samples = augment
        .map(|augment| augment.samples.host(OP))
        .transpose()?;
    let mut output = buffer::any(images.len());
    let planes = output.par_chunks_exact_mut(h * w).enumerate();
    planes.for_each(|(plane, output)| {
        let (sample, channel) = (plane / 3, plane % 3);
        let (scale, offset) = how.affine(channel);
        let mine = samples.map(|all| &all.as_chunks::<{ Augment::LEN }>().0[sample]);
        let image = &images[sample * 3 * h * w..][..3 * h * w];
        let rgb = [0, 1, 2].map(|channel| &image[channel * h * w..][..h * w]);
        if !wraps {
            output.fill(offset);
        }
        let roll = mine.map_or(0.0, |mine| mine[0]);
        for (row, output) in output.chunks_exact_mut(w).enumerate() {
            for [to, from, length] in runs(roll, w, wraps) {
                let output = &mut output[to..to + length];
                let rgb = rgb.map(|plane| &plane[row * w + from..][..length]);
                match mine {
                    Some(mine) if mine[1..] != [1.0, 1.0, 1.0, 1.0, 0.0] => {
                        for (i, y) in output.iter_mut().enumerate() {
                            let rgb = rgb.map(|plane| f32::from(plane[i]));
                            *y = coloured(rgb, channel, mine) * scale + offset;
                        }
                    }
                    // Such colours change nothing, to the bit.
                    _ => {
                        for (y, x) in output.iter_mut().zip(rgb[channel]) {
                            *y = f32::from(*x) * scale + offset;
                        }
                    }
                }
            }
        }
        if how.bf16 {
            for y in output {
                *y = half::bf16::from_f32(*y).to_f32();
            }
        }
    });
    Ok(output)
}

/// A channel of a pixel in a sample's colours.
#[inline(always)]
fn coloured(rgb: [f32; 3], channel: usize, sample: &[f32; Augment::LEN]) -> f32 {
    let [_, saturation, red, green, blue, offset] = *sample;
    let grey = (rgb[0] + rgb[1] + rgb[2]) / 3.0;
    let saturated = grey + saturation * (rgb[channel] - grey);
    (saturated * [red, green, blue][channel] + offset).clamp(0.0, 255.0)
}

/// The parts of a row that come from the image: their first column, where that comes from, and
/// their length. The rest of the row is black.
fn runs(roll: f32, width: usize, wraps: bool) -> [[usize; 3]; 2] {
    let (whole, length) = (roll.floor(), width as f32);
    if wraps {
        let columns = whole - (whole / length).floor() * length;
        let columns = if (0.0..length).contains(&columns) {
            columns as usize
        } else {
            0
        };
        let rest = width - columns;
        return [[columns, 0, rest], [0, rest, columns]];
    }
    // What is no number becomes 0.
    let columns = whole.clamp(-length, length) as isize;
    let (right, left) = (columns.max(0) as usize, (-columns).max(0) as usize);
    [[right, left, width - right - left], [0; 3]]
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/normalise_images.cu",
    text: include_str!("normalise_images.cu"),
    hot: &["normalise_images"],
};
static NORMALISE: Kernel = Kernel {
    source: &SOURCE,
    entry: "normalise_images",
};

parameters! {
    struct NormaliseImagesParameters {
        count: u32,
        pixels: u32,
        width: u32,
        wraps: u32,
        scale: [f32; 3],
        offset: [f32; 3],
        bf16: u32,
    }
}

fn on_cuda(
    cuda: &Cuda,
    images: &Pixels,
    how: &Normalisation,
    augment: Option<Augmented>,
) -> Result<Tensor> {
    let [n, channels, h, w] = images.shape();
    let images = images.buffer();
    let affine = [0, 1, 2].map(|channel| how.affine(channel));
    let parameters = NormaliseImagesParameters {
        count: count(OP, images.len())? / 3,
        pixels: (h * w) as u32,
        width: w as u32,
        wraps: u32::from(augment.is_none_or(|augment| augment.wraps)),
        scale: affine.map(|(scale, _)| scale),
        offset: affine.map(|(_, offset)| offset),
        bf16: u32::from(how.bf16),
    };
    let mut output = cuda.any(images.len())?;
    let launch = Launch::new(&NORMALISE).over(images.len() / 3);
    // SAFETY: normalise_images(images, augment or null, output, NormaliseImagesParameters): images
    // and output have three planes of `pixels` for each of `count / pixels` samples, and the kernel
    // guards its index by `count`; a roll stays in its row; `augment` has six numbers for each sample.
    unsafe {
        launch
            .input(images)
            .input_or_null(augment.map(|augment| augment.samples.buffer()))
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, &[n, channels, h, w]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    /// Three samples, all numbers different, the last roll wider than the image; some colours end at 0 or
    /// 255.
    const SAMPLES: [[f32; Augment::LEN]; 3] = [
        [2.0, 0.4, 1.3, 0.9, 0.7, 15.0],
        [-3.5, 1.7, 0.8, 1.1, 1.6, -40.0],
        [9.0, 0.8, 1.2, 1.4, 0.6, 7.5],
    ];

    const HOW: Normalisation = Normalisation {
        mean: [0.5, 0.0, 0.2],
        sigma: [0.25, 1.0, 0.5],
        bf16: false,
    };

    /// Pixels to themselves.
    const PLAIN: Normalisation = Normalisation {
        mean: [0.0; 3],
        sigma: [1.0 / 255.0; 3],
        bf16: false,
    };

    fn one_row() -> Pixels {
        Pixels::new(vec![0, 255, 51, 102, 255, 0, 0, 0, 51], [1, 3, 1, 3]).unwrap()
    }

    fn augmented(
        images: &Pixels,
        how: &Normalisation,
        numbers: &[f32],
        wraps: bool,
    ) -> Result<Tensor> {
        let samples = Tensor::new(numbers.to_vec(), &[numbers.len() / 6, 6])?;
        let samples = &samples;
        normalise_images(images, how, Some(Augmented { samples, wraps }))
    }

    #[test]
    fn a_row_worked_by_hand() {
        let expected = [-2.0, 2.0, -1.2, 0.4, 1.0, 0.0, -0.4, -0.4, 0.0];
        let y = normalise_images(&one_row(), &HOW, None).unwrap();
        assert_close(y.data(), &expected, 1e-6);
        // One column to the right, green doubled, which 255 is kept from.
        let numbers = [1.0, 1.0, 1.0, 2.0, 1.0, 0.0];
        let y = augmented(&one_row(), &HOW, &numbers, true).unwrap();
        let expected = [-1.2, -2.0, 2.0, 0.0, 0.8, 1.0, 0.0, -0.4, -0.4];
        assert_close(y.data(), &expected, 1e-6);
        // Black comes in, not what the offset makes of it.
        let numbers = [-1.0, 1.0, 1.0, 1.0, 1.0, 51.0];
        let y = augmented(&one_row(), &HOW, &numbers, false).unwrap();
        let expected = [2.0, -0.4, -2.0, 1.0, 0.2, 0.0, 0.0, 0.4, -0.4];
        assert_close(y.data(), &expected, 1e-6);
    }

    #[test]
    fn a_colour_worked_by_hand() {
        let pixel = Pixels::new(vec![90, 150, 60], [1, 3, 1, 1]).unwrap();
        // Grey 100; half as far from it 95, 125, 80; times 2, 1, 0.5; and 10 more.
        let numbers = [0.0, 0.5, 2.0, 1.0, 0.5, 10.0];
        let y = augmented(&pixel, &PLAIN, &numbers, true).unwrap();
        assert_close(y.data(), &[200.0, 135.0, 50.0], 1e-6);
        let all = Augment {
            roll: 0,
            saturation: 0.5,
            gain: [2.0, 1.0, 0.5],
            offset: 10.0,
        };
        assert_eq!(Augment::tensor(&[all]).data(), numbers);
        // Beyond the ends.
        let numbers = [0.0, 1.0, 3.0, -1.0, 1.0, 0.0];
        let y = augmented(&pixel, &PLAIN, &numbers, true).unwrap();
        assert_close(y.data(), &[255.0, 0.0, 60.0], 1e-6);
        // What is no number is noticed, not made black.
        let numbers = [0.0, 1.0, f32::NAN, 1.0, 1.0, 0.0];
        let y = augmented(&pixel, &PLAIN, &numbers, true).unwrap();
        assert!(y.data()[0].is_nan() && !y.data()[1].is_nan());
    }

    #[test]
    fn colours_that_change_nothing_keep_every_pixel_to_the_bit() {
        let plain = [0.0, 1.0, 1.0, 1.0, 1.0, 0.0];
        assert_eq!(Augment::tensor(&[Augment::default()]).data(), plain);
        for colour in 0..1u32 << 24 {
            let [_, red, green, blue] = colour.to_be_bytes();
            let rgb = [red, green, blue].map(f32::from);
            for (channel, value) in rgb.iter().enumerate() {
                let found = coloured(rgb, channel, &plain);
                assert_eq!(found.to_bits(), value.to_bits(), "{rgb:?}");
            }
        }
    }

    #[test]
    fn rolls_are_taken_modulo_the_width_of_a_circle_and_end_at_it_elsewhere() {
        for (roll, expected) in [
            (0.0, 0),
            (7.0, 0),
            (-1.0, 6),
            (15.5, 1),
            (-0.5, 6),
            (1e30, 0),
            (f32::NAN, 0),
            (f32::INFINITY, 0),
        ] {
            let rest = 7 - expected;
            let wanted = [[expected, 0, rest], [0, rest, expected]];
            assert_eq!(runs(roll, 7, true), wanted, "{roll}");
        }
        for (roll, expected) in [
            (0.0, [0, 0, 7]),
            (2.9, [2, 0, 5]),
            (-2.1, [0, 3, 4]),
            (7.0, [7, 0, 0]),
            (1e30, [7, 0, 0]),
            (f32::NEG_INFINITY, [0, 7, 0]),
            (f32::NAN, [0, 0, 7]),
        ] {
            assert_eq!(runs(roll, 7, false), [expected, [0; 3]], "{roll}");
        }
    }

    #[test]
    fn rounding_keeps_eight_bits() {
        let how = Normalisation { bf16: true, ..HOW };
        let y = normalise_images(&one_row(), &how, None).unwrap();
        assert!(y.data().iter().all(|y| y.to_bits() & 0xffff == 0));
        let exact = normalise_images(&one_row(), &HOW, None).unwrap();
        assert_close(y.data(), exact.data(), 1.0 / 256.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let images = Pixels::new(vec![0; 24], [2, 3, 2, 2]).unwrap();
        let numbers = SAMPLES.concat();
        assert!(augmented(&images, &HOW, &numbers[..12], true).is_ok());
        assert!(augmented(&images, &HOW, &numbers[..6], true).is_err());
        assert!(augmented(&images, &HOW, &numbers, true).is_err());
        let flat = Tensor::zeros(&[12]);
        let augment = Augmented {
            samples: &flat,
            wraps: true,
        };
        assert!(normalise_images(&images, &HOW, Some(augment)).is_err());
        let flat = Normalisation {
            sigma: [1.0, 0.0, 1.0],
            ..HOW
        };
        assert!(normalise_images(&images, &flat, None).is_err());
        let none = Pixels::new(Vec::new(), [0, 3, 2, 2]).unwrap();
        assert!(normalise_images(&none, &HOW, None).is_err());
    }
}
