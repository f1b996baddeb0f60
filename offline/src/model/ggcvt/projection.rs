//! How the cameras of a batch saw, and where each sees the overhead cells.
//!
//! Coordinates are pixels of a feature map, (0, 0) the centre of the top-left one.

use super::rotation::{FARTHEST, draw};
use super::spec::{GgcvtCamera, GgcvtSpec};
use super::{GroundProjection, ModelError};
use crate::model::Share;
use crossfix_kernels::ops::{Panorama, Plane};
use crossfix_kernels::{Device, Result, Tape, Tensor, ops};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A square overhead map and the ground feature map below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps {
    /// Cells along the overhead map.
    pub side: usize,
    /// Rows and columns of the ground feature map.
    pub ground: [usize; 2],
}

impl Maps {
    /// Of a level, coarsest first.
    pub fn new(spec: &GgcvtSpec, level: usize) -> Self {
        let ground = [spec.ground_rows, spec.ground_columns];
        Self {
            side: spec.sides()[level],
            ground: ground.map(|length| length / (8 >> level)),
        }
    }
}

/// How a panorama camera sees the cells of a level.
pub(crate) fn panorama(spec: &GgcvtSpec, level: usize) -> Option<Panorama> {
    let GgcvtCamera::Panorama {
        height_m,
        top_deg,
        span_deg,
        ..
    } = spec.camera
    else {
        return None;
    };
    let maps = Maps::new(spec, level);
    Some(Panorama {
        side: maps.side,
        image: maps.ground,
        cell_px: spec.aerial_px as f64 / maps.side as f64,
        height_m,
        top_rad: top_deg.to_radians(),
        span_rad: span_deg.to_radians(),
    })
}

/// How a pinhole camera sees the cells of a level.
fn plane(spec: &GgcvtSpec, level: usize) -> Option<Plane> {
    let GgcvtCamera::Pinhole {
        height_m,
        metres_per_pixel,
        shift_range_m,
        heading_range_deg,
        ..
    } = spec.camera
    else {
        return None;
    };
    let side = spec.sides()[level];
    Some(Plane {
        side,
        metres_per_cell: metres_per_pixel * spec.aerial_px as f64 / side as f64,
        height_m,
        shift_range_m,
        heading_range_rad: heading_range_deg.to_radians(),
        stride: f64::from(8 >> level),
    })
}

/// How the cameras of a batch saw, as tensors: what a pass takes besides the images.
#[derive(Debug, Clone)]
pub(super) enum CameraGeometry {
    /// `[N, 2]`: metres of an aerial pixel, and how far the panorama was rolled to the right,
    /// radians.
    Panoramas(Tensor),
    Pinholes(Pinholes),
}

/// Cameras, and the numbers that the rotation optimiser may need.
#[derive(Debug, Clone)]
pub(super) struct Pinholes {
    /// `[N, 4]`: focal lengths and centres (fx, fy, cx, cy), pixels of the ground image.
    pub cameras: Tensor,
    /// `[N, 3]`: numbers of a pose that reach these are replaced.
    pub reach: Tensor,
    /// `[N, 3]` for each step of the optimiser: by what.
    pub draws: Vec<Tensor>,
    /// `[N, 3]` each: what of the optimiser's last pose the place is looked for without, as
    /// `reach`, and the numbers instead. Shifts are 0, headings those that are known.
    known: [Tensor; 2],
}

impl CameraGeometry {
    /// As [`CameraGeometry::of_share`], of a whole batch.
    #[cfg(test)]
    pub fn new(
        spec: &GgcvtSpec,
        projections: &[GroundProjection],
        seed: u64,
    ) -> std::result::Result<Self, ModelError> {
        Self::of_share(spec, projections, seed, Share::default())
    }

    /// On the host; `seed` is of the draws that replace shifts that run away.
    pub fn of_share(
        spec: &GgcvtSpec,
        projections: &[GroundProjection],
        seed: u64,
        share: Share,
    ) -> std::result::Result<Self, ModelError> {
        let n = projections.len();
        let wrong = |index: usize| {
            ModelError::Input(format!(
                "{}: sample {index} was seen as {:?}, which is not how {:?} sees",
                spec.preset, projections[index], spec.camera
            ))
        };
        let GgcvtCamera::Pinhole { iterations, .. } = spec.camera else {
            let mut pairs = Vec::with_capacity(2 * n);
            for (index, projection) in projections.iter().enumerate() {
                let GroundProjection::Panorama {
                    metres_per_pixel,
                    turn_rad,
                } = projection
                else {
                    return Err(wrong(index));
                };
                pairs.extend([*metres_per_pixel as f32, *turn_rad as f32]);
            }
            return Ok(Self::Panoramas(Tensor::new(pairs, &[n, 2])?));
        };
        let mut cameras = Vec::with_capacity(4 * n);
        let (mut reach, mut beyond, mut instead) = (Vec::new(), Vec::new(), Vec::new());
        for (index, projection) in projections.iter().enumerate() {
            let (camera, heading) = match projection {
                GroundProjection::Pinhole { camera, heading }
                    if iterations > 0 || heading.is_some() =>
                {
                    (camera, heading)
                }
                _ => return Err(wrong(index)),
            };
            cameras.extend(camera.map(|value| value as f32));
            reach.extend([FARTHEST, FARTHEST, f32::INFINITY]);
            let unless_known = heading.map_or(f32::INFINITY, |_| 0.0);
            beyond.extend([0.0, 0.0, unless_known]);
            instead.extend([0.0, 0.0, heading.unwrap_or(0.0)]);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draws = (0..3 * iterations).map(|_| {
            let shifts = share.draw(n, || [draw(&mut rng), draw(&mut rng), 0.0]);
            Tensor::new(shifts.into_flattened(), &[n, 3])
        });
        let poses = |numbers| Tensor::new(numbers, &[n, 3]);
        Ok(Self::Pinholes(Pinholes {
            draws: draws.collect::<Result<_>>()?,
            cameras: Tensor::new(cameras, &[n, 4])?,
            reach: poses(reach)?,
            known: [poses(beyond)?, poses(instead)?],
        }))
    }

    /// All tensors, in an order that [`CameraGeometry::like`] knows.
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Panoramas(projections) => vec![projections],
            Self::Pinholes(pinholes) => {
                let first = [&pinholes.cameras, &pinholes.reach].into_iter();
                first
                    .chain(&pinholes.draws)
                    .chain(&pinholes.known)
                    .collect()
            }
        }
    }

    /// The same from other tensors, in the order of [`CameraGeometry::tensors`].
    pub fn like(&self, next: &mut impl FnMut() -> Tensor) -> Self {
        match self {
            Self::Panoramas(_) => Self::Panoramas(next()),
            Self::Pinholes(pinholes) => Self::Pinholes(Pinholes {
                cameras: next(),
                reach: next(),
                draws: pinholes.draws.iter().map(|_| next()).collect(),
                known: [next(), next()],
            }),
        }
    }

    /// The same on a device.
    pub fn to(&self, device: &Device) -> Result<Self> {
        let moved = self.tensors().into_iter().map(|tensor| tensor.to(device));
        let mut moved = moved.collect::<Result<Vec<_>>>()?.into_iter();
        Ok(self.like(&mut || moved.next().expect("as many as there were")))
    }
}

impl Pinholes {
    /// The pose that the place is looked for with: the known heading, or the one that was found. Shifts
    /// are not used, and no gradient flows through.
    pub fn at_the_place(&self, found: Option<&Tensor>) -> Result<Tensor> {
        let [beyond, instead] = &self.known;
        match found {
            None => Ok(instead.clone()),
            Some(pose) => ops::replace_beyond(&mut Tape::inference(), pose, beyond, instead),
        }
    }
}

/// Planes of the three levels of a network with a pinhole camera.
pub(super) fn planes(spec: &GgcvtSpec) -> Vec<Plane> {
    (0..3).filter_map(|level| plane(spec, level)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::preset;
    use super::*;

    fn pinhole(heading: Option<f32>) -> GroundProjection {
        GroundProjection::Pinhole {
            camera: [1.0, 2.0, 3.0, 4.0],
            heading,
        }
    }

    #[test]
    fn the_place_is_looked_for_with_the_known_heading_or_the_found_one() {
        let spec = preset("ggcvt-kitti3").unwrap();
        let projections = [pinhole(Some(0.25)), pinhole(None)];
        let CameraGeometry::Pinholes(pinholes) =
            CameraGeometry::new(&spec, &projections, 3).unwrap()
        else {
            panic!("a pinhole camera");
        };
        let found = Tensor::new(vec![0.1, -0.2, 0.3, 1.5, 0.0, -0.4], &[2, 3]).unwrap();
        let pose = pinholes.at_the_place(Some(&found)).unwrap();
        assert_eq!(pose.data(), [0.0, 0.0, 0.25, 0.0, 0.0, -0.4]);
        // Two rounds of three levels, whose draws are numbers of their own.
        assert_eq!(pinholes.draws.len(), 6);
        let draws = pinholes.draws.iter().flat_map(Tensor::data);
        let mut draws: Vec<f32> = draws.copied().filter(|draw| *draw != 0.0).collect();
        assert!(draws.iter().all(|draw| draw.abs() < 1.0));
        draws.sort_by(f32::total_cmp);
        draws.dedup();
        assert_eq!(draws.len(), 24);
    }

    #[test]
    fn shifts_that_ran_away_are_drawn_anew_and_headings_are_not() {
        let spec = preset("ggcvt-kitti3").unwrap();
        let geometry = CameraGeometry::new(&spec, &[pinhole(None); 2], 1).unwrap();
        let CameraGeometry::Pinholes(Pinholes { reach, draws, .. }) = geometry else {
            panic!("a pinhole camera");
        };
        let pose = Tensor::new(vec![0.5, -2.5, 7.0, 1.9, 0.0, -3.0], &[2, 3]).unwrap();
        let tape = &mut Tape::inference();
        let after = ops::replace_beyond(tape, &pose, &reach, &draws[0]).unwrap();
        let drawn = draws[0].data()[1];
        assert_eq!(after.data(), [0.5, drawn, 7.0, 1.9, 0.0, -3.0]);
    }

    #[test]
    fn a_known_heading_is_needed_where_nothing_finds_it() {
        let spec = preset("ggcvt-kitti2").unwrap();
        let CameraGeometry::Pinholes(pinholes) =
            CameraGeometry::new(&spec, &[pinhole(Some(0.5))], 0).unwrap()
        else {
            panic!("a pinhole camera");
        };
        let pose = pinholes.at_the_place(None).unwrap();
        assert_eq!(pose.data(), [0.0, 0.0, 0.5]);
        let message = CameraGeometry::new(&spec, &[pinhole(None)], 0).unwrap_err();
        assert!(message.to_string().contains("sample 0"), "{message}");
    }

    #[test]
    fn tensors_come_back_in_their_order() {
        for (name, projection) in [
            ("ggcvt-kitti3", pinhole(None)),
            (
                "ggcvt-vigor",
                GroundProjection::Panorama {
                    metres_per_pixel: 0.5,
                    turn_rad: 0.1,
                },
            ),
        ] {
            let geometry =
                CameraGeometry::new(&preset(name).unwrap(), &[projection; 2], 1).unwrap();
            let again = geometry.to(&Device::Cpu).unwrap();
            let pairs = geometry.tensors().into_iter().zip(again.tensors());
            assert!(pairs.clone().count() > 0);
            for (tensor, again) in pairs {
                assert_eq!(tensor.data(), again.data(), "{name}");
            }
        }
    }
}
