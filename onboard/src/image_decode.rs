//! Decodes JPEG, PNG, WebP and binary PNM (the pixels of raw pictures) under limits, so that a hostile picture
//! costs an error and nothing more.
//!
//! Pictures come out upright (EXIF orientation applied) and whole: a JPEG whose data end early is an
//! error, not a picture with a grey lower half.

use std::io::Cursor;

use crossfix_calibration::RgbImage;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Why bytes are not a usable picture.
#[derive(Debug, thiserror::Error)]
pub enum ImageDecodeError {
    /// No format that is read, judged by the first bytes.
    #[error("is neither JPEG nor PNG nor WebP ({0} bytes beginning {1})")]
    UnknownFormat(usize, String),
    /// A format that is known and not read.
    #[error("is {0}; save it as JPEG or PNG")]
    OtherFormat(&'static str),
    /// The compressed data end before the picture does.
    #[error("is a {0} cut short: {1}; copy it again")]
    CutShort(&'static str, String),
    /// Colours that have no one meaning without a profile.
    #[error("is a {0} in CMYK; save it as RGB")]
    Cmyk(&'static str),
    /// Damaged, or larger than allowed.
    #[error("is not a readable {0} within {1} × {1} px: {2}")]
    Unreadable(&'static str, usize, String),
}

/// What a file says of its picture, before any pixel is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Columns when upright.
    pub width: usize,
    /// Rows when upright.
    pub height: usize,
    /// `JPEG`, `PNG`, `WebP` or `PNM`.
    pub format: &'static str,
    /// Bits of a channel.
    pub bits: u8,
    /// Whether there is one channel only, alpha apart.
    pub grey: bool,
    /// Whether there is an alpha channel.
    pub alpha: bool,
    /// Whether pixels are stored otherwise than upright and turned by us.
    pub turned: bool,
}

/// A decoded picture, upright.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its colours, 8 bits.
    pub image: RgbImage,
    /// Alpha of each pixel, 0 transparent to 255, where any is below 255.
    pub alpha: Option<Vec<u8>>,
    /// What the file said.
    pub header: Header,
}

/// The picture in `bytes` without its alpha, at most `largest_side_px` wide and high. The format is
/// taken from the bytes; names and labels around them lie often enough.
///
/// # Errors
/// [`ImageDecodeError`] for anything but a whole picture within the limits.
pub fn decode_rgb(bytes: &[u8], largest_side_px: usize) -> Result<RgbImage, ImageDecodeError> {
    decode(bytes, largest_side_px).map(|picture| picture.image)
}

/// The picture in `bytes`, at most `largest_side_px` wide and high.
///
/// # Errors
/// [`ImageDecodeError`] for anything but a whole picture within the limits.
pub fn decode(bytes: &[u8], largest_side_px: usize) -> Result<Picture, ImageDecodeError> {
    let (format, name) = format_of(bytes)?;
    let fail = |problem: String| ImageDecodeError::Unreadable(name, largest_side_px, problem);
    let (header, orientation) = header_of(bytes, format, name, largest_side_px)?;
    let mut picture = if format == ImageFormat::Jpeg {
        decode_jpeg(bytes, largest_side_px)?
    } else {
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits(largest_side_px));
        reader.decode().map_err(|error| match error {
            image::ImageError::IoError(error)
                if error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                ImageDecodeError::CutShort(name, error.to_string())
            }
            other => fail(other.to_string()),
        })?
    };
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if width == 0 || height == 0 {
        return Err(fail("it has no pixels".into()));
    }
    let alpha = header.alpha.then(|| {
        let rgba = picture.to_rgba8();
        rgba.pixels().map(|pixel| pixel.0[3]).collect::<Vec<u8>>()
    });
    Ok(Picture {
        image: RgbImage {
            width,
            height,
            data: picture.into_rgb8().into_raw(),
        },
        alpha: alpha.filter(|alpha| alpha.iter().any(|value| *value < u8::MAX)),
        header,
    })
}

/// What the picture in `bytes` says of itself; decodes no pixel.
///
/// # Errors
/// [`ImageDecodeError`] for no picture, and for one that [`decode`] refuses by its header.
pub fn header(bytes: &[u8], largest_side_px: usize) -> Result<Header, ImageDecodeError> {
    let (format, name) = format_of(bytes)?;
    header_of(bytes, format, name, largest_side_px).map(|(header, _)| header)
}

/// Whether these bytes begin as an encoded picture does: JPEG, PNG or WebP.
pub fn is_picture(bytes: &[u8]) -> bool {
    use ImageFormat::{Jpeg, Png, WebP};
    matches!(format_of(bytes), Ok((Jpeg | Png | WebP, _)))
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str), ImageDecodeError> {
    let boxed = |brand: &[u8]| bytes.get(4..8) == Some(b"ftyp") && bytes.get(8..12) == Some(brand);
    let other = if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        return Ok((ImageFormat::Jpeg, "JPEG"));
    } else if bytes.starts_with(b"\x89PNG") {
        return Ok((ImageFormat::Png, "PNG"));
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Ok((ImageFormat::WebP, "WebP"));
    } else if bytes.starts_with(b"P5\n") || bytes.starts_with(b"P6\n") {
        return Ok((ImageFormat::Pnm, "PNM"));
    } else if boxed(b"heic") || boxed(b"heix") || boxed(b"mif1") {
        "a HEIF picture"
    } else if boxed(b"avif") {
        "an AVIF picture"
    } else if bytes.starts_with(b"GIF8") {
        "a GIF"
    } else if bytes.starts_with(b"BM") {
        "a BMP"
    } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
        "a TIFF"
    } else {
        let beginning = bytes
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        return Err(ImageDecodeError::UnknownFormat(bytes.len(), beginning));
    };
    Err(ImageDecodeError::OtherFormat(other))
}

fn limits(largest_side_px: usize) -> Limits {
    let side = u32::try_from(largest_side_px).unwrap_or(u32::MAX);
    let mut limits = Limits::default();
    limits.max_image_width = Some(side);
    limits.max_image_height = Some(side);
    // Sixteen-bit RGBA twice over is the most that a decoder within these sides can need.
    limits.max_alloc = Some(u64::from(side) * u64::from(side) * 16 + (1 << 20));
    limits
}

fn header_of(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    largest_side_px: usize,
) -> Result<(Header, Orientation), ImageDecodeError> {
    let fail = |problem: String| ImageDecodeError::Unreadable(name, largest_side_px, problem);
    let header = |size: [usize; 2], bits: u8, grey: bool, alpha: bool, orientation| {
        if size[0].max(size[1]) > largest_side_px {
            return Err(fail(format!("it has {} × {} px", size[0], size[1])));
        }
        let lies = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let [width, height] = if lies { [size[1], size[0]] } else { size };
        let turned = orientation != Orientation::NoTransforms;
        let header = Header {
            width,
            height,
            format: name,
            bits,
            grey,
            alpha,
            turned,
        };
        Ok((header, orientation))
    };
    if format == ImageFormat::Jpeg {
        let mut decoder =
            JpegDecoder::new_with_options(ZCursor::new(bytes), options(largest_side_px));
        decoder.decode_headers().map_err(|e| fail(e.to_string()))?;
        let (width, height) = decoder.dimensions().unwrap_or((0, 0));
        let colours = decoder.input_colorspace();
        if matches!(colours, Some(ColorSpace::CMYK | ColorSpace::YCCK)) {
            return Err(ImageDecodeError::Cmyk(name));
        }
        let orientation = decoder
            .exif()
            .and_then(|exif| Orientation::from_exif_chunk(exif))
            .unwrap_or(Orientation::NoTransforms);
        let grey = colours == Some(ColorSpace::Luma);
        return header([width, height], 8, grey, false, orientation);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(largest_side_px));
    let mut decoder = reader.into_decoder().map_err(|e| fail(e.to_string()))?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let colours = decoder.color_type();
    let stored = decoder.original_color_type();
    let grey = matches!(
        stored,
        ExtendedColorType::L1
            | ExtendedColorType::L2
            | ExtendedColorType::L4
            | ExtendedColorType::L8
            | ExtendedColorType::L16
            | ExtendedColorType::La8
            | ExtendedColorType::La16
    );
    let bits = (colours.bits_per_pixel() / u16::from(colours.channel_count())) as u8;
    header(
        [width as usize, height as usize],
        bits,
        grey,
        colours.has_alpha(),
        orientation,
    )
}

fn options(largest_side_px: usize) -> DecoderOptions {
    DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(largest_side_px)
        .set_max_height(largest_side_px)
}

/// Bytes that the JPEG decoder may read ahead of the bits that it needs.
const READ_AHEAD: usize = 8;

/// Decodes a JPEG, which must be whole.
///
/// The decoder fills what is missing with zeros when it meets the end marker, so a baseline JPEG is given
/// to it without one: then it runs out of data exactly where the file does.
fn decode_jpeg(bytes: &[u8], largest_side_px: usize) -> Result<DynamicImage, ImageDecodeError> {
    const NAME: &str = "JPEG";
    let fail = |problem: String| ImageDecodeError::Unreadable(NAME, largest_side_px, problem);
    let scans = Scans::of(bytes);
    if scans.missing {
        let what = "its data end inside the headers".to_owned();
        return Err(ImageDecodeError::CutShort(NAME, what));
    }
    let mut data;
    let data = if scans.sequential {
        data = Vec::with_capacity(scans.end + READ_AHEAD);
        data.extend_from_slice(&bytes[..scans.end]);
        data.extend_from_slice(&[0; READ_AHEAD]);
        data.as_slice()
    } else if scans.closed {
        bytes
    } else {
        let what = "it has no end marker".to_owned();
        return Err(ImageDecodeError::CutShort(NAME, what));
    };
    let options = options(largest_side_px).set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    decoder.decode_headers().map_err(|e| fail(e.to_string()))?;
    let colours = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => ColorSpace::Luma,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let (width, height) = decoder.dimensions().unwrap_or((0, 0));
    let pixels = decoder
        .decode()
        .map_err(|error| ImageDecodeError::CutShort(NAME, error.to_string()))?;
    let (width, height) = (width as u32, height as u32);
    let picture = if colours == ColorSpace::Luma {
        image::GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8)
    } else {
        image::RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8)
    };
    picture.ok_or_else(|| fail("its pixels do not fill its size".into()))
}

/// Where the compressed data of a JPEG are.
struct Scans {
    /// Whether each block is in one scan (baseline and extended sequential).
    sequential: bool,
    /// The end marker of the first picture, or the end of the bytes. Pictures that follow (previews, gain maps)
    /// are not ours.
    end: usize,
    /// Whether there is an end marker.
    closed: bool,
    /// Whether no scan begins.
    missing: bool,
}

impl Scans {
    /// # Source
    /// ITU-T T.81, annex B.1: markers, their lengths, and stuffed bytes in entropy-coded segments.
    fn of(bytes: &[u8]) -> Self {
        let mut scans = Self {
            sequential: true,
            end: bytes.len(),
            closed: false,
            missing: true,
        };
        let mut at = 2;
        while let Some(found) = bytes.get(at..).and_then(next_marker) {
            at += found;
            let marker = bytes[at + 1];
            match marker {
                0xd9 => {
                    scans.end = at;
                    scans.closed = true;
                    break;
                }
                0xc2 | 0xc6 | 0xca | 0xce => scans.sequential = false,
                0xda => scans.missing = false,
                _ => {}
            }
            at += 2;
            // Restart markers and the few without parameters stand alone.
            if !matches!(marker, 0x01 | 0xd0..=0xd8) {
                let length = bytes.get(at..at + 2);
                at += length.map_or(0, |length| {
                    u16::from_be_bytes([length[0], length[1]]).into()
                });
            }
        }
        scans
    }
}

/// How far the next marker is that is no stuffed or filling byte.
fn next_marker(bytes: &[u8]) -> Option<usize> {
    let pairs = bytes.windows(2);
    pairs
        .enumerate()
        .find(|(_, pair)| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))
        .map(|(at, _)| at)
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
    fn a_jpeg_cut_anywhere_is_refused_also_when_somebody_closed_it() {
        let mut texture = 1u32;
        let picture = image::RgbImage::from_fn(160, 96, |x, y| {
            texture = texture.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (texture >> 28) as u8;
            image::Rgb([x as u8 + noise, y as u8 * 2 + noise, 90])
        });
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        let bytes = bytes.into_inner();
        let start = bytes.len() / 4;
        for keep in (start..bytes.len() - 24).step_by(7) {
            for closed in [false, true] {
                let mut cut = bytes[..keep].to_vec();
                if closed {
                    cut.extend_from_slice(&[0xff, 0xd9]);
                }
                assert!(decode_rgb(&cut, 200).is_err(), "{keep} of {}", bytes.len());
            }
        }
        // What follows the picture is not the picture's; a lost end marker loses nothing.
        let whole = decode_rgb(&bytes, 200).unwrap();
        let more = [bytes.as_slice(), &[0xff, 0xd8, 0xff, 0xe0, 1, 2]].concat();
        assert_eq!(decode_rgb(&more, 200).unwrap(), whole);
        assert_eq!(decode_rgb(&bytes[..bytes.len() - 2], 200).unwrap(), whole);
        assert_eq!(
            image::load_from_memory(&bytes)
                .unwrap()
                .into_rgb8()
                .into_raw(),
            whole.data
        );
    }

    /// An EXIF block that says only how the picture is turned.
    fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
        let length = (exif.len() + 2) as u16;
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend_from_slice(&[0xff, 0xe1]);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&exif);
        bytes.extend_from_slice(&jpeg[2..]);
        bytes
    }

    #[test]
    fn pictures_come_out_upright() {
        let jpeg = encoded(ImageFormat::Jpeg);
        let upright = decode(&jpeg, 64).unwrap();
        assert!(!upright.header.turned);
        let turned = decode(&with_orientation(&jpeg, 3), 64).unwrap();
        assert!(turned.header.turned);
        for (col, row) in [(0, 0), (39, 0), (7, 13)] {
            assert_eq!(
                turned.image.pixel(39 - col, 19 - row),
                upright.image.pixel(col, row)
            );
        }
        let lying = with_orientation(&jpeg, 6);
        let found = header(&lying, 64).unwrap();
        assert_eq!([found.width, found.height], [20, 40]);
        assert_eq!(decode(&lying, 64).unwrap().image.width, 20);
    }

    #[test]
    fn alpha_is_kept_where_something_is_transparent() {
        let png = |alpha: u8| {
            let picture = image::RgbaImage::from_fn(4, 3, |x, _| {
                image::Rgba([9, 8, 7, if x == 0 { alpha } else { 255 }])
            });
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
            decode(&bytes.into_inner(), 64).unwrap()
        };
        assert_eq!(png(255).alpha, None);
        let alpha = png(0).alpha.unwrap();
        assert_eq!(alpha[..5], [0, 255, 255, 255, 0]);
    }

    #[test]
    fn other_formats_are_named_with_what_to_do() {
        for (bytes, words) in [
            (b"GIF89a1234".as_slice(), "a GIF; save it as JPEG"),
            (b"\0\0\0\x18ftypheic0000", "HEIF"),
            (b"II*\0 and more", "TIFF"),
            (b"plain text", "706c61696e20"),
        ] {
            let problem = decode_rgb(bytes, 64).unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn a_picture_larger_than_allowed_is_refused() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let message = decode_rgb(&encoded(format), 39).unwrap_err().to_string();
            assert!(message.contains("39 × 39"), "{message}");
            let message = header(&encoded(format), 39).unwrap_err().to_string();
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

    #[test]
    fn a_picture_that_was_cut_is_refused_and_not_half_grey() {
        // For JPEG, another test cuts at every byte.
        let whole = encoded(ImageFormat::Png);
        for keep in (whole.len() / 4..whole.len() - 1).step_by(7) {
            assert!(decode_rgb(&whole[..keep], 64).is_err(), "{keep}");
        }
        // Cut, and ended by a driver that knows the size of its buffer only.
        let whole = encoded(ImageFormat::Jpeg);
        let scan = whole
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .unwrap();
        for keep in [scan + 14, scan + 20, scan + (whole.len() - scan) / 3] {
            let ended = [&whole[..keep], &[0xff, 0xd9]].concat();
            assert!(decode_rgb(&ended, 64).is_err(), "{keep} of {}", whole.len());
        }
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
}
