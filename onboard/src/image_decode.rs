//! Decodes JPEG, PNG and binary PNM (the pixels of raw pictures) under limits, so that a hostile picture
//! costs an error and nothing more.

use std::io::Cursor;

use crossfix_calibration::RgbImage;
use image::{ImageFormat, ImageReader, Limits};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Bytes after the end of a JPEG that are looked through for it.
const PADDING_BYTES: usize = 4096;

/// Why bytes are not a usable picture.
#[derive(Debug, thiserror::Error)]
pub enum ImageDecodeError {
    /// Neither JPEG nor PNG nor binary PNM, judged by the first bytes.
    #[error("is neither JPEG nor PNG ({0} bytes beginning {1})")]
    UnknownFormat(usize, String),
    /// Damaged, truncated or larger than allowed.
    #[error("is not a readable {0} within {1} × {1} px: {2}")]
    Unreadable(&'static str, usize, String),
}

/// Whether these bytes begin as an encoded picture does, JPEG or PNG.
pub fn is_picture(bytes: &[u8]) -> bool {
    matches!(
        format_of(bytes),
        Some((ImageFormat::Jpeg | ImageFormat::Png, _))
    )
}

fn format_of(bytes: &[u8]) -> Option<(ImageFormat, &'static str)> {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    if begins(&[0xff, 0xd8, 0xff]) {
        Some((ImageFormat::Jpeg, "JPEG"))
    } else if begins(b"\x89PNG") {
        Some((ImageFormat::Png, "PNG"))
    } else if begins(b"P5\n") || begins(b"P6\n") {
        Some((ImageFormat::Pnm, "PNM"))
    } else {
        None
    }
}

/// The picture in `bytes`, at most `largest_side_px` wide and high. The format is taken from the
/// bytes; names and labels around them lie often enough.
///
/// # Errors
/// [`ImageDecodeError`] for anything but a whole JPEG, PNG or binary PNM within the limits.
pub fn decode_rgb(bytes: &[u8], largest_side_px: usize) -> Result<RgbImage, ImageDecodeError> {
    let Some((format, name)) = format_of(bytes) else {
        let beginning = bytes
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        return Err(ImageDecodeError::UnknownFormat(bytes.len(), beginning));
    };
    let fail = |problem: String| ImageDecodeError::Unreadable(name, largest_side_px, problem);
    if format == ImageFormat::Jpeg {
        return decode_jpeg(bytes, largest_side_px).map_err(fail);
    }
    let side = u32::try_from(largest_side_px).unwrap_or(u32::MAX);
    let mut limits = Limits::default();
    limits.max_image_width = Some(side);
    limits.max_image_height = Some(side);
    // Sixteen-bit RGBA twice over is the most that a decoder within these sides can need.
    limits.max_alloc = Some(u64::from(side) * u64::from(side) * 16 + (1 << 20));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let picture = reader
        .decode()
        .map_err(|e| fail(e.to_string()))?
        .into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if width == 0 || height == 0 {
        return Err(fail("it has no pixels".into()));
    }
    Ok(RgbImage {
        width,
        height,
        data: picture.into_raw(),
    })
}

/// A whole JPEG. By default the decoder fills what is missing of a picture with grey. A picture that was cut
/// and then ended with an end marker of its own is not recognised: its decoder takes that for the end.
fn decode_jpeg(bytes: &[u8], largest_side_px: usize) -> Result<RgbImage, String> {
    // Some writers add padding after the end.
    let ends = bytes.windows(2).rev().take(PADDING_BYTES);
    if !ends.into_iter().any(|pair| pair == [0xff, 0xd9]) {
        return Err("it was cut: its end is missing".into());
    }
    let options = DecoderOptions::default()
        .set_max_width(largest_side_px)
        .set_max_height(largest_side_px)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let decode = |strict: bool| {
        let options = options.set_strict_mode(strict);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        let data = decoder.decode().map_err(|error| error.to_string())?;
        let (width, height) = decoder.dimensions().ok_or("it has no size")?;
        Ok::<_, String>((width, height, data))
    };
    let (width, height, data) = match decode(true) {
        // Bytes too many between its headers are no damage.
        Err(problem) if problem.contains("Extra bytes between headers") => decode(false)?,
        decoded => decoded?,
    };
    RgbImage::from_data(width, height, data).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let picture =
            image::RgbImage::from_fn(40, 20, |x, y| image::Rgb([x as u8 * 6, y as u8 * 12, 128]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn both_formats_decode_to_rgb() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let picture = decode_rgb(&encoded(format), 64).unwrap();
            assert_eq!(
                (picture.width, picture.height, picture.data.len()),
                (40, 20, 2400)
            );
        }
    }

    #[test]
    fn a_picture_that_was_cut_is_refused_and_not_half_grey() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let whole = encoded(format);
            for keep in (whole.len() / 4..whole.len() - 1).step_by(7) {
                assert!(decode_rgb(&whole[..keep], 64).is_err(), "{format:?} {keep}");
            }
        }
        let whole = encoded(ImageFormat::Jpeg);
        let padded = [&whole[..], &[0; 500]].concat();
        assert_eq!(
            decode_rgb(&padded, 64).unwrap().data,
            decode_rgb(&whole, 64).unwrap().data
        );
    }

    #[test]
    fn a_jpeg_is_what_the_image_crate_makes_of_it_also_in_grey() {
        let grey = image::GrayImage::from_fn(40, 20, |x, y| image::Luma([(x * 6 + y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        grey.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        for bytes in [bytes.into_inner(), encoded(ImageFormat::Jpeg)] {
            let ours = decode_rgb(&bytes, 64).unwrap();
            let theirs = image::load_from_memory(&bytes).unwrap().into_rgb8();
            assert_eq!(ours.data, theirs.into_raw());
        }
    }

    #[test]
    fn a_picture_larger_than_allowed_is_refused() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let message = decode_rgb(&encoded(format), 39).unwrap_err().to_string();
            assert!(message.contains("39 × 39"), "{message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn damaged_pictures_never_panic(at in 2usize..5000, value: u8, keep in 0usize..5000) {
            for format in [ImageFormat::Png, ImageFormat::Jpeg] {
                let mut bytes = encoded(format);
                let at = at % bytes.len();
                bytes[at] = value;
                bytes.truncate(keep.max(1).min(bytes.len()));
                let _ = decode_rgb(&bytes, 64);
            }
        }
    }
}
