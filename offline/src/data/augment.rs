//! Augmentation: the same pair turned, mirrored, with a jittered heading, cut elsewhere.
//!
//! A [`Transform`] changes pixels and pose together. Applied in this order: the crop moves; both images are
//! mirrored east–west; both turn clockwise by quarters; the ground image alone rolls; then colours
//! change. Bytes move here; rolls and colours are numbers that the network's first pass takes
//! ([`Transform::augment`]).

use super::planes::{gather_planes, write_planes};
use crate::model::loss::PoseTarget;
use crate::model::{GroundCamera, ModelSpec};
use crossfix_calibration::RgbImage;
use crossfix_kernels::ops::Augment;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Which transforms training draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Draw one of the eight symmetries of the square.
    pub symmetries: bool,
    /// Roll the ground image by up to this many degrees either way: the heading's error.
    pub heading_jitter_deg: f64,
    /// Strength of random contrast, brightness, saturation and white balance, of the ground and
    /// the aerial image apart; 0 for none, 1 for the strongest.
    pub colour: f64,
    /// Move the crop of the aerial image by up to this many metres along each axis, as far as the
    /// prepared image reaches.
    pub crop_jitter_m: f64,
    /// Of a panorama so many degrees are left, and the rest, a sector in a random direction, is black; 360 leaves all.
    #[serde(skip_serializing_if = "is_whole_circle")]
    pub field_of_view_deg: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_whole_circle(field_of_view_deg: &f64) -> bool {
    field_of_view_deg.to_bits() == 360.0f64.to_bits()
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            symmetries: true,
            heading_jitter_deg: 6.0,
            colour: 0.0,
            crop_jitter_m: 16.0,
            field_of_view_deg: 360.0,
        }
    }
}

impl Augmentation {
    /// Images as they are.
    pub fn none() -> Self {
        Self {
            symmetries: false,
            heading_jitter_deg: 0.0,
            colour: 0.0,
            crop_jitter_m: 0.0,
            field_of_view_deg: 360.0,
        }
    }
}

/// One drawn augmentation of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Transform {
    /// Mirrored east–west.
    pub mirror: bool,
    /// Quarter turns clockwise, 0 to 3.
    pub quarter_turns: usize,
    /// Columns that the ground image's content moves to the right.
    pub roll_columns: isize,
    /// Aerial pixels that the crop's centre moves by, (column, row).
    pub crop_px: [isize; 2],
    /// Colours of the ground image, of the aerial image; they roll nothing.
    pub colours: [Augment; 2],
    /// The first column of the ground image that is black before it is rolled, and how many are; they wrap.
    pub black: [usize; 2],
}

/// Draws a change of colours.
fn draw_colours(rng: &mut impl Rng, strength: f64) -> Augment {
    let mut around = |spread: f64| (rng.random_range(-1.0..=1.0f64) * spread * strength) as f32;
    let contrast = 1.0 + around(0.5);
    Augment {
        roll: 0,
        saturation: 1.0 + around(0.8),
        gain: [0; 3].map(|_| contrast * (1.0 + around(0.25))),
        // Contrast turns about middle grey.
        offset: 110.0 * (1.0 - contrast) + around(50.0),
    }
}

/// The random numbers of a transform, drawn before the images are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// One of the eight symmetries of the square.
    symmetry: usize,
    /// Share of the heading jitter, -1 to 1.
    roll: f64,
    /// Shares of the crop jitter along columns and rows, -1 to 1.
    crop: [f64; 2],
    /// Colours of the ground image, of the aerial image.
    colours: [Augment; 2],
    /// Where the black sector begins, as a share of the circle.
    black_from: f64,
}

impl Augmentation {
    /// Draws a transform's numbers. Places and angles are always drawn, so that one switch leaves
    /// the others' draws; what is drawn last, only where it is on.
    pub fn draw(&self, rng: &mut impl Rng) -> Draws {
        let (symmetry, roll) = (rng.random_range(0..8usize), rng.random_range(-1.0..=1.0f64));
        let crop = [
            rng.random_range(-1.0..=1.0f64),
            rng.random_range(-1.0..=1.0f64),
        ];
        let colours = if self.colour > 0.0 {
            [0; 2].map(|_| draw_colours(rng, self.colour))
        } else {
            [Augment::default(); 2]
        };
        let black_from = if is_whole_circle(&self.field_of_view_deg) {
            0.0
        } else {
            rng.random_range(0.0..1.0f64)
        };
        Draws {
            symmetry,
            roll,
            crop,
            colours,
            black_from,
        }
    }
}

impl Transform {
    /// The transform that was drawn, for an aerial image whose side is `aerial_side` pixels. The pose stays
    /// at least a tenth of the side inside the heatmap where the image allows it.
    pub fn new(
        draws: &Draws,
        augmentation: &Augmentation,
        spec: &ModelSpec,
        aerial_side: usize,
        target: &PoseTarget,
    ) -> Self {
        let Draws {
            symmetry,
            roll,
            crop,
            colours,
            black_from,
        } = *draws;
        let symmetry = if augmentation.symmetries { symmetry } else { 0 };
        let column_deg = 360.0 / (spec.orientation_bins * spec.columns_per_bin) as f64;
        let margin = (aerial_side.saturating_sub(spec.aerial_px) / 2) as f64;
        let jitter = (augmentation.crop_jitter_m / spec.metres_per_pixel).min(margin);
        let pixels_per_cell = spec.metres_per_cell() / spec.metres_per_pixel;
        // The heatmap may cover less than the crop.
        let heatmap_px = spec.heatmap.side as f64 * spec.heatmap.cell_px;
        let beside_px = (spec.aerial_px as f64 - heatmap_px) / 2.0;
        let pose = [target.column, target.row].map(|cells| beside_px + cells * pixels_per_cell);
        let border = beside_px + 0.1 * heatmap_px;
        let crop_px = [0, 1].map(|axis| {
            let low = (pose[axis] + border - spec.aerial_px as f64).max(-margin);
            let high = (pose[axis] - border).min(margin);
            let wanted = crop[axis] * jitter;
            (if low <= high {
                wanted.clamp(low, high)
            } else {
                wanted
            })
            .round() as isize
        });
        Self {
            mirror: symmetry >= 4,
            quarter_turns: symmetry % 4,
            roll_columns: (roll * augmentation.heading_jitter_deg / column_deg).round() as isize,
            crop_px: if augmentation.crop_jitter_m > 0.0 {
                crop_px
            } else {
                [0, 0]
            },
            colours,
            black: {
                let columns = spec.ground_columns as f64;
                let black = 1.0 - augmentation.field_of_view_deg / 360.0;
                [black_from * columns, black * columns].map(|columns| columns.round() as usize)
            },
        }
    }

    /// The pose in the transformed images.
    pub fn pose(&self, target: &PoseTarget, spec: &ModelSpec) -> PoseTarget {
        let half = spec.heatmap_side() as f64 / 2.0;
        let cells_per_pixel = spec.metres_per_pixel / spec.metres_per_cell();
        let mut x = target.column - half - self.crop_px[0] as f64 * cells_per_pixel;
        let mut y = target.row - half - self.crop_px[1] as f64 * cells_per_pixel;
        let mut residual_rad = target.residual_rad;
        if self.mirror {
            x = -x;
            residual_rad = -residual_rad;
        }
        for _ in 0..self.quarter_turns {
            (x, y) = (-y, x);
        }
        let column_rad = spec.bin_rad() / spec.columns_per_bin as f64;
        PoseTarget {
            column: x + half,
            row: y + half,
            residual_rad: residual_rad + self.roll_columns as f64 * column_rad,
            weight: target.weight,
            map: target.map.clone(),
        }
    }

    /// The bin of the transformed ground image's left edge.
    pub fn left_bin(&self, left_bin: usize, spec: &ModelSpec) -> usize {
        let bins = spec.orientation_bins;
        let width = match spec.camera {
            GroundCamera::OnBin { bins: width } => width % bins,
            _ => 0,
        };
        let mirrored = if self.mirror {
            (2 * bins - left_bin % bins - width) % bins
        } else {
            left_bin
        };
        (mirrored + self.quarter_turns * bins / 4) % bins
    }

    /// What of it is left to where the network runs: the ground image rolls, by quarters too
    /// where it shows the whole circle, and both have their colours.
    pub fn augment(&self, spec: &ModelSpec) -> [Augment; 2] {
        let turned = if spec.ground_left_bin() {
            0
        } else {
            self.quarter_turns * spec.ground_columns / 4
        };
        let [ground, aerial] = self.colours;
        let roll = (self.roll_columns + turned as isize) as i32;
        [Augment { roll, ..ground }, aerial]
    }

    /// Writes the ground image into `out`, `[3, rows, columns]`, not rolled yet.
    pub fn ground(&self, image: &RgbImage, out: &mut [u8]) {
        self.whole_ground(image, out);
        let [from, count] = self.black;
        let width = image.width.max(1);
        for row in out.chunks_exact_mut(width).filter(|_| count > 0) {
            for column in from..from + count {
                row[column % width] = 0;
            }
        }
    }

    fn whole_ground(&self, image: &RgbImage, out: &mut [u8]) {
        if self.mirror {
            let columns: Vec<usize> = (0..image.width).rev().collect();
            let rows: Vec<usize> = (0..image.height).map(|row| row * image.width).collect();
            gather_planes(image, &rows, &columns, out);
        } else {
            write_planes(image, 0, image.width, out);
        }
    }

    /// Writes the aerial crop into `out`, `[3, side, side]`; beyond the image its border goes on.
    pub fn aerial(&self, image: &RgbImage, spec: &ModelSpec, out: &mut [u8]) {
        let side = spec.aerial_px;
        let margin = (image.width.saturating_sub(side) / 2) as isize;
        let last = image.width as isize - 1;
        let along = |axis: usize, step: usize| -> Vec<usize> {
            let from = margin + self.crop_px[axis];
            (0..side as isize)
                .map(|at| (at + from).clamp(0, last) as usize * step)
                .collect()
        };
        let (mut columns, mut rows) = (along(0, 1), along(1, image.width));
        if self.mirror {
            columns.reverse();
        }
        for _ in 0..self.quarter_turns {
            // What was the left border is the top one: the last row comes first among columns.
            rows.reverse();
            std::mem::swap(&mut rows, &mut columns);
        }
        gather_planes(image, &rows, &columns, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;
    use crossfix_kernels::Pixels;
    use crossfix_kernels::ops::{Augmented, Normalisation, normalise_images};
    use rand::SeedableRng;

    fn target(column: f64, row: f64, residual_rad: f64) -> PoseTarget {
        PoseTarget {
            column,
            row,
            residual_rad,
            weight: 1.0,
            map: None,
        }
    }

    /// A black image with one white pixel.
    fn dot(width: usize, height: usize, column: usize, row: usize) -> RgbImage {
        let mut data = vec![0; width * height * 3];
        data[(row * width + column) * 3] = 255;
        RgbImage {
            width,
            height,
            data,
        }
    }

    fn brightest(values: &[u8], columns: usize) -> (usize, usize) {
        let index = values
            .iter()
            .position(|v| *v == 255)
            .expect("the dot is inside");
        (index % columns, index / columns)
    }

    #[test]
    fn aerial_pixels_and_pose_move_together_in_every_view() {
        let spec = named("compact").unwrap().describe();
        // The camera in the centre of aerial pixel (100, 31) of the crop, heatmap cell (50, 15).
        let image = dot(160, 160, 100 + 16, 31 + 16);
        let pose = target(50.25, 15.75, 0.0);
        for symmetry in 0..8 {
            let transform = Transform {
                mirror: symmetry >= 4,
                quarter_turns: symmetry % 4,
                crop_px: [7, -5],
                ..Transform::default()
            };
            let mut out = vec![0; 3 * 128 * 128];
            transform.aerial(&image, &spec, &mut out);
            let (column, row) = brightest(&out, 128);
            let moved = transform.pose(&pose, &spec);
            assert_eq!(
                (moved.column, moved.row),
                (
                    f64::midpoint(column as f64, 0.5),
                    f64::midpoint(row as f64, 0.5)
                )
            );
        }
    }

    /// The ground image as the network's first pass makes it, in pixels.
    fn first_pass(transform: &Transform, image: &RgbImage, spec: &ModelSpec) -> Vec<u8> {
        let mut out = vec![0; image.data.len()];
        transform.ground(image, &mut out);
        let pixels = Pixels::new(out, [1, 3, image.height, image.width]).unwrap();
        let augmented = Augmented {
            samples: &Augment::tensor(&transform.augment(spec)[..1]),
            wraps: !spec.ground_left_bin(),
        };
        let plain = Normalisation {
            mean: [0.0; 3],
            sigma: [1.0 / 255.0; 3],
            bf16: false,
        };
        let seen = normalise_images(&pixels, &plain, Some(augmented)).unwrap();
        seen.data()
            .iter()
            .map(|value| value.round() as u8)
            .collect()
    }

    #[test]
    fn ground_turns_with_the_aerial_image() {
        let spec = named("compact").unwrap().describe();
        // Content due east (column 192) of an aerial image turned clockwise is due south (edge).
        let image = dot(256, 48, 192, 3);
        let turned = Transform {
            quarter_turns: 1,
            ..Transform::default()
        };
        assert_eq!(brightest(&first_pass(&turned, &image, &spec), 256), (0, 3));
        // Mirrored, it is in the west.
        let mirrored = Transform {
            mirror: true,
            ..Transform::default()
        };
        let seen = first_pass(&mirrored, &image, &spec);
        assert_eq!(brightest(&seen, 256), (63, 3));
        // Mirrored, turned and rolled, in this order.
        let all = Transform {
            mirror: true,
            quarter_turns: 3,
            roll_columns: -5,
            ..Transform::default()
        };
        let seen = first_pass(&all, &image, &spec);
        assert_eq!(brightest(&seen, 256), (63 + 192 - 5, 3));
    }

    /// A part of the circle: what a roll moves out is gone, what it moves in is black, and aerial
    /// quarters leave it where it is.
    #[test]
    fn a_front_view_rolls_black_in() {
        let spec = named("compact-front").unwrap().describe();
        let (rows, columns) = (spec.ground_rows, spec.ground_columns);
        let mut image = RgbImage::black(columns, rows);
        image.data.fill(100);
        let transform = Transform {
            quarter_turns: 1,
            roll_columns: 2,
            colours: [Augment {
                offset: 50.0,
                ..Augment::default()
            }; 2],
            ..Transform::default()
        };
        let seen = first_pass(&transform, &image, &spec);
        assert_eq!(seen[..4], [0, 0, 150, 150]);
        assert_eq!(seen[columns - 1], 150);
    }

    #[test]
    fn rolling_right_is_a_counter_clockwise_residual() {
        let spec = named("compact").unwrap().describe();
        let transform = Transform {
            roll_columns: 16,
            ..Transform::default()
        };
        let pose = transform.pose(&target(32.0, 32.0, 0.0), &spec);
        assert!((pose.residual_rad - 22.5f64.to_radians()).abs() < 1e-12);
    }

    #[test]
    fn colours_stay_as_they_are_without_strength_and_differ_with_it() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        assert_eq!(draw_colours(&mut rng, 0.0), Augment::default());
        let spec = named("compact").unwrap().describe();
        let augmentation = Augmentation {
            colour: 1.0,
            ..Augmentation::default()
        };
        let pose = target(32.0, 32.0, 0.0);
        let transform = Transform::new(
            &augmentation.draw(&mut rng),
            &augmentation,
            &spec,
            128,
            &pose,
        );
        let [ground, aerial] = transform.augment(&spec);
        assert_eq!([Augment { roll: 0, ..ground }, aerial], transform.colours);
        assert!(ground.saturation != aerial.saturation && ground.gain != aerial.gain);
        assert!(ground.offset != aerial.offset && aerial.offset != 0.0);
    }

    #[test]
    fn outside_the_field_of_view_a_sector_in_every_direction_is_black() {
        let spec = named("compact").unwrap().describe();
        let columns = spec.ground_columns;
        let mut image = RgbImage::black(columns, spec.ground_rows);
        image.data.fill(100);
        let augmentation = Augmentation {
            field_of_view_deg: 90.0,
            ..Augmentation::none()
        };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let pose = target(32.0, 32.0, 0.0);
        let mut times_left = vec![0; columns];
        for _ in 0..400 {
            let draws = augmentation.draw(&mut rng);
            let transform = Transform::new(&draws, &augmentation, &spec, 128, &pose);
            let mut out = vec![1; image.data.len()];
            transform.ground(&image, &mut out);
            for row in out.chunks(columns) {
                assert_eq!(row, &out[..columns]);
            }
            let row = &out[..columns];
            assert_eq!(
                row.iter().copied().filter(|value| *value == 100).count(),
                columns / 4
            );
            // One sector.
            let edges = (0..columns).filter(|at| row[*at] != row[(at + 1) % columns]);
            assert_eq!(edges.count(), 2);
            for (times, value) in times_left.iter_mut().zip(row) {
                *times += usize::from(*value == 100);
            }
            // What is drawn besides stays.
            assert_eq!(
                Transform {
                    black: [0; 2],
                    ..transform
                },
                Transform::default()
            );
        }
        assert!(
            times_left.iter().all(|times| (60..140).contains(times)),
            "{times_left:?}"
        );
        let draw = |augmentation: &Augmentation| {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
            let draws = augmentation.draw(&mut rng);
            (draws.symmetry, draws.roll, draws.crop)
        };
        assert_eq!(draw(&augmentation), draw(&Augmentation::none()));
    }

    #[test]
    fn left_bins_of_a_front_view_turn_and_mirror() {
        let spec = named("compact-front").unwrap().describe();
        // Bins 5 to 10 are centred on north; mirrored they stay, turned they look east.
        let transform = |mirror, quarter_turns| Transform {
            mirror,
            quarter_turns,
            ..Transform::default()
        };
        assert_eq!(transform(true, 0).left_bin(5, &spec), 5);
        assert_eq!(transform(false, 1).left_bin(5, &spec), 9);
        assert_eq!(transform(true, 0).left_bin(9, &spec), 1);
    }
}
