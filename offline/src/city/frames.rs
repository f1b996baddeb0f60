//! Frames: a picture from the street with what the vehicle believed when it was taken, and the truth
//! apart from it.

use super::dice::Dice;
use super::drive::{Drive, Instruments};
use super::gnss::{self, Fix, MAX_OFFSET_M, Reception};
use super::ground::Pose;
use super::route::lane_offset_m;
use super::sensor::Exposure;
use super::streets::{Family, Streets};
use super::{PlacedDistrict, front, panorama};
use crossfix_calibration::angle::azimuth_rad_from_yaw_rad;
use crossfix_calibration::{Geodetic, Heading, RgbImage};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// The camera on the vehicle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum CameraKind {
    /// All around, the centre column looking forward.
    Panorama,
    /// A forward pinhole.
    Front,
}

/// What a vehicle knows of its heading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Headings {
    /// An inertial heading with a slow error.
    #[default]
    Measured,
    /// Nothing: 0° with a sigma of 180°. Coarse positions then lie between satellite fixes, since moving them on
    /// would take a heading.
    Unknown,
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Unique within a data set.
    pub id: String,
    /// Frames of one drive share it.
    pub drive: String,
    /// UTC, ns.
    pub time_ns: i64,
    /// Vehicle-aligned picture.
    pub image: RgbImage,
    /// Where the vehicle believed to be.
    pub coarse: Geodetic,
    /// East and north, m².
    pub covariance_m2: [[f64; 2]; 2],
    /// Measured heading, degrees clockwise from north.
    pub heading_deg: f64,
    /// What the instrument says of its error.
    pub heading_sigma_deg: f64,
    /// Since the drive's previous frame, in the vehicle's frame then: forward and left, m, turn, rad.
    pub odometry: Option<[f64; 3]>,
    /// Where it really was.
    pub truth: Geodetic,
    /// Where it really looked.
    pub true_heading_deg: f64,
}

/// A drive with its satellite fixes, before pictures are rendered.
pub struct PlannedDrive {
    /// Unique within a world.
    pub name: String,
    /// UTC of its first sample, ns.
    pub start_ns: i64,
    /// Truth and odometry.
    pub drive: Drive,
    /// Satellite fixes.
    pub fixes: Vec<Fix>,
    seed: u64,
}

/// Sigma that the heading source reports, degrees.
pub const HEADING_SIGMA_DEG: f64 = 2.0;
/// Sigma of a heading that is not known, degrees.
const UNKNOWN_HEADING_DEG: f64 = 180.0;
/// 2026-05-11 10:00:00 UTC.
const FIRST_DRIVE_NS: i64 = 1_778_493_600_000_000_000;

/// Labels that keep the streams of chance apart.
const RANDOM_FRAMES: u64 = 10;
const DRIVES: u64 = 11;
const PICTURES: u64 = 12;

/// Plans a district's `index`-th drive.
pub fn plan_drive(
    placed: &PlacedDistrict,
    index: usize,
    length_m: f64,
    instruments: &Instruments,
    reception: &Reception,
) -> PlannedDrive {
    let mut dice = Dice::new(placed.seed, &[DRIVES, index as u64]);
    let drive = Drive::new(&placed.district, length_m, instruments, &mut dice);
    let fixes = gnss::receive(&drive, reception, &mut dice);
    let name = format!("{}-drive-{index:02}", placed.name);
    // Drives on one receiver never overlap in time: a quarter of an hour each.
    let slot = super::dice::derive_seed(placed.seed, &[DRIVES]) % 5_000 + index as u64;
    let start_ns = FIRST_DRIVE_NS + slot as i64 * 900_000_000_000;
    let seed = super::dice::derive_seed(placed.seed, &[PICTURES, index as u64]);
    PlannedDrive {
        name,
        start_ns,
        drive,
        fixes,
        seed,
    }
}

impl PlannedDrive {
    /// UTC of a sample, ns.
    pub fn time_ns(&self, sample: usize) -> i64 {
        self.start_ns + (self.drive.truth[sample].time_s * 1e9).round() as i64
    }

    /// The picture at a sample.
    pub fn picture(&self, placed: &PlacedDistrict, sample: usize, camera: CameraKind) -> RgbImage {
        let truth = &self.drive.truth[sample];
        let pose = Pose {
            x: truth.x,
            y: truth.y,
            yaw_rad: truth.yaw_rad,
        };
        // One sky per drive, one exposure per picture.
        let dice = Dice::new(self.seed, &[sample as u64]);
        picture(placed, &pose, camera, (self.seed & 0xffff) as u32, dice)
    }

    /// The samples of frames about `spacing_m` of travel apart, for [`Self::frame`].
    pub fn frame_samples(&self, spacing_m: f64) -> Vec<usize> {
        self.drive.every(spacing_m)
    }

    /// The `number`-th frame of those samples.
    pub fn frame(
        &self,
        placed: &PlacedDistrict,
        samples: &[usize],
        number: usize,
        camera: CameraKind,
        headings: Headings,
    ) -> Frame {
        let sample = samples[number];
        let truth = &self.drive.truth[sample];
        let (coarse, sigma_m) = match headings {
            Headings::Measured => gnss::coarse_position(&self.drive, &self.fixes, sample),
            Headings::Unknown => gnss::between_fixes(&self.drive, &self.fixes, sample),
        };
        let variance = sigma_m * sigma_m;
        Frame {
            id: format!("{}-{number:04}", self.name),
            drive: self.name.clone(),
            time_ns: self.time_ns(sample),
            image: self.picture(placed, sample, camera),
            coarse: placed.geodetic(coarse),
            covariance_m2: [[variance, 0.0], [0.0, variance]],
            heading_deg: heading_deg(self.drive.odometry[sample].yaw_rad),
            heading_sigma_deg: HEADING_SIGMA_DEG,
            odometry: (number > 0).then(|| self.drive.dead_reckoned(samples[number - 1], sample)),
            truth: placed.geodetic([truth.x, truth.y]),
            true_heading_deg: heading_deg(truth.yaw_rad),
        }
        .knowing(headings)
    }
}

impl Frame {
    fn knowing(self, headings: Headings) -> Self {
        match headings {
            Headings::Measured => self,
            Headings::Unknown => Self {
                heading_deg: 0.0,
                heading_sigma_deg: UNKNOWN_HEADING_DEG,
                ..self
            },
        }
    }
}

/// The `number`-th frame at a random place on the streets, with a coarse offset of its own: for
/// training.
pub fn random_frame(
    placed: &PlacedDistrict,
    number: usize,
    camera: CameraKind,
    headings: Headings,
) -> Frame {
    let mut dice = Dice::new(placed.seed, &[RANDOM_FRAMES, number as u64]);
    let pose = random_pose(placed, &mut dice);
    let offset = [
        dice.uniform(-MAX_OFFSET_M, MAX_OFFSET_M),
        dice.uniform(-MAX_OFFSET_M, MAX_OFFSET_M),
    ];
    // The variance of a uniform error over the prior.
    let variance = MAX_OFFSET_M * MAX_OFFSET_M / 3.0;
    let yaw_error = dice.normal(Instruments::default().heading_sigma_rad);
    let sky = dice.bits() & 0xffff;
    let id = format!("{}-{number:04}", placed.name);
    Frame {
        drive: id.clone(),
        time_ns: FIRST_DRIVE_NS + number as i64 * 1_000_000_000,
        coarse: placed.geodetic([pose.x + offset[0], pose.y + offset[1]]),
        covariance_m2: [[variance, 0.0], [0.0, variance]],
        heading_deg: heading_deg(pose.yaw_rad + yaw_error),
        heading_sigma_deg: HEADING_SIGMA_DEG,
        odometry: None,
        truth: placed.geodetic([pose.x, pose.y]),
        true_heading_deg: heading_deg(pose.yaw_rad),
        image: picture(placed, &pose, camera, sky, dice),
        id,
    }
    .knowing(headings)
}

/// Anywhere on a road that is free, looking roughly along it.
fn random_pose(placed: &PlacedDistrict, dice: &mut Dice) -> Pose {
    let streets = &placed.district.streets;
    for _ in 0..10_000 {
        let family = dice.pick(&Family::BOTH);
        let street = dice.pick(streets.family(family));
        let along = dice.within([-320.0, 320.0]);
        let across = if dice.chance(0.5) {
            lane_offset_m(street.width_m) * if dice.chance(0.5) { 1.0 } else { -1.0 }
        } else {
            dice.within([-0.4, 0.4]) * street.width_m
        };
        let at = |along: f32| {
            let [u, v] = Streets::on_street(family, street, along, across);
            streets.point(u, v)
        };
        let (here, ahead) = (at(along), at(along + 0.5));
        if placed.district.is_free(here[0], here[1]) {
            let yaw = f64::from(ahead[1] - here[1]).atan2(f64::from(ahead[0] - here[0]));
            let turned = if dice.chance(0.5) { PI } else { 0.0 };
            return Pose {
                x: f64::from(here[0]),
                y: f64::from(here[1]),
                yaw_rad: yaw + turned + dice.normal(0.05),
            };
        }
    }
    unreachable!("a district without a free metre of road")
}

fn picture(
    placed: &PlacedDistrict,
    pose: &Pose,
    camera: CameraKind,
    sky: u32,
    mut dice: Dice,
) -> RgbImage {
    let radiance = match camera {
        CameraKind::Panorama => {
            panorama::render(&placed.district, pose, sky, placed.detail.panorama)
        }
        CameraKind::Front => front::render(&placed.district, pose, sky),
    };
    let exposure = Exposure::new(&placed.district.style.ground_sensor, &mut dice);
    exposure.develop(
        radiance.width,
        radiance.height,
        radiance.pixels.into_iter(),
        0,
    )
}

/// Degrees clockwise from north, in [0, 360).
pub fn heading_deg(yaw_rad: f64) -> f64 {
    Heading::from_azimuth_rad(azimuth_rad_from_yaw_rad(yaw_rad)).degrees()
}
