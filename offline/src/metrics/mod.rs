//! Position errors along and across the road, yaw errors, and their summaries.

pub mod ggcvt;
pub mod published;

use serde::{Deserialize, Serialize};

/// How wrong one estimate was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionError {
    /// Estimate minus truth, metres east and north.
    pub east_north_m: [f64; 2],
    /// The true yaw: what along and across mean.
    pub yaw_rad: f64,
}

impl PositionError {
    /// From an estimate and the truth, both in metres east and north.
    pub fn new(estimate_m: [f64; 2], truth_m: [f64; 2], yaw_rad: f64) -> Self {
        Self {
            east_north_m: [estimate_m[0] - truth_m[0], estimate_m[1] - truth_m[1]],
            yaw_rad,
        }
    }

    /// Length of the error.
    pub fn distance_m(&self) -> f64 {
        self.east_north_m[0].hypot(self.east_north_m[1])
    }

    /// Forward part in the vehicle's frame.
    pub fn along_m(&self) -> f64 {
        self.east_north_m[0] * self.yaw_rad.cos() + self.east_north_m[1] * self.yaw_rad.sin()
    }

    /// Left part in the vehicle's frame.
    pub fn across_m(&self) -> f64 {
        self.east_north_m[1] * self.yaw_rad.cos() - self.east_north_m[0] * self.yaw_rad.sin()
    }
}

/// Position errors of many estimates, in metres.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Estimates.
    pub count: usize,
    /// Mean distance.
    pub mean_m: f64,
    /// Median distance.
    pub median_m: f64,
    /// 90th percentile of the distance.
    pub p90_m: f64,
    /// Largest distance.
    pub max_m: f64,
    /// Mean absolute error along the road (the vehicle's forward axis).
    pub along_mean_m: f64,
    /// Median absolute error along the road.
    pub along_median_m: f64,
    /// Mean absolute error across the road.
    pub across_mean_m: f64,
    /// Median absolute error across the road.
    pub across_median_m: f64,
    /// Share of distances below 1 m.
    pub recall_1m: f64,
    /// Share of distances below 3 m.
    pub recall_3m: f64,
    /// Share of distances below 5 m.
    pub recall_5m: f64,
}

impl Summary {
    /// Of these errors; zeros when there are none.
    pub fn of(errors: &[PositionError]) -> Self {
        let sorted = |value: &dyn Fn(&PositionError) -> f64| {
            let mut values: Vec<f64> = errors.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let distance = sorted(&PositionError::distance_m);
        let along = sorted(&|error| error.along_m().abs());
        let across = sorted(&|error| error.across_m().abs());
        let recall = |below: f64| {
            distance.iter().filter(|d| **d < below).count() as f64 / distance.len().max(1) as f64
        };
        Self {
            count: errors.len(),
            mean_m: mean(&distance),
            median_m: quantile(&distance, 0.5),
            p90_m: quantile(&distance, 0.9),
            max_m: distance.last().copied().unwrap_or(0.0),
            along_mean_m: mean(&along),
            along_median_m: quantile(&along, 0.5),
            across_mean_m: mean(&across),
            across_median_m: quantile(&across, 0.5),
            recall_1m: recall(1.0),
            recall_3m: recall(3.0),
            recall_5m: recall(5.0),
        }
    }
}

/// Absolute yaw errors, degrees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct YawSummary {
    /// Mean of the network's.
    pub mean_deg: f64,
    /// Median of the network's.
    pub median_deg: f64,
    /// Mean of the heading that came in.
    pub given_mean_deg: f64,
}

impl YawSummary {
    /// From errors in radians: the network's, and those of the heading it was given.
    pub fn of(errors_rad: &[f64], given_rad: &[f64]) -> Self {
        let sorted = |errors: &[f64]| {
            let mut values: Vec<f64> = errors
                .iter()
                .map(|error| error.to_degrees().abs())
                .collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let errors = sorted(errors_rad);
        Self {
            mean_deg: mean(&errors),
            median_deg: quantile(&errors, 0.5),
            given_mean_deg: mean(&sorted(given_rad)),
        }
    }
}

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Quantile of sorted values, between neighbours linearly; 0 of nothing.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::FRAC_PI_2;

    #[test]
    fn an_error_ahead_of_a_vehicle_heading_north_is_along_the_road() {
        let error = PositionError::new([1.0, 7.0], [1.0, 4.0], FRAC_PI_2);
        assert!((error.along_m() - 3.0).abs() < 1e-12);
        assert!(error.across_m().abs() < 1e-12);
    }

    #[test]
    fn an_error_west_of_a_vehicle_heading_north_is_to_its_left() {
        let error = PositionError::new([-2.0, 0.0], [0.0, 0.0], FRAC_PI_2);
        assert!((error.across_m() - 2.0).abs() < 1e-12);
        assert!(error.along_m().abs() < 1e-12);
    }

    #[test]
    fn along_and_across_make_up_the_distance_for_any_heading() {
        for step in 0..16 {
            let error = PositionError::new([3.0, -4.0], [0.0, 0.0], f64::from(step) * 0.4);
            let sum = error.along_m().powi(2) + error.across_m().powi(2);
            assert!((sum - 25.0).abs() < 1e-9);
        }
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert!((quantile(&[1.0, 2.0, 4.0], 0.5) - 2.0).abs() < 1e-12);
        assert!((quantile(&[1.0, 2.0], 0.9) - 1.9).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
