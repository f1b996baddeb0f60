//! Pictures of others: those that are encoded are checked for what they are, and the pixels of raw ones
//! are written as binary PNM, which costs a copy and no compression.

use std::io::Cursor;
use std::sync::Arc;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::event::CameraFrame;
use crate::image_decode::{decode_rgb, is_picture};

/// No camera has more pixels a side.
const LARGEST_SIDE_PX: usize = 1 << 14;

/// The pixels of a picture as `sensor_msgs/Image` and `foxglove.RawImage` describe them.
pub struct RawPicture<'a> {
    pub width: u32,
    pub height: u32,
    /// Bytes from one row to the next.
    pub step: u32,
    pub encoding: &'a str,
    pub data: &'a [u8],
}

/// A frame of encoded bytes. `format` is what they are said to be.
///
/// # Errors
/// The bytes are neither JPEG nor PNG.
pub fn encoded_frame(
    time_ns: i64,
    camera: &str,
    format: &str,
    bytes: &[u8],
) -> Result<CameraFrame, String> {
    if bytes.is_empty() {
        return Err("data is empty; it should hold a JPEG or PNG file".into());
    }
    if !is_picture(bytes) {
        return Err(format!(
            "its data is neither JPEG nor PNG; its format is {format:?}"
        ));
    }
    Ok(frame(time_ns, camera, bytes.into()))
}

/// A frame of raw pixels.
///
/// # Errors
/// An encoding that is not read, or fewer bytes than pixels.
pub fn raw_frame(time_ns: i64, camera: &str, raw: &RawPicture) -> Result<CameraFrame, String> {
    Ok(frame(time_ns, camera, raw.pnm()?.into()))
}

fn frame(time_ns: i64, camera: &str, image: Arc<[u8]>) -> CameraFrame {
    CameraFrame {
        time_ns,
        image,
        camera: camera.to_owned(),
    }
}

/// How the bytes of a row become pixels.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Grey,
    /// Bytes a pixel, and where its red, green and blue are.
    Colour(usize, [usize; 3]),
    /// Where in two by two pixels red is, as (x, y); blue is opposite.
    Bayer(usize, usize),
    /// Two pixels in four bytes: where the first one's luma, U and V are.
    Yuv422(usize, usize, usize),
}

impl Layout {
    fn of(encoding: &str) -> Option<Self> {
        Some(match encoding {
            "mono8" | "8UC1" => Self::Grey,
            "rgb8" => Self::Colour(3, [0, 1, 2]),
            "bgr8" | "8UC3" => Self::Colour(3, [2, 1, 0]),
            "rgba8" => Self::Colour(4, [0, 1, 2]),
            "bgra8" | "8UC4" => Self::Colour(4, [2, 1, 0]),
            "bayer_rggb8" => Self::Bayer(0, 0),
            "bayer_grbg8" => Self::Bayer(1, 0),
            "bayer_gbrg8" => Self::Bayer(0, 1),
            "bayer_bggr8" => Self::Bayer(1, 1),
            "yuv422" | "uyvy" => Self::Yuv422(1, 0, 2),
            "yuv422_yuy2" | "yuyv" => Self::Yuv422(0, 1, 3),
            _ => return None,
        })
    }

    fn bytes_a_pixel(self) -> usize {
        match self {
            Self::Grey | Self::Bayer(..) => 1,
            Self::Colour(bytes, _) => bytes,
            Self::Yuv422(..) => 2,
        }
    }
}

impl RawPicture<'_> {
    /// The picture as binary PNM: P5 when it is grey, else P6.
    ///
    /// # Errors
    /// An encoding that is not read, or fewer bytes than pixels.
    pub fn pnm(&self) -> Result<Vec<u8>, String> {
        let layout = Layout::of(self.encoding).ok_or_else(|| {
            format!(
                "its pixels are {:?}; rgb8, bgr8, rgba8, bgra8, mono8, bayer_…8, uyvy and yuyv are read",
                self.encoding
            )
        })?;
        let (width, height) = (self.width as usize, self.height as usize);
        if !(1..=LARGEST_SIDE_PX).contains(&width) || !(1..=LARGEST_SIDE_PX).contains(&height) {
            return Err(format!("it has {width} × {height} pixels"));
        }
        let row_bytes = width * layout.bytes_a_pixel();
        // Some drivers leave the step out.
        let step = match self.step as usize {
            0 => row_bytes,
            step => step,
        };
        let bytes = (height - 1).saturating_mul(step).saturating_add(row_bytes);
        if step < row_bytes || self.data.len() < bytes {
            return Err(format!(
                "{width} × {height} pixels of {:?} in rows of {step} bytes are {bytes} bytes, and there are {}",
                self.encoding,
                self.data.len()
            ));
        }
        let row = |y: usize| &self.data[y * step..y * step + row_bytes];
        let grey = matches!(layout, Layout::Grey);
        let mut pnm =
            format!("P{}\n{width} {height}\n255\n", if grey { 5 } else { 6 }).into_bytes();
        pnm.reserve_exact(width * height * if grey { 1 } else { 3 });
        for y in 0..height {
            match layout {
                Layout::Grey => pnm.extend_from_slice(row(y)),
                Layout::Colour(3, [0, 1, 2]) => pnm.extend_from_slice(row(y)),
                Layout::Colour(bytes, order) => pnm.extend(
                    row(y)
                        .chunks_exact(bytes)
                        .flat_map(|pixel| order.map(|channel| pixel[channel])),
                ),
                Layout::Bayer(red_x, red_y) => {
                    // Each two by two pixels measure one colour; at the right and lower edge the last
                    // whole ones count.
                    let top = (y & !1).min(height.saturating_sub(2));
                    let rows = [row(top), row((top + 1).min(height - 1))];
                    let (red_row, blue_row) =
                        (rows[(red_y + top) & 1], rows[(red_y + top + 1) & 1]);
                    for x in 0..width {
                        let left = (x & !1).min(width.saturating_sub(2));
                        let at = |column: usize| (left + ((column + left) & 1)).min(width - 1);
                        let (red, blue) = (red_row[at(red_x)], blue_row[at(red_x + 1)]);
                        let green = u8::midpoint(red_row[at(red_x + 1)], blue_row[at(red_x)]);
                        pnm.extend_from_slice(&[red, green, blue]);
                    }
                }
                Layout::Yuv422(luma, u, v) => {
                    let row = row(y);
                    for x in 0..width {
                        let pair = (x & !1) * 2;
                        let chroma = |at: usize| row.get(pair + at).copied().unwrap_or(128);
                        pnm.extend(rgb_of_yuv(row[x * 2 + luma], chroma(u), chroma(v)));
                    }
                }
            }
        }
        Ok(pnm)
    }
}

/// ITU-R BT.601 with luma from 16 to 235, as cameras deliver it.
pub fn rgb_of_yuv(luma: u8, u: u8, v: u8) -> [u8; 3] {
    let (y, u, v) = (
        1.164_383 * (f32::from(luma) - 16.0),
        f32::from(u) - 128.0,
        f32::from(v) - 128.0,
    );
    [
        y + 1.596_027 * v,
        y - 0.391_762 * u - 0.812_968 * v,
        y + 2.017_232 * u,
    ]
    .map(|value| value.round().clamp(0.0, 255.0) as u8)
}

/// A binary PNM as PNG, for logs that others read; none when it is none.
pub fn png_of_pnm(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"P5") && !bytes.starts_with(b"P6") {
        return None;
    }
    let picture = decode_rgb(bytes, LARGEST_SIDE_PX).ok()?;
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
        .write_image(
            &picture.data,
            picture.width as u32,
            picture.height as u32,
            ExtendedColorType::Rgb8,
        )
        .ok()?;
    Some(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The colours of a picture of three by two pixels whose rows have two bytes too many.
    fn colours(encoding: &str, rows: [&[u8]; 2]) -> Vec<u8> {
        let step = rows[0].len() + 2;
        let data = [rows[0], &[9, 9], rows[1]].concat();
        let raw = RawPicture {
            width: 3,
            height: 2,
            step: step as u32,
            encoding,
            data: &data,
        };
        let frame = raw_frame(1, "front", &raw).unwrap();
        let picture = decode_rgb(&frame.image, 64).unwrap();
        assert_eq!((picture.width, picture.height), (3, 2));
        picture.data
    }

    const RGB: [u8; 18] = [
        250, 1, 2, 3, 240, 4, 5, 6, 230, 10, 20, 30, 40, 50, 60, 70, 80, 90,
    ];

    /// The test picture with the channels of each pixel in this order, and the value of a fourth.
    fn ordered(order: [usize; 3], fourth: Option<u8>) -> Vec<u8> {
        let pixels = RGB.chunks_exact(3);
        pixels
            .flat_map(|pixel| {
                order
                    .map(|channel| pixel[channel])
                    .into_iter()
                    .chain(fourth)
            })
            .collect()
    }

    #[test]
    fn every_order_of_the_channels_gives_the_same_picture() {
        for (encoding, order, fourth) in [
            ("rgb8", [0, 1, 2], None),
            ("bgr8", [2, 1, 0], None),
            ("8UC3", [2, 1, 0], None),
            ("rgba8", [0, 1, 2], Some(77)),
            ("bgra8", [2, 1, 0], Some(77)),
        ] {
            let bytes = ordered(order, fourth);
            let (upper, lower) = bytes.split_at(bytes.len() / 2);
            assert_eq!(colours(encoding, [upper, lower]), RGB, "{encoding}");
        }
        let grey = colours("mono8", [&[1, 2, 3], &[4, 5, 6]]);
        assert_eq!(grey[..6], [1, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn a_bayer_pattern_of_one_colour_is_that_colour() {
        // Red 200, green 100 (by 90 and 110), blue 50.
        for (encoding, rows) in [
            ("bayer_rggb8", [[200, 90, 200], [110, 50, 110]]),
            ("bayer_grbg8", [[90, 200, 90], [50, 110, 50]]),
            ("bayer_gbrg8", [[90, 50, 90], [200, 110, 200]]),
            ("bayer_bggr8", [[50, 90, 50], [110, 200, 110]]),
        ] {
            let found = colours(encoding, [&rows[0], &rows[1]]);
            assert_eq!(found, [200, 100, 50].repeat(6), "{encoding}");
        }
    }

    #[test]
    fn luma_and_chroma_become_colours() {
        // Full red in BT.601: luma 81, U 90, V 240.
        for (encoding, row) in [
            ("uyvy", [90, 81, 240, 81, 90, 81]),
            ("yuyv", [81, 90, 81, 240, 81, 90]),
        ] {
            let found = colours(encoding, [&row, &row]);
            let [red, green, blue] = [found[0], found[1], found[2]];
            assert!(red > 250 && green < 5 && blue < 5, "{encoding}: {found:?}");
        }
    }

    #[test]
    fn what_has_too_few_bytes_or_another_encoding_is_refused() {
        let raw = |encoding, step, data| RawPicture {
            width: 3,
            height: 2,
            step,
            encoding,
            data,
        };
        let short = raw_frame(1, "", &raw("rgb8", 9, &RGB[..17])).unwrap_err();
        assert!(short.contains("17"), "{short}");
        assert!(raw_frame(1, "", &raw("rgb8", 8, &RGB)).is_err());
        assert!(raw_frame(1, "", &raw("rgb8", 0, &RGB)).is_ok());
        let depth = raw_frame(1, "", &raw("16UC1", 6, &RGB)).unwrap_err();
        assert!(depth.contains("16UC1"), "{depth}");
        assert!(encoded_frame(1, "", "32FC1; compressedDepth", b"depth!").is_err());
    }

    #[test]
    fn a_raw_picture_is_recorded_as_png() {
        let raw = RawPicture {
            width: 3,
            height: 2,
            step: 9,
            encoding: "rgb8",
            data: &RGB,
        };
        let png = png_of_pnm(&raw.pnm().unwrap()).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        assert_eq!(decode_rgb(&png, 64).unwrap().data, RGB);
        assert!(png_of_pnm(&png).is_none());
    }
}
