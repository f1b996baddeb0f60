//! The Python module `crossfix`: pairs datasets, students and runs, through the library of the
//! `crossfix` program.
//!
//! Nothing is computed here. `pairs` opens datasets, `student` runs networks, `runs` reads what runs
//! left; `convert` turns values into Python's. What Python sees is typed in `crossfix.pyi`.

mod convert;
mod pairs;
mod runs;
mod student;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    crossfix,
    Error,
    PyException,
    "What crossfix refuses: the message names the file, what is wrong with it and what to do."
);
create_exception!(
    crossfix,
    DatasetError,
    Error,
    "A dataset, or a line, a picture or a tile of it, cannot be used."
);
create_exception!(
    crossfix,
    StudentError,
    Error,
    "A student cannot be loaded, or what it was given does not fit it."
);
create_exception!(
    crossfix,
    RunError,
    Error,
    "A run folder or a report input cannot be read."
);

/// Pairs datasets, students and runs of Crossfix: cross-view positions from a camera, a coarse position
/// and aerial tiles.
#[pymodule]
fn crossfix(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Error", py.get_type::<Error>())?;
    module.add("DatasetError", py.get_type::<DatasetError>())?;
    module.add("StudentError", py.get_type::<StudentError>())?;
    module.add("RunError", py.get_type::<RunError>())?;
    module.add_class::<pairs::Pairs>()?;
    module.add_class::<pairs::Pair>()?;
    module.add_class::<pairs::PairIterator>()?;
    module.add_class::<pairs::Odometry>()?;
    module.add_class::<pairs::TruePose>()?;
    module.add_class::<student::Student>()?;
    module.add_class::<student::Prediction>()?;
    module.add_class::<runs::Run>()?;
    module.add_function(wrap_pyfunction!(pairs::read_truth, module)?)
}
