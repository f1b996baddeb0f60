//! GGCVT's published metrics: places read from the finest distance map with the published centre,
//! and beside them with the centre that training teaches.
//!
//! The published test programs take index 78 of 155 (VIGOR) or 77.5 (KITTI) for the middle, and
//! training 77, so published errors hold a bias of a cell (half a cell). Published errors along and
//! across the vehicle are turned with the true heading, also where the network finds its own.
//!
//! Source: Boosting 3-DoF Ground-to-Satellite Camera Localization Accuracy via Geometry-Guided
//! Cross-View Transformer (Shi et al. 2023), evaluation.

use super::published::{ErrorSummary, Outcome, VehicleErrors};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;

/// Errors with one choice of the middle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PlaceErrors {
    /// Index of the map that means no offset.
    pub centre: f64,
    /// Metres between place and camera.
    pub position_m: ErrorSummary,
    /// Along and across the vehicle, where the true angle is its heading.
    pub vehicle: Option<VehicleErrors>,
}

/// The published tables' figures of one network on one list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GgcvtSummary {
    /// With the published centre, and labels as the published loader rounds them.
    pub published: PlaceErrors,
    /// With the centre that training teaches, labels not rounded.
    pub unbiased: PlaceErrors,
    /// Of the heading, where the network finds it.
    pub orientation_deg: Option<ErrorSummary>,
}

/// Columns to the right and rows down, in metres, from the camera to the place that is read with
/// the map's middle at index `centre`.
fn displacement_m(outcome: &Outcome, side: usize, centre: f64, camera: [f64; 2]) -> [f64; 2] {
    [0, 1].map(|axis| {
        let place = outcome.peak[axis] as f64 - centre;
        (place - (camera[axis] - side as f64 / 2.0)) * outcome.example.metres_per_cell
    })
}

/// Along and across a vehicle that heads `heading_rad` clockwise from the image's top, on a map
/// whose right is the unturned view.
fn along_and_across([right, down]: [f64; 2], heading_rad: f64) -> [f64; 2] {
    let (sin, cos) = (FRAC_PI_2 - heading_rad).sin_cos();
    let (u, v) = (right, -down);
    [(u * cos + v * sin).abs(), (v * cos - u * sin).abs()]
}

impl PlaceErrors {
    fn of(
        outcomes: &[Outcome],
        side: usize,
        centre: f64,
        vehicle_frame: bool,
        camera: impl Fn(&Outcome) -> [f64; 2],
    ) -> Self {
        let displacements: Vec<[f64; 2]> = outcomes
            .iter()
            .map(|outcome| displacement_m(outcome, side, centre, camera(outcome)))
            .collect();
        let distances = displacements.iter().map(|[right, down]| right.hypot(*down));
        let vehicle = || {
            let turned = displacements.iter().zip(outcomes);
            let turned = turned.map(|(displacement, outcome)| {
                along_and_across(*displacement, outcome.example.target.residual_rad)
            });
            VehicleErrors::of(turned.collect())
        };
        Self {
            centre,
            position_m: ErrorSummary::of(distances.collect()),
            vehicle: vehicle_frame.then(vehicle),
        }
    }
}

impl GgcvtSummary {
    /// Of these outcomes on maps with `side` cells, with the middle that the published test program
    /// takes; `vehicle_frame`: the true angle is the vehicle's heading.
    pub fn of(
        outcomes: &[Outcome],
        side: usize,
        published_centre: f64,
        vehicle_frame: bool,
    ) -> Self {
        let trained_centre = (side as f64 - 1.0) / 2.0;
        let rounded =
            |outcome: &Outcome| [outcome.example.target.column, outcome.example.target.row];
        let angles: Vec<f64> = outcomes
            .iter()
            .filter_map(Outcome::exact_orientation_deg)
            .collect();
        Self {
            published: PlaceErrors::of(outcomes, side, published_centre, vehicle_frame, rounded),
            unbiased: PlaceErrors::of(outcomes, side, trained_centre, vehicle_frame, |outcome| {
                outcome.example.camera_cell
            }),
            orientation_deg: (!angles.is_empty()).then(|| ErrorSummary::of(angles)),
        }
    }

    /// The table that people read.
    pub fn table(&self) -> String {
        let mut rows = Vec::new();
        for (name, errors) in [("published", &self.published), ("unbiased", &self.unbiased)] {
            let name = |what: &str| format!("{what}, {name} centre {}, m", errors.centre);
            rows.push((name("position"), errors.position_m));
            if let Some(vehicle) = &errors.vehicle {
                rows.push((name("longitudinal"), vehicle.longitudinal_m));
                rows.push((name("lateral"), vehicle.lateral_m));
            }
        }
        if let Some(errors) = self.orientation_deg {
            rows.push(("orientation, °".into(), errors));
        }
        let mut text = format!(
            "{:<39} {:>6} {:>8} {:>8} {:>6} {:>6} {:>6}\n",
            "", "count", "mean", "median", "<1", "<3", "<5"
        );
        for (name, s) in rows {
            let [one, three, five] = s.recall_1_3_5.map(|share| share * 100.0);
            text += &format!(
                "{name:<39} {:>6} {:>8.3} {:>8.3} {one:>5.1}% {three:>5.1}% {five:>5.1}%\n",
                s.count, s.mean, s.median
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Example;
    use crate::model::GroundProjection;
    use crate::model::loss::PoseTarget;
    use crossfix_kernels::ops::Augment;

    /// A camera `[right, down]` pixels from the image's centre, heading clockwise from its top.
    fn outcome(peak: [usize; 2], offset_px: [f64; 2], heading_deg: f64) -> Outcome {
        let camera = offset_px.map(|px| 77.5 + px / 2.0);
        Outcome {
            peak,
            direction: None,
            probability_at_truth: 0.0,
            example: Example {
                target: PoseTarget {
                    column: camera[0],
                    row: camera[1],
                    residual_rad: f64::to_radians(heading_deg),
                    weight: 1.0,
                    map: None,
                },
                left_bin: 0,
                metres_per_cell: 0.4,
                projection: GroundProjection::Panorama {
                    metres_per_pixel: 0.2,
                    turn_rad: 0.0,
                },
                camera_cell: camera,
                augment: [Augment::default(); 2],
            },
        }
    }

    #[test]
    fn the_published_centres_are_a_cell_and_half_a_cell_off() {
        // Trained to answer index 77 + 10 for a camera 20 pixels to the right.
        let exact = [outcome([87, 77], [20.0, 0.0], 0.0)];
        let vigor = GgcvtSummary::of(&exact, 155, 78.0, false);
        assert!(vigor.unbiased.position_m.mean < 1e-12);
        assert!((vigor.published.position_m.mean - 0.4 * 2f64.sqrt()).abs() < 1e-12);
        let kitti = GgcvtSummary::of(&exact, 155, 77.5, true);
        assert!((kitti.published.position_m.mean - 0.2 * 2f64.sqrt()).abs() < 1e-12);
        assert!(vigor.published.vehicle.is_none() && kitti.published.vehicle.is_some());
        assert!(kitti.table().contains("lateral, unbiased centre 77, m"));
    }

    #[test]
    fn an_error_ahead_of_the_vehicle_is_longitudinal_whatever_its_heading() {
        // Ten cells (4 m) ahead: to the right, up, and half way between.
        for (peak, heading_deg) in [([87, 77], 90.0), ([77, 67], 0.0)] {
            let summary =
                GgcvtSummary::of(&[outcome(peak, [0.0; 2], heading_deg)], 155, 77.5, true);
            let vehicle = summary.unbiased.vehicle.unwrap();
            assert!((vehicle.longitudinal_m.mean - 4.0).abs() < 1e-9);
            assert!(vehicle.lateral_m.mean < 1e-9);
        }
        let beside = GgcvtSummary::of(&[outcome([87, 87], [0.0; 2], 45.0)], 155, 77.5, true);
        let vehicle = beside.unbiased.vehicle.unwrap();
        assert!((vehicle.lateral_m.mean - 32f64.sqrt()).abs() < 1e-9);
        assert!(vehicle.longitudinal_m.mean < 1e-9);
    }

    /// The published test program, written out: (u, v) turned with the true heading against 20 m
    /// times the shifts of a KITTI sample.
    #[test]
    fn errors_along_and_across_are_those_of_the_published_program() {
        let (gu, gv, h) = (0.31, -0.72, 7.3f64.to_radians());
        let (x, y) = (-20.0 * gu, -20.0 * gv);
        let right = (y * h.sin() - x * h.cos()) / 0.2;
        let down = (x * h.sin() + y * h.cos()) / 0.2;
        let peak = [95, 70];
        let found = outcome(peak, [right, down], 90.0 - 7.3);
        let (u, v) = ((95.0 - 77.5) * 0.4, -(70.0 - 77.5) * 0.4);
        let lon = (u * h.cos() + v * h.sin() - 20.0 * gu).abs();
        let lat = (-u * h.sin() + v * h.cos() - 20.0 * gv).abs();
        let summary = GgcvtSummary::of(&[found], 155, 77.5, true);
        let vehicle = summary.published.vehicle.unwrap();
        assert!((vehicle.longitudinal_m.mean - lon).abs() < 1e-9);
        assert!((vehicle.lateral_m.mean - lat).abs() < 1e-9);
    }
}
