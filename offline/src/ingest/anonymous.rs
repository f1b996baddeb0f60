//! Pictures as they are shown to others: without what their files say of place, time, device and owner.

use crate::data::pairs::write::jpeg;
use crossfix_onboard::image_decode::Picture;

/// The picture upright and without what its file says beside it: place, time, device, owner.
pub fn anonymous(bytes: Vec<u8>, picture: &Picture) -> (Vec<u8>, &'static str) {
    let kept = match picture.header.format {
        "JPEG" if !picture.header.turned => {
            jpeg_without_metadata(&bytes).map(|bytes| (bytes, "jpg"))
        }
        "PNG" if !picture.header.turned && bytes.len() < 4 << 20 => {
            png_without_metadata(&bytes).map(|bytes| (bytes, "png"))
        }
        _ => None,
    };
    kept.unwrap_or_else(|| match jpeg(&picture.image, "picture") {
        Ok(bytes) => (bytes, "jpg"),
        Err(_) => (bytes, "img"),
    })
}

/// A JPEG with those segments alone that its pixels and their colours need. `None` of one that is cut.
///
/// # Source
/// ITU-T T.81, annex B.1.
fn jpeg_without_metadata(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut kept = bytes.get(..2)?.to_vec();
    let mut at = 2;
    while let Some([0xff, marker]) = bytes.get(at..at + 2) {
        if *marker == 0xff {
            at += 1;
            continue;
        }
        if *marker == 0xd9 {
            kept.extend_from_slice(&[0xff, 0xd9]);
            return Some(kept);
        }
        // None of these has a length, and none belongs here: such a file is encoded anew.
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            return None;
        }
        let length = bytes.get(at + 2..at + 4)?;
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = bytes.get(at..end)?;
        if is_needed(*marker, segment.get(4..)?) {
            kept.extend_from_slice(segment);
        }
        at = end;
        if *marker == 0xda {
            at = end_of_scan(bytes, end);
            kept.extend_from_slice(&bytes[end..at]);
        }
    }
    None
}

/// Tables, frames and scans, JFIF without a thumbnail, and what says how colours are meant.
fn is_needed(marker: u8, inside: &[u8]) -> bool {
    match marker {
        0xc0..=0xdf => true,
        0xe0 => inside.starts_with(b"JFIF\0") && inside.len() == 14,
        0xe2 => inside.starts_with(b"ICC_PROFILE\0"),
        0xee => inside.starts_with(b"Adobe"),
        _ => false,
    }
}

/// Where the coded data from `at` on end: at the next marker that is no restart.
fn end_of_scan(bytes: &[u8], mut at: usize) -> usize {
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            [0xff, 0x00 | 0xd0..=0xd7] => at += 2,
            [0xff, 0xff] => at += 1,
            [0xff, _] => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A PNG with those chunks alone that its pixels need. `None` of one that is cut.
///
/// # Source
/// W3C, Portable Network Graphics (third edition), section 5.3.
fn png_without_metadata(bytes: &[u8]) -> Option<Vec<u8>> {
    const COLOURS: [&[u8]; 6] = [b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT"];
    let mut kept = bytes.get(..8)?.to_vec();
    let mut at = 8;
    loop {
        let length: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        let end = (at + 12).checked_add(u32::from_be_bytes(length) as usize)?;
        let chunk = bytes.get(at..end)?;
        let kind = &chunk[4..8];
        if kind[0].is_ascii_uppercase() || COLOURS.contains(&kind) {
            kept.extend_from_slice(chunk);
        }
        if kind == b"IEND" {
            return Some(kept);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_onboard::image_decode::decode;
    use image::{DynamicImage, ImageFormat, RgbImage};

    const SECRETS: [&[u8]; 4] = [b"OWNER", b"SECOND", b"TRAILER", b"INDEX"];

    fn encoded(format: ImageFormat) -> anyhow::Result<Vec<u8>> {
        let image = RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 3, y as u8 * 5, 77]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format)?;
        Ok(bytes.into_inner())
    }

    /// A segment or chunk of `kind` put in at `at`.
    fn with(mut bytes: Vec<u8>, at: usize, put: &[u8]) -> Vec<u8> {
        bytes.splice(at..at, put.iter().copied());
        bytes
    }

    fn segment(marker: u8, inside: &[u8]) -> Vec<u8> {
        let length = (inside.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker], length.as_slice(), inside].concat()
    }

    fn tells(bytes: &[u8]) -> bool {
        SECRETS
            .iter()
            .any(|secret| bytes.windows(secret.len()).any(|some| some == *secret))
    }

    #[test]
    fn of_a_jpeg_its_pixels_are_left() -> anyhow::Result<()> {
        let plain = encoded(ImageFormat::Jpeg)?;
        let mut bytes = with(plain.clone(), 2, &segment(0xe1, b"Exif\0\0OWNER"));
        bytes = with(bytes, 2, &segment(0xe2, b"MPF\0INDEX"));
        bytes = with(bytes, 2, &segment(0xe0, b"JFXX\0OWNER"));
        bytes = with(bytes, 2, &segment(0xf7, b"OWNER"));
        bytes = with(bytes, 2, &segment(0xe2, b"ICC_PROFILE\0colours"));
        bytes.extend_from_slice(&segment(0xe1, b"SECOND picture"));
        bytes.extend_from_slice(b"TRAILER");
        assert!(tells(&bytes));
        let picture = decode(&bytes, 1000)?;
        let (kept, extension) = anonymous(bytes, &picture);
        assert_eq!(extension, "jpg");
        assert!(!tells(&kept));
        assert!(kept.windows(7).any(|some| some == b"colours"));
        assert_eq!(
            decode(&kept, 1000)?.image.data,
            decode(&plain, 1000)?.image.data
        );
        Ok(())
    }

    #[test]
    fn of_a_png_its_pixels_are_left() -> anyhow::Result<()> {
        let plain = encoded(ImageFormat::Png)?;
        let mut chunk = 5u32.to_be_bytes().to_vec();
        chunk.extend_from_slice(b"tEXtOWNER\0\0\0\0");
        // Behind the signature and the header.
        let mut bytes = with(plain.clone(), 33, &chunk);
        bytes.extend_from_slice(b"TRAILER");
        let picture = decode(&plain, 1000)?;
        let (kept, extension) = anonymous(bytes, &picture);
        assert_eq!((kept == plain, extension), (true, "png"));
        let cut = with(plain, 33, &[0xff; 12]);
        let (kept, extension) = anonymous(cut, &picture);
        assert_eq!(extension, "jpg");
        decode(&kept, 1000)?;
        Ok(())
    }
}
