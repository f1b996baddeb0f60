//! The aerial patch of a KITTI sample: the map turned to the heading, moved, turned again, cropped.

use super::{METRES_PER_PIXEL, SHIFT_RANGE_M};
use crate::data::resample::{Region, Shift, Turn, centre_crop, centre_start};
use crossfix_calibration::{Heading, RgbImage};

/// Metres from the GNSS antenna, at the map's centre, to the camera: forward and to the right.
const CAMERA_FROM_ANTENNA_M: [f64; 2] = [1.08, 0.26];

/// How a sample's patch lies on its map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Share of the range that the patch's centre moves along the heading.
    pub forward: f64,
    /// Share of the range that it moves to the left of the heading.
    pub left: f64,
    /// Share of the range that the patch is turned by, counter-clockwise.
    pub turn: f64,
    /// The same in degrees.
    pub turn_deg: f64,
}

impl Placement {
    /// Largest shift in pixels.
    pub fn range_px() -> f64 {
        SHIFT_RANGE_M / METRES_PER_PIXEL
    }

    /// Pixels (right, down) from the camera to the patch's centre, before any rounding.
    pub fn centre_from_camera_px(&self) -> [f64; 2] {
        let (sin, cos) = self.turn_deg.to_radians().sin_cos();
        let (forward, left) = (
            self.forward * Self::range_px(),
            self.left * Self::range_px(),
        );
        [forward * cos - left * sin, -left * cos - forward * sin]
    }

    /// The same in whole pixels, truncated as published.
    pub fn published_offset_px(&self) -> [f64; 2] {
        self.centre_from_camera_px().map(f64::trunc)
    }

    /// The vehicle's heading in the patch, degrees clockwise from its top, as published: 90 minus
    /// the turn, in [0, 360).
    pub fn heading_deg(&self) -> f64 {
        Heading::from_degrees(90.0 - self.turn_deg).degrees()
    }

    /// Cuts the patch of `side` pixels out of a map whose vehicle has this yaw. Only pixels that
    /// the patch shows are computed.
    pub fn cut(&self, map: &RgbImage, yaw_rad: f64, side: usize) -> RgbImage {
        let to_heading = Turn::new(
            -yaw_rad * 180.0 / std::f64::consts::PI,
            map.width,
            map.height,
        );
        let to_camera = Shift {
            columns: CAMERA_FROM_ANTENNA_M[0] / METRES_PER_PIXEL,
            rows: CAMERA_FROM_ANTENNA_M[1] / METRES_PER_PIXEL,
        };
        let moved = Shift {
            columns: self.forward * Self::range_px(),
            rows: -self.left * Self::range_px(),
        };
        let turned = Turn::new(self.turn_deg, map.width, map.height);
        // Back from the crop: what each step must know of the one before.
        let crop = |of: usize| {
            let start = centre_start(of, side);
            let clamp = |at: i64| at.clamp(0, of as i64) as usize;
            [clamp(start), clamp(start + side as i64)]
        };
        let last = Region {
            columns: crop(map.width),
            rows: crop(map.height),
        };
        let third = turned.needed(map, last);
        let second = moved.needed(map, third);
        let first = to_camera.needed(map, second);
        let image = to_heading.apply(map, first);
        let image = to_camera.apply(&image, second);
        let image = moved.apply(&image, third);
        let image = turned.apply(&image, last);
        centre_crop(&image, side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_range_is_the_published_one() {
        assert!((Placement::range_px() - 102.130_175_721_448_92).abs() < 1e-9);
    }

    #[test]
    fn moving_forward_puts_the_camera_behind_the_centre() {
        // Heading east (no turn), the patch moved 10 m forward: the camera is west of its centre.
        let placement = Placement {
            forward: 0.5,
            left: 0.0,
            turn: 0.0,
            turn_deg: 0.0,
        };
        assert_eq!(placement.heading_deg(), 90.0);
        let [right, down] = placement.centre_from_camera_px();
        assert!((right * METRES_PER_PIXEL - 10.0).abs() < 1e-9 && down == 0.0);
    }

    #[test]
    fn the_patch_shows_the_camera_where_the_placement_says() {
        // A map with a blob at the camera of a vehicle heading north-east.
        let yaw = 0.6f64;
        let mut map = RgbImage::black(1280, 1280);
        let [forward, right] = CAMERA_FROM_ANTENNA_M.map(|m| m / METRES_PER_PIXEL);
        let x = 640.0 + forward * yaw.cos() + right * yaw.sin();
        let y = 640.0 - forward * yaw.sin() + right * yaw.cos();
        for row in 0..7 {
            for column in 0..7 {
                map.set_pixel(x as usize + column - 3, y as usize + row - 3, [250; 3]);
            }
        }
        let placement = Placement {
            forward: 0.7,
            left: -0.4,
            turn: 1.0,
            turn_deg: 35.0,
        };
        let patch = placement.cut(&map, yaw, 512);
        let (mut sum, mut weight) = ([0.0; 2], 0.0);
        for row in 0..512 {
            for column in 0..512 {
                let value = f64::from(patch.pixel(column, row)[0]);
                sum[0] += value * (column as f64 + 0.5);
                sum[1] += value * (row as f64 + 0.5);
                weight += value;
            }
        }
        let [right, down] = placement.centre_from_camera_px();
        assert!(
            (sum[0] / weight - (256.0 - right)).abs() < 1.5,
            "{sum:?} {weight}"
        );
        assert!((sum[1] / weight - (256.0 - down)).abs() < 1.5);
    }
}
