//! Pairs datasets: every field of docs/pairs.md, pictures when they are asked for.

use crate::DatasetError;
use crate::convert;
use crossfix_offline::data;
use crossfix_offline::data::pairs::PairRow;
use crossfix_offline::data::pairs::truth::Truth;
use crossfix_offline::data::picture;
use numpy::{PyArray2, PyArray3};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A pairs dataset whose text was read and checked; pictures are read when they are asked for.
///
/// A sequence of Pair. Raises DatasetError with the file, the line and the remedy.
#[pyclass(frozen, sequence, module = "crossfix")]
pub struct Pairs {
    pub dataset: Arc<data::Pairs>,
}

#[pymethods]
impl Pairs {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| data::Pairs::open(&folder));
        let dataset = opened.map_err(|error| DatasetError::new_err(error.to_string()))?;
        Ok(Self {
            dataset: Arc::new(dataset),
        })
    }

    fn __len__(&self) -> usize {
        self.dataset.rows.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<Pair> {
        let count = self.dataset.rows.len();
        let from_start = if index < 0 {
            count.checked_add_signed(index)
        } else {
            usize::try_from(index).ok()
        };
        match from_start.filter(|index| *index < count) {
            Some(index) => Ok(Pair {
                dataset: self.dataset.clone(),
                index,
            }),
            None => Err(PyIndexError::new_err(format!(
                "pair {index} of a dataset of {count}"
            ))),
        }
    }

    fn __iter__(&self) -> PairIterator {
        PairIterator {
            dataset: self.dataset.clone(),
            next: AtomicUsize::new(0),
        }
    }

    fn __repr__(&self) -> String {
        let folder = self.dataset.folder.display();
        format!(
            "<crossfix.Pairs {folder}: {} pairs>",
            self.dataset.rows.len()
        )
    }

    /// Its folder.
    #[getter]
    fn folder(&self) -> PathBuf {
        self.dataset.folder.clone()
    }

    /// The tile set's path.
    #[getter]
    fn tiles(&self) -> PathBuf {
        self.dataset.tiles()
    }

    /// dataset.toml, with the camera.
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &self.dataset.manifest)
    }
}

/// The pairs of a dataset, one after the other.
#[pyclass(frozen, module = "crossfix")]
pub struct PairIterator {
    dataset: Arc<data::Pairs>,
    next: AtomicUsize,
}

#[pymethods]
impl PairIterator {
    fn __iter__(iterator: Bound<'_, Self>) -> Bound<'_, Self> {
        iterator
    }

    fn __next__(&self) -> Option<Pair> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.dataset.rows.len()).then(|| Pair {
            dataset: self.dataset.clone(),
            index,
        })
    }
}

/// One picture with what the vehicle knew when it was taken. No truth.
#[pyclass(frozen, module = "crossfix")]
pub struct Pair {
    pub dataset: Arc<data::Pairs>,
    pub index: usize,
}

impl Pair {
    fn row(&self) -> &PairRow {
        &self.dataset.rows[self.index]
    }
}

#[pymethods]
impl Pair {
    /// Unique in the dataset.
    #[getter]
    fn id(&self) -> &str {
        &self.row().id
    }

    /// The drive that it was taken on.
    #[getter]
    fn drive(&self) -> &str {
        &self.row().drive
    }

    /// When, nanoseconds UTC since 1970.
    #[getter]
    fn time_ns(&self) -> i64 {
        self.row().time_ns
    }

    /// Path of the picture.
    #[getter]
    fn image(&self) -> PathBuf {
        self.dataset.folder.join(&self.row().image)
    }

    /// Coarse position of the camera, degrees, WGS 84.
    #[getter]
    fn latitude_deg(&self) -> f64 {
        self.row().latitude_deg
    }

    /// Coarse position of the camera, degrees, WGS 84.
    #[getter]
    fn longitude_deg(&self) -> f64 {
        self.row().longitude_deg
    }

    /// Covariance of the coarse position: [[east, cross], [cross, north]], m².
    #[getter]
    fn covariance_m2<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        convert::covariance(py, self.row().covariance_m2)
    }

    /// Heading of the vehicle, degrees clockwise from true north.
    #[getter]
    fn heading_deg(&self) -> f64 {
        self.row().heading_deg
    }

    /// Its standard deviation, degrees; 180 where the heading is not known.
    #[getter]
    fn heading_sigma_deg(&self) -> f64 {
        self.row().heading_sigma_deg
    }

    /// Movement since the drive's pair before; None at its first, and where it is unknown.
    #[getter]
    fn odometry(&self) -> Option<Odometry> {
        self.row().odometry.map(|step| Odometry {
            forward_m: step.forward_m,
            left_m: step.left_m,
            yaw_rad: step.yaw_rad,
        })
    }

    /// Decodes the picture, upright: uint8 [rows, columns, 3], RGB.
    ///
    /// Raises DatasetError when it cannot be read whole.
    fn picture<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let path = self.image();
        let read = py.detach(|| picture::read(&path));
        let read =
            read.map_err(|what| DatasetError::new_err(format!("pair {}: {what}", self.id())))?;
        convert::image(py, read)
    }

    fn __repr__(&self) -> String {
        format!("<crossfix.Pair {}>", self.id())
    }
}

/// Movement since the pair before, in the vehicle's frame there.
#[pyclass(frozen, get_all, module = "crossfix")]
pub struct Odometry {
    /// Metres forward.
    forward_m: f64,
    /// Metres to the left.
    left_m: f64,
    /// Change of yaw, radians counter-clockwise.
    yaw_rad: f64,
}

/// Where a picture really was taken.
#[pyclass(frozen, get_all, module = "crossfix")]
pub struct TruePose {
    /// Of the camera, degrees, WGS 84.
    latitude_deg: f64,
    /// Of the camera, degrees, WGS 84.
    longitude_deg: f64,
    /// Of the vehicle, degrees clockwise from true north.
    heading_deg: f64,
}

/// Reads truth.jsonl of a dataset: the true pose of each pair that has one, by id.
///
/// Raises DatasetError with the line and the remedy.
#[pyfunction]
pub fn read_truth<'py>(py: Python<'py>, pairs: &Pairs) -> PyResult<Bound<'py, PyDict>> {
    let truth = py.detach(|| Truth::open(&pairs.dataset.folder));
    let truth = truth.map_err(|error| DatasetError::new_err(error.to_string()))?;
    let poses = PyDict::new(py);
    for id in pairs.dataset.rows.iter().map(|row| &row.id) {
        if let Some(row) = truth.get(id) {
            let pose = TruePose {
                latitude_deg: row.latitude_deg,
                longitude_deg: row.longitude_deg,
                heading_deg: row.heading_deg,
            };
            poses.set_item(id, pose)?;
        }
    }
    Ok(poses)
}
