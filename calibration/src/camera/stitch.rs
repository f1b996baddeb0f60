//! Pictures of several cameras, taken at one moment, as one panorama around the vehicle.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

use super::{Camera, Equirectangular, Mount, StripRemap, StripSpec};
use crate::{Error, Result, RgbImage};

/// How far the ground, façades and what else is seen are taken to be at most, metres; only lever arms make
/// a difference of it.
const FARTHEST_M: f64 = 20.0;
/// A camera counts where its share is at least this part of the largest; between them pictures fade.
const FADING: f64 = 0.8;

/// Where a camera sits, seen from the point that the position is of: its lever arm, metres.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeverArm {
    /// Towards the vehicle's nose.
    pub forward_m: f64,
    /// To the left.
    pub left_m: f64,
    /// Upwards.
    pub up_m: f64,
}

impl LeverArm {
    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("forward_m", self.forward_m),
            ("left_m", self.left_m),
            ("up_m", self.up_m),
        ] {
            if !(-20.0..=20.0).contains(&value) {
                return Err(Error::Camera(format!(
                    "lever_arm.{name} is {value}; it must be within ±20 m"
                )));
            }
        }
        Ok(())
    }
}

/// The panorama that cameras are stitched into: level, the vehicle's nose in its centre column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PanoramaSpec {
    /// Columns of the whole circle.
    pub width: usize,
    /// Elevation of the top edge, degrees; that of the bottom edge follows from the height.
    pub top_elevation_deg: f64,
    /// Lowest elevation that is wanted, degrees.
    pub bottom_elevation_deg: f64,
    /// Height of the point that the position is of above the ground, metres.
    pub height_m: f64,
}

impl PanoramaSpec {
    fn rows(&self) -> usize {
        let wide_deg = 360.0 / self.width as f64;
        ((self.top_elevation_deg - self.bottom_elevation_deg) / wide_deg).floor() as usize
    }

    fn strip(&self) -> StripSpec {
        StripSpec {
            rows: self.rows(),
            columns: self.width,
            top_elevation_rad: self.top_elevation_deg.to_radians(),
            radians_per_pixel: TAU / self.width as f64,
            left_azimuth_rad: -PI,
        }
    }

    /// The camera that a stitched panorama looks taken by.
    pub fn camera(&self) -> Camera {
        let rows = self.rows();
        Camera::Equirectangular(Equirectangular {
            width: self.width,
            height: rows,
            top_elevation_deg: self.top_elevation_deg,
            bottom_elevation_deg: self.top_elevation_deg - rows as f64 * 360.0 / self.width as f64,
            mount: Mount::default(),
        })
    }
}

/// The table that makes panoramas of pictures; made once for a rig.
pub struct Stitcher {
    size: [usize; 2],
    remaps: Vec<StripRemap>,
    /// Of each camera and pixel, how much it counts there: 0 where it does not see.
    shares: Vec<Vec<f32>>,
}

impl Stitcher {
    /// For cameras at these places on one vehicle.
    ///
    /// # Errors
    /// [`Error::Camera`] or [`Error::Strip`] for descriptions that cannot work.
    pub fn new(cameras: &[(Camera, LeverArm)], panorama: &PanoramaSpec) -> Result<Self> {
        let strip = panorama.strip();
        if !(panorama.height_m > 0.0 && panorama.height_m < 20.0) {
            return Err(Error::Camera(format!(
                "height_m is {}; it must be above 0 and below 20 m",
                panorama.height_m
            )));
        }
        let mut remaps = Vec::with_capacity(cameras.len());
        let mut shares = Vec::with_capacity(cameras.len());
        for (camera, lever_arm) in cameras {
            lever_arm.check()?;
            if panorama.height_m + lever_arm.up_m < 0.1 {
                return Err(Error::Camera(format!(
                    "lever_arm.up_m is {}, and the point that the position is of is {} m above the ground: a camera below it",
                    lever_arm.up_m, panorama.height_m
                )));
            }
            let arm = Vector3::new(lever_arm.forward_m, lever_arm.left_m, lever_arm.up_m);
            let from_camera = |body: Vector3<f64>| seen_from(body, arm, panorama.height_m);
            let moved = (arm.norm() > 0.0).then_some(&from_camera as &dyn Fn(_) -> _);
            // The vehicle looks north, so that the nose is in the centre.
            let remap = StripRemap::moved(camera, &strip, FRAC_PI_2, moved)?;
            let ray = |row: usize, column: usize| {
                let azimuth = strip.azimuth_rad(column as f64 + 0.5);
                let (up, across) = strip.elevation_rad(row as f64 + 0.5).sin_cos();
                from_camera(Vector3::new(
                    across * azimuth.cos(),
                    -across * azimuth.sin(),
                    up,
                ))
            };
            let share = (0..strip.rows * strip.columns).map(|at| {
                let pixel = camera.project_body(ray(at / strip.columns, at % strip.columns));
                pixel.map_or(0.0, |pixel| inside(camera, pixel))
            });
            shares.push(share.collect::<Vec<f32>>());
            remaps.push(remap);
        }
        Ok(Self {
            size: [strip.rows, strip.columns],
            remaps,
            shares,
        })
    }

    /// Share of the panorama that those cameras see together of which `there` is true.
    ///
    /// # Panics
    /// Unless `there` has a value for each camera.
    pub fn seen_fraction(&self, there: &[bool]) -> f64 {
        assert_eq!(there.len(), self.shares.len());
        let pixels = self.size[0] * self.size[1];
        let cameras = || self.shares.iter().zip(there).filter(|(_, there)| **there);
        let seen = (0..pixels).filter(|at| cameras().any(|(share, _)| share[*at] > 0.0));
        seen.count() as f64 / pixels as f64
    }

    /// The panorama of these pictures, black where none of them shows anything; a camera without a
    /// picture is `None`.
    ///
    /// # Errors
    /// [`Error::ImageSize`] when a picture is not its camera's.
    ///
    /// # Panics
    /// Unless there are as many as cameras.
    pub fn stitch(&self, pictures: &[Option<RgbImage>]) -> Result<RgbImage> {
        assert_eq!(pictures.len(), self.remaps.len());
        let [rows, columns] = self.size;
        let mut layers = Vec::with_capacity(pictures.len());
        for ((remap, share), picture) in self.remaps.iter().zip(&self.shares).zip(pictures) {
            if let Some(picture) = picture {
                layers.push((remap.apply(picture)?, share));
            }
        }
        let mut panorama = RgbImage::black(columns, rows);
        for (at, out) in panorama.data.chunks_exact_mut(3).enumerate() {
            let largest = layers
                .iter()
                .fold(0.0f32, |most, (_, share)| most.max(share[at]));
            if largest <= 0.0 {
                continue;
            }
            let weight = |share: f32| (share - FADING as f32 * largest).max(0.0);
            let total: f32 = layers.iter().map(|(_, share)| weight(share[at])).sum();
            let mut sum = [0.0f32; 3];
            for (image, share) in &layers {
                let part = weight(share[at]) / total;
                for (sum, value) in sum.iter_mut().zip(&image.data[3 * at..]) {
                    *sum += part * f32::from(*value);
                }
            }
            for (out, sum) in out.iter_mut().zip(sum) {
                *out = (sum + 0.5) as u8;
            }
        }
        Ok(panorama)
    }
}

impl std::fmt::Debug for Stitcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [rows, columns] = self.size;
        write!(f, "Stitcher({columns}x{rows} of {:?})", self.remaps)
    }
}

/// The body ray along which a camera with this lever arm sees what the reference point sees along `body`:
/// the ground, or something that stands upright on it, no farther than [`FARTHEST_M`].
fn seen_from(body: Vector3<f64>, arm: Vector3<f64>, height_m: f64) -> Vector3<f64> {
    let across = body.x.hypot(body.y);
    let farthest_m = FARTHEST_M / across.max(1e-9);
    let distance_m = if body.z < 0.0 {
        farthest_m.min(height_m / -body.z)
    } else {
        farthest_m
    };
    if across < 1e-9 && body.z >= 0.0 {
        return body;
    }
    body * distance_m - arm
}

/// How far a pixel is from the picture's border: 0 there, 1 in the middle. A panorama has no sides.
fn inside(camera: &Camera, pixel: [f64; 2]) -> f32 {
    let [width, height] = camera.image_size().map(|side| side as f64);
    let from_border = |at: f64, length: f64| 2.0 * at.min(length - at) / length;
    let vertical = from_border(pixel[1], height);
    let least = match camera {
        Camera::Equirectangular(_) => vertical,
        _ => vertical.min(from_border(pixel[0], width)),
    };
    least.clamp(1e-6, 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::super::remap::tests::picture;
    use super::super::{Fisheye, Pinhole};
    use super::*;

    const PANORAMA: PanoramaSpec = PanoramaSpec {
        width: 512,
        top_elevation_deg: 28.0,
        bottom_elevation_deg: -40.0,
        height_m: 1.9,
    };

    /// Six pinhole cameras all around, the odd ones a little tipped.
    fn six() -> Vec<(Camera, LeverArm)> {
        let camera = |index: usize| {
            let mount = Mount {
                yaw_left_deg: 60.0 * index as f64,
                pitch_up_deg: -3.0 * (index % 2) as f64,
                roll_right_deg: (index % 2) as f64,
            };
            Camera::Pinhole(Pinhole {
                mount,
                ..Pinhole::with_horizontal_view(640, 560, 75f64.to_radians())
            })
        };
        (0..6)
            .map(|index| (camera(index), LeverArm::default()))
            .collect()
    }

    fn pictures(cameras: &[(Camera, LeverArm)]) -> Vec<Option<RgbImage>> {
        let taken = cameras
            .iter()
            .map(|(camera, _)| Some(picture(camera, FRAC_PI_2)));
        taken.collect()
    }

    /// Largest difference of a colour, over the rows in the middle.
    fn largest_difference(found: &RgbImage, expected: &RgbImage) -> u8 {
        let rows = found.height / 8..found.height * 7 / 8;
        let bytes = 3 * found.width * rows.start..3 * found.width * rows.end;
        let pairs = found.data[bytes.clone()].iter().zip(&expected.data[bytes]);
        pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn six_pinhole_pictures_are_the_panorama_that_they_were_taken_of() {
        let cameras = six();
        let stitcher = Stitcher::new(&cameras, &PANORAMA).unwrap();
        let found = stitcher.stitch(&pictures(&cameras)).unwrap();
        let expected = picture(&PANORAMA.camera(), FRAC_PI_2);
        assert_eq!([found.width, found.height], [512, 96]);
        let off = largest_difference(&found, &expected);
        assert!(off <= 3, "{off}");
        assert!(stitcher.seen_fraction(&[true; 6]) > 0.9);
    }

    #[test]
    fn two_fisheyes_see_all_around() {
        let fisheye = |yaw_left_deg| {
            let mount = Mount {
                yaw_left_deg,
                ..Mount::default()
            };
            let camera = Camera::Fisheye(Fisheye {
                width: 900,
                height: 900,
                fx: 260.0,
                fy: 260.0,
                cx: 450.0,
                cy: 450.0,
                k1: 0.0,
                k2: 0.0,
                k3: 0.0,
                k4: 0.0,
                largest_angle_deg: 98.0,
                mount,
            });
            (camera, LeverArm::default())
        };
        let cameras = [fisheye(10.0), fisheye(190.0)];
        let stitcher = Stitcher::new(&cameras, &PANORAMA).unwrap();
        assert!(stitcher.seen_fraction(&[true; 2]) > 0.99);
        // Corners of a square sensor beyond the lens' circle have no ray.
        let taken = cameras.each_ref().map(|(camera, _)| {
            let [width, height] = camera.image_size();
            let mut image = RgbImage::black(width, height);
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |c| (row, c))) {
                let pixel = [column as f64 + 0.5, row as f64 + 0.5];
                if let Some(ray) = camera.unproject_body(pixel) {
                    let colour = PANORAMA.camera().project_body(ray).map(|[x, y]| {
                        let wave = (x * TAU / 512.0).sin();
                        [128.0 + 100.0 * wave, 128.0, 50.0 + y].map(|value| value as u8)
                    });
                    image.set_pixel(column, row, colour.unwrap_or_default());
                }
            }
            Some(image)
        });
        let found = stitcher.stitch(&taken).unwrap();
        for column in [0, 100, 142, 256, 398, 500] {
            let expected = 128.0 + 100.0 * ((column as f64 + 0.5) * TAU / 512.0).sin();
            let got = f64::from(found.pixel(column, 40)[0]);
            assert!((got - expected).abs() < 4.0, "{column}: {got} {expected}");
        }
    }

    #[test]
    fn what_a_missing_camera_saw_is_black_and_the_rest_as_before() {
        let cameras = six();
        let stitcher = Stitcher::new(&cameras, &PANORAMA).unwrap();
        let mut taken = pictures(&cameras);
        let whole = stitcher.stitch(&taken).unwrap();
        taken[3] = None;
        let partly = stitcher.stitch(&taken).unwrap();
        // Camera 3 looks back, where the panorama begins and ends.
        assert_eq!(partly.pixel(2, 40), [0; 3]);
        assert_ne!(whole.pixel(2, 40), [0; 3]);
        assert_eq!(partly.pixel(256, 40), whole.pixel(256, 40));
        let there = [true, true, true, false, true, true];
        let seen = stitcher.seen_fraction(&there);
        assert!((0.8..0.9).contains(&seen), "{seen}");
    }

    #[test]
    fn a_mark_on_the_ground_is_where_the_reference_point_sees_it() {
        // 5 m ahead and 3 m to the left of the reference point, 1.9 m below it.
        let mark = Vector3::new(5.0, 3.0, -1.9);
        let arm = LeverArm {
            forward_m: 1.5,
            left_m: 0.6,
            up_m: -0.8,
        };
        let camera = Camera::Pinhole(Pinhole {
            mount: Mount {
                yaw_left_deg: 30.0,
                pitch_up_deg: -10.0,
                roll_right_deg: 0.0,
            },
            ..Pinhole::with_horizontal_view(640, 480, 1.6)
        });
        let seen = mark - Vector3::new(1.5, 0.6, -0.8);
        let [x, y] = camera.project_body(seen).unwrap();
        let mut image = RgbImage::black(640, 480);
        for (dx, dy) in (0..9).flat_map(|dx| (0..9).map(move |dy| (dx, dy))) {
            image.set_pixel(x as usize + dx - 4, y as usize + dy - 4, [255; 3]);
        }
        let stitcher = Stitcher::new(&[(camera, arm)], &PANORAMA).unwrap();
        let found = stitcher.stitch(&[Some(image)]).unwrap();
        let (mut sum, mut weight) = ([0.0; 2], 0.0);
        for (row, column) in (0..96).flat_map(|row| (0..512).map(move |column| (row, column))) {
            let value = f64::from(found.pixel(column, row)[0]);
            sum[0] += value * (column as f64 + 0.5);
            sum[1] += value * (row as f64 + 0.5);
            weight += value;
        }
        let expected = PANORAMA.camera().project_body(mark).unwrap();
        for axis in 0..2 {
            let off = sum[axis] / weight - expected[axis];
            assert!(off.abs() < 0.7, "{axis}: {off}");
        }
    }

    #[test]
    fn impossible_rigs_are_refused_with_the_number() {
        let far = LeverArm {
            forward_m: 99.0,
            ..LeverArm::default()
        };
        let cameras = [(six()[0].0.clone(), far)];
        let error = Stitcher::new(&cameras, &PANORAMA).unwrap_err().to_string();
        assert!(error.contains("forward_m"), "{error}");
        let flat = PanoramaSpec {
            bottom_elevation_deg: 28.0,
            ..PANORAMA
        };
        assert!(Stitcher::new(&six(), &flat).is_err());
        let sunk = PanoramaSpec {
            height_m: 0.0,
            ..PANORAMA
        };
        assert!(Stitcher::new(&six(), &sunk).is_err());
    }
}
