//! The same place seen another way: turned, mirrored, from a jittered heading, cut elsewhere.
//!
//! A view moves pixels and pose together. Applied in this order: the crop moves; both images are
//! mirrored east–west; both turn clockwise by quarters; the ground image alone rolls.

use crate::loss::PoseTarget;
use crate::model::{GroundCamera, ModelSpec};
use crossfix_calibration::RgbImage;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Which views training draws.
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
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            symmetries: true,
            heading_jitter_deg: 6.0,
            colour: 0.0,
            crop_jitter_m: 16.0,
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
        }
    }
}

/// One way to see a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct View {
    /// Mirrored east–west.
    pub mirror: bool,
    /// Quarter turns clockwise, 0 to 3.
    pub quarter_turns: usize,
    /// Columns that the ground image's content moves to the right.
    pub roll_columns: isize,
    /// Aerial pixels that the crop's centre moves by, (column, row).
    pub crop_px: [isize; 2],
    /// Colours of the ground image, of the aerial image.
    pub tints: [Tint; 2],
}

/// A change of colours: saturation, then gain and offset of each channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tint {
    saturation: f32,
    gain: [f32; 3],
    offset: f32,
}

impl Default for Tint {
    fn default() -> Self {
        Self {
            saturation: 1.0,
            gain: [1.0; 3],
            offset: 0.0,
        }
    }
}

impl Tint {
    fn draw(rng: &mut impl Rng, strength: f64) -> Self {
        let mut around = |spread: f64| (rng.random_range(-1.0..=1.0f64) * spread * strength) as f32;
        let contrast = 1.0 + around(0.5);
        Self {
            saturation: 1.0 + around(0.8),
            gain: [0; 3].map(|_| contrast * (1.0 + around(0.25))),
            // Contrast turns about middle grey.
            offset: 110.0 * (1.0 - contrast) + around(50.0),
        }
    }

    /// The colour of one pixel, 0 to 255.
    fn apply(&self, pixel: &[u8]) -> [f32; 3] {
        let rgb = [pixel[0], pixel[1], pixel[2]].map(f32::from);
        if *self == Self::default() {
            return rgb;
        }
        let grey = (rgb[0] + rgb[1] + rgb[2]) / 3.0;
        let mut out = [0.0; 3];
        for channel in 0..3 {
            let saturated = grey + self.saturation * (rgb[channel] - grey);
            out[channel] = (saturated * self.gain[channel] + self.offset).clamp(0.0, 255.0);
        }
        out
    }
}

impl View {
    /// Draws a view of an aerial image whose side is `aerial_side` pixels. The pose stays at
    /// least a tenth of the side inside the heatmap where the image allows it.
    pub fn draw(
        rng: &mut impl Rng,
        augmentation: &Augmentation,
        spec: &ModelSpec,
        aerial_side: usize,
        target: &PoseTarget,
    ) -> Self {
        // Places and angles are drawn, wanted or not, so that one switch leaves the others' draws.
        let (symmetry, roll) = (rng.random_range(0..8usize), rng.random_range(-1.0..=1.0f64));
        let crop = [
            rng.random_range(-1.0..=1.0f64),
            rng.random_range(-1.0..=1.0f64),
        ];
        let tints = if augmentation.colour > 0.0 {
            [0; 2].map(|_| Tint::draw(rng, augmentation.colour))
        } else {
            [Tint::default(); 2]
        };
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
            tints,
        }
    }

    /// The pose as this view shows it.
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
        }
    }

    /// The bin of the ground image's left edge as this view shows it.
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

    /// Writes the ground image into `out`, `[3, rows, columns]`, values 0 to 255.
    pub fn ground(&self, image: &RgbImage, spec: &ModelSpec, out: &mut [f32]) {
        let columns = image.width;
        let whole_circle = !spec.ground_left_bin();
        let turn = if whole_circle {
            self.quarter_turns * columns / 4
        } else {
            0
        };
        let plane = image.height * columns;
        for column in 0..columns {
            let from = column as isize - self.roll_columns - turn as isize;
            let from = if whole_circle {
                from.rem_euclid(columns as isize)
            } else {
                from
            };
            let inside = (0..columns as isize).contains(&from);
            let from = if self.mirror {
                columns as isize - 1 - from
            } else {
                from
            };
            for row in 0..image.height {
                let colour = if inside {
                    let at = (row * columns + from as usize) * 3;
                    self.tints[0].apply(&image.data[at..at + 3])
                } else {
                    [0.0; 3]
                };
                for (channel, value) in colour.into_iter().enumerate() {
                    out[channel * plane + row * columns + column] = value;
                }
            }
        }
    }

    /// Writes the aerial crop into `out`, `[3, side, side]`, values 0 to 255.
    pub fn aerial(&self, image: &RgbImage, spec: &ModelSpec, out: &mut [f32]) {
        let side = spec.aerial_px;
        let margin = (image.width.saturating_sub(side) / 2) as isize;
        let plane = side * side;
        let last = image.width as isize - 1;
        for row in 0..side {
            for column in 0..side {
                let (mut x, mut y) = (column, row);
                for _ in 0..self.quarter_turns {
                    (x, y) = (y, side - 1 - x);
                }
                if self.mirror {
                    x = side - 1 - x;
                }
                let x = (x as isize + margin + self.crop_px[0]).clamp(0, last) as usize;
                let y = (y as isize + margin + self.crop_px[1]).clamp(0, last) as usize;
                let at = (y * image.width + x) * 3;
                let colour = self.tints[1].apply(&image.data[at..at + 3]);
                for (channel, value) in colour.into_iter().enumerate() {
                    out[channel * plane + row * side + column] = value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;
    use rand::SeedableRng;

    fn target(column: f64, row: f64, residual_rad: f64) -> PoseTarget {
        PoseTarget {
            column,
            row,
            residual_rad,
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

    fn brightest(values: &[f32], columns: usize) -> (usize, usize) {
        let index = values
            .iter()
            .position(|v| *v == 255.0)
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
            let view = View {
                mirror: symmetry >= 4,
                quarter_turns: symmetry % 4,
                crop_px: [7, -5],
                ..View::default()
            };
            let mut out = vec![0.0; 3 * 128 * 128];
            view.aerial(&image, &spec, &mut out);
            let (column, row) = brightest(&out, 128);
            let moved = view.pose(&pose, &spec);
            assert_eq!(
                (moved.column, moved.row),
                ((column as f64 + 0.5) / 2.0, (row as f64 + 0.5) / 2.0)
            );
        }
    }

    #[test]
    fn ground_turns_with_the_aerial_image() {
        let spec = named("compact").unwrap().describe();
        // Content due east (column 192) of an aerial image turned clockwise is due south (edge).
        let image = dot(256, 48, 192, 3);
        let mut out = vec![0.0; 3 * 48 * 256];
        let turned = View {
            quarter_turns: 1,
            ..View::default()
        };
        turned.ground(&image, &spec, &mut out);
        assert_eq!(brightest(&out, 256), (0, 3));
        // Mirrored, it is in the west.
        let mirrored = View {
            mirror: true,
            ..View::default()
        };
        mirrored.ground(&image, &spec, &mut out);
        assert_eq!(brightest(&out, 256), (63, 3));
    }

    #[test]
    fn rolling_right_is_a_counter_clockwise_residual() {
        let spec = named("compact").unwrap().describe();
        let view = View {
            roll_columns: 16,
            ..View::default()
        };
        let pose = view.pose(&target(32.0, 32.0, 0.0), &spec);
        assert!((pose.residual_rad - 22.5f64.to_radians()).abs() < 1e-12);
    }

    #[test]
    fn colours_stay_as_they_are_without_strength_and_within_range_with_it() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        assert_eq!(Tint::draw(&mut rng, 0.0), Tint::default());
        assert_eq!(Tint::default().apply(&[10, 200, 30]), [10.0, 200.0, 30.0]);
        for _ in 0..100 {
            let colour = Tint::draw(&mut rng, 1.0).apply(&[0, 255, 90]);
            assert!(colour.iter().all(|value| (0.0..=255.0).contains(value)));
        }
    }

    #[test]
    fn left_bins_of_a_front_view_turn_and_mirror() {
        let spec = named("compact-front").unwrap().describe();
        // Bins 5 to 10 are centred on north; mirrored they stay, turned they look east.
        let view = |mirror, quarter_turns| View {
            mirror,
            quarter_turns,
            ..View::default()
        };
        assert_eq!(view(true, 0).left_bin(5, &spec), 5);
        assert_eq!(view(false, 1).left_bin(5, &spec), 9);
        assert_eq!(view(true, 0).left_bin(9, &spec), 1);
    }
}
