//! What is in a buffer, as the bytes of a picture: JPEG as it came, all else as binary PNM.
//!
//! Colour is ITU-R BT.601 with luma from 16 to 235, the default of V4L2 for YUV. Planes are laid out as in the
//! Linux Media documentation, "2-D planar YUV formats".

use super::choose::PixelFormat;
use crate::log::{RawPicture, rgb_of_yuv};

/// Longest row, bytes.
const MOST_STRIDE: usize = 1 << 16;

/// How pixels lie in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What they are.
    pub format: PixelFormat,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row of luma to the next; 0 when there is nothing between them.
    pub stride: u32,
}

impl Layout {
    /// The picture in the bytes of a buffer.
    ///
    /// # Errors
    /// There is no whole picture in them.
    pub fn picture(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let encoding = match self.format {
            PixelFormat::Mjpeg => return jpeg(bytes),
            PixelFormat::Nv12 | PixelFormat::Yuv420 => return self.quartered(bytes),
            PixelFormat::Yuyv => "yuyv",
            PixelFormat::Uyvy => "uyvy",
            PixelFormat::Grey => "mono8",
        };
        let raw = RawPicture {
            width: self.width,
            height: self.height,
            step: self.stride,
            encoding,
            data: bytes,
        };
        raw.pnm()
    }

    /// Luma for each pixel, colour for each two by two.
    fn quartered(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let (width, height) = (self.width as usize, self.height as usize);
        let stride = match self.stride as usize {
            0 => width.next_multiple_of(2),
            stride => stride,
        };
        // No driver pads rows so far; the sums below fit in 32 bits with it.
        if stride > MOST_STRIDE {
            return Err(format!("rows of {stride} bytes for {width} px"));
        }
        let (columns, rows) = (width.div_ceil(2), height.div_ceil(2));
        // Where U and V of a row begin, bytes between its colours and between rows, and where the last ends.
        let luma = stride * height;
        let (u, v, step, pitch) = match self.format {
            PixelFormat::Nv12 => (luma, luma + 1, 2, stride),
            _ => (luma, luma + stride / 2 * rows, 1, stride / 2),
        };
        let end = v + pitch * rows.saturating_sub(1) + step * columns.saturating_sub(1) + 1;
        if stride < width || pitch < step * columns || bytes.len() < end {
            return Err(format!(
                "{width} × {height} px in rows of {stride} bytes take {end}, and there are {}",
                bytes.len()
            ));
        }
        let mut pnm = format!("P6\n{width} {height}\n255\n").into_bytes();
        pnm.reserve_exact(width * height * 3);
        for y in 0..height {
            let row = y / 2 * pitch;
            for x in 0..width {
                let chroma = row + x / 2 * step;
                let luma = bytes[y * stride + x];
                pnm.extend(rgb_of_yuv(luma, bytes[u + chroma], bytes[v + chroma]));
            }
        }
        Ok(pnm)
    }
}

/// A JPEG begins with its marker; what is wrong further on is found when it is decoded.
fn jpeg(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        Ok(bytes.to_vec())
    } else {
        let first = &bytes[..bytes.len().min(4)];
        Err(format!(
            "{} bytes beginning {first:02x?} are no JPEG",
            bytes.len()
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three columns and rows. Hand-computed from BT.601: R = 1.164 (Y - 16) + 1.596 (V - 128),
    /// G = 1.164 (Y - 16) - 0.392 (U - 128) - 0.813 (V - 128), B = 1.164 (Y - 16) + 2.017 (U - 128).
    const WHITE: [u8; 3] = [255, 255, 255]; // Y 235, U and V 128
    const BLACK: [u8; 3] = [0, 0, 0]; // Y 16
    const RED: [u8; 3] = [254, 0, 0]; // Y 81, U 90, V 240: 75.7 + 178.8, 75.7 + 14.9 - 91.1, 75.7 - 76.7
    const BLUE: [u8; 3] = [0, 0, 255]; // Y 41, U 240, V 110: 29.1 - 28.7, 29.1 - 43.9 + 14.6, 29.1 + 225.9

    fn picture(format: PixelFormat, stride: u32, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let layout = Layout {
            format,
            width: 3,
            height: 3,
            stride,
        };
        layout.picture(bytes)
    }

    fn pixels(format: PixelFormat, stride: u32, bytes: &[u8]) -> Vec<[u8; 3]> {
        let pnm = picture(format, stride, bytes).unwrap();
        let pixels = pnm.strip_prefix(b"P6\n3 3\n255\n").unwrap();
        pixels.as_chunks().0.to_vec()
    }

    #[test]
    fn planes_of_colour_are_those_of_two_by_two_pixels() {
        // Rows of five bytes, one of them left over; the last column and row share their colour with nobody.
        let luma = [[81, 81, 235, 9, 9], [81, 81, 16, 9, 9], [41, 41, 235, 9, 9]].concat();
        // The left upper four are red, the left lower two blue, all else grey.
        let expected = [RED, RED, WHITE, RED, RED, BLACK, BLUE, BLUE, WHITE];
        let nv12 = [&luma[..], &[90, 240, 128, 128, 9], &[240, 110, 128, 128]].concat();
        assert_eq!(pixels(PixelFormat::Nv12, 5, &nv12), expected);
        // Rows of U and of V are half as long.
        let planar = [&luma[..], &[90, 128, 240, 128], &[240, 128, 110, 128]].concat();
        assert_eq!(pixels(PixelFormat::Yuv420, 5, &planar), expected);
    }

    #[test]
    fn without_a_stride_rows_follow_one_another() {
        let luma = [81, 81, 235, 9, 81, 81, 16, 9, 41, 41, 235, 9];
        let colour = [90, 240, 128, 128, 240, 110, 128, 128];
        let expected = [RED, RED, WHITE, RED, RED, BLACK, BLUE, BLUE, WHITE];
        let nv12 = [&luma[..], &colour].concat();
        assert_eq!(pixels(PixelFormat::Nv12, 0, &nv12), expected);
        let planar = [&luma[..], &[90, 128, 240, 128, 240, 128, 110, 128]].concat();
        assert_eq!(pixels(PixelFormat::Yuv420, 0, &planar), expected);
    }

    #[test]
    fn luma_and_colour_in_turn() {
        let yuyv = [
            [81, 90, 81, 240, 235, 128, 9, 128],
            [16, 128, 16, 128, 16, 128, 9, 128],
            [41, 240, 41, 110, 235, 128, 9, 128],
        ]
        .concat();
        let expected = [RED, RED, WHITE, BLACK, BLACK, BLACK, BLUE, BLUE, WHITE];
        assert_eq!(pixels(PixelFormat::Yuyv, 8, &yuyv), expected);
        let uyvy: Vec<u8> = yuyv.chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
        assert_eq!(pixels(PixelFormat::Uyvy, 8, &uyvy), expected);
        let grey = picture(PixelFormat::Grey, 4, &[1, 2, 3, 9, 4, 5, 6, 9, 7, 8, 9, 9]);
        assert_eq!(
            grey.unwrap(),
            b"P5\n3 3\n255\n\x01\x02\x03\x04\x05\x06\x07\x08\x09"
        );
    }

    #[test]
    fn what_is_no_whole_picture_is_refused() {
        for (format, bytes) in [
            (PixelFormat::Nv12, 18),
            (PixelFormat::Yuv420, 18),
            (PixelFormat::Yuyv, 17),
            (PixelFormat::Grey, 8),
            (PixelFormat::Mjpeg, 30),
            (PixelFormat::Mjpeg, 0),
        ] {
            assert!(picture(format, 0, &vec![128; bytes]).is_err(), "{format:?}");
        }
        assert!(picture(PixelFormat::Nv12, 2, &[128; 100]).is_err());
        assert!(picture(PixelFormat::Yuv420, 3, &[128; 100]).is_err());
        let jpeg = b"\xff\xd8\xff\xe0 and so on";
        assert_eq!(picture(PixelFormat::Mjpeg, 0, jpeg).unwrap(), jpeg);
    }

    proptest! {
        #[test]
        fn no_buffer_makes_it_panic_and_what_comes_out_is_whole(
            format in prop::sample::select(vec![PixelFormat::Nv12, PixelFormat::Yuv420, PixelFormat::Yuyv]),
            width in 1u32..9,
            height in 1u32..9,
            stride in 0u32..20,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let layout = Layout { format, width, height, stride };
            if let Ok(pnm) = layout.picture(&bytes) {
                let header = format!("P6\n{width} {height}\n255\n").len();
                prop_assert_eq!(pnm.len() - header, (width * height * 3) as usize);
            }
        }
    }
}
