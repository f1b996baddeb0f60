//! The one image type that travels between our crates: interleaved 8-bit RGB.

use crate::{Error, Result};

/// Interleaved RGB, row-major, row 0 on top; `data.len() == width * height * 3`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RgbImage {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// A black image.
    pub fn black(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            data: vec![0; width * height * 3],
        }
    }

    /// An image from its bytes.
    ///
    /// # Errors
    /// [`Error::ImageSize`] unless there are exactly `width * height * 3` bytes.
    pub fn from_data(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        let image = Self {
            width,
            height,
            data,
        };
        image.check_size("image", width, height)?;
        Ok(image)
    }

    /// Says whether the image has the size the caller counts on, bytes included.
    ///
    /// # Errors
    /// [`Error::ImageSize`], naming `what`, when it has not.
    pub fn check_size(&self, what: &str, width: usize, height: usize) -> Result<()> {
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if self.width == width && self.height == height && bytes == Some(self.data.len()) {
            return Ok(());
        }
        Err(Error::ImageSize {
            what: what.to_owned(),
            expected_width: width,
            expected_height: height,
            width: self.width,
            height: self.height,
            bytes: self.data.len(),
        })
    }

    /// The colour at a pixel.
    ///
    /// # Panics
    /// When the pixel is outside the image.
    pub fn pixel(&self, col: usize, row: usize) -> [u8; 3] {
        assert!(
            col < self.width && row < self.height,
            "pixel {col},{row} outside {self:?}"
        );
        let at = (row * self.width + col) * 3;
        [self.data[at], self.data[at + 1], self.data[at + 2]]
    }

    /// Sets the colour at a pixel.
    ///
    /// # Panics
    /// When the pixel is outside the image.
    pub fn set_pixel(&mut self, col: usize, row: usize, colour: [u8; 3]) {
        assert!(
            col < self.width && row < self.height,
            "pixel {col},{row} outside {self:?}"
        );
        let at = (row * self.width + col) * 3;
        self.data[at..at + 3].copy_from_slice(&colour);
    }

    /// The image averaged over `factor` × `factor` blocks; a ragged right or bottom edge is dropped.
    ///
    /// # Panics
    /// When `factor` is zero.
    pub fn reduced(&self, factor: usize) -> Self {
        assert!(factor > 0, "a reduction factor of zero");
        if factor == 1 {
            return self.clone();
        }
        let (width, height) = (self.width / factor, self.height / factor);
        let mut out = Self::black(width, height);
        let mut sums = vec![0u32; width * 3];
        let count = (factor * factor) as u32;
        for row in 0..height {
            sums.fill(0);
            for y in row * factor..(row + 1) * factor {
                let line = &self.data[y * self.width * 3..][..width * factor * 3];
                for (sum, block) in sums.chunks_exact_mut(3).zip(line.chunks_exact(factor * 3)) {
                    for pixel in block.chunks_exact(3) {
                        for (s, &v) in sum.iter_mut().zip(pixel) {
                            *s += u32::from(v);
                        }
                    }
                }
            }
            let line = &mut out.data[row * width * 3..][..width * 3];
            for (o, &s) in line.iter_mut().zip(&sums) {
                *o = ((s + count / 2) / count) as u8;
            }
        }
        out
    }
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "RgbImage({}x{}, {} bytes)",
            self.width,
            self.height,
            self.data.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_byte_count_is_refused_with_the_numbers() {
        let error = RgbImage::from_data(2, 2, vec![0; 11])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("2x2") && error.contains("11 bytes"),
            "{error}"
        );
        assert!(RgbImage::from_data(usize::MAX, 2, vec![]).is_err());
    }

    #[test]
    fn reduction_averages_blocks_and_drops_the_ragged_edge() {
        let mut image = RgbImage::black(5, 2);
        image.set_pixel(0, 0, [10, 20, 30]);
        image.set_pixel(1, 1, [30, 20, 10]);
        image.set_pixel(4, 0, [255; 3]);
        let small = image.reduced(2);
        assert_eq!((small.width, small.height), (2, 1));
        assert_eq!(small.pixel(0, 0), [10, 10, 10]);
        assert_eq!(small.pixel(1, 0), [0, 0, 0]);
    }
}
