//! Where an overhead cell is seen in the ground image.
//!
//! Coordinates are pixels of a feature map, (0, 0) the centre of the top-left one.

use crossfix_kernels::{Error, Result, Tape, Tensor};
use rayon::prelude::*;
use std::f64::consts::{FRAC_PI_2, TAU};

/// A square overhead map and the ground feature map below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps {
    /// Cells along the overhead map.
    pub side: usize,
    /// Rows and columns of the ground feature map.
    pub ground: [usize; 2],
}

/// Panorama pixels of the ground around a camera at the map's centre, whose left edge looks south
/// and which turns clockwise; `turns_rad` moves them to the right.
///
/// Rows run from `[top, span]` radians: from the angle `top` below straight up at 0 to `top` +
/// `span` at H. A last column between W − 1 and W has no
/// right neighbour; the sampler reads zero there, as published.
///
/// # Shapes
/// One cell size and turn for each sample; returns `[N, side, side, 2]`.
pub(crate) fn panorama_grid(
    maps: Maps,
    metres_per_cell: &[f64],
    turns_rad: &[f64],
    height_m: f64,
    [top_rad, span_rad]: [f64; 2],
) -> Result<Tensor> {
    let [rows, columns] = maps.ground.map(|length| length as f64);
    let centre = maps.side as f64 / 2.0 - 0.5;
    let mut grid = vec![0.0; metres_per_cell.len() * maps.side * maps.side * 2];
    // A row of cells at a time: arcs take long, and a device waits for the grid.
    let lines = grid.par_chunks_exact_mut(2 * maps.side).enumerate();
    lines.for_each(|(line, places)| {
        let (sample, i) = (line / maps.side, line % maps.side);
        for (j, place) in places.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let (south, east) = (i as f64 - centre, j as f64 - centre);
            let azimuth = south.atan2(east) - FRAC_PI_2 + turns_rad[sample];
            let distance_m = south.hypot(east) * metres_per_cell[sample];
            let below_up = distance_m.atan2(-height_m);
            *place = [
                (azimuth.rem_euclid(TAU) / TAU * columns) as f32,
                ((below_up - top_rad) / span_rad * rows) as f32,
            ];
        }
    });
    Tensor::new(grid, &[metres_per_cell.len(), maps.side, maps.side, 2])
}

/// A pinhole camera that looks level, and what its normalised pose means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    pub maps: Maps,
    pub metres_per_cell: f64,
    pub height_m: f64,
    pub shift_range_m: f64,
    pub heading_range_rad: f64,
}

/// Depths up to this are behind the camera.
pub(crate) const NEAREST_M: f64 = 1e-6;

impl Plane {
    /// Pixels of the overhead cells, for a camera at each sample's normalised (shift along the
    /// view, shift across it, heading). Gradients flow to the pose. On a device the pose is read
    /// back and the grid sent: both are small, but somebody waits.
    ///
    /// # Shapes
    /// `pose` `[N, 3]`; `cameras` focal lengths and centres (fx, fy, cx, cy) in feature pixels, one
    /// for each sample; returns `[N, side, side, 2]`.
    pub fn grid(self, tape: &mut Tape, pose: &Tensor, cameras: &[[f64; 4]]) -> Result<Tensor> {
        let n = cameras.len();
        pose.expect_shape("plane_grid", "pose", &[n, 3])?;
        let poses = pose.to_vec()?;
        let side = self.maps.side;
        let mut grid = Vec::with_capacity(n * side * side * 2);
        for (pose, camera) in poses.chunks_exact(3).zip(cameras) {
            for point in self.points(pose) {
                let [fx, fy, cx, cy] = *camera;
                let depth = point.depth.max(NEAREST_M);
                grid.push(((fx * point.across + cx * point.depth) / depth) as f32);
                grid.push(((fy * self.height_m + cy * point.depth) / depth) as f32);
            }
        }
        let device = pose.device();
        let mut output = Tensor::new(grid, &[n, side, side, 2])?.to(&device)?;
        let cameras = cameras.to_vec();
        tape.record(&mut output, &[pose], move |gradient| {
            let gradient = gradient.to_vec()?;
            let samples = gradient.chunks_exact((2 * side * side).max(1));
            let samples = samples.zip(poses.chunks_exact(3)).zip(&cameras);
            let data = samples
                .flat_map(|((gradient, pose), camera)| self.pose_gradient(gradient, pose, camera));
            let to_pose = Tensor::new(data.collect(), &[n, 3])?;
            Ok(vec![Some(to_pose.to(&device)?)])
        });
        Ok(output)
    }

    /// 1 for cells in front of the camera, 0 for those behind it, `[N, side, side]`.
    pub fn in_front(self, pose: &Tensor) -> Result<Tensor> {
        let poses = pose.to_vec()?;
        let seen = poses
            .chunks_exact(3)
            .flat_map(|pose| self.points(pose))
            .map(|point| f32::from(u8::from(point.depth > NEAREST_M)));
        let side = self.maps.side;
        Tensor::new(seen.collect(), &[poses.len() / 3, side, side])
    }

    fn points(self, pose: &[f32]) -> impl Iterator<Item = Point> {
        let [along, across, heading] = [pose[0], pose[1], pose[2]].map(f64::from);
        let (sin, cos) = (heading * self.heading_range_rad).sin_cos();
        let side = self.maps.side;
        let centre = side as f64 / 2.0;
        let place = move |index: usize| self.metres_per_cell * (index as f64 - centre);
        (0..side * side).map(move |cell| {
            let (right, ahead) = (place(cell / side), place(cell % side));
            Point {
                across: cos * right + sin * ahead + self.shift_range_m * across,
                depth: cos * ahead - sin * right - self.shift_range_m * along,
                across_by_heading: cos * ahead - sin * right,
                depth_by_heading: -sin * ahead - cos * right,
            }
        })
    }

    /// With x = fx a / d + cx and y = fy h / d + cy.
    fn pose_gradient(self, gradient: &[f32], pose: &[f32], camera: &[f64; 4]) -> [f32; 3] {
        let [fx, fy, _, _] = *camera;
        let mut sums = [0.0; 3];
        for (point, g) in self.points(pose).zip(gradient.chunks_exact(2)) {
            let [to_x, to_y] = [g[0], g[1]].map(f64::from);
            if point.depth <= NEAREST_M || (to_x == 0.0 && to_y == 0.0) {
                continue;
            }
            let by_across = to_x * fx / point.depth;
            let by_depth = -(to_x * fx * point.across + to_y * fy * self.height_m)
                / (point.depth * point.depth);
            sums[0] -= by_depth * self.shift_range_m;
            sums[1] += by_across * self.shift_range_m;
            sums[2] += (by_across * point.across_by_heading + by_depth * point.depth_by_heading)
                * self.heading_range_rad;
        }
        sums.map(|sum| sum as f32)
    }
}

/// A cell as the camera sees it, metres, and how the heading (radians) moves it.
struct Point {
    across: f64,
    depth: f64,
    across_by_heading: f64,
    depth_by_heading: f64,
}

/// The columns of a grid on the host, with `nudge` added before anything rounds them down, `[N, side, side]`.
///
/// With a panorama that is not turned, the columns of the diagonals are whole numbers and rounding
/// decides on which side they fall; a nudge of 1e-4 puts them where exact arithmetic would.
pub(super) fn columns(grid: &Tensor, nudge: f32) -> Result<Tensor> {
    let [n, p, q, pair] = grid.dims4("columns", "grid")?;
    if pair != 2 {
        return Err(Error::shape(
            "columns",
            "grid",
            "[N, P, Q, 2]",
            grid.shape(),
        ));
    }
    let values = grid.host("columns")?;
    let data = values.chunks_exact(2).map(|xy| xy[0] + nudge);
    Tensor::new(data.collect(), &[n, p, q])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_kernels::testing::{assert_close, check_gradient};
    use std::f64::consts::PI;

    const SPHERE: [f64; 2] = [0.0, PI];
    const MAPS: Maps = Maps {
        side: 2,
        ground: [8, 16],
    };

    #[test]
    fn panorama_columns_run_from_south_over_west() {
        // Cells at 45°: north-west, north-east, south-west, south-east; 1 m away and 1 m below.
        let cell_m = 2f64.sqrt();
        let grid = panorama_grid(MAPS, &[cell_m], &[0.0], 1.0, SPHERE).unwrap();
        // South-west is 1/8 of the circle after south; 45° below the horizon is 3/4 of the rows.
        let expected = [6.0, 6.0, 10.0, 6.0, 2.0, 6.0, 14.0, 6.0];
        assert_close(grid.data(), &expected, 1e-6);
        let turned = panorama_grid(MAPS, &[cell_m], &[PI / 4.0], 1.0, SPHERE).unwrap();
        assert_close(&turned.data()[..2], &[8.0, 6.0], 1e-6);
        // A strip from the horizon to straight down: 45° below is the middle of its 8 rows.
        let strip = panorama_grid(MAPS, &[cell_m], &[0.0], 1.0, [PI / 2.0; 2]).unwrap();
        assert_close(&strip.data()[..2], &[6.0, 4.0], 1e-6);
    }

    fn plane() -> Plane {
        Plane {
            maps: Maps {
                side: 4,
                ground: [8, 16],
            },
            metres_per_cell: 2.0,
            height_m: 1.5,
            shift_range_m: 10.0,
            heading_range_rad: 0.5,
        }
    }

    #[test]
    fn a_cell_ahead_is_seen_below_the_centre() {
        let pose = Tensor::zeros(&[1, 3]);
        let camera = [[4.0, 3.0, 7.5, 2.0]];
        let grid = plane()
            .grid(&mut Tape::inference(), &pose, &camera)
            .unwrap();
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
        let seen = plane().in_front(&pose).unwrap();
        assert_eq!(seen.data(), [0.0, 0.0, 0.0, 1.0].repeat(4));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        // Shifted back by 5 m, so that every cell is well ahead.
        let pose = Tensor::new(vec![-0.9, 0.1, 0.2, -0.8, -0.3, -0.1], &[2, 3]).unwrap();
        let cameras = [[4.0, 3.0, 7.5, 2.0], [0.5, 0.8, 1.0, 2.0]];
        check_gradient(&[pose], 5e-3, |tape, x| plane().grid(tape, &x[0], &cameras));
    }
}
