//! A drive as data: samples whose metadata is in memory and whose pixels are read on demand.
//!
//! A [`Sample`] is what a vehicle knows about one picture before a pixel is decoded; it has no
//! field for the truth. A [`Pair`] adds the pixels, as a network takes them.

use super::error::DatasetError;
use super::pairs::headings::FoundHeadings;
use crate::model::{GroundProjection, ModelError, ModelSpec};
use crossfix_calibration::{Camera, Enu, Geodetic, LocalFrame, RgbImage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::FRAC_PI_2;
use std::sync::Arc;

/// What is known of one picture without reading it. No truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Unique in its dataset.
    pub id: String,
    /// The drive it was recorded on; empty when it stands alone.
    pub drive: String,
    /// When, nanoseconds UTC. KITTI: since the drive's frame 0, frames 0.1 s apart.
    pub time_ns: i64,
    /// Centre of the aerial image.
    pub centre: Geodetic,
    /// The coarse position, metres east and north of `centre`.
    pub coarse_offset_m: [f64; 2],
    /// Covariance of the coarse position, east and north.
    pub coarse_covariance_m2: [[f64; 2]; 2],
    /// Yaw that the ground image is aligned with, radians counter-clockwise from east: the
    /// measured one.
    pub yaw_rad: f64,
    /// Standard deviation of the measured yaw; 0 where a published protocol takes it as exact.
    pub yaw_sigma_rad: f64,
    /// What the ground image shows as residual
    /// ([`PoseTarget::residual_rad`](crate::model::loss::PoseTarget::residual_rad)) when the measured
    /// heading is exact.
    pub heading_residual_rad: f64,
    /// Movement since the drive's sample before; `None` at its first and where it is unknown.
    pub odometry: Option<OdometryStep>,
    /// The camera with its mount, where the dataset describes it.
    pub camera: Option<Arc<Camera>>,
    /// Bin of the ground image's left edge, for networks that see part of the circle.
    pub left_bin: usize,
    /// How the ground image was taken, for networks that lay it on the ground.
    pub projection: GroundProjection,
}

/// Movement since the sample before, in the vehicle's frame at that sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OdometryStep {
    /// Metres forward.
    pub forward_m: f64,
    /// Metres to the left.
    pub left_m: f64,
    /// Change of yaw, radians counter-clockwise.
    pub yaw_rad: f64,
}

impl OdometryStep {
    /// This step and then `next`, as one step.
    pub fn then(self, next: Self) -> Self {
        let (sin, cos) = self.yaw_rad.sin_cos();
        Self {
            forward_m: self.forward_m + next.forward_m * cos - next.left_m * sin,
            left_m: self.left_m + next.forward_m * sin + next.left_m * cos,
            yaw_rad: self.yaw_rad + next.yaw_rad,
        }
    }
}

impl Sample {
    /// A sample of which nothing is known but that the camera is somewhere in the aerial image.
    pub fn unplaced(id: String, projection: GroundProjection) -> Self {
        // Wider than any patch: the coarse position says nothing.
        const VARIANCE_M2: f64 = 1e8;
        Self {
            id,
            drive: String::new(),
            time_ns: 0,
            centre: Geodetic {
                latitude_deg: 0.0,
                longitude_deg: 0.0,
                height_m: 0.0,
            },
            coarse_offset_m: [0.0, 0.0],
            coarse_covariance_m2: [[VARIANCE_M2, 0.0], [0.0, VARIANCE_M2]],
            yaw_rad: FRAC_PI_2,
            yaw_sigma_rad: 0.0,
            heading_residual_rad: 0.0,
            odometry: None,
            camera: None,
            left_bin: 0,
            projection,
        }
    }

    /// The coarse position in east and north metres of a frame shared by several samples.
    pub fn coarse_in(&self, frame: &LocalFrame) -> [f64; 2] {
        let [east, north] = self.coarse_offset_m;
        let enu = Enu::new(east, north, 0.0);
        let place = LocalFrame::new(self.centre).geodetic_from_enu(enu);
        let place = frame.enu_from_geodetic(place);
        [place.east(), place.north()]
    }
}

/// A sample with its images, ready for a network.
#[derive(Debug, Clone)]
pub struct Pair {
    /// What was known before.
    pub sample: Sample,
    /// Strip of the camera picture, aligned with north by the measured yaw.
    pub ground: RgbImage,
    /// Aerial image, north up; larger than the network's where a margin was asked for.
    pub aerial: RgbImage,
}

impl Pair {
    /// Says whether the images fit a network; the aerial one may have a margin.
    ///
    /// # Errors
    /// [`ModelError::Input`] with the sizes.
    pub fn check(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        let (ground, aerial) = (&self.ground, &self.aerial);
        let fits = ground.width == spec.ground_columns
            && ground.height == spec.ground_rows
            && ground.data.len() == ground.width * ground.height * 3
            && aerial.width == aerial.height
            && aerial.width >= spec.aerial_px
            && (aerial.width - spec.aerial_px).is_multiple_of(2)
            && aerial.data.len() == aerial.width * aerial.height * 3;
        if fits {
            return Ok(());
        }
        Err(ModelError::Input(format!(
            "pair {}: ground {}×{} and aerial {}×{} do not fit {:?} ({}×{}, at least {side}×{side})",
            self.sample.id,
            ground.width,
            ground.height,
            aerial.width,
            aerial.height,
            spec.preset,
            spec.ground_columns,
            spec.ground_rows,
            side = spec.aerial_px,
        )))
    }
}

/// A drive of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Its name.
    pub name: String,
    /// Its samples in the order of time.
    pub samples: Vec<usize>,
}

/// Samples opened for one network. Metadata is in memory, pixels are read when asked for.
pub trait Dataset: Sync {
    /// Samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is known of sample `index` without reading its images.
    fn sample(&self, index: usize) -> &Sample;

    /// What is known of each sample, in order.
    fn samples(&self) -> Box<dyn Iterator<Item = &Sample> + '_> {
        Box::new((0..self.len()).map(|index| self.sample(index)))
    }

    /// Reads the images: decoded, aligned, cut for the network. Called from many threads.
    ///
    /// # Errors
    /// [`DatasetError`] naming the pair and the fix.
    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError>;

    /// Pixels that aerial images have beyond the network's on each side, where the tiles reach.
    fn margin_px(&self) -> usize {
        0
    }

    /// What drives told of headings that were not known, where that was asked.
    fn found_headings(&self) -> Option<FoundHeadings> {
        None
    }

    /// The drives by name. Samples that stand alone are in none.
    fn drives(&self) -> Vec<Drive> {
        let mut drives: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for index in 0..self.len() {
            let drive = self.sample(index).drive.as_str();
            if !drive.is_empty() {
                drives.entry(drive).or_default().push(index);
            }
        }
        let in_order = drives.into_iter().map(|(name, mut samples)| {
            samples.sort_by_key(|index| self.sample(*index).time_ns);
            Drive {
                name: name.into(),
                samples,
            }
        });
        in_order.collect()
    }
}

/// Pairs in memory, each copied when it is asked for.
impl Dataset for Vec<Pair> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn sample(&self, index: usize) -> &Sample {
        &self[index].sample
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        Ok(Arc::new(self[index].clone()))
    }
}

/// Some samples of a dataset.
pub struct Subset<'a> {
    /// The dataset.
    pub dataset: &'a dyn Dataset,
    /// Their places in it, in the order wanted.
    pub samples: &'a [usize],
}

impl Dataset for Subset<'_> {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        self.dataset.sample(self.samples[index])
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        self.dataset.pair(self.samples[index])
    }

    fn margin_px(&self) -> usize {
        self.dataset.margin_px()
    }

    fn found_headings(&self) -> Option<FoundHeadings> {
        self.dataset.found_headings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    #[test]
    fn two_steps_are_one_step() {
        let ahead = OdometryStep {
            forward_m: 2.0,
            left_m: 0.0,
            yaw_rad: FRAC_PI_2,
        };
        // 2 m forward and a left turn, and the same again: 2 m ahead, 2 m to the left, facing back.
        let both = ahead.then(ahead);
        assert!((both.forward_m - 2.0).abs() < 1e-12 && (both.left_m - 2.0).abs() < 1e-12);
        assert!((both.yaw_rad - PI).abs() < 1e-12);
    }

    #[test]
    fn drives_are_in_the_order_of_time_and_samples_that_stand_alone_in_none() {
        let projection = GroundProjection::Panorama {
            metres_per_pixel: 0.5,
            turn_rad: 0.0,
        };
        let pair = |drive: &str, time_ns| Pair {
            sample: Sample {
                drive: drive.into(),
                time_ns,
                ..Sample::unplaced("x".into(), projection)
            },
            ground: RgbImage::black(1, 1),
            aerial: RgbImage::black(1, 1),
        };
        let pairs = vec![pair("b", 5), pair("a", 9), pair("", 0), pair("b", 3)];
        let drive = |name: &str, samples: &[usize]| Drive {
            name: name.into(),
            samples: samples.into(),
        };
        assert_eq!(pairs.drives(), [drive("a", &[1]), drive("b", &[3, 0])]);
    }
}
