//! Pictures as they are shown to others: without what their files say of place, time, device and owner.

use crate::data::pairs::write::jpeg;
use crossfix_onboard::image_decode::Picture;

/// The picture upright and without what its file says beside it: place, time, device, owner.
pub fn anonymous(bytes: Vec<u8>, picture: &Picture) -> (Vec<u8>, &'static str) {
    let kept = match picture.header.format {
        "JPEG" if !picture.header.turned => Some((jpeg_without_metadata(&bytes), "jpg")),
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

/// A JPEG without its application segments but those that say what its colours are, and without what follows
/// its end: more pictures, and what cameras append.
///
/// # Source
/// ITU-T T.81, annex B.1.
fn jpeg_without_metadata(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    kept.extend_from_slice(&bytes[..2]);
    let mut at = 2;
    while let Some([0xff, marker]) = bytes.get(at..at + 2) {
        if *marker == 0xff {
            at += 1;
            continue;
        }
        let Some(length) = bytes.get(at + 2..at + 4) else {
            break;
        };
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if *marker == 0xda {
            kept.extend_from_slice(&bytes[at..end_of_scans(bytes, at)]);
            return kept;
        }
        // Profiles say what colours are; the other segments of their kind are indices of more pictures.
        let profile = || {
            let inside = bytes.get(at + 4..);
            inside.is_some_and(|inside| inside.starts_with(b"ICC_PROFILE\0"))
        };
        let says_nothing = match marker {
            0xe1 | 0xe3..=0xed | 0xef | 0xfe => true,
            0xe2 => !profile(),
            _ => false,
        };
        if !says_nothing {
            kept.extend_from_slice(bytes.get(at..end).unwrap_or_default());
        }
        at = end;
    }
    bytes.to_vec()
}

/// Where the picture ends whose first scan begins at `at`: behind its end marker.
fn end_of_scans(bytes: &[u8], mut at: usize) -> usize {
    while let Some(pair) = bytes.get(at..at + 2) {
        let [0xff, marker] = pair else {
            at += 1;
            continue;
        };
        match marker {
            0xd9 => return at + 2,
            0xff => at += 1,
            // A stuffed byte, or a restart.
            0x00 | 0x01 | 0xd0..=0xd7 => at += 2,
            _ => {
                let Some(length) = bytes.get(at + 2..at + 4) else {
                    break;
                };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
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
