//! Pictures inside the page: encoded once, carried as base64.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossfix_calibration::{Heatmap, RgbImage};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::FilterType;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};

/// Why a picture cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The pixels do not fill the stated size.
    #[error("a picture of {width} x {height} needs {expected} bytes of RGB but has {found}")]
    Size {
        /// Stated width.
        width: usize,
        /// Stated height.
        height: usize,
        /// Bytes that size needs.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The encoded bytes are neither JPEG nor PNG, or are damaged.
    #[error("a picture in the report input is no readable JPEG or PNG: {0}")]
    Encoding(String),
}

/// A JPEG or PNG, encoded. In JSON it is a base64 string.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Picture {
    bytes: Vec<u8>,
    format: Format,
    width_px: usize,
    height_px: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
}

impl Picture {
    /// Encodes as JPEG, shrunk first so that no side is longer than `longest_side_px`.
    ///
    /// # Errors
    /// [`PictureError::Size`] when the pixels do not fill the image.
    pub fn jpeg(image: &RgbImage, longest_side_px: usize) -> Result<Self, PictureError> {
        let expected = image.width * image.height * 3;
        if image.data.len() != expected || expected == 0 {
            return Err(PictureError::Size {
                width: image.width,
                height: image.height,
                expected,
                found: image.data.len(),
            });
        }
        let (mut width, mut height) = (image.width as u32, image.height as u32);
        let mut pixels = image.data.clone();
        let longest = width.max(height);
        let limit = (longest_side_px as u32).max(1);
        if longest > limit
            && let Some(buffer) = image::RgbImage::from_raw(width, height, pixels.clone())
        {
            let shrink =
                |side: u32| (u64::from(side) * u64::from(limit) / u64::from(longest)) as u32;
            (width, height) = (shrink(width).max(1), shrink(height).max(1));
            // Box-like filtering: a point-sampled overview would alias roofs and lane marks.
            pixels =
                image::imageops::resize(&buffer, width, height, FilterType::Triangle).into_raw();
        }
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 84)
            .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
            .map_err(|error| PictureError::Encoding(error.to_string()))?;
        Ok(Self {
            bytes,
            format: Format::Jpeg,
            width_px: width as usize,
            height_px: height as usize,
        })
    }

    /// A heatmap as a see-through picture to lay over its aerial patch.
    ///
    /// Each heatmap is scaled by its own largest cell. The square root lifts the low
    /// probabilities, so a second mode with a quarter of the first one's height still shows.
    ///
    /// # Errors
    /// [`PictureError::Size`] when the heatmap is empty.
    pub fn heatmap_overlay(heatmap: &Heatmap) -> Result<Self, PictureError> {
        Self::overlay(heatmap.side(), heatmap.probabilities())
    }

    fn overlay(side: usize, probabilities: &[f32]) -> Result<Self, PictureError> {
        if side == 0 || probabilities.len() != side * side {
            return Err(PictureError::Size {
                width: side,
                height: side,
                expected: side * side * 3,
                found: probabilities.len() * 3,
            });
        }
        let largest = probabilities.iter().copied().fold(0.0_f32, f32::max);
        let pixels: Vec<u8> = probabilities
            .iter()
            .flat_map(|&probability| {
                let share = f64::from(probability / largest);
                let level = if share.is_finite() {
                    share.clamp(0.0, 1.0).sqrt()
                } else {
                    0.0
                };
                let [red, green, blue] = heat_colour(level);
                // Below 4 % of the height (a level of 0.2) nothing is drawn: a veil over the street hides it.
                let alpha = ((level - 0.2).max(0.0) / 0.8).powf(0.7) * 225.0;
                [red, green, blue, alpha as u8]
            })
            .collect();
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(&pixels, side as u32, side as u32, ExtendedColorType::Rgba8)
            .map_err(|error| PictureError::Encoding(error.to_string()))?;
        Ok(Self {
            bytes,
            format: Format::Png,
            width_px: side,
            height_px: side,
        })
    }

    /// Takes bytes that are already JPEG or PNG.
    ///
    /// # Errors
    /// [`PictureError::Encoding`] when they are not, or their header is damaged.
    pub fn from_encoded(bytes: Vec<u8>) -> Result<Self, PictureError> {
        let refuse = |error: &dyn std::fmt::Display| PictureError::Encoding(error.to_string());
        let reader = ImageReader::new(Cursor::new(&bytes))
            .with_guessed_format()
            .map_err(|error| refuse(&error))?;
        let format = match reader.format() {
            Some(ImageFormat::Jpeg) => Format::Jpeg,
            Some(ImageFormat::Png) => Format::Png,
            _ => return Err(refuse(&"unknown format")),
        };
        let (width, height) = reader.into_dimensions().map_err(|error| refuse(&error))?;
        if width == 0 || height == 0 {
            return Err(refuse(&"no pixels"));
        }
        Ok(Self {
            bytes,
            format,
            width_px: width as usize,
            height_px: height as usize,
        })
    }

    /// Width in pixels as stored.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// Height in pixels as stored.
    pub fn height_px(&self) -> usize {
        self.height_px
    }

    /// Bytes this takes inside the page.
    pub(super) fn page_bytes(&self) -> usize {
        self.bytes.len().div_ceil(3) * 4
    }

    pub(super) fn data_uri(&self) -> String {
        let kind = match self.format {
            Format::Jpeg => "jpeg",
            Format::Png => "png",
        };
        format!("data:image/{kind};base64,{}", STANDARD.encode(&self.bytes))
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {} px)", self.width_px, self.height_px)
    }
}

impl From<Picture> for String {
    fn from(picture: Picture) -> Self {
        STANDARD.encode(picture.bytes)
    }
}

impl TryFrom<String> for Picture {
    type Error = PictureError;

    fn try_from(text: String) -> Result<Self, PictureError> {
        let bytes = STANDARD.decode(text.as_bytes());
        Self::from_encoded(bytes.map_err(|error| PictureError::Encoding(error.to_string()))?)
    }
}

/// Colour of a heatmap level, 0 to 1: dark violet, red, yellow, rising in lightness, so it reads
/// the same in grey and to colour-blind eyes.
pub(super) fn heat_colour(level: f64) -> [u8; 3] {
    const ANCHORS: [[f64; 3]; 6] = [
        [40.0, 11.0, 84.0],
        [101.0, 21.0, 110.0],
        [171.0, 36.0, 88.0],
        [229.0, 80.0, 40.0],
        [251.0, 155.0, 6.0],
        [252.0, 250.0, 150.0],
    ];
    interpolate(&ANCHORS, level)
}

/// Colour of an error, 0 (none) to 1 (at or past the limit): blue, magenta, yellow, rising in
/// lightness like the heatmap's.
pub(super) fn error_colour(level: f64) -> [u8; 3] {
    const ANCHORS: [[f64; 3]; 5] = [
        [38.0, 60.0, 190.0],
        [126.0, 40.0, 176.0],
        [214.0, 62.0, 112.0],
        [248.0, 142.0, 62.0],
        [244.0, 246.0, 60.0],
    ];
    interpolate(&ANCHORS, level)
}

/// Colour of support or trust, 0 (a guess) to 1 (sure): red, yellow, cyan, rising in lightness.
pub(super) fn good_colour(level: f64) -> [u8; 3] {
    const ANCHORS: [[f64; 3]; 4] = [
        [178.0, 30.0, 60.0],
        [232.0, 96.0, 40.0],
        [250.0, 190.0, 40.0],
        [120.0, 240.0, 225.0],
    ];
    interpolate(&ANCHORS, level)
}

fn interpolate(anchors: &[[f64; 3]], level: f64) -> [u8; 3] {
    let level = if level.is_finite() {
        level.clamp(0.0, 1.0)
    } else {
        1.0
    };
    let place = level * (anchors.len() - 1) as f64;
    let index = (place as usize).min(anchors.len() - 2);
    let share = place - index as f64;
    std::array::from_fn(|channel| {
        let (low, high) = (anchors[index][channel], anchors[index + 1][channel]);
        (low + (high - low) * share).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize) -> RgbImage {
        RgbImage {
            width,
            height,
            data: vec![128; width * height * 3],
        }
    }

    #[test]
    fn a_large_image_shrinks_and_keeps_its_shape() {
        let picture = Picture::jpeg(&grey(400, 100), 200).unwrap();
        assert_eq!((picture.width_px(), picture.height_px()), (200, 50));
        let small = Picture::jpeg(&grey(40, 10), 200).unwrap();
        assert_eq!((small.width_px(), small.height_px()), (40, 10));
    }

    #[test]
    fn missing_pixels_are_refused() {
        let mut image = grey(4, 4);
        image.data.pop();
        assert!(
            Picture::jpeg(&image, 100)
                .unwrap_err()
                .to_string()
                .contains("47")
        );
        assert!(Picture::jpeg(&grey(0, 4), 100).is_err());
    }

    #[test]
    fn a_picture_survives_json() {
        let picture = Picture::overlay(2, &[0.1, 0.2, 0.3, 0.4]).unwrap();
        let text = serde_json::to_string(&picture).unwrap();
        assert_eq!(serde_json::from_str::<Picture>(&text).unwrap(), picture);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        for text in ["\"\"", "\"!!\"", "\"PHN2Zz4=\"", "\"/9j/4AAQ\"", "3"] {
            assert!(serde_json::from_str::<Picture>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_overlay_is_clear_where_nothing_is_likely() {
        let picture = Picture::overlay(2, &[1.0, 0.0, 0.0, f32::NAN]).unwrap();
        let pixels = image::load_from_memory(&picture.bytes)
            .unwrap()
            .into_rgba8();
        assert_eq!(pixels.get_pixel(1, 0)[3], 0);
        assert_eq!(pixels.get_pixel(1, 1)[3], 0);
        assert!(pixels.get_pixel(0, 0)[3] > 200);
    }

    #[test]
    fn colours_rise_in_lightness() {
        for colour in [heat_colour, error_colour, good_colour] {
            let lightness = |level: f64| {
                let [r, g, b] = colour(level).map(f64::from);
                0.2126 * r + 0.7152 * g + 0.0722 * b
            };
            for step in 0..40 {
                let level = f64::from(step) / 40.0;
                assert!(lightness(level + 0.025) > lightness(level) - 1.0, "{level}");
            }
        }
    }
}
