//! Where cells of the ground are seen by a pinhole camera that looks level.

use crate::cuda::{Cuda, Kernel, Launch, Source, count, double, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "plane_grid";

/// A square map of ground cells, and what the numbers of a pose mean on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plane {
    /// Cells along the map. Rows lead to the right of a camera that looks along its columns.
    pub side: usize,
    /// Side of a cell.
    pub metres_per_cell: f64,
    /// Of the camera above the ground.
    pub height_m: f64,
    /// What a shift of 1 means.
    pub shift_range_m: f64,
    /// What a heading of 1 means.
    pub heading_range_rad: f64,
    /// Pixels of the camera along a pixel of the image that is looked up.
    pub stride: f64,
}

/// Depths up to this are behind the camera.
pub const NEAREST_M: f64 = 1e-6;

/// Places of the cells in the image of a camera at each sample's pose, for
/// [`super::grid_sample`]. Gradients flow to the pose; cells behind the camera have none.
///
/// # Shapes and units
/// `pose` `[N, 3]`: shift along the view, shift across it, heading, each 1 at the end of its range;
/// `cameras` `[N, 4]`: focal lengths and centre (fx, fy, cx, cy), pixels of the camera; returns
/// `[N, side, side, 2]` as (x, y) in pixels of the image that is looked up.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit, [`crate::Error::Device`] when the inputs lie
/// apart, [`crate::Error::OutOfMemory`], [`crate::Error::Cuda`].
///
/// # Source
/// Boosting 3-DoF Ground-to-Satellite Camera Localization Accuracy via Geometry-Guided
/// Cross-View Transformer (Shi et al. 2023), the ground-plane projection.
pub fn plane_grid(
    tape: &mut Tape,
    pose: &Tensor,
    cameras: &Tensor,
    plane: &Plane,
) -> Result<Tensor> {
    let [n, _] = pose.dims2(OP, "pose")?;
    pose.expect_shape(OP, "pose", &[n, 3])?;
    cameras.expect_shape(OP, "cameras", &[n, 4])?;
    let device = Device::common(OP, &[pose, cameras])?;
    let mut grid = match &device {
        Device::Cpu => cpu::grid(pose, cameras, plane),
        Device::Cuda(cuda) => grid_on_cuda(cuda, pose, cameras, plane)?,
    };
    let saved = tape
        .needs_gradient(&[pose])
        .then(|| (pose.clone(), cameras.clone(), *plane));
    tape.record(&mut grid, &[pose], move |gradient| {
        let (pose, cameras, plane) = saved.expect("saved whenever recorded");
        let inputs = [&pose, &cameras, gradient];
        Ok(vec![Some(match &device {
            Device::Cpu => cpu::to_pose(inputs, &plane),
            Device::Cuda(cuda) => to_pose_on_cuda(cuda, inputs, &plane)?,
        })])
    });
    Ok(grid)
}

/// 1 for cells in front of the camera, 0 for those behind it. No gradient flows through.
///
/// # Shapes
/// `pose` `[N, 3]` as for [`plane_grid`]; returns `[N, side, side]`.
///
/// # Errors
/// As [`plane_grid`].
pub fn plane_in_front(pose: &Tensor, plane: &Plane) -> Result<Tensor> {
    let [n, _] = pose.dims2(OP, "pose")?;
    pose.expect_shape(OP, "pose", &[n, 3])?;
    let shape = [n, plane.side, plane.side];
    let Device::Cuda(cuda) = pose.device() else {
        return Ok(Tensor::from_parts(cpu::in_front(pose, plane), &shape));
    };
    let parameters = PlaneParameters::new(n, plane)?;
    let mut seen = cuda.any(shape.iter().product())?;
    // SAFETY: plane_grid_in_front(poses, seen, PlaneParameters): a row of blocks for each sample,
    // three numbers of `poses` and side² of `seen` for each, by which the kernel guards its index.
    unsafe {
        Launch::new(&IN_FRONT)
            .grid(parameters.grid())
            .input(pose.buffer())
            .output(&mut seen)
            .parameters(&parameters)
            .enqueue(&cuda)?;
    }
    Ok(Tensor::from_device(seen, &shape))
}

mod cpu {
    use super::{NEAREST_M, Plane, Tensor};

    /// A cell as the camera sees it, metres, and how the heading (radians) moves it.
    struct Point {
        across: f64,
        depth: f64,
        across_by_heading: f64,
        depth_by_heading: f64,
    }

    fn points(plane: &Plane, pose: &[f32]) -> impl Iterator<Item = Point> {
        let plane = *plane;
        let [along, across, heading] = [pose[0], pose[1], pose[2]].map(f64::from);
        let (sin, cos) = (heading * plane.heading_range_rad).sin_cos();
        let side = plane.side;
        let centre = side as f64 / 2.0;
        let place = move |index: usize| plane.metres_per_cell * (index as f64 - centre);
        (0..side * side).map(move |cell| {
            let (right, ahead) = (place(cell / side), place(cell % side));
            Point {
                across: cos * right + sin * ahead + plane.shift_range_m * across,
                depth: cos * ahead - sin * right - plane.shift_range_m * along,
                across_by_heading: cos * ahead - sin * right,
                depth_by_heading: -sin * ahead - cos * right,
            }
        })
    }

    fn samples<'a>(
        pose: &'a Tensor,
        cameras: &'a Tensor,
        plane: &Plane,
    ) -> impl Iterator<Item = (&'a [f32], [f64; 4])> {
        let stride = plane.stride;
        let cameras = cameras.data().as_chunks::<4>().0.iter();
        let cameras = cameras.map(move |camera| camera.map(|value| f64::from(value) / stride));
        pose.data().chunks_exact(3).zip(cameras)
    }

    pub fn grid(pose: &Tensor, cameras: &Tensor, plane: &Plane) -> Tensor {
        let shape = [pose.shape()[0], plane.side, plane.side, 2];
        let mut grid = Vec::with_capacity(shape.iter().product());
        for (pose, [fx, fy, cx, cy]) in samples(pose, cameras, plane) {
            for point in points(plane, pose) {
                let depth = point.depth.max(NEAREST_M);
                grid.push(((fx * point.across + cx * point.depth) / depth) as f32);
                grid.push(((fy * plane.height_m + cy * point.depth) / depth) as f32);
            }
        }
        Tensor::from_parts(grid, &shape)
    }

    pub fn in_front(pose: &Tensor, plane: &Plane) -> Vec<f32> {
        let poses = pose.data().chunks_exact(3);
        let points = poses.flat_map(|pose| points(plane, pose));
        let seen = points.map(|point| f32::from(u8::from(point.depth > NEAREST_M)));
        seen.collect()
    }

    /// With x = fx a / d + cx and y = fy h / d + cy.
    pub fn to_pose([pose, cameras, gradient]: [&Tensor; 3], plane: &Plane) -> Tensor {
        let mut result = Vec::with_capacity(pose.len());
        let cells = 2 * plane.side * plane.side;
        let gradients = gradient.data().chunks_exact(cells.max(1));
        for ((pose, [fx, fy, _, _]), gradient) in samples(pose, cameras, plane).zip(gradients) {
            let mut sums = [0.0; 3];
            for (point, g) in points(plane, pose).zip(gradient.as_chunks::<2>().0) {
                let [to_x, to_y] = g.map(f64::from);
                if point.depth <= NEAREST_M || (to_x == 0.0 && to_y == 0.0) {
                    continue;
                }
                let by_across = to_x * fx / point.depth;
                let by_depth = -(to_x * fx * point.across + to_y * fy * plane.height_m)
                    / (point.depth * point.depth);
                sums[0] -= by_depth * plane.shift_range_m;
                sums[1] += by_across * plane.shift_range_m;
                sums[2] += (by_across * point.across_by_heading
                    + by_depth * point.depth_by_heading)
                    * plane.heading_range_rad;
            }
            result.extend(sums.map(|sum| sum as f32));
        }
        Tensor::from_parts(result, pose.shape())
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/plane_grid.cu",
    text: include_str!("plane_grid.cu"),
    hot: &["plane_grid_forward", "plane_grid_partial"],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static FORWARD: Kernel = kernel("plane_grid_forward");
static IN_FRONT: Kernel = kernel("plane_grid_in_front");
static PARTIAL: Kernel = kernel("plane_grid_partial");
static TO_POSE: Kernel = kernel("plane_grid_to_pose");

parameters! {
    struct PlaneParameters {
        samples: u32,
        side: u32,
        blocks: u32,
        metres_per_cell: [u32; 2],
        height_m: [u32; 2],
        shift_range_m: [u32; 2],
        heading_range_rad: [u32; 2],
        stride: [u32; 2],
    }
}

impl PlaneParameters {
    fn new(samples: usize, plane: &Plane) -> Result<Self> {
        let cells = plane.side * plane.side;
        count(OP, 2 * samples * cells)?;
        Ok(Self {
            samples: samples as u32,
            side: plane.side as u32,
            // Four cells of a thread at least, and partial sums that one thread adds up.
            blocks: cells.div_ceil(1024).clamp(1, 64) as u32,
            metres_per_cell: double(plane.metres_per_cell),
            height_m: double(plane.height_m),
            shift_range_m: double(plane.shift_range_m),
            heading_range_rad: double(plane.heading_range_rad),
            stride: double(plane.stride),
        })
    }

    /// Blocks of each sample, samples.
    fn grid(&self) -> [usize; 3] {
        [self.blocks as usize, self.samples as usize, 1]
    }
}

fn grid_on_cuda(cuda: &Cuda, pose: &Tensor, cameras: &Tensor, plane: &Plane) -> Result<Tensor> {
    let shape = [pose.shape()[0], plane.side, plane.side, 2];
    let parameters = PlaneParameters::new(shape[0], plane)?;
    let mut grid = cuda.any(shape.iter().product())?;
    // SAFETY: plane_grid_forward(poses, cameras, grid, PlaneParameters): a row of blocks for each
    // sample, three numbers of `poses` and four of `cameras` for each, and side² pairs of `grid`, by
    // which the kernel guards its index.
    unsafe {
        Launch::new(&FORWARD)
            .grid(parameters.grid())
            .input(pose.buffer())
            .input(cameras.buffer())
            .output(&mut grid)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(grid, &shape))
}

fn to_pose_on_cuda(
    cuda: &Cuda,
    [pose, cameras, gradient]: [&Tensor; 3],
    plane: &Plane,
) -> Result<Tensor> {
    let parameters = PlaneParameters::new(pose.shape()[0], plane)?;
    let mut partial = cuda.any::<f64>(pose.len() * parameters.blocks as usize)?;
    // SAFETY: plane_grid_partial(poses, cameras, gradient, partial, PlaneParameters): as in the
    // forward pass, `gradient` like the grid; each block writes its three sums, of `blocks` for
    // each number of a pose.
    unsafe {
        Launch::new(&PARTIAL)
            .grid(parameters.grid())
            .input(pose.buffer())
            .input(cameras.buffer())
            .input(gradient.buffer())
            .output(&mut partial)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut result = cuda.any(pose.len())?;
    let launch = Launch::new(&TO_POSE).over(pose.len());
    // SAFETY: plane_grid_to_pose(partial, to_pose, PlaneParameters): three numbers for each of
    // `samples`, by which the kernel guards its index, and `blocks` sums for each.
    unsafe {
        launch
            .input(&partial)
            .output(&mut result)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(result, pose.shape()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient};

    fn plane() -> Plane {
        Plane {
            side: 4,
            metres_per_cell: 2.0,
            height_m: 1.5,
            shift_range_m: 10.0,
            heading_range_rad: 0.5,
            stride: 2.0,
        }
    }

    #[test]
    fn a_cell_ahead_is_seen_below_the_centre() {
        let pose = Tensor::zeros(&[1, 3]);
        let camera = Tensor::new(vec![8.0, 6.0, 15.0, 4.0], &[1, 4]).unwrap();
        let grid = plane_grid(&mut Tape::inference(), &pose, &camera, &plane()).unwrap();
        // Row 2 (0 m to the right), column 3 (2 m ahead); row 3 is 2 m to the right.
        assert_close(
            &grid.data()[2 * 11..][..2],
            &[7.5, 2.0 + 3.0 * 1.5 / 2.0],
            1e-6,
        );
        assert_close(
            &grid.data()[2 * 15..][..2],
            &[7.5 + 4.0, 2.0 + 3.0 * 1.5 / 2.0],
            1e-6,
        );
        let seen = plane_in_front(&pose, &plane()).unwrap();
        assert_eq!(seen.data(), [0.0, 0.0, 0.0, 1.0].repeat(4));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        // Shifted back by 5 m, so that every cell is well ahead.
        let pose = Tensor::new(vec![-0.9, 0.1, 0.2, -0.8, -0.3, -0.1], &[2, 3]).unwrap();
        let cameras = vec![8.0, 6.0, 15.0, 4.0, 1.0, 1.6, 2.0, 4.0];
        let cameras = Tensor::new(cameras, &[2, 4]).unwrap();
        check_gradient(&[pose], 5e-3, |tape, x| {
            plane_grid(tape, &x[0], &cameras, &plane())
        });
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let tape = &mut Tape::inference();
        let [pose, cameras] = [[2, 3], [2, 4]].map(|shape| Tensor::zeros(&shape));
        assert!(plane_grid(tape, &pose, &pose, &plane()).is_err());
        assert!(plane_grid(tape, &cameras, &cameras, &plane()).is_err());
        assert!(plane_in_front(&cameras, &plane()).is_err());
    }
}
