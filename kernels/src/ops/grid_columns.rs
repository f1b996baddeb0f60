//! The columns of a grid of places, for [`super::column_attention`].

use crate::cuda::{Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

const OP: &str = "grid_columns";

/// The columns of places, with `nudge` added before anything rounds them down. No gradient flows
/// through.
///
/// Where columns are whole numbers, rounding decides on which side they fall; a nudge of 1e-4
/// puts them where exact arithmetic would.
///
/// # Shapes and units
/// `grid` `[N, P, Q, 2]` as (x, y) in pixels; returns `[N, P, Q]` in pixels.
///
/// # Errors
/// [`crate::Error::Shape`] when places are no pairs, [`crate::Error::OutOfMemory`],
/// [`crate::Error::Cuda`].
pub fn grid_columns(grid: &Tensor, nudge: f32) -> Result<Tensor> {
    let [n, p, q, _] = grid.dims4(OP, "grid")?;
    grid.expect_shape(OP, "grid", &[n, p, q, 2])?;
    let shape = [n, p, q];
    let Device::Cuda(cuda) = grid.device() else {
        let pairs = grid.data().as_chunks::<2>().0.iter();
        let columns = pairs.map(|[x, _]| x + nudge).collect();
        return Ok(Tensor::from_parts(columns, &shape));
    };
    count(OP, grid.len())?;
    let places = n * p * q;
    let parameters = ColumnsParameters {
        count: places as u32,
        nudge,
    };
    let mut columns = cuda.any(places)?;
    let launch = Launch::new(&KERNEL).over(places);
    // SAFETY: grid_columns(grid, columns, ColumnsParameters): a pair and a number for each of
    // `count` places, by which the kernel guards its index.
    unsafe {
        launch
            .input(grid.buffer())
            .output(&mut columns)
            .parameters(&parameters)
            .enqueue(&cuda)?;
    }
    Ok(Tensor::from_device(columns, &shape))
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/grid_columns.cu",
    text: include_str!("grid_columns.cu"),
    hot: &["grid_columns"],
};
static KERNEL: Kernel = Kernel {
    source: &SOURCE,
    entry: "grid_columns",
};

parameters! {
    struct ColumnsParameters {
        count: u32,
        nudge: f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_pair_is_nudged() {
        let grid = Tensor::new(vec![1.0, 2.0, 3.0, 4.0], &[1, 1, 2, 2]).unwrap();
        assert_eq!(grid_columns(&grid, 0.5).unwrap().data(), [1.5, 3.5]);
        assert!(grid_columns(&Tensor::zeros(&[1, 1, 2, 3]), 0.0).is_err());
    }
}
