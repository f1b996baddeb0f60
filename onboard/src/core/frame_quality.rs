//! Whether a picture can be one of the road: cheap tests on its pixels.
//!
//! Covered or broken cameras deliver pictures without contrast, noise, or the same picture again and
//! again with fresh stamps. What is usual (sharpness, how much a picture differs from the one before,
//! where it is bright) is learned from the pictures that passed.

use crossfix_calibration::RgbImage;
use std::collections::VecDeque;

/// Columns of the grey thumbnail that pictures are compared by.
pub const COLUMNS: usize = 32;
/// Rows of it.
pub const ROWS: usize = 12;
/// Grey levels, 1-sigma, below which a picture shows nothing.
pub const LEAST_CONTRAST: f64 = 4.0;
/// Correlation of neighbouring pixels below which a picture is noise.
const LEAST_CORRELATION: f64 = 0.5;
/// Share of the usual sharpness below which a picture is blurred.
const LEAST_SHARPNESS: f64 = 0.4;
/// Share of the usual difference below which a picture repeats another one.
const REPEATS: f64 = 0.2;
/// Grey levels of mean difference below which it does so in any case.
pub const REPEATS_LEVELS: f64 = 0.6;
/// Correlation with the usual brightness of the rows below which it is upside down.
pub const UPSIDE_DOWN: f64 = -0.7;
/// Pictures that have to pass before something counts as usual.
const LEARNED_FROM: usize = 8;
/// Pictures that are remembered.
const REMEMBERED: usize = 64;
/// How fast the usual is followed.
const LEARNING: f64 = 0.08;
/// At most this many rows and columns are looked at for contrast and sharpness.
const MOST_LINES: usize = 48;

/// What is usual, and the last thumbnails.
#[derive(Debug, Clone, Default)]
pub struct FrameQuality {
    thumbnails: VecDeque<Thumbnail>,
    sharpness: f64,
    difference: f64,
    rows: [f64; ROWS],
    passed: usize,
}

/// A grey thumbnail, row by row, less its mean.
pub type Thumbnail = [f32; COLUMNS * ROWS];

/// How a picture's pixels differ from their neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Texture {
    /// Standard deviation of the grey levels.
    pub contrast: f64,
    /// Correlation of neighbours in a row.
    pub correlation: f64,
    /// Root mean square difference of neighbours in a row, over the contrast.
    pub sharpness: f64,
}

impl FrameQuality {
    /// Judges a picture taken after the vehicle has moved since the one before.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn judge(&mut self, picture: &RgbImage) -> Result<(), String> {
        let texture = texture(picture);
        if texture.contrast < LEAST_CONTRAST {
            return Err("the picture has no contrast".to_owned());
        }
        if texture.correlation < LEAST_CORRELATION {
            return Err("the picture is noise".to_owned());
        }
        let learned = self.passed >= LEARNED_FROM;
        if learned && texture.sharpness < LEAST_SHARPNESS * self.sharpness {
            return Err("the picture is blurred".to_owned());
        }
        let thumbnail = thumbnail(picture);
        let rows = row_means(&thumbnail);
        if learned && correlation(&rows, &self.rows) < UPSIDE_DOWN {
            return Err("the picture is upside down".to_owned());
        }
        let least = if learned {
            REPEATS_LEVELS.max(REPEATS * self.difference)
        } else {
            REPEATS_LEVELS
        };
        let nearest = self
            .thumbnails
            .iter()
            .map(|other| mean_difference(&thumbnail, other))
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((at, difference)) = nearest
            && difference < least
        {
            let newest = at + 1 == self.thumbnails.len();
            return Err(if newest {
                "the picture does not change while the vehicle moves".to_owned()
            } else {
                "the picture repeats an earlier one".to_owned()
            });
        }
        let last = self
            .thumbnails
            .back()
            .map(|last| mean_difference(&thumbnail, last));
        self.learn(texture.sharpness, last, &rows);
        if self.thumbnails.len() == REMEMBERED {
            self.thumbnails.pop_front();
        }
        self.thumbnails.push_back(thumbnail);
        Ok(())
    }

    fn learn(&mut self, sharpness: f64, difference: Option<f64>, rows: &[f64; ROWS]) {
        let follow = |usual: &mut f64, value: f64, count: usize| {
            let rate = LEARNING.max(1.0 / (count + 1) as f64);
            *usual += rate * (value - *usual);
        };
        follow(&mut self.sharpness, sharpness, self.passed);
        if let Some(difference) = difference {
            // Pictures at walking pace differ less; the lower ones are what counts.
            let value = difference.min(2.0 * self.difference.max(difference / 2.0));
            follow(&mut self.difference, value, self.passed.saturating_sub(1));
        }
        for (usual, row) in self.rows.iter_mut().zip(rows) {
            follow(usual, *row, self.passed);
        }
        self.passed += 1;
    }
}

fn grey(picture: &RgbImage, col: usize, row: usize) -> f64 {
    let at = (row * picture.width + col) * 3;
    let [r, g, b] = [0, 1, 2].map(|channel| f64::from(picture.data[at + channel]));
    0.25 * r + 0.5 * g + 0.25 * b
}

/// Means of blocks, from at most 4 × 4 pixels of each, with what is common to all taken away.
pub fn thumbnail(picture: &RgbImage) -> Thumbnail {
    let mut thumbnail = [0.0; COLUMNS * ROWS];
    for (index, value) in thumbnail.iter_mut().enumerate() {
        let (col, row) = (index % COLUMNS, index / COLUMNS);
        let mut total = 0.0;
        for step in 0..16 {
            let x = (4 * col + step % 4) * picture.width / (4 * COLUMNS);
            let y = (4 * row + step / 4) * picture.height / (4 * ROWS);
            total += grey(picture, x.min(picture.width - 1), y.min(picture.height - 1));
        }
        *value = (total / 16.0) as f32;
    }
    let mean = thumbnail.iter().sum::<f32>() / thumbnail.len() as f32;
    thumbnail.map(|value| value - mean)
}

/// Contrast, correlation and sharpness, from at most 48 rows and columns.
pub fn texture(picture: &RgbImage) -> Texture {
    let lines = |length: usize| length.div_ceil(MOST_LINES).max(1);
    let (mut count, mut total, mut squares) = (0.0, 0.0, 0.0);
    let (mut products, mut edges) = (0.0, 0.0);
    for row in (0..picture.height).step_by(lines(picture.height)) {
        for col in (0..picture.width.saturating_sub(1)).step_by(lines(picture.width)) {
            let (here, right) = (grey(picture, col, row), grey(picture, col + 1, row));
            count += 1.0;
            total += here;
            squares += here * here;
            products += here * right;
            edges += (here - right).powi(2);
        }
    }
    if count < 1.0 {
        return Texture {
            contrast: 0.0,
            correlation: 0.0,
            sharpness: 0.0,
        };
    }
    let mean = total / count;
    let variance = (squares / count - mean * mean).max(0.0);
    Texture {
        contrast: variance.sqrt(),
        correlation: (products / count - mean * mean) / variance.max(1e-9),
        sharpness: (edges / count).sqrt() / variance.sqrt().max(1e-9),
    }
}

/// Means of a thumbnail's rows.
pub fn row_means(thumbnail: &Thumbnail) -> [f64; ROWS] {
    let mut rows = [0.0; ROWS];
    for (mean, line) in rows.iter_mut().zip(thumbnail.chunks_exact(COLUMNS)) {
        *mean = f64::from(line.iter().sum::<f32>()) / COLUMNS as f64;
    }
    rows
}

/// Mean absolute difference of two thumbnails, grey levels.
pub fn mean_difference(a: &[f32], b: &[f32]) -> f64 {
    let total: f32 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
    f64::from(total) / a.len() as f64
}

/// Correlation of two thumbnails' rows; 0 where one of them is flat.
pub fn correlation(a: &[f64; ROWS], b: &[f64; ROWS]) -> f64 {
    let mean = |values: &[f64; ROWS]| values.iter().sum::<f64>() / ROWS as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    if aa.min(bb) < 1.0 {
        return 0.0;
    }
    ab / (aa * bb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A street: bright above, edges that move with `shift`, some noise.
    fn street(shift: usize, noise: u64) -> RgbImage {
        let mut state = noise.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut picture = RgbImage::black(256, 48);
        for row in 0..48 {
            for col in 0..256 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let x = (col + shift) % 256;
                let house = if (x / 16 * 7919 / 13).is_multiple_of(3) {
                    60
                } else {
                    20
                };
                let value = 180 - 2 * row + house + (state % 5) as usize;
                picture.set_pixel(col, row, [value.min(255) as u8; 3]);
            }
        }
        picture
    }

    fn driven(frames: usize) -> FrameQuality {
        let mut quality = FrameQuality::default();
        for frame in 0..frames {
            assert_eq!(quality.judge(&street(5 * frame, frame as u64)), Ok(()));
        }
        quality
    }

    fn turned(picture: &RgbImage) -> RgbImage {
        let mut turned = picture.clone();
        let pixels = picture.width * picture.height;
        for at in 0..pixels {
            let to = (pixels - 1 - at) * 3;
            turned.data[to..to + 3].copy_from_slice(&picture.data[at * 3..at * 3 + 3]);
        }
        turned
    }

    #[test]
    fn pictures_of_a_drive_pass() {
        driven(45);
    }

    #[test]
    fn what_no_road_looks_like_is_refused_with_its_name() {
        let mut quality = driven(12);
        let mut noise = RgbImage::black(256, 48);
        let mut state = 7u64;
        for value in &mut noise.data {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *value = state as u8;
        }
        let mut white = RgbImage::black(256, 48);
        white.data.fill(255);
        let cases = [
            (RgbImage::black(256, 48), "no contrast"),
            (white, "no contrast"),
            (noise, "noise"),
            (turned(&street(60, 3)), "upside down"),
            // The last one and an earlier one again, with other noise.
            (street(55, 99), "does not change"),
            (street(20, 98), "repeats an earlier"),
        ];
        for (picture, words) in cases {
            let problem = quality.judge(&picture).expect_err(words);
            assert!(problem.contains(words), "{problem}, expected {words}");
        }
        assert_eq!(quality.judge(&street(60, 3)), Ok(()));
    }

    #[test]
    fn a_picture_of_any_size_is_judged_without_a_panic() {
        for (width, height) in [(1, 1), (2, 1), (1, 3), (7, 5), (3000, 2)] {
            let _ = FrameQuality::default().judge(&RgbImage::black(width, height));
        }
    }
}
