//! The remap that makes a network's ground image, a strip or a pinhole picture, from a camera's picture.

use std::f64::consts::TAU;

use nalgebra::Vector3;

use super::{Camera, Equirectangular, PinholeView, StripSpec};
use crate::angle::azimuth_rad_from_yaw_rad;
use crate::{Error, Result, RgbImage};

/// Four neighbours in the (reduced) picture and the share of the right and lower ones.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    at: [u32; 4],
    right: f32,
    below: f32,
}

/// From a body ray to another one.
type Moved<'a> = &'a dyn Fn(Vector3<f64>) -> Vector3<f64>;

/// A table that turns pictures of one camera into one strip, for one yaw of the vehicle, or into one
/// pinhole picture, for any yaw.
///
/// Where the picture is finer than the strip it is averaged first, so nothing aliases. A level
/// panorama is separable and its table costs a few microseconds; anything else costs one projection per sample.
#[derive(Clone)]
pub struct StripRemap {
    rows: usize,
    columns: usize,
    pub(super) image_size: [usize; 2],
    /// The picture is averaged over blocks of this side before sampling.
    reduction: usize,
    /// Samples per strip pixel, next to each other in `taps`.
    samples: usize,
    /// `None` outside the camera's view.
    pub(super) taps: Vec<Option<Tap>>,
}

impl StripRemap {
    /// The table for a camera on a vehicle with a yaw (radians counter-clockwise from east).
    ///
    /// # Errors
    /// [`Error::Camera`] or [`Error::Strip`] for descriptions that cannot work.
    pub fn new(camera: &Camera, strip: &StripSpec, yaw_rad: f64) -> Result<Self> {
        Self::moved(camera, strip, yaw_rad, None)
    }

    /// The same of a camera that sits elsewhere: along `moved(ray)` it sees what the vehicle's reference
    /// point sees along the body ray `ray`.
    pub(super) fn moved(
        camera: &Camera,
        strip: &StripSpec,
        yaw_rad: f64,
        moved: Option<Moved<'_>>,
    ) -> Result<Self> {
        let (mut remap, per_axis) = Self::empty(camera, strip, yaw_rad)?;
        match (level(camera), moved) {
            (Some(lens), None) => remap.fill_level(lens, strip, yaw_rad, per_axis),
            (_, moved) => remap.fill(camera, strip, yaw_rad, per_axis, moved),
        }
        Ok(remap)
    }

    /// The table for what a level pinhole camera sees that looks along the vehicle's nose.
    ///
    /// # Errors
    /// [`Error::Camera`] or [`Error::Strip`] for descriptions that cannot work.
    pub fn pinhole(camera: &Camera, view: &PinholeView) -> Result<Self> {
        camera.check()?;
        view.check()?;
        let size = [view.rows, view.columns];
        let (mut remap, per_axis) = Self::sized(camera, size, view.radians_per_pixel());
        let wraps = matches!(camera, Camera::Equirectangular(_));
        let at =
            |pixel: usize, sample: usize| pixel as f64 + (sample as f64 + 0.5) / per_axis as f64;
        for (row, column) in
            (0..size[0]).flat_map(|row| (0..size[1]).map(move |column| (row, column)))
        {
            for sample in 0..per_axis * per_axis {
                let [x, y] = [at(column, sample % per_axis), at(row, sample / per_axis)];
                let pixel = camera.project_body(view.body_ray([x, y]));
                let tap = pixel.map(|pixel| remap.tap(pixel, wraps));
                remap.taps.push(tap);
            }
        }
        Ok(remap)
    }

    /// A table without samples yet, and how many there will be along each side of a strip pixel.
    pub(super) fn empty(camera: &Camera, strip: &StripSpec, yaw_rad: f64) -> Result<(Self, usize)> {
        camera.check()?;
        strip.check()?;
        if !yaw_rad.is_finite() {
            return Err(Error::Strip(format!("yaw is {yaw_rad}; it must be finite")));
        }
        Ok(Self::sized(
            camera,
            [strip.rows, strip.columns],
            strip.radians_per_pixel,
        ))
    }

    /// A table without samples yet of `[rows, columns]`, and how many there will be along each side of
    /// a pixel.
    fn sized(camera: &Camera, size: [usize; 2], radians_per_pixel: f64) -> (Self, usize) {
        // Pixels of the camera's picture per pixel of the table.
        let (across, down) = match camera {
            Camera::Equirectangular(lens) => (lens.width as f64 / TAU, lens.rows_per_radian()),
            Camera::Pinhole(lens) => (lens.fx, lens.fy),
            Camera::Fisheye(lens) => (lens.fx, lens.fy),
        };
        let fineness = across.min(down) * radians_per_pixel;
        let [width, height] = camera.image_size();
        let most = (fineness.floor().max(1.0) as usize).min(width).min(height);
        // A panorama must close without a seam, so its blocks divide the width.
        let wraps = matches!(camera, Camera::Equirectangular(_));
        let reduction = (1..=most)
            .rev()
            .find(|r| !wraps || width % r == 0)
            .unwrap_or(1);
        // What block averaging leaves over, up to a factor of two, is averaged by samples.
        let left_over = across.max(down) * radians_per_pixel / reduction as f64;
        let per_axis = if left_over > 1.1 {
            (left_over.ceil() as usize).min(4)
        } else {
            1
        };
        let samples = per_axis * per_axis;
        let remap = Self {
            rows: size[0],
            columns: size[1],
            image_size: [width, height],
            reduction,
            samples,
            taps: Vec::with_capacity(size[0] * size[1] * samples),
        };
        (remap, per_axis)
    }

    /// The strip seen in a picture; black where the camera does not see.
    ///
    /// # Errors
    /// [`Error::ImageSize`] when the picture is not the camera's.
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage> {
        image.check_size("camera picture", self.image_size[0], self.image_size[1])?;
        let reduced;
        let source = if self.reduction > 1 {
            reduced = image.reduced(self.reduction);
            &reduced.data
        } else {
            &image.data
        };
        let mut strip = RgbImage::black(self.columns, self.rows);
        for (out, taps) in strip
            .data
            .chunks_exact_mut(3)
            .zip(self.taps.chunks_exact(self.samples))
        {
            let visible = taps.iter().flatten().count();
            // A pixel on the edge of the view is seen when most of it is, at full brightness.
            if 2 * visible <= self.samples {
                continue;
            }
            let weight = 1.0 / visible as f32;
            let mut sum = [0.0f32; 3];
            for tap in taps.iter().flatten() {
                let [a, b, c, d] = tap.at.map(|at| &source[at as usize..at as usize + 3]);
                for k in 0..3 {
                    let upper = f32::from(a[k]) + (f32::from(b[k]) - f32::from(a[k])) * tap.right;
                    let lower = f32::from(c[k]) + (f32::from(d[k]) - f32::from(c[k])) * tap.right;
                    sum[k] += upper + (lower - upper) * tap.below;
                }
            }
            for (o, s) in out.iter_mut().zip(sum) {
                *o = (s * weight + 0.5) as u8;
            }
        }
        Ok(strip)
    }

    /// Share of the strip that the camera sees.
    pub fn seen_fraction(&self) -> f64 {
        self.taps.iter().flatten().count() as f64 / self.taps.len() as f64
    }

    /// Any camera: one ray per sample.
    fn fill(
        &mut self,
        camera: &Camera,
        strip: &StripSpec,
        yaw_rad: f64,
        per_axis: usize,
        moved: Option<Moved<'_>>,
    ) {
        let wraps = matches!(camera, Camera::Equirectangular(_));
        let lens_from_body = camera.mount().lens_from_body();
        let azimuths: Vec<(f64, f64)> = (0..strip.columns * per_axis)
            .map(|i| {
                // Azimuth from the vehicle's nose, clockwise.
                let azimuth_rad = strip.azimuth_rad((i as f64 + 0.5) / per_axis as f64);
                (azimuth_rad - azimuth_rad_from_yaw_rad(yaw_rad)).sin_cos()
            })
            .collect();
        let elevations: Vec<(f64, f64)> = (0..strip.rows * per_axis)
            .map(|i| {
                strip
                    .elevation_rad((i as f64 + 0.5) / per_axis as f64)
                    .sin_cos()
            })
            .collect();
        for row in 0..strip.rows {
            for col in 0..strip.columns {
                for i in 0..per_axis {
                    for j in 0..per_axis {
                        let (sin_azimuth, cos_azimuth) = azimuths[col * per_axis + j];
                        let (up, across) = elevations[row * per_axis + i];
                        let body = Vector3::new(across * cos_azimuth, -across * sin_azimuth, up);
                        let body = moved.map_or(body, |moved| moved(body));
                        let pixel = camera.lens().project(lens_from_body * body);
                        self.taps.push(pixel.map(|pixel| self.tap(pixel, wraps)));
                    }
                }
            }
        }
    }

    /// A level panorama: columns and rows apart.
    fn fill_level(
        &mut self,
        lens: &Equirectangular,
        strip: &StripSpec,
        yaw_rad: f64,
        per_axis: usize,
    ) {
        let forward_rad = azimuth_rad_from_yaw_rad(yaw_rad) - lens.mount.yaw_left_deg.to_radians();
        let position = |index: usize| (index as f64 + 0.5) / per_axis as f64;
        let across: Vec<Tap> = (0..strip.columns * per_axis)
            .map(|i| {
                self.tap(
                    [
                        lens.column(strip.azimuth_rad(position(i)) - forward_rad),
                        0.5,
                    ],
                    true,
                )
            })
            .collect();
        let down: Vec<Option<Tap>> = (0..strip.rows * per_axis)
            .map(|i| {
                let row = lens.row(strip.elevation_rad(position(i)));
                // Elevations computed on two ways may differ in the last bit at the very edge.
                let inside = (-1e-9..=lens.height as f64 + 1e-9).contains(&row);
                inside.then(|| self.tap([0.5, row], false))
            })
            .collect();
        for row in down.chunks_exact(per_axis) {
            for col in across.chunks_exact(per_axis) {
                for y in row {
                    for x in col {
                        self.taps.push(y.map(|y| Tap {
                            at: [
                                x.at[0] + y.at[0],
                                x.at[1] + y.at[0],
                                x.at[0] + y.at[2],
                                x.at[1] + y.at[2],
                            ],
                            right: x.right,
                            below: y.below,
                        }));
                    }
                }
            }
        }
    }

    /// The bilinear neighbours of a picture pixel in the reduced picture.
    pub(super) fn tap(&self, pixel: [f64; 2], wraps: bool) -> Tap {
        let [width, height] = self.image_size.map(|size| size / self.reduction);
        let x = pixel[0] / self.reduction as f64 - 0.5;
        let y = (pixel[1] / self.reduction as f64 - 0.5).clamp(0.0, (height - 1) as f64);
        let x = if wraps {
            x
        } else {
            x.clamp(0.0, (width - 1) as f64)
        };
        let (left, top) = (x.floor(), y.floor());
        let column = |c: i64| if wraps { c.rem_euclid(width as i64) } else { c.min(width as i64 - 1) } as u32;
        let row = |r: f64| (r as usize).min(height - 1) as u32;
        let (x0, x1) = (column(left as i64), column(left as i64 + 1));
        let (y0, y1) = (row(top) * width as u32, row(top + 1.0) * width as u32);
        Tap {
            at: [(y0 + x0) * 3, (y0 + x1) * 3, (y1 + x0) * 3, (y1 + x1) * 3],
            right: (x - left) as f32,
            below: (y - top) as f32,
        }
    }
}

/// A panorama whose table is so cheap that it need not be kept.
pub(super) fn level(camera: &Camera) -> Option<&Equirectangular> {
    match camera {
        Camera::Equirectangular(lens) if lens.mount.is_level() => Some(lens),
        _ => None,
    }
}

impl std::fmt::Debug for StripRemap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rows,
            columns,
            image_size,
            reduction,
            samples,
            ..
        } = self;
        write!(
            f,
            "StripRemap({columns}x{rows} from {image_size:?}, blocks of {reduction}, {samples} samples)"
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Mount, Pinhole};
    use std::f64::consts::FRAC_PI_2;

    use super::*;

    pub(in super::super) fn panorama_camera(width: usize, height: usize) -> Camera {
        let bottom_elevation_deg = 28.0 - 48.0 * 360.0 / 256.0;
        Camera::Equirectangular(Equirectangular {
            width,
            height,
            top_elevation_deg: 28.0,
            bottom_elevation_deg,
            mount: Mount::default(),
        })
    }

    /// The colour of a world direction: smooth, and without a seam.
    fn sky(azimuth_rad: f64, elevation_rad: f64) -> [f64; 3] {
        [
            127.5 + 100.0 * azimuth_rad.sin(),
            127.5 + 100.0 * azimuth_rad.cos(),
            127.5 + 100.0 * (3.0 * elevation_rad).sin(),
        ]
    }

    /// What a camera on a vehicle with this yaw takes of that world.
    pub(in super::super) fn picture(camera: &Camera, yaw_rad: f64) -> RgbImage {
        let [width, height] = camera.image_size();
        let mut image = RgbImage::black(width, height);
        for row in 0..height {
            for col in 0..width {
                let ray = camera
                    .unproject_body([col as f64 + 0.5, row as f64 + 0.5])
                    .unwrap();
                let (east, north) = (
                    ray.x * yaw_rad.cos() - ray.y * yaw_rad.sin(),
                    ray.x * yaw_rad.sin() + ray.y * yaw_rad.cos(),
                );
                let colour = sky(east.atan2(north), ray.z.asin());
                image.set_pixel(col, row, colour.map(|v| v.round() as u8));
            }
        }
        image
    }

    fn check(camera: &Camera, strip: &StripSpec, yaw_rad: f64, tolerance: f64) -> usize {
        let remap = StripRemap::new(camera, strip, yaw_rad).unwrap();
        let image = remap.apply(&picture(camera, yaw_rad)).unwrap();
        let mut unseen = 0;
        for row in 0..strip.rows {
            for col in 0..strip.columns {
                let got = image.pixel(col, row);
                if got == [0; 3] {
                    unseen += 1;
                    continue;
                }
                let expected = sky(
                    strip.azimuth_rad(col as f64 + 0.5),
                    strip.elevation_rad(row as f64 + 0.5),
                );
                for (g, e) in got.into_iter().zip(expected) {
                    assert!(
                        (f64::from(g) - e).abs() < tolerance,
                        "{remap:?} yaw {yaw_rad} at {col},{row}: {got:?}, expected {expected:?}"
                    );
                }
            }
        }
        unseen
    }

    #[test]
    fn a_vehicle_that_looks_north_has_its_panorama_copied_byte_for_byte() {
        let camera = panorama_camera(256, 48);
        let image = picture(&camera, FRAC_PI_2);
        let remap = StripRemap::new(&camera, &StripSpec::panorama(), FRAC_PI_2).unwrap();
        assert_eq!(remap.apply(&image).unwrap(), image);
    }

    #[test]
    fn a_vehicle_that_looks_east_has_its_nose_at_three_quarters() {
        let camera = panorama_camera(256, 48);
        let mut image = RgbImage::black(256, 48);
        image.set_pixel(128, 20, [255; 3]);
        let strip = StripRemap::new(&camera, &StripSpec::panorama(), 0.0)
            .unwrap()
            .apply(&image)
            .unwrap();
        assert_eq!(strip.pixel(192, 20), [255; 3]);
        assert_eq!(strip.data.iter().filter(|&&v| v > 0).count(), 3);
    }

    #[test]
    fn panoramas_of_any_size_and_yaw_are_north_aligned() {
        for yaw_rad in [0.0, 0.3, 1.57, 3.0, -2.2, 9.1] {
            for (width, height) in [(256, 48), (300, 50), (1024, 192), (2000, 400)] {
                assert_eq!(
                    check(
                        &panorama_camera(width, height),
                        &StripSpec::panorama(),
                        yaw_rad,
                        3.5
                    ),
                    0
                );
            }
        }
    }

    #[test]
    fn a_tilted_panorama_agrees_with_the_level_one() {
        let mount = Mount {
            yaw_left_deg: 20.0,
            pitch_up_deg: 3.0,
            roll_right_deg: -4.0,
        };
        let camera = Camera::Equirectangular(Equirectangular {
            width: 512,
            height: 256,
            top_elevation_deg: 90.0,
            bottom_elevation_deg: -90.0,
            mount,
        });
        assert_eq!(check(&camera, &StripSpec::panorama(), 0.7, 3.0), 0);
        let level = Camera::Equirectangular(Equirectangular {
            width: 512,
            height: 256,
            top_elevation_deg: 90.0,
            bottom_elevation_deg: -90.0,
            mount: Mount {
                yaw_left_deg: 20.0,
                ..Mount::default()
            },
        });
        assert_eq!(check(&level, &StripSpec::panorama(), 0.7, 3.0), 0);
    }

    #[test]
    fn a_front_camera_fills_the_middle_of_its_strip_and_black_the_rest() {
        let view_rad = 100f64.to_radians();
        for yaw_rad in [0.0, 0.2, 1.4, -3.0] {
            for camera in [
                Pinhole::with_horizontal_view(160, 100, view_rad),
                Pinhole::with_horizontal_view(1280, 800, view_rad),
            ] {
                let camera = Camera::Pinhole(camera);
                let strip = StripSpec::front(96, yaw_rad);
                let unseen = check(&camera, &strip, yaw_rad, 3.0);
                let visible_share = 1.0 - unseen as f64 / (96.0 * 48.0);
                assert!((0.4..0.75).contains(&visible_share), "{visible_share}");
            }
        }
    }

    #[test]
    fn rows_above_and_below_the_camera_are_black() {
        let mount = Mount::default();
        let camera = Camera::Equirectangular(Equirectangular {
            width: 256,
            height: 20,
            top_elevation_deg: 14.0,
            bottom_elevation_deg: -14.0,
            mount,
        });
        let white = RgbImage {
            width: 256,
            height: 20,
            data: vec![255; 256 * 20 * 3],
        };
        let remap = StripRemap::new(&camera, &StripSpec::panorama(), 0.4).unwrap();
        let strip = remap.apply(&white).unwrap();
        for row in 0..48 {
            let elevation_deg = StripSpec::panorama()
                .elevation_rad(row as f64 + 0.5)
                .to_degrees();
            let expected = if elevation_deg.abs() <= 14.0 { 255 } else { 0 };
            assert_eq!(strip.pixel(77, row), [expected; 3], "row {row}");
        }
        assert!((remap.seen_fraction() - 20.0 / 48.0).abs() < 0.02);
    }

    #[test]
    fn a_pinhole_view_shows_what_lies_ahead_whatever_camera_took_it() {
        let view = PinholeView {
            rows: 48,
            columns: 96,
            fx: 60.0,
            fy: 70.0,
            cx: 40.5,
            cy: 20.0,
        };
        let mount = Mount {
            yaw_left_deg: 12.0,
            pitch_up_deg: -5.0,
            roll_right_deg: 3.0,
        };
        let pinhole = Pinhole {
            mount,
            ..Pinhole::with_horizontal_view(1280, 960, 2.2)
        };
        let sphere = Equirectangular {
            width: 1024,
            height: 512,
            top_elevation_deg: 90.0,
            bottom_elevation_deg: -90.0,
            mount,
        };
        for camera in [Camera::Pinhole(pinhole), Camera::Equirectangular(sphere)] {
            let remap = StripRemap::pinhole(&camera, &view).unwrap();
            assert!(remap.seen_fraction() > 0.99, "{remap:?}");
            // A vehicle that looks north, so that azimuths count from its nose.
            let image = remap.apply(&picture(&camera, FRAC_PI_2)).unwrap();
            for (row, column) in [(0, 0), (20, 40), (47, 95), (10, 80)] {
                let right = (column as f64 - 40.5) / 60.0;
                let up = (20.0 - row as f64) / 70.0;
                let expected = sky(right.atan(), (up / right.hypot(1.0)).atan());
                for (got, expected) in image.pixel(column, row).into_iter().zip(expected) {
                    let off = (f64::from(got) - expected).abs();
                    assert!(off < 2.5, "{remap:?} {row},{column}: {got} {expected}");
                }
            }
        }
        let behind = Camera::Pinhole(Pinhole {
            mount: Mount {
                yaw_left_deg: 180.0,
                ..mount
            },
            ..Pinhole::with_horizontal_view(128, 96, 1.4)
        });
        let remap = StripRemap::pinhole(&behind, &view).unwrap();
        assert_eq!(remap.seen_fraction(), 0.0);
        let flat = PinholeView { fx: 0.0, ..view };
        assert!(StripRemap::pinhole(&behind, &flat).is_err());
    }

    #[test]
    fn pictures_of_another_size_and_impossible_strips_are_refused() {
        let remap =
            StripRemap::new(&panorama_camera(256, 48), &StripSpec::panorama(), 0.0).unwrap();
        assert!(
            remap
                .apply(&RgbImage::black(512, 48))
                .unwrap_err()
                .to_string()
                .contains("expected 256x48")
        );
        assert!(
            remap
                .apply(&RgbImage {
                    width: 256,
                    height: 48,
                    data: vec![]
                })
                .is_err()
        );
        let camera = panorama_camera(256, 48);
        for bad in [
            StripSpec {
                rows: 0,
                ..StripSpec::panorama()
            },
            StripSpec {
                columns: 257,
                ..StripSpec::panorama()
            },
            StripSpec {
                top_elevation_rad: 2.0,
                ..StripSpec::panorama()
            },
            StripSpec {
                radians_per_pixel: f64::NAN,
                ..StripSpec::panorama()
            },
        ] {
            assert!(StripRemap::new(&camera, &bad, 0.0).is_err(), "{bad:?}");
        }
        assert!(StripRemap::new(&camera, &StripSpec::panorama(), f64::NAN).is_err());
    }
}
