//! The heatmap of a turned patch, as one over a patch with north up.

use crate::Heatmap;

/// Peaks on the edge, most of whose samples lie outside, are not scaled by more than this.
const MOST_SCALED: f64 = 2.0;

impl Heatmap {
    /// The same over a square of the same size with north up, of a heatmap over one whose right edge
    /// looks along this yaw (radians counter-clockwise from east); bilinear between cells.
    ///
    /// The corners of the turned square lie outside the other one. Their probability becomes "anywhere":
    /// it is spread evenly, so that all other densities stay as they are. Samples between cells do not
    /// keep the sum of a narrow peak, so what lies inside is scaled to what it was.
    ///
    /// # Panics
    /// For a yaw that is no number.
    #[must_use]
    pub fn north_up(&self, right_yaw_rad: f64) -> Self {
        let side = self.side();
        let (sine, cosine) = right_yaw_rad.sin_cos();
        let half = side as f64 / 2.0;
        let values = self.probabilities();
        let at = |column: f64, row: f64| {
            let inside = |index: f64| (0.0..side as f64).contains(&index);
            if inside(column) && inside(row) {
                f64::from(values[row as usize * side + column as usize])
            } else {
                0.0
            }
        };
        let mut turned = Vec::with_capacity(side * side);
        for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
            let (east, north) = (column as f64 + 0.5 - half, half - row as f64 - 0.5);
            let x = half + cosine * east + sine * north - 0.5;
            let y = half - (cosine * north - sine * east) - 0.5;
            let (left, top) = (x.floor(), y.floor());
            let (right_share, low_share) = (x - left, y - top);
            let upper = at(left, top) * (1.0 - right_share) + at(left + 1.0, top) * right_share;
            let lower =
                at(left, top + 1.0) * (1.0 - right_share) + at(left + 1.0, top + 1.0) * right_share;
            turned.push(upper * (1.0 - low_share) + lower * low_share);
        }
        let stays = |x: f64, y: f64| {
            let (east, north) = (cosine * x - sine * y, sine * x + cosine * y);
            east.abs() <= half && north.abs() <= half
        };
        let kept: f64 = (0..side)
            .flat_map(|row| (0..side).map(move |column| (row, column)))
            .filter(|(row, column)| stays(*column as f64 + 0.5 - half, half - *row as f64 - 0.5))
            .map(|(row, column)| f64::from(values[row * side + column]))
            .sum();
        let sum: f64 = turned.iter().sum();
        let scale = (kept / sum.max(f64::MIN_POSITIVE)).min(MOST_SCALED);
        let anywhere = (1.0 - scale * sum).max(0.0) / turned.len() as f64;
        let turned = turned
            .into_iter()
            .map(|value| (value * scale + anywhere) as f32);
        Self::new(side, self.metres_per_cell(), turned.collect())
            .expect("as many probabilities as before, which sum to 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_offset(offset_m: [f64; 2]) -> Heatmap {
        Heatmap::gaussian(49, 1.0, offset_m, 2.0).unwrap()
    }

    #[test]
    fn what_lies_ahead_of_a_vehicle_lies_along_its_yaw() {
        // 10 m ahead and 5 m to the left of the patch's middle.
        for yaw_rad in [0.0f64, 0.7, 2.0, -1.3] {
            let found = at_offset([10.0, 5.0]).north_up(yaw_rad);
            let (sine, cosine) = yaw_rad.sin_cos();
            let expected = [10.0 * cosine - 5.0 * sine, 10.0 * sine + 5.0 * cosine];
            let [east, north] = found.mean_m();
            let off = (east - expected[0]).hypot(north - expected[1]);
            assert!(off < 0.1, "{yaw_rad}: {east} {north} {expected:?}");
            let sigma_m = found.covariance_m2([east, north])[0][0].sqrt();
            assert!((1.9..2.3).contains(&sigma_m), "{yaw_rad}: {sigma_m}");
        }
        assert_eq!(at_offset([3.0, 4.0]).north_up(0.0), at_offset([3.0, 4.0]));
    }

    #[test]
    fn a_peak_of_one_cell_keeps_its_probability_within_a_twentieth() {
        for step in 0..40 {
            let yaw_rad = 0.1 * f64::from(step);
            let mut values = vec![0.2 / (49.0 * 49.0 - 1.0); 49 * 49];
            values[20 * 49 + 30] = 0.8;
            let found = Heatmap::new(49, 1.0, values).unwrap().north_up(yaw_rad);
            let peak: f32 = found.probabilities().iter().filter(|p| **p > 0.01).sum();
            // Scaling is for the whole; samples of the peak alone would sum to 0.70 to 0.99.
            assert!((0.76..0.84).contains(&peak), "{yaw_rad}: {peak}");
        }
    }

    #[test]
    fn a_corner_that_is_turned_out_of_the_square_says_nothing_of_where() {
        let found = at_offset([24.0, 24.0]).north_up(std::f64::consts::FRAC_PI_4);
        let even = 1.0 / (49.0 * 49.0);
        let [least, most] = found
            .probabilities()
            .iter()
            .fold([1.0f32, 0.0], |[least, most], p| {
                [least.min(*p), most.max(*p)]
            });
        assert!(
            f64::from(least) > 0.9 * even && f64::from(most) < 1.2 * even,
            "{least} {most}"
        );
    }
}
