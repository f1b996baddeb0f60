//! Pixels to what a network's first layer reads: rolled, brightened and normalised in one pass.

use crate::buffer;
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::testing::Case;
use rayon::prelude::*;
use std::sync::Arc;

const OP: &str = "normalise_images";

/// Eight-bit images on one device, a quarter of what the same pixels take as a [`Tensor`].
#[derive(Debug, Clone)]
pub struct Pixels {
    shape: [usize; 4],
    storage: Storage,
}

#[derive(Debug, Clone)]
enum Storage {
    Host(Arc<[u8]>),
    Cuda(Arc<DeviceBuffer<u8>>),
}

impl Pixels {
    /// Wraps `data`, row-major.
    ///
    /// # Shapes
    /// `shape` `[N, 3, H, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of bytes differs from the product of `shape`.
    pub fn new(data: Vec<u8>, shape: [usize; 4]) -> Result<Self> {
        if data.len() != shape.iter().product::<usize>() {
            return Err(Error::shape("pixels", "number of bytes", shape, data.len()));
        }
        let storage = Storage::Host(data.into());
        Ok(Self { shape, storage })
    }

    /// The same pixels on another device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Cuda`], also for anything enqueued before that failed.
    pub fn to(&self, device: &Device) -> Result<Self> {
        let storage = match (&self.storage, device) {
            (Storage::Host(_), Device::Cpu) => return Ok(self.clone()),
            (Storage::Cuda(buffer), Device::Cuda(cuda)) if buffer.cuda() == cuda => {
                return Ok(self.clone());
            }
            (Storage::Host(data), Device::Cuda(cuda)) => {
                Storage::Cuda(Arc::new(cuda.upload(data)?))
            }
            (Storage::Cuda(buffer), Device::Cpu) => Storage::Host(buffer.to_vec()?.into()),
            (Storage::Cuda(_), Device::Cuda(_)) => return self.to(&Device::Cpu)?.to(device),
        };
        Ok(Self {
            shape: self.shape,
            storage,
        })
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Host(_) => Device::Cpu,
            Storage::Cuda(buffer) => Device::Cuda(buffer.cuda().clone()),
        }
    }
}

/// Images with pixel values 0 to 255, `[N, 3, H, W]`.
#[derive(Debug, Clone, Copy)]
pub enum Images<'a> {
    /// As numbers.
    Values(&'a Tensor),
    /// As bytes.
    Bytes(&'a Pixels),
}

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

/// `(gain · pixel / 255 - mean) / sigma` for each channel, each sample rolled to the right.
///
/// `augment` holds for each sample the columns to roll by (rounded down, modulo the width; what is
/// no number counts as 0) and the gain of red, green and blue; without it nothing is rolled and
/// gains are 1. It is a tensor so that a recorded step can be given another one. No gradient flows
/// to images.
///
/// # Shapes
/// `images` `[N, 3, H, W]`, `augment` `[N, 4]`; returns `[N, 3, H, W]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, [`Error::Argument`] when a sigma is not positive,
/// [`Error::Device`] when `images` and `augment` lie apart.
pub fn normalise_images(
    images: Images,
    how: &Normalisation,
    augment: Option<&Tensor>,
) -> Result<Tensor> {
    let (shape, device) = match images {
        Images::Values(tensor) => (tensor.dims4(OP, "images")?, tensor.device()),
        Images::Bytes(pixels) => (pixels.shape, pixels.device()),
    };
    let [n, channels, h, w] = shape;
    if channels != 3 || shape.contains(&0) {
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
        augment.expect_shape(OP, "augmentation", &[n, 4])?;
        if augment.device() != device {
            return Err(Error::Device {
                op: OP,
                first: device.describe(),
                second: augment.device().describe(),
            });
        }
    }
    match (&device, images) {
        (Device::Cuda(cuda), Images::Values(tensor)) => {
            on_cuda(cuda, &VALUES, tensor.buffer(), shape, how, augment)
        }
        (Device::Cuda(cuda), Images::Bytes(pixels)) => match &pixels.storage {
            Storage::Cuda(buffer) => on_cuda(cuda, &BYTES, buffer, shape, how, augment),
            Storage::Host(_) => unreachable!("the device was read from the storage"),
        },
        (Device::Cpu, Images::Values(tensor)) => {
            let data = cpu(tensor.host(OP)?, [h, w], how, augment)?;
            Ok(Tensor::from_parts(data, &shape))
        }
        (Device::Cpu, Images::Bytes(pixels)) => match &pixels.storage {
            Storage::Host(bytes) => {
                let data = cpu(bytes, [h, w], how, augment)?;
                Ok(Tensor::from_parts(data, &shape))
            }
            Storage::Cuda(_) => unreachable!("the device was read from the storage"),
        },
    }
}

fn cpu<T: Copy + Into<f32> + Sync>(
    images: &[T],
    [h, w]: [usize; 2],
    how: &Normalisation,
    augment: Option<&Tensor>,
) -> Result<Vec<f32>> {
    let augment = augment.map(|augment| augment.host(OP)).transpose()?;
    let mut output = buffer::any(images.len());
    output
        .par_chunks_exact_mut(h * w)
        .zip(images.par_chunks_exact(h * w))
        .enumerate()
        .for_each(|(plane, (output, image))| {
            let (scale, offset) = how.affine(plane % 3);
            let mine = augment.map_or([0.0, 1.0], |all| {
                [all[plane / 3 * 4], all[plane / 3 * 4 + 1 + plane % 3]]
            });
            let [roll, gain] = mine;
            let roll = columns(roll, w);
            for (output, image) in output.chunks_exact_mut(w).zip(image.chunks_exact(w)) {
                let (left, right) = image.split_at(w - roll);
                for (y, x) in output.iter_mut().zip(right.iter().chain(left)) {
                    let value = (*x).into() * gain * scale + offset;
                    *y = if how.bf16 {
                        half::bf16::from_f32(value).to_f32()
                    } else {
                        value
                    };
                }
            }
        });
    Ok(output)
}

/// A roll modulo the width.
fn columns(roll: f32, width: usize) -> usize {
    let (whole, length) = (roll.floor(), width as f32);
    let columns = whole - (whole / length).floor() * length;
    if (0.0..length).contains(&columns) {
        columns as usize
    } else {
        0
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/normalise_images.cu",
    text: include_str!("normalise_images.cu"),
    hot: &["normalise_images_bytes", "normalise_images_values"],
};
static BYTES: Kernel = Kernel {
    source: &SOURCE,
    entry: "normalise_images_bytes",
};
static VALUES: Kernel = Kernel {
    source: &SOURCE,
    entry: "normalise_images_values",
};

parameters! {
    struct NormaliseImagesParameters {
        count: u32,
        pixels: u32,
        width: u32,
        scale: [f32; 3],
        offset: [f32; 3],
        bf16: u32,
    }
}

fn on_cuda<T: crate::cuda::Element>(
    cuda: &Cuda,
    kernel: &'static Kernel,
    images: &DeviceBuffer<T>,
    shape: [usize; 4],
    how: &Normalisation,
    augment: Option<&Tensor>,
) -> Result<Tensor> {
    let affine = [0, 1, 2].map(|channel| how.affine(channel));
    let parameters = NormaliseImagesParameters {
        count: count(OP, images.len())?,
        pixels: (shape[2] * shape[3]) as u32,
        width: shape[3] as u32,
        scale: affine.map(|(scale, _)| scale),
        offset: affine.map(|(_, offset)| offset),
        bf16: u32::from(how.bf16),
    };
    let mut output = cuda.any(images.len())?;
    let launch = Launch::new(kernel).over(images.len());
    // SAFETY: normalise_images_bytes or _values(pixels, augment or null, output,
    // NormaliseImagesParameters): images of bytes or floats, as the kernel was chosen, and output
    // have `count` elements, by which the kernel guards its index; a roll stays in its row;
    // `augment` has four numbers for each three planes of `pixels`.
    unsafe {
        launch
            .input(images)
            .input_or_null(augment.map(Tensor::buffer))
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, &shape))
}

/// What is run on every device. Bytes are made inside, as cases hold tensors.
pub(crate) fn cases() -> Vec<Case> {
    let how = |bf16| Normalisation {
        mean: [0.485, 0.456, 0.406],
        sigma: [0.229, 0.224, 0.225],
        bf16,
    };
    let augment = vec![2.0, 1.1, 0.9, 1.0, -9.5, 1.0, 1.2, 0.8];
    let augment = Tensor::from_parts(augment, &[2, 4]);
    let bytes = (0..2 * 3 * 5 * 7).map(|i| (i * 37 % 256) as u8).collect();
    let bytes = Pixels {
        shape: [2, 3, 5, 7],
        storage: Storage::Host(bytes),
    };
    let values = Case::new("normalise_images", &[&[2, 3, 5, 7]], move |_, x| {
        normalise_images(Images::Values(&x[0]), &how(false), None)
    });
    let rolled = Case::new(
        "normalise_images, augmented",
        &[&[2, 3, 5, 7], &[2, 4]],
        move |_, x| normalise_images(Images::Values(&x[0]), &how(false), Some(&x[1])),
    );
    let from_bytes = Case::new("normalise_images of bytes", &[&[2, 4]], move |_, x| {
        let bytes = bytes.to(&x[0].device())?;
        normalise_images(Images::Bytes(&bytes), &how(false), Some(&x[0]))
    });
    let rounded = Case::new("normalise_images to bf16", &[&[2, 3, 5, 7]], move |_, x| {
        normalise_images(Images::Values(&x[0]), &how(true), None)
    });
    vec![
        values.without_gradient(&[0]),
        rolled.input(1, augment.clone()).without_gradient(&[0, 1]),
        from_bytes.input(0, augment).without_gradient(&[0]),
        rounded.without_gradient(&[0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};

    const HOW: Normalisation = Normalisation {
        mean: [0.5, 0.0, 0.2],
        sigma: [0.25, 1.0, 0.5],
        bf16: false,
    };

    #[test]
    fn a_row_worked_by_hand() {
        let bytes = vec![0, 255, 51, 102, 255, 0, 0, 0, 51];
        let pixels = Pixels::new(bytes.clone(), [1, 3, 1, 3]).unwrap();
        let expected = [-2.0, 2.0, -1.2, 0.4, 1.0, 0.0, -0.4, -0.4, 0.0];
        let y = normalise_images(Images::Bytes(&pixels), &HOW, None).unwrap();
        assert_close(y.data(), &expected, 1e-6);
        let values = bytes.iter().map(|byte| f32::from(*byte)).collect();
        let values = Tensor::new(values, &[1, 3, 1, 3]).unwrap();
        let same = normalise_images(Images::Values(&values), &HOW, None).unwrap();
        assert_eq!(same.data(), y.data());
        // One column to the right, green doubled.
        let augment = Tensor::new(vec![1.0, 1.0, 2.0, 1.0], &[1, 4]).unwrap();
        let y = normalise_images(Images::Bytes(&pixels), &HOW, Some(&augment)).unwrap();
        let expected = [-1.2, -2.0, 2.0, 0.0, 0.8, 2.0, 0.0, -0.4, -0.4];
        assert_close(y.data(), &expected, 1e-6);
    }

    #[test]
    fn rolls_are_taken_modulo_the_width() {
        for (roll, expected) in [
            (0.0, 0),
            (7.0, 0),
            (-1.0, 6),
            (15.5, 1),
            (-0.5, 6),
            (1e30, 0),
        ] {
            assert_eq!(columns(roll, 7), expected, "{roll}");
        }
        assert_eq!(columns(f32::NAN, 7), 0);
        assert_eq!(columns(f32::INFINITY, 7), 0);
    }

    #[test]
    fn rounding_keeps_eight_bits() {
        let x = noise(&[1, 3, 2, 2], 1);
        let how = Normalisation { bf16: true, ..HOW };
        let y = normalise_images(Images::Values(&x), &how, None).unwrap();
        assert!(y.data().iter().all(|y| y.to_bits() & 0xffff == 0));
        let exact = normalise_images(Images::Values(&x), &HOW, None).unwrap();
        assert_close(y.data(), exact.data(), 1.0 / 256.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let grey = noise(&[1, 1, 2, 2], 1);
        assert!(normalise_images(Images::Values(&grey), &HOW, None).is_err());
        let x = noise(&[2, 3, 2, 2], 1);
        let one = noise(&[1, 4], 2);
        assert!(normalise_images(Images::Values(&x), &HOW, Some(&one)).is_err());
        let flat = Normalisation {
            sigma: [1.0, 0.0, 1.0],
            ..HOW
        };
        assert!(normalise_images(Images::Values(&x), &flat, None).is_err());
        assert!(Pixels::new(vec![0; 11], [1, 3, 2, 2]).is_err());
    }
}
