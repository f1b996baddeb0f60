//! The remaps of one camera for any yaw, from rays that are projected once.

use std::f64::consts::TAU;

use nalgebra::Vector3;

use super::remap::level;
use super::{Camera, StripRemap, StripSpec};
use crate::Result;
use crate::angle::azimuth_rad_from_yaw_rad;

/// Makes the tables of one camera for any yaw: its rays are projected once, a full circle around the
/// vehicle, and a table for a yaw takes its samples from between those.
///
/// The pixels of a table differ from those of [`StripRemap::new`] by less than a hundredth.
pub struct StripMapper {
    camera: Camera,
    strip: StripSpec,
    per_axis: usize,
    /// Columns of the circle.
    turns: usize,
    /// Rows of samples by columns of the circle; empty for a level panorama.
    circle: Vec<Option<[f32; 2]>>,
}

impl StripMapper {
    /// For strips of this size, wherever their left edge is.
    ///
    /// # Errors
    /// As [`StripRemap::new`].
    pub fn new(camera: &Camera, strip: &StripSpec) -> Result<Self> {
        let (_, per_axis) = StripRemap::empty(camera, strip, 0.0)?;
        let turns = (TAU * per_axis as f64 / strip.radians_per_pixel).ceil() as usize;
        let mut mapper = Self {
            camera: camera.clone(),
            strip: *strip,
            per_axis,
            turns,
            circle: Vec::new(),
        };
        if level(camera).is_none() {
            for row in 0..strip.rows * per_axis {
                for column in 0..turns {
                    let turn_rad = TAU * column as f64 / turns as f64;
                    let pixel = mapper.project(row, turn_rad);
                    mapper
                        .circle
                        .push(pixel.map(|pixel| pixel.map(|value| value as f32)));
                }
            }
        }
        Ok(mapper)
    }

    /// The table for a strip with this left edge and a vehicle with this yaw.
    ///
    /// # Errors
    /// As [`StripRemap::new`].
    pub fn remap(&self, left_azimuth_rad: f64, yaw_rad: f64) -> Result<StripRemap> {
        let strip = StripSpec {
            left_azimuth_rad,
            ..self.strip
        };
        if self.circle.is_empty() {
            return StripRemap::new(&self.camera, &strip, yaw_rad);
        }
        let (mut remap, per_axis) = StripRemap::empty(&self.camera, &strip, yaw_rad)?;
        let wraps = matches!(self.camera, Camera::Equirectangular(_));
        let width = remap.image_size[0] as f32;
        // Where on the circle each column of samples is: the whole column before it, and the share after.
        let columns: Vec<(f64, usize, f32)> = (0..strip.columns * per_axis)
            .map(|i| {
                let azimuth_rad = strip.azimuth_rad((i as f64 + 0.5) / per_axis as f64);
                let turn_rad = (azimuth_rad - azimuth_rad_from_yaw_rad(yaw_rad)).rem_euclid(TAU);
                let at = turn_rad / TAU * self.turns as f64;
                let whole = (at as usize).min(self.turns - 1);
                (turn_rad, whole, (at - whole as f64) as f32)
            })
            .collect();
        for row in 0..strip.rows {
            for pixel in columns.chunks_exact(per_axis) {
                for sample_row in row * per_axis..(row + 1) * per_axis {
                    let circle = &self.circle[sample_row * self.turns..][..self.turns];
                    for &(turn_rad, whole, share) in pixel {
                        let next = if whole + 1 == self.turns {
                            0
                        } else {
                            whole + 1
                        };
                        let found = match (circle[whole], circle[next]) {
                            (None, None) => None,
                            (Some(from), Some(to)) => {
                                let mut across = to[0] - from[0];
                                if wraps && across.abs() > 0.5 * width {
                                    across -= width.copysign(across);
                                }
                                let x = from[0] + share * across;
                                let y = from[1] + share * (to[1] - from[1]);
                                Some([f64::from(x), f64::from(y)])
                            }
                            // The edge of the view is between them.
                            _ => self.project(sample_row, turn_rad),
                        };
                        remap.taps.push(found.map(|pixel| remap.tap(pixel, wraps)));
                    }
                }
            }
        }
        Ok(remap)
    }

    /// The pixel of a row of samples at this angle, clockwise from the vehicle's nose.
    fn project(&self, sample_row: usize, turn_rad: f64) -> Option<[f64; 2]> {
        let row = (sample_row as f64 + 0.5) / self.per_axis as f64;
        let (up, across) = self.strip.elevation_rad(row).sin_cos();
        let (sine, cosine) = turn_rad.sin_cos();
        let body = Vector3::new(across * cosine, -across * sine, up);
        self.camera.project_body(body)
    }
}

impl std::fmt::Debug for StripMapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StripMapper({:?}, {:?})", self.camera, self.strip)
    }
}

#[cfg(test)]
mod tests {
    use super::super::remap::tests::{panorama_camera, picture};
    use super::super::{Distortion, Equirectangular, Fisheye, Mount, Pinhole};
    use super::*;

    #[test]
    fn a_table_from_the_circle_is_that_of_the_rays() {
        let mount = Mount {
            yaw_left_deg: 100.0,
            pitch_up_deg: -3.0,
            roll_right_deg: 2.0,
        };
        let distortion = Distortion {
            k1: -0.2,
            k2: 0.05,
            ..Default::default()
        };
        let fisheye = Fisheye {
            width: 800,
            height: 600,
            fx: 260.0,
            fy: 260.0,
            cx: 400.0,
            cy: 300.0,
            k1: 0.01,
            k2: 0.0,
            k3: 0.0,
            k4: 0.0,
            largest_angle_deg: 180.0,
            mount,
        };
        for camera in [
            Camera::Pinhole(Pinhole {
                distortion: Some(distortion),
                mount,
                ..Pinhole::with_horizontal_view(1280, 800, 1.4)
            }),
            Camera::Fisheye(fisheye),
            Camera::Equirectangular(Equirectangular {
                width: 512,
                height: 256,
                top_elevation_deg: 90.0,
                bottom_elevation_deg: -90.0,
                mount,
            }),
            panorama_camera(512, 96),
        ] {
            let strip = StripSpec::panorama();
            let mapper = StripMapper::new(&camera, &strip).unwrap();
            for yaw_rad in [0.0, 0.3, -2.2, 9.1] {
                let world = picture(&camera, yaw_rad);
                let left_azimuth_rad = strip.left_azimuth_rad + yaw_rad;
                let strip = StripSpec {
                    left_azimuth_rad,
                    ..strip
                };
                let exact = StripRemap::new(&camera, &strip, yaw_rad).unwrap();
                let kept = mapper.remap(left_azimuth_rad, yaw_rad).unwrap();
                assert_eq!(kept.seen_fraction(), exact.seen_fraction(), "{camera:?}");
                let (exact, kept) = (exact.apply(&world).unwrap(), kept.apply(&world).unwrap());
                let most = exact
                    .data
                    .iter()
                    .zip(&kept.data)
                    .map(|(one, other)| one.abs_diff(*other))
                    .max();
                assert!(most <= Some(1), "{camera:?} {yaw_rad}: {most:?}");
            }
        }
    }
}
