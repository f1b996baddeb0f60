//! Pictures from disk: JPEG and PNG, bounded in bytes and pixels.

use crossfix_calibration::RgbImage;
use std::fmt::Display;
use std::io::{Cursor, Read};
use std::path::Path;

/// Largest side of a picture that is decoded.
const MOST_SIDE_PX: u32 = 16_384;
/// Largest file of a picture.
const MOST_IMAGE_BYTES: u64 = 64 << 20;
/// Most memory that a decoder may ask for.
const MOST_DECODED_BYTES: u64 = 1 << 30;

/// Decodes a picture.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn read(path: &Path) -> Result<RgbImage, String> {
    let say = |what: &dyn Display| format!("{}: {what}", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_IMAGE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| say(&error))?;
    if bytes.len() as u64 > MOST_IMAGE_BYTES {
        return Err(say(&format!(
            "pictures have at most {MOST_IMAGE_BYTES} bytes"
        )));
    }
    decode(&bytes).map_err(|error| say(&error))
}

/// Decodes the bytes of a picture.
///
/// # Errors
/// What is wrong and what to do.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let mut reader = image::ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MOST_SIDE_PX);
    limits.max_image_height = Some(MOST_SIDE_PX);
    limits.max_alloc = Some(MOST_DECODED_BYTES);
    reader.limits(limits);
    let picture = reader
        .decode()
        .map_err(|error| format!("{error}; make it a JPEG or PNG again"))?
        .into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    RgbImage::from_data(width, height, picture.into_raw()).map_err(|error| error.to_string())
}

/// Columns and rows of a picture, from its header alone.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn size(path: &Path) -> Result<[usize; 2], String> {
    let say = |what: &dyn Display| format!("{}: {what}; copy it again", path.display());
    let (width, height) = image::ImageReader::open(path)
        .and_then(image::ImageReader::with_guessed_format)
        .map_err(|error| say(&error))?
        .into_dimensions()
        .map_err(|error| say(&error))?;
    Ok([width as usize, height as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
