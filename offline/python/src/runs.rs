//! What runs left: their record, tables, curves, and the page.

use crate::RunError;
use crate::convert;
use crossfix_offline::report::{self, ReportInput};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::Value;
use std::path::PathBuf;

/// Largest run.json that is read.
const MOST_RECORD_BYTES: u64 = 64 << 20;

/// What a run of `crossfix train`, `adapt` or `demo` left: its folder, or a report-input.json.
///
/// Raises RunError when it is none, or was not finished.
#[pyclass(frozen, module = "crossfix")]
pub struct Run {
    input: ReportInput,
    record: Option<Value>,
}

#[pymethods]
impl Run {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| {
            let input = report::open(&path)?;
            Ok::<_, anyhow::Error>((input, read_record(&path.join("run.json"))?))
        });
        let (input, record) = read.map_err(|error| RunError::new_err(format!("{error:#}")))?;
        Ok(Self { input, record })
    }

    /// The page's title.
    #[getter]
    fn title(&self) -> &str {
        &self.input.title
    }

    /// What was done and what came of it, in words.
    #[getter]
    fn verdict(&self) -> &str {
        &self.input.verdict
    }

    /// run.json: settings, hashes, measurements. None where there is only a report input.
    #[getter]
    fn record<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let record = self.record.as_ref();
        record
            .map(|record| convert::to_python(py, record))
            .transpose()
    }

    /// The rows of the tables of models against metrics: dictionaries with area, metric, unit, masked and
    /// values, which has a number or None for each model.
    #[getter]
    fn summary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rows = PyList::empty(py);
        for table in &self.input.summary {
            for row in &table.rows {
                let values = PyDict::new(py);
                for ((model, _), value) in table.models.iter().zip(&row.values) {
                    values.set_item(model, value)?;
                }
                let cells = PyDict::new(py);
                cells.set_item("area", &row.area)?;
                cells.set_item("metric", &row.metric)?;
                cells.set_item("unit", &row.unit)?;
                cells.set_item("masked", row.masked)?;
                cells.set_item("values", values)?;
                rows.append(cells)?;
            }
        }
        Ok(rows)
    }

    /// How each model learned: dictionaries of arrays step, loss and validation_error_m (metres), by model.
    #[getter]
    fn curves<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let curves = PyDict::new(py);
        for curve in &self.input.training {
            let steps = if curve.loss_steps.is_empty() {
                (1..=curve.loss.len()).map(|step| step as f64).collect()
            } else {
                curve.loss_steps.clone()
            };
            let arrays = PyDict::new(py);
            arrays.set_item("step", PyArray1::from_vec(py, steps))?;
            arrays.set_item("loss", PyArray1::from_vec(py, curve.loss.clone()))?;
            let validation = PyArray1::from_vec(py, curve.validation_error_m.clone());
            arrays.set_item("validation_error_m", validation)?;
            curves.set_item(&curve.name, arrays)?;
        }
        Ok(curves)
    }

    /// Position errors in metres, one for each pair: arrays by figure and model.
    #[getter]
    fn errors_m<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for figure in &self.input.error_curves {
            let models = PyDict::new(py);
            for model in &figure.models {
                models.set_item(&model.name, PyArray1::from_vec(py, model.errors_m.clone()))?;
            }
            figures.set_item(&figure.caption, models)?;
        }
        Ok(figures)
    }

    /// Everything that the page shows, without its pictures.
    #[getter]
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &self.input.without_pictures())
    }

    /// Writes the page, one HTML file that needs nothing else.
    fn write_html(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let written = py.detach(|| report::write(&path, &self.input));
        written.map_err(|error| RunError::new_err(error.to_string()))
    }

    fn __repr__(&self) -> String {
        format!("<crossfix.Run {}>", self.input.title)
    }
}

/// A run's record, if there is one.
fn read_record(path: &std::path::Path) -> anyhow::Result<Option<Value>> {
    use anyhow::Context;
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::metadata(path)?.len();
    anyhow::ensure!(
        bytes <= MOST_RECORD_BYTES,
        "{} has {bytes} bytes; a run's record has at most {MOST_RECORD_BYTES}",
        path.display()
    );
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let record = serde_json::from_str(&text)
        .with_context(|| format!("{} is no run's record", path.display()))?;
    Ok(Some(record))
}
