//! Pixels to planes of bytes, as batches hold them. Nothing is computed here: bytes move.

use crossfix_calibration::RgbImage;

/// Writes an image as planes `[3, rows, columns]`. The content moves `roll_right` columns to the
/// right and wraps; of the result the first `columns` are kept.
pub fn write_planes(image: &RgbImage, roll_right: i64, columns: usize, out: &mut [u8]) {
    let width = image.width;
    let shift = (-roll_right).rem_euclid(width.max(1) as i64) as usize;
    let first = columns.min(width - shift);
    let lines = image.data.chunks_exact((width * 3).max(1));
    for (line, planes) in lines.zip(rows_of(out, columns)) {
        let (head, tail) = line.split_at(shift * 3);
        let [red, green, blue] = planes.map(|row| row.split_at_mut(first));
        split(&tail[..first * 3], [red.0, green.0, blue.0]);
        split(&head[..(columns - first) * 3], [red.1, green.1, blue.1]);
    }
}

/// Writes planes `[3, rows, columns]` of any of an image's pixels: at a row and a column the pixel
/// whose number, counted row by row, is the sum of theirs.
pub fn gather_planes(image: &RgbImage, rows: &[usize], columns: &[usize], out: &mut [u8]) {
    let (pixels, _) = image.data.as_chunks::<3>();
    for (row, [red, green, blue]) in rows.iter().zip(rows_of(out, columns.len())) {
        let out = red.iter_mut().zip(green).zip(blue);
        for (((red, green), blue), column) in out.zip(columns) {
            [*red, *green, *blue] = pixels[row + column];
        }
    }
}

/// The rows of three planes, side by side.
fn rows_of(out: &mut [u8], columns: usize) -> impl Iterator<Item = [&mut [u8]; 3]> {
    let (red, rest) = out.split_at_mut(out.len() / 3);
    let (green, blue) = rest.split_at_mut(rest.len() / 2);
    let [red, green, blue] = [red, green, blue].map(|plane| plane.chunks_exact_mut(columns.max(1)));
    red.zip(green)
        .zip(blue)
        .map(|((red, green), blue)| [red, green, blue])
}

fn split(line: &[u8], [red, green, blue]: [&mut [u8]; 3]) {
    let (pixels, _) = line.as_chunks::<3>();
    for (((red, green), blue), pixel) in red.iter_mut().zip(green).zip(blue).zip(pixels) {
        [*red, *green, *blue] = *pixel;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of four pixels; red counts them, green and blue go with it.
    fn image() -> RgbImage {
        RgbImage {
            width: 4,
            height: 2,
            data: (0..8u8).flat_map(|i| [i, 10 + i, 20 + i]).collect(),
        }
    }

    #[test]
    fn rolling_moves_content_right_and_wraps_and_the_left_is_kept() {
        let mut out = [0; 24];
        write_planes(&image(), 1, 4, &mut out);
        let rolled = [3, 0, 1, 2, 7, 4, 5, 6];
        assert_eq!(out[..8], rolled);
        assert_eq!(out[8..16], rolled.map(|i| 10 + i));
        assert_eq!(out[16..], rolled.map(|i| 20 + i));
        for (roll, expected) in [(1, [3, 0, 7, 4]), (-3, [3, 0, 7, 4]), (8, [0, 1, 4, 5])] {
            let mut out = [0; 12];
            write_planes(&image(), roll, 2, &mut out);
            assert_eq!(out[..4], expected, "{roll}");
            assert_eq!(out[8..], expected.map(|i| 20 + i), "{roll}");
        }
    }

    #[test]
    fn gathered_pixels_are_those_whose_numbers_were_given() {
        let mut out = [0; 18];
        gather_planes(&image(), &[4, 0], &[3, 3, 1], &mut out);
        assert_eq!(out[..6], [7, 7, 5, 3, 3, 1]);
        assert_eq!(out[6..12], [17, 17, 15, 13, 13, 11]);
        assert_eq!(out[12..], [27, 27, 25, 23, 23, 21]);
    }
}
