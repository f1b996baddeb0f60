//! Where the ground around a camera is seen in its panorama.

use crate::cuda::{Kernel, Launch, Source, count, double, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;
use rayon::prelude::*;
use std::f64::consts::{FRAC_PI_2, TAU};

const OP: &str = "panorama_grid";

/// A square map of ground cells around a camera, and the panorama that they are looked for in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Panorama {
    /// Cells along the map, in whose centre the camera stands.
    pub side: usize,
    /// Rows and columns of the panorama.
    pub image: [usize; 2],
    /// Pixels along a cell, of the pixels that a view measures.
    pub cell_px: f64,
    /// Of the camera above the ground, metres.
    pub height_m: f64,
    /// From straight up to the panorama's upper edge, radians.
    pub top_rad: f64,
    /// From its upper edge to its lower one, radians.
    pub span_rad: f64,
}

/// Places of the cells in a panorama whose left edge looks south and which turns clockwise, for
/// [`super::grid_sample`]. Row 0 of the map is north. No gradient flows through.
///
/// A last column between W - 1 and W has no right neighbour.
///
/// # Shapes and units
/// `views` `[N, 2]`: metres of a pixel, and how far the panorama was rolled to the right, radians;
/// returns `[N, side, side, 2]` as (x, y) in pixels, (0, 0) the centre of the top-left one.
///
/// # Errors
/// [`crate::Error::Shape`] when a view is no pair, [`crate::Error::OutOfMemory`],
/// [`crate::Error::Cuda`].
pub fn panorama_grid(views: &Tensor, panorama: &Panorama) -> Result<Tensor> {
    let [n, _] = views.dims2(OP, "views")?;
    views.expect_shape(OP, "views", &[n, 2])?;
    let side = panorama.side;
    let shape = [n, side, side, 2];
    let Device::Cuda(cuda) = views.device() else {
        return Ok(Tensor::from_parts(cpu(views.data(), panorama), &shape));
    };
    let elements = shape.iter().product();
    count(OP, elements)?;
    let parameters = PanoramaParameters {
        count: (elements / 2) as u32,
        side: side as u32,
        rows: panorama.image[0] as u32,
        columns: panorama.image[1] as u32,
        cell_px: double(panorama.cell_px),
        height_m: double(panorama.height_m),
        top_rad: double(panorama.top_rad),
        span_rad: double(panorama.span_rad),
    };
    let mut grid = cuda.any(elements)?;
    let launch = Launch::new(&KERNEL).over(elements / 2);
    // SAFETY: panorama_grid(views, grid, PanoramaParameters): `grid` has a pair for each of
    // `count` cells, by which the kernel guards its index; `views` one for each side² of them.
    unsafe {
        launch
            .input(views.buffer())
            .output(&mut grid)
            .parameters(&parameters)
            .enqueue(&cuda)?;
    }
    Ok(Tensor::from_device(grid, &shape))
}

fn cpu(views: &[f32], panorama: &Panorama) -> Vec<f32> {
    let side = panorama.side;
    let [rows, columns] = panorama.image.map(|length| length as f64);
    let centre = side as f64 / 2.0 - 0.5;
    let mut grid = vec![0.0; views.len() * side * side];
    // A row of cells at a time: arcs take long.
    let lines = grid.par_chunks_exact_mut(2 * side).enumerate();
    lines.for_each(|(line, places)| {
        let (sample, i) = (line / side, line % side);
        let [metres, turn_rad] = [0, 1].map(|part| f64::from(views[2 * sample + part]));
        let metres_per_cell = metres * panorama.cell_px;
        for (j, place) in places.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let (south, east) = (i as f64 - centre, j as f64 - centre);
            let azimuth = south.atan2(east) - FRAC_PI_2 + turn_rad;
            let distance_m = south.hypot(east) * metres_per_cell;
            let below_up = distance_m.atan2(-panorama.height_m);
            *place = [
                (azimuth.rem_euclid(TAU) / TAU * columns) as f32,
                ((below_up - panorama.top_rad) / panorama.span_rad * rows) as f32,
            ];
        }
    });
    grid
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/panorama_grid.cu",
    text: include_str!("panorama_grid.cu"),
    hot: &["panorama_grid"],
};
static KERNEL: Kernel = Kernel {
    source: &SOURCE,
    entry: "panorama_grid",
};

parameters! {
    struct PanoramaParameters {
        count: u32,
        side: u32,
        rows: u32,
        columns: u32,
        cell_px: [u32; 2],
        height_m: [u32; 2],
        top_rad: [u32; 2],
        span_rad: [u32; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;
    use std::f64::consts::PI;

    fn grid(metres: f32, turn_rad: f64, [top_rad, span_rad]: [f64; 2]) -> Tensor {
        let views = Tensor::new(vec![metres, turn_rad as f32], &[1, 2]).unwrap();
        let panorama = Panorama {
            side: 2,
            image: [8, 16],
            cell_px: 2.0,
            height_m: 1.0,
            top_rad,
            span_rad,
        };
        panorama_grid(&views, &panorama).unwrap()
    }

    #[test]
    fn panorama_columns_run_from_south_over_west() {
        // Cells at 45°: north-west, north-east, south-west, south-east; 1 m away and 1 m below.
        let metres = 0.5f32.sqrt();
        let sphere = [0.0, PI];
        // South-west is 1/8 of the circle after south; 45° below the horizon is 3/4 of the rows.
        let expected = [6.0, 6.0, 10.0, 6.0, 2.0, 6.0, 14.0, 6.0];
        assert_close(grid(metres, 0.0, sphere).data(), &expected, 1e-6);
        let turned = grid(metres, PI / 4.0, sphere);
        assert_close(&turned.data()[..2], &[8.0, 6.0], 1e-6);
        // A strip from the horizon to straight down: 45° below is the middle of its 8 rows.
        let strip = grid(metres, 0.0, [PI / 2.0; 2]);
        assert_close(&strip.data()[..2], &[6.0, 4.0], 1e-6);
    }

    #[test]
    fn views_that_are_no_pairs_are_refused() {
        let panorama = Panorama {
            side: 2,
            image: [8, 16],
            cell_px: 1.0,
            height_m: 1.0,
            top_rad: 0.0,
            span_rad: PI,
        };
        assert!(panorama_grid(&Tensor::zeros(&[2, 3]), &panorama).is_err());
    }
}
