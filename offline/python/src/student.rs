//! Students: weights or exported ones, run on pairs or on arrays.

use crate::convert;
use crate::pairs::{Pair, Pairs};
use crate::{DatasetError, StudentError};
use crossfix_calibration::{Camera, Enu, Geodetic, Heatmap, LocalFrame, StripRemap, Yaw};
use crossfix_offline::data::pose::{left_bin, strip_spec, yaw_from_heading};
use crossfix_offline::data::{self, Dataset, PairsImages, Preparation, Sample};
use crossfix_offline::model::{GroundCamera, GroundProjection, ModelError, ModelSpec};
use crossfix_offline::predict::{PairPrediction, PredictError};
use crossfix_offline::student;
use numpy::{PyArray2, PyArray3, PyReadonlyArray3};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Offsets further from the middle of an aerial image are none, metres.
const MOST_OFFSET_M: f64 = 1e5;

/// A network from a file: weights (.safetensors), or an exported student (.onnx), which runs as on the
/// vehicle. Runs on the CPU, on all cores; Python's lock is released meanwhile.
///
/// Raises StudentError with the file and the remedy.
#[pyclass(frozen, module = "crossfix")]
pub struct Student {
    student: Mutex<student::Student>,
    spec: ModelSpec,
}

#[pymethods]
impl Student {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let student = py.detach(|| student::Student::load(&path));
        let student = student.map_err(|error| StudentError::new_err(error.to_string()))?;
        Ok(Self {
            spec: student.spec().clone(),
            student: Mutex::new(student),
        })
    }

    /// Sizes, scale and camera of its images, its heatmap and its levels.
    #[getter]
    fn spec<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &self.spec)
    }

    /// The card of an exported student; None of weights.
    #[getter]
    fn card<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let card = py.detach(|| self.lock().card().cloned());
        card.map(|card| convert::to_python(py, &card)).transpose()
    }

    /// What the weights' file says of how they were made; None of exported students, whose card says it.
    #[getter]
    fn provenance<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let provenance = py.detach(|| match &*self.lock() {
            student::Student::Weights { header, .. } => Some(header.provenance.clone()),
            student::Student::Exported { .. } => None,
        });
        provenance
            .map(|value| convert::to_python(py, &value))
            .transpose()
    }

    /// The images that the network is given for a pair: ground uint8 [rows, columns, 3], aligned with
    /// north by the pair's heading, and aerial uint8 [side, side, 3], north up, around the coarse position.
    fn images<'py>(
        &self,
        py: Python<'py>,
        pair: &Pair,
    ) -> PyResult<(Bound<'py, PyArray3<u8>>, Bound<'py, PyArray3<u8>>)> {
        let read = py.detach(|| {
            let images = self.open(&pair.dataset, [pair.index])?;
            images.pair(0)
        });
        let read = read.map_err(|error| DatasetError::new_err(error.to_string()))?;
        let ground = convert::image(py, read.ground.clone())?;
        Ok((ground, convert::image(py, read.aerial.clone())?))
    }

    /// The ground image that the network is given of a picture, uint8 [rows, columns, 3], taken by a camera
    /// (as [camera] of dataset.toml) on a vehicle with this heading, and the bin of its left edge.
    fn ground_image<'py>(
        &self,
        py: Python<'py>,
        picture: PyReadonlyArray3<'py, u8>,
        camera: &Bound<'py, PyAny>,
        heading_deg: f64,
    ) -> PyResult<(Bound<'py, PyArray3<u8>>, usize)> {
        if matches!(
            self.spec.camera,
            GroundCamera::Pinhole | GroundCamera::CalibratedPinhole { .. }
        ) {
            return Err(PyValueError::new_err(
                "this network takes pinhole pictures, not strips; give them to predict_images",
            ));
        }
        if !heading_deg.is_finite() {
            return Err(PyValueError::new_err(format!(
                "heading_deg is {heading_deg}; it must be degrees clockwise from true north"
            )));
        }
        let picture = convert::image_from(&picture, "picture")?;
        let camera: Camera = convert::from_python(camera, "camera")?;
        let yaw_rad = yaw_from_heading(heading_deg);
        let strip = strip_spec(&self.spec, yaw_rad);
        let image = py.detach(|| StripRemap::new(&camera, &strip, yaw_rad)?.apply(&picture));
        let image = image.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok((convert::image(py, image)?, left_bin(&self.spec, &strip)))
    }

    /// Where a pair was taken.
    ///
    /// Raises DatasetError when a picture or a tile cannot be read, StudentError when the network fails.
    fn predict(&self, py: Python<'_>, pair: &Pair) -> PyResult<Prediction> {
        let found = self.run_over(py, &pair.dataset, vec![pair.index], true)?;
        let mut found = found.into_iter();
        found
            .next()
            .ok_or_else(|| StudentError::new_err("the network answered nothing"))
    }

    /// Where the pairs of a dataset were taken, or those at `indices`; pictures are read ahead. Heatmaps
    /// are kept where asked for.
    ///
    /// Raises as predict. Ctrl-C ends it.
    #[pyo3(signature = (pairs, indices=None, *, heatmaps=false))]
    fn predict_all(
        &self,
        py: Python<'_>,
        pairs: &Pairs,
        indices: Option<Vec<usize>>,
        heatmaps: bool,
    ) -> PyResult<Vec<Prediction>> {
        let count = pairs.dataset.rows.len();
        let indices = indices.unwrap_or_else(|| (0..count).collect());
        if let Some(index) = indices.iter().find(|index| **index >= count) {
            return Err(PyIndexError::new_err(format!(
                "pair {index} of a dataset of {count}"
            )));
        }
        self.run_over(py, &pairs.dataset, indices, heatmaps)
    }

    /// Where in `aerial` (uint8 [side, side, 3], north up) `ground` (uint8 [rows, columns, 3], aligned with
    /// north) was taken, both as `spec` says. `left_bin`: the bin of the ground image's left edge, for
    /// networks that see part of the circle. `camera`: (fx, fy, cx, cy) in pixels of the ground image, for
    /// networks that take a pinhole picture.
    #[pyo3(signature = (ground, aerial, *, left_bin=0, camera=None))]
    fn predict_images<'py>(
        &self,
        py: Python<'py>,
        ground: PyReadonlyArray3<'py, u8>,
        aerial: PyReadonlyArray3<'py, u8>,
        left_bin: usize,
        camera: Option<[f64; 4]>,
    ) -> PyResult<Prediction> {
        self.check_left_bin(left_bin)?;
        let projection = match (camera, self.spec.camera) {
            (Some(camera), GroundCamera::CalibratedPinhole { .. }) if !usable(camera) => {
                return Err(PyValueError::new_err(
                    "camera is (fx, fy, cx, cy): finite pixels, fx and fy above 0",
                ));
            }
            (None, GroundCamera::CalibratedPinhole { .. }) => {
                return Err(PyValueError::new_err(
                    "this network takes the picture of a pinhole camera; give camera=(fx, fy, cx, cy)",
                ));
            }
            (None, _) => GroundProjection::Panorama {
                metres_per_pixel: self.spec.metres_per_pixel,
                turn_rad: 0.0,
            },
            (Some(camera), GroundCamera::CalibratedPinhole { .. }) => GroundProjection::Pinhole {
                camera,
                heading: None,
            },
            (Some(_), _) => {
                return Err(PyValueError::new_err(
                    "this network takes no camera matrix; leave camera away (ground_image makes its ground image)",
                ));
            }
        };
        let pair = data::Pair {
            sample: Sample {
                left_bin,
                ..Sample::unplaced("the arrays".into(), projection)
            },
            ground: convert::image_from(&ground, "ground")?,
            aerial: convert::image_from(&aerial, "aerial")?,
        };
        // A margin is for training; here it would move the answer.
        if pair.aerial.width != self.spec.aerial_px {
            return Err(StudentError::new_err(format!(
                "aerial has {} columns, and the network takes {side}×{side} pixels of {} m",
                pair.aerial.width,
                self.spec.metres_per_pixel,
                side = self.spec.aerial_px
            )));
        }
        pair.check(&self.spec)
            .map_err(|error| StudentError::new_err(error.to_string()))?;
        let dataset = vec![pair];
        let found = convert::interruptible(py, |interrupt| {
            let keep = |sample: &Sample, prediction, heatmap: &[f32]| {
                Prediction::new(sample, prediction, heatmap, &self.spec, true, false)
            };
            self.lock().predict_with(&dataset, interrupt, keep)
        })?;
        let found = found.map_err(failed)?.into_iter().next();
        found.ok_or_else(|| StudentError::new_err("the network answered nothing"))
    }

    fn __repr__(&self) -> String {
        format!("<crossfix.Student {}>", self.spec.preset)
    }
}

/// Whether (fx, fy, cx, cy) can be of a camera.
fn usable(camera: [f64; 4]) -> bool {
    camera.iter().all(|value| value.is_finite()) && camera[0] > 0.0 && camera[1] > 0.0
}

impl Student {
    fn check_left_bin(&self, left_bin: usize) -> PyResult<()> {
        let bins = self.spec.orientation_bins;
        if !self.spec.ground_left_bin() && left_bin != 0 {
            return Err(PyValueError::new_err(format!(
                "left_bin is {left_bin}, and this network takes none: its ground images all begin at the same azimuth"
            )));
        }
        if self.spec.ground_left_bin() && left_bin >= bins {
            return Err(PyValueError::new_err(format!(
                "left_bin is {left_bin}; it must be 0 to {}",
                bins - 1
            )));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, student::Student> {
        self.student.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some pairs of a dataset, opened for this network.
    fn open(
        &self,
        pairs: &data::Pairs,
        indices: impl IntoIterator<Item = usize>,
    ) -> Result<PairsImages, data::DatasetError> {
        let some = data::Pairs {
            folder: pairs.folder.clone(),
            manifest: pairs.manifest.clone(),
            rows: indices
                .into_iter()
                .map(|index| pairs.rows[index].clone())
                .collect(),
        };
        PairsImages::open(some, &self.spec, Preparation::default())
    }

    fn run_over(
        &self,
        py: Python<'_>,
        pairs: &data::Pairs,
        indices: Vec<usize>,
        heatmaps: bool,
    ) -> PyResult<Vec<Prediction>> {
        let found = convert::interruptible(py, |interrupt| {
            let images = self.open(pairs, indices)?;
            let keep = |sample: &Sample, prediction, heatmap: &[f32]| {
                Prediction::new(sample, prediction, heatmap, &self.spec, heatmaps, true)
            };
            self.lock().predict_with(&images, interrupt, keep)
        })?;
        found.map_err(failed)
    }
}

fn failed(error: PredictError) -> PyErr {
    match error {
        PredictError::Data(_) => DatasetError::new_err(error.to_string()),
        _ => StudentError::new_err(error.to_string()),
    }
}

/// Where a network finds that a picture was taken. Offsets are metres east and north of the middle of the
/// aerial image (for networks that take a pinhole picture: ahead and to the left).
#[pyclass(frozen, module = "crossfix")]
pub struct Prediction {
    found: PairPrediction,
    heatmap: Option<Vec<f32>>,
    mean_m: [f64; 2],
    covariance_m2: [[f64; 2]; 2],
    side: usize,
    metres_per_cell: f64,
    /// The pair, the middle of its aerial image and the yaw that its ground image was aligned with.
    place: Option<(String, Geodetic, f64)>,
}

impl Prediction {
    fn new(
        sample: &Sample,
        found: PairPrediction,
        heatmap: &[f32],
        spec: &ModelSpec,
        keep: bool,
        placed: bool,
    ) -> Result<Self, PredictError> {
        let (side, metres_per_cell) = (spec.heatmap_side(), spec.metres_per_cell());
        let map = Heatmap::new(side, metres_per_cell, heatmap.to_vec());
        let map = map.map_err(|error| ModelError::Input(format!("pair {}: {error}", sample.id)))?;
        Ok(Self {
            mean_m: map.mean_m(),
            covariance_m2: map.covariance_m2(found.mode_m),
            heatmap: keep.then(|| heatmap.to_vec()),
            found,
            side,
            metres_per_cell,
            place: placed.then(|| (sample.id.clone(), sample.centre, sample.yaw_rad)),
        })
    }

    /// Latitude and longitude of an offset; none of arrays.
    fn placed(&self, offset_m: (f64, f64)) -> Option<(f64, f64)> {
        let (_, centre, _) = self.place.as_ref()?;
        let place = Enu::new(offset_m.0, offset_m.1, 0.0);
        let place = LocalFrame::new(*centre).geodetic_from_enu(place);
        Some((place.latitude_deg, place.longitude_deg))
    }
}

#[pymethods]
impl Prediction {
    /// The pair's id; None of arrays.
    #[getter]
    fn id(&self) -> Option<&str> {
        self.place.as_ref().map(|(id, ..)| id.as_str())
    }

    /// The heatmap's mode: the centre of its largest cell, metres (east, north).
    #[getter]
    fn mode_m(&self) -> (f64, f64) {
        self.found.mode_m.into()
    }

    /// The heatmap's mode within the 99 % ellipse of the coarse position, metres (east, north).
    #[getter]
    fn mode_in_prior_m(&self) -> (f64, f64) {
        self.found.masked_mode_m.into()
    }

    /// The mode between cells, metres (east, north).
    #[getter]
    fn peak_m(&self) -> (f64, f64) {
        self.found.peak_m.into()
    }

    /// The heatmap's mean, metres (east, north).
    #[getter]
    fn mean_m(&self) -> (f64, f64) {
        self.mean_m.into()
    }

    /// Expected squared error of the mode by the heatmap: [[east, cross], [cross, north]], m².
    #[getter]
    fn covariance_m2<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        convert::covariance(py, self.covariance_m2)
    }

    /// Probability of the largest cell.
    #[getter]
    fn peak_probability(&self) -> f64 {
        self.found.peak
    }

    /// Entropy of the heatmap, nats.
    #[getter]
    fn entropy(&self) -> f64 {
        self.found.entropy
    }

    /// True yaw minus the yaw that the ground image was aligned with, at the mode, radians counter-clockwise;
    /// None of networks that do not say.
    #[getter]
    fn yaw_residual_rad(&self) -> Option<f64> {
        self.found.residual_rad
    }

    /// Heading of the vehicle, degrees clockwise from true north, 0 to 360; None where the network does not
    /// say, and of arrays.
    #[getter]
    fn heading_deg(&self) -> Option<f64> {
        let (.., yaw_rad) = self.place.as_ref()?;
        let yaw = Yaw::new(yaw_rad + self.found.residual_rad?);
        Some(yaw.heading().degrees())
    }

    /// Latitude of the mode, degrees, WGS 84; None of arrays.
    #[getter]
    fn latitude_deg(&self) -> Option<f64> {
        self.placed(self.found.mode_m.into())
            .map(|(latitude, _)| latitude)
    }

    /// Longitude of the mode, degrees, WGS 84; None of arrays.
    #[getter]
    fn longitude_deg(&self) -> Option<f64> {
        self.placed(self.found.mode_m.into())
            .map(|(_, longitude)| longitude)
    }

    /// Latitude and longitude, degrees, WGS 84, of an offset in metres (east, north); None of arrays.
    ///
    /// Raises ValueError for offsets that are no numbers, or beyond 100 km.
    fn geodetic(&self, offset_m: (f64, f64)) -> PyResult<Option<(f64, f64)>> {
        let far = offset_m.0.hypot(offset_m.1);
        if !(far <= MOST_OFFSET_M) {
            return Err(PyValueError::new_err(format!(
                "offset_m is {offset_m:?}; it must be two numbers of at most {MOST_OFFSET_M:.0} m"
            )));
        }
        Ok(self.placed(offset_m))
    }

    /// The heatmap, float32 [side, side], row 0 north, column 0 west, summing to 1; None where it was not
    /// asked for.
    #[getter]
    fn heatmap<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray2<f32>>>> {
        let heatmap = self.heatmap.clone();
        heatmap
            .map(|heatmap| convert::square(py, heatmap, self.side))
            .transpose()
    }

    /// Side of a heatmap's cell, metres.
    #[getter]
    fn metres_per_cell(&self) -> f64 {
        self.metres_per_cell
    }

    fn __repr__(&self) -> String {
        let [east, north] = self.found.mode_m;
        let id = self.id().unwrap_or("of arrays");
        format!("<crossfix.Prediction {id}: {east:.2} m east, {north:.2} m north>")
    }
}
