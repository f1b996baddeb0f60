//! The metrics of the published tables, exactly as published, and the geometrically right ones beside them.
//!
//! Published: positions are peaks of maps, in whole pixels; angles go through an arc cosine, and
//! samples whose cosine was rounded beyond 1 are skipped; KITTI's longitudinal and lateral errors
//! fold the displacement into one quadrant before they take its angle to the heading, which is the
//! true decomposition only where displacement and heading lie in matching quadrants.
//!
//! Source: Convolutional Cross-View Pose Estimation (Xia, Booij, Kooij 2023), evaluation.

use super::{mean, quantile};
use crate::data::Example;
use crossfix_calibration::Yaw;
use serde::{Deserialize, Serialize};

/// Metres and degrees below which recall is counted.
pub const RECALL_BELOW: [f64; 3] = [1.0, 3.0, 5.0];

/// What a network said about one sample, and what was true.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Heatmap cell (column, row) of the network's peak.
    pub peak: [usize; 2],
    /// Cosine and sine of the predicted orientation there, if the network has one.
    pub direction: Option<[f32; 2]>,
    /// Probability that the network gives the true cell.
    pub probability_at_truth: f64,
    /// What was true.
    pub example: Example,
}

impl Outcome {
    /// Heatmap cell (column, row) in which the published ground truth peaks: the nearest to the
    /// label, the first of two that are as near.
    pub fn true_peak(example: &Example, side: usize) -> [usize; 2] {
        let most = side.saturating_sub(1) as f64;
        [example.target.column, example.target.row]
            .map(|cell| (cell - 1.0).ceil().clamp(0.0, most) as usize)
    }

    /// Columns to the right and rows down from the true peak to the network's.
    fn displacement(&self, side: usize) -> [f64; 2] {
        let truth = Self::true_peak(&self.example, side);
        [0, 1].map(|axis| self.peak[axis] as f64 - truth[axis] as f64)
    }

    /// Metres between the peaks, as published.
    pub fn position_m(&self, side: usize) -> f64 {
        let [right, down] = self.displacement(side);
        right.hypot(down) * self.example.metres_per_cell
    }

    /// Metres between the centre of the network's peak cell and the camera, labels not rounded.
    pub fn exact_position_m(&self) -> f64 {
        let [right, down] =
            [0, 1].map(|axis| self.peak[axis] as f64 + 0.5 - self.example.camera_cell[axis]);
        right.hypot(down) * self.example.metres_per_cell
    }

    /// Longitudinal and lateral error in metres as the published code computes them: the angle of
    /// the displacement is taken between the absolute values of its columns and rows.
    pub fn folded_m(&self, side: usize) -> [f64; 2] {
        let [right, down] = self.displacement(side);
        let folded = right.abs().atan2(down.abs());
        let angle = (self.example.target.residual_rad - folded).abs();
        let distance = self.position_m(side);
        [
            (angle.cos() * distance).abs(),
            (angle.sin() * distance).abs(),
        ]
    }

    /// Longitudinal and lateral error in metres in the vehicle's frame: the displacement along its
    /// heading (clockwise from the image's top) and across it.
    pub fn vehicle_frame_m(&self, side: usize) -> [f64; 2] {
        let [right, down] = self.displacement(side);
        let (sin, cos) = self.example.target.residual_rad.sin_cos();
        let (east, north) = (right, -down);
        let metres = self.example.metres_per_cell;
        [
            (east * sin + north * cos).abs() * metres,
            (east * cos - north * sin).abs() * metres,
        ]
    }

    /// Degrees between the angles as published; `None` where the published code skips the sample.
    pub fn orientation_deg(&self) -> Option<f64> {
        let truth = self.example.target.residual_rad;
        let truth = published_angle_deg([truth.cos() as f32, truth.sin() as f32])?;
        let said = published_angle_deg(self.direction?)?;
        let error = (said - truth).abs();
        Some(error.min(360.0 - error))
    }

    /// Degrees between the angles; no sample is skipped.
    pub fn exact_orientation_deg(&self) -> Option<f64> {
        let [cos, sin] = self.direction?.map(f64::from);
        let error = sin.atan2(cos) - self.example.target.residual_rad;
        Some(Yaw::new(error).radians().abs().to_degrees())
    }
}

fn published_angle_deg([cos, sin]: [f32; 2]) -> Option<f64> {
    if cos.abs() > 1.0 || sin.abs() > 1.0 {
        return None;
    }
    let angle = f64::from(cos).acos().to_degrees();
    Some(if sin < 0.0 { -angle } else { angle }.rem_euclid(360.0))
}

/// Errors of many samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorSummary {
    /// Samples.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Share below 1, 3 and 5 (metres or degrees).
    pub recall_1_3_5: [f64; 3],
}

impl ErrorSummary {
    /// Of these errors; zeros when there are none.
    pub fn of(mut errors: Vec<f64>) -> Self {
        errors.sort_by(f64::total_cmp);
        let share = |below: f64| {
            errors.iter().filter(|error| **error < below).count() as f64
                / errors.len().max(1) as f64
        };
        Self {
            count: errors.len(),
            mean: mean(&errors),
            median: quantile(&errors, 0.5),
            recall_1_3_5: RECALL_BELOW.map(share),
        }
    }
}

/// Errors along and across the vehicle's heading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct VehicleErrors {
    /// Along.
    pub longitudinal_m: ErrorSummary,
    /// Across.
    pub lateral_m: ErrorSummary,
}

impl VehicleErrors {
    /// Of these pairs of errors, along and across.
    pub fn of(errors: Vec<[f64; 2]>) -> Self {
        let axis = |axis: usize| ErrorSummary::of(errors.iter().map(|error| error[axis]).collect());
        Self {
            longitudinal_m: axis(0),
            lateral_m: axis(1),
        }
    }
}

/// The published tables' figures of one network on one list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PublishedSummary {
    /// Between the peaks of the maps, as published.
    pub position_m: ErrorSummary,
    /// From the peak cell's centre to the camera, labels not rounded.
    pub exact_position_m: ErrorSummary,
    /// Mean and median probability of the true cell.
    pub probability_at_truth: [f64; 2],
    /// As published.
    pub orientation_deg: Option<ErrorSummary>,
    /// Samples that the published rule skips.
    pub orientation_skipped: usize,
    /// All samples.
    pub exact_orientation_deg: Option<ErrorSummary>,
    /// As published (folded into one quadrant), where the heading is the vehicle's.
    pub folded: Option<VehicleErrors>,
    /// In the vehicle's frame, where the heading is the vehicle's.
    pub vehicle_frame: Option<VehicleErrors>,
}

impl PublishedSummary {
    /// Of these outcomes on heatmaps with `side` cells; `vehicle_frame`: the true angle is
    /// the vehicle's heading, clockwise from the image's top.
    pub fn of(outcomes: &[Outcome], side: usize, vehicle_frame: bool) -> Self {
        let all = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<_>>();
        let some = |value: &dyn Fn(&Outcome) -> Option<f64>| -> Vec<f64> {
            outcomes.iter().filter_map(value).collect()
        };
        let pairs = |value: &dyn Fn(&Outcome) -> [f64; 2]| {
            vehicle_frame.then(|| VehicleErrors::of(outcomes.iter().map(value).collect()))
        };
        let angles = outcomes
            .iter()
            .filter(|outcome| outcome.direction.is_some())
            .count();
        let orientation = some(&Outcome::orientation_deg);
        let probability = {
            let mut values = all(&|outcome| outcome.probability_at_truth);
            values.sort_by(f64::total_cmp);
            [mean(&values), quantile(&values, 0.5)]
        };
        Self {
            position_m: ErrorSummary::of(all(&|outcome| outcome.position_m(side))),
            exact_position_m: ErrorSummary::of(all(&Outcome::exact_position_m)),
            probability_at_truth: probability,
            orientation_skipped: angles - orientation.len(),
            orientation_deg: (angles > 0).then(|| ErrorSummary::of(orientation)),
            exact_orientation_deg: (angles > 0)
                .then(|| ErrorSummary::of(some(&Outcome::exact_orientation_deg))),
            folded: pairs(&|outcome| outcome.folded_m(side)),
            vehicle_frame: pairs(&|outcome| outcome.vehicle_frame_m(side)),
        }
    }

    /// The table that people read.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ("position, as published, m", &self.position_m),
            ("position, labels not rounded, m", &self.exact_position_m),
        ];
        for (errors, names) in [
            (
                &self.folded,
                ["longitudinal, as published, m", "lateral, as published, m"],
            ),
            (
                &self.vehicle_frame,
                [
                    "longitudinal, vehicle frame, m",
                    "lateral, vehicle frame, m",
                ],
            ),
        ] {
            if let Some(errors) = errors {
                rows.push((names[0], &errors.longitudinal_m));
                rows.push((names[1], &errors.lateral_m));
            }
        }
        if let Some(errors) = &self.orientation_deg {
            rows.push(("orientation, as published, °", errors));
        }
        if let Some(errors) = &self.exact_orientation_deg {
            rows.push(("orientation, nothing skipped, °", errors));
        }
        let mut text = format!(
            "{:<33} {:>6} {:>8} {:>8} {:>6} {:>6} {:>6}\n",
            "", "count", "mean", "median", "<1", "<3", "<5"
        );
        for (name, s) in rows {
            let [one, three, five] = s.recall_1_3_5.map(|share| share * 100.0);
            text += &format!(
                "{name:<33} {:>6} {:>8.3} {:>8.3} {one:>5.1}% {three:>5.1}% {five:>5.1}%\n",
                s.count, s.mean, s.median
            );
        }
        let [mean, median] = self.probability_at_truth;
        text += &format!("probability of the true cell: mean {mean:.3e}, median {median:.3e}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GroundProjection;
    use crate::model::loss::{PoseTarget, gaussian};
    use crate::predict::arg_max;
    use crossfix_kernels::ops::Augment;
    use std::f64::consts::FRAC_PI_2;

    /// A camera in the centre of cell (100, 100), heading clockwise from the top.
    fn outcome(peak: [usize; 2], heading_rad: f64) -> Outcome {
        Outcome {
            peak,
            direction: Some([heading_rad.cos() as f32, heading_rad.sin() as f32]),
            probability_at_truth: 0.5,
            example: Example {
                target: PoseTarget {
                    column: 100.5,
                    row: 100.5,
                    residual_rad: heading_rad,
                    weight: 1.0,
                    map: None,
                },
                left_bin: 0,
                metres_per_cell: 0.5,
                projection: GroundProjection::Panorama {
                    metres_per_pixel: 0.5,
                    turn_rad: 0.0,
                },
                camera_cell: [100.5, 100.5],
                augment: [Augment::default(); 2],
            },
        }
    }

    fn close(found: [f64; 2], expected: [f64; 2]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn an_error_ahead_of_a_vehicle_is_longitudinal_whatever_its_heading() {
        // Heading up, right, down, left; the peak 8 cells (4 m) ahead.
        let ahead = [[100, 92], [108, 100], [100, 108], [92, 100]];
        for (quarter, peak) in ahead.into_iter().enumerate() {
            let outcome = outcome(peak, quarter as f64 * FRAC_PI_2);
            close(outcome.vehicle_frame_m(512), [4.0, 0.0]);
        }
    }

    #[test]
    fn an_error_beside_a_vehicle_heading_north_east_is_lateral() {
        // North-west of the camera: to the vehicle's left.
        let beside = outcome([94, 94], FRAC_PI_2 / 2.0);
        close(beside.vehicle_frame_m(512), [0.0, 18f64.sqrt()]);
        // The published rule folds it onto the heading and calls it longitudinal.
        close(beside.folded_m(512), [18f64.sqrt(), 0.0]);
    }

    #[test]
    fn both_rules_agree_where_displacement_and_heading_share_the_first_quadrant() {
        let both = outcome([108, 94], 0.3);
        close(both.folded_m(512), both.vehicle_frame_m(512));
    }

    #[test]
    fn longitudinal_and_lateral_make_up_the_distance() {
        for step in 0..40 {
            let outcome = outcome([103, 107], f64::from(step) * 0.17);
            for [along, across] in [outcome.vehicle_frame_m(512), outcome.folded_m(512)] {
                assert!((along.hypot(across) - outcome.position_m(512)).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn recall_counts_errors_strictly_below_1_3_and_5() {
        let summary = ErrorSummary::of(vec![0.5, 1.0, 2.9, 3.0, 4.9, 5.0, 50.0, 0.0]);
        assert_eq!(summary.recall_1_3_5, [0.25, 0.5, 0.75]);
        assert!((summary.median - 2.95).abs() < 1e-12);
    }

    #[test]
    fn the_true_peak_is_the_first_largest_cell_of_the_drawn_map() {
        for (column, row) in [
            (256.0, 256.0),
            (17.2, 490.9),
            (100.49, 100.51),
            (1.0, 511.3),
        ] {
            let mut example = outcome([0, 0], 0.0).example;
            (example.target.column, example.target.row) = (column, row);
            let map = gaussian(512, &example.target, 4.0);
            let first = arg_max(&map, |_| true).unwrap();
            let [column, row] = Outcome::true_peak(&example, 512);
            assert_eq!(row * 512 + column, first);
        }
    }

    #[test]
    fn angles_wrap_and_rounded_cosines_are_skipped_as_published() {
        let mut near = outcome([100, 100], 0.01);
        near.direction = Some([0.01f32.cos(), -(0.01f32.sin())]);
        let expected = 0.02f64.to_degrees();
        assert!((near.orientation_deg().unwrap() - expected).abs() < 1e-2);
        assert!((near.exact_orientation_deg().unwrap() - expected).abs() < 1e-4);
        near.direction = Some([1.000_000_1, 0.0]);
        assert_eq!(near.orientation_deg(), None);
        let summary = PublishedSummary::of(&[near], 512, false);
        assert_eq!(summary.orientation_skipped, 1);
        assert_eq!(summary.exact_orientation_deg.unwrap().count, 1);
    }
}
