//! The evidence of camera and aerial images: a grid belief over the offset between the
//! dead-reckoned track and the ground.
//!
//! The belief starts uniform, so it holds heatmaps and odometry only; GNSS decides where its
//! window lies and nothing else. Driving on merely blurs it, and a late heatmap needs no more than
//! the track at its own time.

use crossfix_calibration::belief::{BeliefEstimate, GridBelief};
use crossfix_calibration::{Error, Heatmap};
use nalgebra::Matrix2;

use super::config::FusionConfig;
use super::jump::Place;
use super::largest_sigma;

/// Blur is worth applying from this share of a cell on.
const BLUR_CELLS: f64 = 0.3;

/// A visual belief wider than this says nothing any more, metres.
pub(crate) const GIVEN_UP_SIGMA_M: f64 = 15.0;

/// The visual belief and when it was last fed.
#[derive(Debug, Clone)]
pub(crate) struct VisualBelief {
    grid: GridBelief,
    /// Track variance that the grid already contains.
    blurred_m2: f64,
    /// Heatmaps taken in since the start.
    pub(crate) updates: u64,
}

impl VisualBelief {
    /// Uniform within a window around `offset_m`.
    pub(crate) fn new(
        offset_m: [f64; 2],
        track_variance_m2: f64,
        config: &FusionConfig,
    ) -> Result<Self, Error> {
        Ok(Self {
            grid: GridBelief::new(offset_m, config.window_cells, config.metres_per_cell)?,
            blurred_m2: track_variance_m2,
            updates: 0,
        })
    }

    /// Takes in a heatmap whose patch centre, minus the track at the frame's time, is `centre_m`.
    pub(crate) fn update(
        &mut self,
        heatmap: &Heatmap,
        centre_m: [f64; 2],
        track_variance_m2: f64,
        config: &FusionConfig,
    ) -> Result<(), Error> {
        self.blur(track_variance_m2, config)?;
        self.grid.mix_uniform(config.visual_forgetting)?;
        self.grid.update_heatmap(
            heatmap,
            centre_m,
            config.visual_exponent,
            config.outlier_share(),
        )?;
        self.updates += 1;
        Ok(())
    }

    /// Whether a window holds a vehicle that is known as badly as this.
    pub(crate) fn can_hold(covariance_m2: &Matrix2<f64>, config: &FusionConfig) -> bool {
        largest_sigma(covariance_m2) <= side_m(config) / 3.0
    }

    /// Whether it says nothing any more about a vehicle that is, without it, at `known`: dead reckoning
    /// since may have led out of the window, or the belief is wide and the vehicle outside of it. A receiver
    /// that is heard keeps the window around the vehicle.
    pub(crate) fn is_outlived(
        &self,
        known: &Place,
        gnss_is_fresh: bool,
        track_variance_m2: f64,
        config: &FusionConfig,
    ) -> bool {
        let behind_m2 = (track_variance_m2 - self.blurred_m2).max(0.0);
        let centre = self.grid.centre();
        let away_m = (known.offset_m[0] - centre[0])
            .abs()
            .max((known.offset_m[1] - centre[1]).abs());
        let is_out = away_m > side_m(config) / 4.0
            || !gnss_is_fresh && !Self::can_hold(&known.covariance_m2, config);
        behind_m2.sqrt() > side_m(config) / 8.0
            || is_out
                && largest_sigma(&self.place(track_variance_m2).covariance_m2) > GIVEN_UP_SIGMA_M
    }

    /// Keeps the window around `offset_m`, where the fused position is.
    pub(crate) fn follow(
        &mut self,
        offset_m: [f64; 2],
        config: &FusionConfig,
    ) -> Result<(), Error> {
        let centre = self.grid.centre();
        let away = (offset_m[0] - centre[0])
            .abs()
            .max((offset_m[1] - centre[1]).abs());
        if away < side_m(config) / 6.0 {
            return Ok(());
        }
        if self.grid.recentre(offset_m).is_err() {
            *self = Self::new(offset_m, self.blurred_m2, config)?;
        }
        Ok(())
    }

    /// Mean and covariance, widened to this track variance.
    pub(crate) fn place(&self, track_variance_m2: f64) -> Place {
        let (mean_m, [[ee, en], [ne, nn]]) = self.grid.moments();
        let behind_m2 = (track_variance_m2 - self.blurred_m2).max(0.0);
        Place {
            offset_m: mean_m,
            covariance_m2: Matrix2::new(ee + behind_m2, en, ne, nn + behind_m2),
        }
    }

    /// The visual belief alone, and the variance it has yet to be blurred by.
    pub(crate) fn estimate(&self, track_variance_m2: f64) -> (BeliefEstimate, f64) {
        (
            self.grid.estimate(),
            (track_variance_m2 - self.blurred_m2).max(0.0),
        )
    }

    /// The visual belief times the filtered GNSS position, and the variance yet to be blurred by.
    pub(crate) fn with_gnss(
        &mut self,
        offset_m: [f64; 2],
        covariance_m2: Matrix2<f64>,
        track_variance_m2: f64,
        config: &FusionConfig,
    ) -> Result<(BeliefEstimate, f64), Error> {
        self.blur(track_variance_m2, config)?;
        let mut product = self.grid.clone();
        let [[ee, ne], [en, nn]] = covariance_m2.data.0;
        let middle = 0.5 * (en + ne);
        product.update_gaussian(
            offset_m,
            [[ee, middle], [middle, nn]],
            config.gnss_outlier_share,
        )?;
        Ok((
            product.estimate(),
            (track_variance_m2 - self.blurred_m2).max(0.0),
        ))
    }

    /// Blurs by the variance gathered since, once it matters.
    fn blur(&mut self, track_variance_m2: f64, config: &FusionConfig) -> Result<(), Error> {
        let sigma_m = (track_variance_m2 - self.blurred_m2).max(0.0).sqrt();
        if sigma_m >= BLUR_CELLS * config.metres_per_cell {
            // The window is far wider than any such step, so what leaves it is what spreading returns.
            self.grid.predict([0.0, 0.0], sigma_m)?;
            self.blurred_m2 = track_variance_m2;
        }
        Ok(())
    }
}

/// Side of the window, metres.
fn side_m(config: &FusionConfig) -> f64 {
    config.metres_per_cell * config.window_cells as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heatmap(offset_m: [f64; 2]) -> Heatmap {
        Heatmap::gaussian(64, 1.0, offset_m, 1.5).unwrap()
    }

    fn fed(count: usize, at: [f64; 2]) -> VisualBelief {
        let config = FusionConfig::default();
        let mut belief = VisualBelief::new([0.0, 0.0], 0.0, &config).unwrap();
        for _ in 0..count {
            belief
                .update(&heatmap(at), [0.0, 0.0], 0.0, &config)
                .unwrap();
        }
        belief
    }

    #[test]
    fn heatmaps_sharpen_the_belief_around_their_place() {
        let (estimate, _) = fed(4, [6.0, -3.0]).estimate(0.0);
        assert!((estimate.mean_m[0] - 6.0).abs() < 0.3, "{estimate:?}");
        assert!((estimate.mean_m[1] + 3.0).abs() < 0.3, "{estimate:?}");
        assert_eq!(estimate.mode_count, 1);
    }

    #[test]
    fn a_wrong_belief_is_overturned_as_fast_as_it_was_built() {
        let config = FusionConfig::default();
        let mut belief = fed(30, [20.0, 0.0]);
        for _ in 0..6 {
            belief
                .update(&heatmap([-10.0, 0.0]), [0.0, 0.0], 0.0, &config)
                .unwrap();
        }
        let (estimate, _) = belief.estimate(0.0);
        assert!((estimate.mode_m[0] + 10.0).abs() < 0.5, "{estimate:?}");
    }

    #[test]
    fn gnss_chooses_between_two_places_that_look_alike_and_leaves_no_trace() {
        let config = FusionConfig::default();
        let mut belief = VisualBelief::new([0.0, 0.0], 0.0, &config).unwrap();
        let mut both: Vec<f32> = heatmap([-12.0, 0.0]).probabilities().to_vec();
        for (sum, other) in both.iter_mut().zip(heatmap([12.0, 0.0]).probabilities()) {
            *sum = (*sum + other) / 2.0;
        }
        let both = Heatmap::new(64, 1.0, both).unwrap();
        for _ in 0..4 {
            belief.update(&both, [0.0, 0.0], 0.0, &config).unwrap();
        }
        let before = belief.estimate(0.0).0;
        assert_eq!(before.mode_count, 2);
        let covariance = Matrix2::identity() * 25.0;
        let (fused, _) = belief
            .with_gnss([9.0, 0.0], covariance, 0.0, &config)
            .unwrap();
        assert!((fused.mode_m[0] - 12.0).abs() < 0.5, "{fused:?}");
        assert_eq!(belief.estimate(0.0).0, before);
    }

    #[test]
    fn a_belief_is_outlived_when_the_vehicle_may_have_left_its_window() {
        let config = FusionConfig::default();
        let belief = fed(5, [0.0, 0.0]);
        let known = |east_m: f64, sigma_m: f64| Place {
            offset_m: [east_m, 0.0],
            covariance_m2: Matrix2::identity() * sigma_m.powi(2),
        };
        assert!(!belief.is_outlived(&known(0.0, 5.0), false, 4.0, &config));
        // A sharp belief stands against a receiver that is elsewhere, or anywhere.
        assert!(!belief.is_outlived(&known(60.0, 5.0), true, 4.0, &config));
        assert!(!belief.is_outlived(&known(0.0, 60.0), false, 4.0, &config));
        // Blind driving since: 20 m, 1-sigma, in a window of 96 m.
        assert!(belief.is_outlived(&known(0.0, 5.0), true, 400.0, &config));
        // One that says nothing does not hold the vehicle in its window.
        let flat = VisualBelief::new([0.0, 0.0], 0.0, &config).unwrap();
        assert!(!flat.is_outlived(&known(10.0, 15.0), false, 4.0, &config));
        assert!(flat.is_outlived(&known(60.0, 15.0), true, 4.0, &config));
        assert!(flat.is_outlived(&known(0.0, 60.0), false, 4.0, &config));
        assert!(!flat.is_outlived(&known(0.0, 60.0), true, 4.0, &config));
    }
}
