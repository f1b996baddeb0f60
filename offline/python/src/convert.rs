//! Values as Python's, and long work that Ctrl-C ends.

use crossfix_calibration::RgbImage;
use crossfix_offline::run::Interrupt;
use numpy::{Element, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray3};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often a long pass looks for Ctrl-C.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(100);
/// Stack of the thread that a pass runs on, as large as a program's first one.
const STACK_BYTES: usize = 8 << 20;

/// A value as dictionaries, lists, numbers and text, by way of JSON.
pub fn to_python<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text =
        serde_json::to_string(value).map_err(|error| PyValueError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (text,))
}

/// The value that dictionaries and numbers describe; `what` is for the message.
pub fn from_python<T: DeserializeOwned>(value: &Bound<'_, PyAny>, what: &str) -> PyResult<T> {
    let text = value.py().import("json")?.call_method1("dumps", (value,))?;
    let text: String = text.extract()?;
    serde_json::from_str(&text).map_err(|error| PyValueError::new_err(format!("{what}: {error}")))
}

/// An image as an array `[rows, columns, 3]`.
pub fn image(py: Python<'_>, image: RgbImage) -> PyResult<Bound<'_, PyArray3<u8>>> {
    let shape = [image.height, image.width, 3];
    PyArray1::from_vec(py, image.data).reshape(shape)
}

/// The image that an array `[rows, columns, 3]` of any strides holds.
pub fn image_from(array: &PyReadonlyArray3<'_, u8>, what: &str) -> PyResult<RgbImage> {
    let array = array.as_array();
    let [rows, columns, channels] = <[usize; 3]>::try_from(array.shape()).unwrap_or([0; 3]);
    if channels != 3 {
        return Err(PyValueError::new_err(format!(
            "{what} has the shape [{rows}, {columns}, {channels}]; give [rows, columns, 3], RGB"
        )));
    }
    let data = array.iter().copied().collect();
    RgbImage::from_data(columns, rows, data)
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Numbers as a square array, row by row.
pub fn square<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    side: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    PyArray1::from_vec(py, values).reshape([side, side])
}

/// A covariance as an array.
pub fn covariance(py: Python<'_>, rows: [[f64; 2]; 2]) -> PyResult<Bound<'_, PyArray2<f64>>> {
    square(py, rows.concat(), 2)
}

/// Runs `work` on a thread of its own without Python's lock; signals (Ctrl-C) ask it to stop.
///
/// # Errors
/// What the signal's handler raised, once the work has stopped.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Interrupt) -> T + Send,
) -> PyResult<T> {
    let interrupt = Interrupt::default();
    let done = AtomicBool::new(false);
    let caller = thread::current();
    let mut raised = Ok(());
    let result = thread::scope(|scope| {
        let body = || {
            let result = work(&interrupt);
            done.store(true, Ordering::Release);
            caller.unpark();
            result
        };
        let worker = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, body);
        let worker = worker.map_err(|error| PyOSError::new_err(error.to_string()))?;
        while !done.load(Ordering::Acquire) && !worker.is_finished() {
            py.detach(|| thread::park_timeout(LOOK_FOR_SIGNALS));
            if let Err(signal) = py.check_signals() {
                interrupt.ask();
                raised = Err(signal);
            }
        }
        let result = py.detach(|| worker.join());
        Ok::<T, PyErr>(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    raised.map(|()| result)
}
