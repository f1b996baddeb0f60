//! Resizing, turning, shifting and cropping 8-bit images to the bit as the published loaders do.
//!
//! The networks were trained on Pillow's pixels, rounding included, so these are its rules: an
//! antialiased triangle filter with 22-bit weights, nearest-neighbour turns in 16.16 fixed point,
//! and bilinear shifts that truncate. Coordinates are image columns (right) and rows (down); every
//! operation keeps black where nothing is known.

use crossfix_calibration::RgbImage;

/// Fractional bits of a filter weight.
const WEIGHT_BITS: u32 = 22;

/// Half-integers go to the even neighbour, as numpy and Python round.
pub fn round_half_even(value: f64) -> f64 {
    value.round_ties_even()
}

/// The filter of one output pixel: its first input pixel, and a weight for each from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let one = |index: usize| {
        let centre = (index as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let weight = |i: usize| (1.0 - ((i as f64 - centre + 0.5) / support).abs()).max(0.0);
        let sum: f64 = (first..last).map(weight).sum();
        let weights = (first..last)
            .map(|i| (weight(i) / sum * f64::from(1u32 << WEIGHT_BITS)).round() as i32)
            .collect();
        Taps { first, weights }
    };
    (0..to).map(one).collect()
}

const HALF: i32 = 1 << (WEIGHT_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Resizes with the antialiased triangle filter, columns first; a side that stays is not touched.
pub fn resize(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let resize_rows = |image: &RgbImage| {
        if height == image.height {
            image.clone()
        } else {
            resize_rows(image, height)
        }
    };
    if width == image.width {
        resize_rows(image)
    } else if height == image.height {
        resize_columns(image, width)
    } else {
        resize_rows(&resize_columns(image, width))
    }
}

fn resize_columns(image: &RgbImage, width: usize) -> RgbImage {
    let taps = taps(image.width, width);
    let mut data = vec![0; width * image.height * 3];
    let rows = image.data.chunks_exact((image.width * 3).max(1));
    for (line, out) in rows.zip(data.chunks_exact_mut((width * 3).max(1))) {
        for (taps, pixel) in taps.iter().zip(out.chunks_exact_mut(3)) {
            let inputs = &line[taps.first * 3..(taps.first + taps.weights.len()) * 3];
            let mut sums = [HALF; 3];
            for (weight, input) in taps.weights.iter().zip(inputs.chunks_exact(3)) {
                for (sum, value) in sums.iter_mut().zip(input) {
                    *sum += weight * i32::from(*value);
                }
            }
            for (value, sum) in pixel.iter_mut().zip(sums) {
                *value = to_byte(sum);
            }
        }
    }
    RgbImage {
        width,
        height: image.height,
        data,
    }
}

fn resize_rows(image: &RgbImage, height: usize) -> RgbImage {
    let row_len = image.width * 3;
    let mut data = Vec::with_capacity(row_len * height);
    let mut sums = vec![0i32; row_len];
    for taps in taps(image.height, height) {
        sums.fill(HALF);
        for (offset, weight) in taps.weights.iter().enumerate() {
            let line = &image.data[(taps.first + offset) * row_len..][..row_len];
            for (sum, value) in sums.iter_mut().zip(line) {
                *sum += weight * i32::from(*value);
            }
        }
        data.extend(sums.iter().map(|sum| to_byte(*sum)));
    }
    RgbImage {
        width: image.width,
        height,
        data,
    }
}

/// Columns `[from, to)` and rows `[from, to)` of an image. Pixels outside are not computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First and one past the last column.
    pub columns: [usize; 2],
    /// First and one past the last row.
    pub rows: [usize; 2],
}

impl Region {
    /// The whole of an image.
    pub fn all(image: &RgbImage) -> Self {
        Self {
            columns: [0, image.width],
            rows: [0, image.height],
        }
    }

    /// The part of an image that lies within these bounds, one pixel more on each side.
    fn around(image: &RgbImage, columns: [f64; 2], rows: [f64; 2]) -> Self {
        let clamp = |[low, high]: [f64; 2], most: usize| {
            let low = (low.floor() - 1.0).clamp(0.0, most as f64) as usize;
            let high = (high.ceil() + 2.0).clamp(0.0, most as f64) as usize;
            [low, high.max(low)]
        };
        Self {
            columns: clamp(columns, image.width),
            rows: clamp(rows, image.height),
        }
    }
}

/// A turn about the image's centre, nearest neighbour, on the same canvas.
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    /// By this many quarters counter-clockwise, pixel to pixel.
    Quarters(usize),
    /// Source column and row as 16.16 fixed point: `[per column, per row, constant]`.
    Fixed([[i64; 3]; 2]),
}

impl Turn {
    /// Turns the content of an image of this size by `degrees`, counter-clockwise.
    pub fn new(degrees: f64, width: usize, height: usize) -> Self {
        let degrees = degrees.rem_euclid(360.0);
        let square = width == height;
        if degrees == 0.0 || degrees == 180.0 || (square && (degrees == 90.0 || degrees == 270.0)) {
            return Self::Quarters((degrees / 90.0) as usize);
        }
        let round15 = |value: f64| (value * 1e15).round_ties_even() / 1e15;
        let angle = -degrees.to_radians();
        let (cos, sin) = (round15(angle.cos()), round15(angle.sin()));
        let minus_sin = round15(-angle.sin());
        let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
        let rows = [[cos, sin, x], [minus_sin, cos, y]];
        let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
        Self::Fixed(rows.map(|[a, b, centre]| {
            let constant = a * -x + b * -y + 0.0 + centre;
            [fixed(a), fixed(b), fixed(constant + a * 0.5 + b * 0.5)]
        }))
    }

    /// The source of an output pixel, which may lie outside the image.
    fn source(&self, column: usize, row: usize, width: usize, height: usize) -> [i64; 2] {
        let (x, y) = (column as i64, row as i64);
        let (right, bottom) = (width as i64 - 1, height as i64 - 1);
        match self {
            Self::Quarters(1) => [right - y, x],
            Self::Quarters(2) => [right - x, bottom - y],
            Self::Quarters(3) => [y, bottom - x],
            Self::Quarters(_) => [x, y],
            Self::Fixed(rows) => rows.map(|[a, b, constant]| (constant + x * a + y * b) >> 16),
        }
    }

    /// What part of the source an output region needs.
    pub fn needed(&self, image: &RgbImage, region: Region) -> Region {
        let mut low = [f64::INFINITY; 2];
        let mut high = [f64::NEG_INFINITY; 2];
        for column in region.columns {
            for row in region.rows {
                let source = self.source(column, row, image.width, image.height);
                for axis in 0..2 {
                    low[axis] = low[axis].min(source[axis] as f64 - 1.0);
                    high[axis] = high[axis].max(source[axis] as f64 + 1.0);
                }
            }
        }
        Region::around(image, [low[0], high[0]], [low[1], high[1]])
    }

    /// Turns the image; only `region` of the result is filled.
    pub fn apply(&self, image: &RgbImage, region: Region) -> RgbImage {
        let mut out = RgbImage::black(image.width, image.height);
        let (width, height) = (image.width as i64, image.height as i64);
        for row in region.rows[0]..region.rows[1] {
            for column in region.columns[0]..region.columns[1] {
                let [x, y] = self.source(column, row, image.width, image.height);
                if x >= 0 && x < width && y >= 0 && y < height {
                    let from = (y as usize * image.width + x as usize) * 3;
                    let to = (row * image.width + column) * 3;
                    out.data[to..to + 3].copy_from_slice(&image.data[from..from + 3]);
                }
            }
        }
        out
    }
}

/// A bilinear shift: the output at a pixel is the input `columns` to its right and `rows` below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// Pixels to the right.
    pub columns: f64,
    /// Pixels down.
    pub rows: f64,
}

impl Shift {
    /// What part of the source an output region needs.
    pub fn needed(&self, image: &RgbImage, region: Region) -> Region {
        let moved = |[low, high]: [usize; 2], by: f64| [low as f64 + by, high as f64 + by];
        Region::around(
            image,
            moved(region.columns, self.columns),
            moved(region.rows, self.rows),
        )
    }

    /// Shifts the image; only `region` of the result is filled.
    pub fn apply(&self, image: &RgbImage, region: Region) -> RgbImage {
        let mut out = RgbImage::black(image.width, image.height);
        let columns: Vec<Option<Between>> = (region.columns[0]..region.columns[1])
            .map(|column| Between::at(column, self.columns, image.width))
            .collect();
        for row in region.rows[0]..region.rows[1] {
            let Some(down) = Between::at(row, self.rows, image.height) else {
                continue;
            };
            let upper = &image.data[down.first * image.width * 3..][..image.width * 3];
            let lower = &image.data[down.second * image.width * 3..][..image.width * 3];
            let from = (row * image.width + region.columns[0]) * 3;
            let line = out.data[from..].chunks_exact_mut(3);
            for (across, pixel) in columns.iter().zip(line) {
                let Some(across) = across else { continue };
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let at = |line: &[u8], x: usize| f64::from(line[x * 3 + channel]);
                    let mix = |a: f64, b: f64, share: f64| a + (b - a) * share;
                    let [one, two] = [upper, lower].map(|line| {
                        mix(
                            at(line, across.first),
                            at(line, across.second),
                            across.share,
                        )
                    });
                    *value = mix(one, two, down.share) as u8;
                }
            }
        }
        out
    }
}

/// Two neighbouring pixels along an axis, clamped to the image, and the share of the second.
struct Between {
    first: usize,
    second: usize,
    share: f64,
}

impl Between {
    fn at(index: usize, by: f64, side: usize) -> Option<Self> {
        let place = index as f64 + 0.5 + by;
        if !(place >= 0.0 && place < side as f64) {
            return None;
        }
        let place = place - 0.5;
        let cell = place.floor();
        let clamp = |cell: f64| cell.clamp(0.0, side as f64 - 1.0) as usize;
        Some(Self {
            first: clamp(cell),
            second: clamp(cell + 1.0),
            share: place - cell,
        })
    }
}

/// Where a centred crop of `side` begins on an axis of `of` pixels.
pub fn centre_start(of: usize, side: usize) -> i64 {
    round_half_even((of as f64 - side as f64) / 2.0) as i64
}

/// The square in the middle; black beyond the image.
pub fn centre_crop(image: &RgbImage, side: usize) -> RgbImage {
    let (left, top) = (
        centre_start(image.width, side),
        centre_start(image.height, side),
    );
    let mut out = RgbImage::black(side, side);
    for row in 0..side {
        let y = top + row as i64;
        if y < 0 || y >= image.height as i64 {
            continue;
        }
        // The columns that exist.
        let first = (-left).clamp(0, side as i64) as usize;
        let last = (image.width as i64 - left).clamp(0, side as i64) as usize;
        if first < last {
            let from = (y as usize * image.width + (left + first as i64) as usize) * 3;
            let to = (row * side + first) * 3;
            let len = (last - first) * 3;
            out.data[to..to + len].copy_from_slice(&image.data[from..from + len]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(width: usize, height: usize, salt: usize) -> RgbImage {
        let data = (0..width * height * 3)
            .map(|i| ((i * 7919 + salt * 104_729) >> 3) as u8)
            .collect();
        RgbImage {
            width,
            height,
            data,
        }
    }

    #[test]
    fn halving_averages_with_a_triangle() {
        // Scale 2: centre 1 of output 0 sees inputs 0..3 with weights 0.75, 0.75, 0.25 (centres
        // 0.5, 0.5 and 1.5 away, support 2), normalised to 3/7, 3/7, 1/7.
        let line = RgbImage {
            width: 4,
            height: 1,
            data: [0u8, 70, 140, 210].iter().flat_map(|v| [*v; 3]).collect(),
        };
        let small = resize(&line, 2, 1);
        assert_eq!(small.data, [50, 50, 50, 160, 160, 160]);
    }

    #[test]
    fn a_size_that_stays_is_not_touched() {
        let image = image(9, 7, 1);
        assert_eq!(resize(&image, 9, 7), image);
    }

    #[test]
    fn quarter_turns_are_counter_clockwise() {
        let square = image(5, 5, 2);
        let turned = Turn::new(90.0, 5, 5).apply(&square, Region::all(&square));
        // What was in the right top corner is in the left top corner.
        assert_eq!(turned.pixel(0, 0), square.pixel(4, 0));
        let back = Turn::new(-90.0, 5, 5).apply(&turned, Region::all(&turned));
        assert_eq!(back, square);
    }

    #[test]
    fn a_small_turn_goes_the_same_way_as_a_quarter() {
        let mut dot = RgbImage::black(101, 101);
        dot.set_pixel(90, 50, [255; 3]);
        let turned = Turn::new(30.0, 101, 101).apply(&dot, Region::all(&dot));
        let at = turned.data.iter().position(|v| *v == 255).unwrap() / 3;
        let (x, y) = (at % 101, at / 101);
        // 40 pixels east, turned by 30°: 34.6 east, 20 north.
        assert!(x.abs_diff(85) <= 1 && y.abs_diff(30) <= 1, "{x}, {y}");
    }

    #[test]
    fn shifts_truncate_and_are_black_outside() {
        let line = RgbImage {
            width: 3,
            height: 1,
            data: [10u8, 21, 30].iter().flat_map(|v| [*v; 3]).collect(),
        };
        let shift = Shift {
            columns: 0.5,
            rows: 0.0,
        };
        let moved = shift.apply(&line, Region::all(&line));
        // 15.5 and 25.5 truncate; the last is half a pixel beyond the border.
        assert_eq!(moved.data, [15, 15, 15, 25, 25, 25, 0, 0, 0]);
    }

    #[test]
    fn crops_of_odd_borders_round_to_even() {
        assert_eq!(centre_start(7, 4), 2);
        assert_eq!(centre_start(9, 4), 2);
        assert_eq!(centre_start(1280, 512), 384);
        let small = image(2, 2, 3);
        let wide = centre_crop(&small, 4);
        assert_eq!(wide.pixel(0, 0), [0; 3]);
        assert_eq!(wide.pixel(1, 1), small.pixel(0, 0));
    }

    proptest! {
        #[test]
        fn weights_of_every_pixel_sum_to_one(from in 1usize..400, to in 1usize..400) {
            for taps in taps(from, to) {
                let sum: i64 = taps.weights.iter().map(|w| i64::from(*w)).sum();
                prop_assert!((sum - (1 << WEIGHT_BITS)).abs() <= taps.weights.len() as i64);
                prop_assert!(taps.first + taps.weights.len() <= from);
            }
        }

        #[test]
        fn a_region_holds_the_same_pixels_as_the_whole(
            width in 1usize..60, height in 1usize..60, degrees in -400.0..400.0f64,
            columns in -80.0..80.0f64, rows in -80.0..80.0f64,
            x in 0usize..60, y in 0usize..60, w in 1usize..20, h in 1usize..20,
        ) {
            let image = image(width, height, 9);
            let clamp = |a: usize, n: usize, most: usize| [a.min(most), (a + n).min(most)];
            let region = Region { columns: clamp(x, w, width), rows: clamp(y, h, height) };
            let turn = Turn::new(degrees, width, height);
            let shift = Shift { columns, rows };
            // The turn of the shifted image, whole and through regions.
            let whole = turn.apply(&shift.apply(&image, Region::all(&image)), Region::all(&image));
            let part = turn.apply(&shift.apply(&image, turn.needed(&image, region)), region);
            for row in region.rows[0]..region.rows[1] {
                for column in region.columns[0]..region.columns[1] {
                    prop_assert_eq!(part.pixel(column, row), whole.pixel(column, row));
                }
            }
        }
    }
}
