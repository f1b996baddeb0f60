//! Pictures from disk: JPEG, PNG and WebP, upright and whole, bounded in bytes and pixels.
//!
//! The decoder is the daemon's ([`image_decode`]), so training and driving refuse the same pictures.

use crossfix_calibration::RgbImage;
use crossfix_onboard::file;
use crossfix_onboard::image_decode::{self, Header};
use std::fmt::Display;
use std::io::Read;
use std::path::Path;

/// Largest side of a picture that is decoded.
pub const MOST_SIDE_PX: usize = 16_384;
/// Largest file of a picture.
const MOST_IMAGE_BYTES: u64 = 64 << 20;
/// Bytes in which nearly every picture says its size.
const HEADER_BYTES: u64 = 128 << 10;

/// Decodes a picture.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn read(path: &Path) -> Result<RgbImage, String> {
    decode(&bytes(path)?).map_err(|error| said(path, &error))
}

/// The bytes of a picture's file: a regular one, which a pipe is not, and not too large.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    file::read(path, MOST_IMAGE_BYTES).map_err(|error| said(path, &error))
}

/// Decodes the bytes of a picture.
///
/// # Errors
/// What is wrong and what to do.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    image_decode::decode_rgb(bytes, MOST_SIDE_PX).map_err(|error| error.to_string())
}

/// Columns and rows of a picture when upright, from its header alone.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn size(path: &Path) -> Result<[usize; 2], String> {
    header(path).map(|header| [header.width, header.height])
}

/// What a picture's file says of it; decodes no pixel.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn header(path: &Path) -> Result<Header, String> {
    let say = |what: &dyn Display| said(path, what);
    let file = file::open(path).map_err(|error| say(&error))?;
    let size = file.metadata().map_err(|error| say(&error))?.len();
    let mut beginning = Vec::new();
    file.take(HEADER_BYTES)
        .read_to_end(&mut beginning)
        .map_err(|error| say(&error))?;
    let header = image_decode::header(&beginning, MOST_SIDE_PX);
    if header.is_ok() || size <= HEADER_BYTES {
        return header.map_err(|error| say(&error));
    }
    // Large previews and profiles may stand before it.
    image_decode::header(&bytes(path)?, MOST_SIDE_PX).map_err(|error| say(&error))
}

fn said(path: &Path, what: &dyn Display) -> String {
    format!("{}: {what}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn encoded(format: image::ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        image::RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8 * 9, y as u8 * 20, 77]))
            .write_to(&mut Cursor::new(&mut bytes), format)
            .unwrap();
        bytes
    }

    #[test]
    fn jpeg_and_png_are_read() {
        for format in [image::ImageFormat::Jpeg, image::ImageFormat::Png] {
            let picture = decode(&encoded(format)).unwrap();
            assert_eq!((picture.width, picture.height), (20, 10));
        }
    }

    proptest! {
        #[test]
        fn damaged_pictures_are_refused_or_read_and_never_panic(
            jpeg in any::<bool>(),
            cut in 0usize..4000,
            changes in prop::collection::vec((0usize..4000, any::<u8>()), 0..12),
        ) {
            let format = if jpeg { image::ImageFormat::Jpeg } else { image::ImageFormat::Png };
            let mut bytes = encoded(format);
            for (place, value) in changes {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            bytes.truncate(cut);
            if let Ok(picture) = decode(&bytes) {
                prop_assert_eq!(picture.data.len(), picture.width * picture.height * 3);
            }
        }
    }
}
