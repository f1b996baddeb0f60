//! What to publish: worked out after each measurement, widened with the track until the next.

use crossfix_calibration::belief::BeliefEstimate;
use nalgebra::{Matrix2, Vector2};

use super::direction::ASSUMED_SIGMA_RAD;
use super::filter::{Filter, Published, Started, visual_is_fresh};
use super::jump::{JumpGuard, Place, Verdict};
use super::navigator::Navigator;
use super::state::Inputs;
use super::{geodetic_from_plane, largest_sigma, receiver_radius, seconds};
use crate::event::{Estimate, EstimateKind};

/// Heatmaps scatter about a place that is right by about this much on average, metres.
const USUAL_SHIFT_M: f64 = 0.8;
/// A heatmap's own place errs by less than this, metres.
const NEWEST_ERROR_M: f64 = 2.0;
/// A receiver confirms the speed of the odometry to about this, m/s.
const CONFIRMED_MPS: f64 = 1.0;
/// Way since the last heatmap that agreed on which odometry may lead astray unnoticed, at most, metres.
const UNCONFIRMED_M: f64 = 20.0;

impl Filter {
    /// Where the vehicle is now: `fused` first, then `visual_only` once there was a heatmap. Before
    /// the first fix there is nothing. `missing` is what the caller lacks, as a sentence; `delayed_m` is how
    /// far off heatmaps are because of their stamps, and may be on top of that; `is_confirmed`: a receiver has told the
    /// odometry's speed lately.
    pub(super) fn estimates(
        &self,
        missing: Option<&str>,
        problems: &[String],
        delayed_m: [f64; 2],
        is_confirmed: bool,
    ) -> Vec<Estimate> {
        let Some(started) = &self.started else {
            return Vec::new();
        };
        let mut inputs = self.inputs(started, missing, problems);
        inputs.delayed_m = delayed_m;
        let located = started.heatmaps.agreed.or(started.last_visual);
        if let (Some(_), Some((at_ns, at_m))) = (&started.visual, located) {
            let since_m = (started.navigator.driven_m - at_m).max(0.0);
            let since_s = self.now_ns.saturating_sub(at_ns).max(0) as f64 * 1e-9;
            // Odometry that nobody confirms may go twice as far as the vehicle.
            let astray_m = if is_confirmed {
                CONFIRMED_MPS * since_s
            } else {
                since_m
            };
            inputs.unconfirmed_m = astray_m.min(since_m).min(UNCONFIRMED_M);
        }
        let mut estimates = Vec::new();
        let outputs = [
            (EstimateKind::Fused, Some(started.fused)),
            (EstimateKind::VisualOnly, started.visual_only),
        ];
        for (kind, published) in outputs {
            let Some(published) = published else { continue };
            estimates.extend(self.estimate(started, kind, published, &inputs));
        }
        estimates
    }

    fn estimate(
        &self,
        started: &Started,
        kind: EstimateKind,
        published: Published,
        inputs: &Inputs,
    ) -> Option<Estimate> {
        let (config, navigator) = (&self.config, &started.navigator);
        let offset_m = published.place.offset_m;
        let track_m = navigator.track_m();
        let place = [track_m[0] + offset_m[0], track_m[1] + offset_m[1]];
        let speed_mps = self.motion(self.now_ns).speed_mps * navigator.speed_scale();
        let (sine, cosine) = navigator.yaw().radians().sin_cos();
        let mut extra = Matrix2::identity()
            * ((navigator.track_variance_m2 - published.track_variance_m2).max(0.0)
                + config.position_floor_m.powi(2));
        if started.visual.is_some() {
            extra += Matrix2::identity() * self.georef_sigma_m.powi(2);
        }
        let along = Vector2::new(cosine, sine) * (speed_mps * config.sync_sigma_s);
        extra += along * along.transpose();
        let newest_m = started.heatmaps.newest_off_m(offset_m);
        let reach_m = (started.continuity).reach_m(&published.place, navigator.track_variance_m2);
        let published_m = published
            .radius_m
            .max(inputs.unclear_m + 2.0 * config.position_floor_m)
            .max(newest_m.map_or(0.0, |off_m| off_m + NEWEST_ERROR_M))
            .max(reach_m);
        let is_matched = started.visual.is_some();
        let delayed_m = if is_matched {
            inputs.delayed_m
        } else {
            [0.0; 2]
        };
        // The bound of independent errors, each within its own radius, summed in squares. Stamps that are off are no
        // chance: their error is there each time, so it adds to what the others may be along the way.
        let risk = config.protection_risk;
        let matched_m = (published_m.powi(2) - risk.ln() * extra.trace()).sqrt();
        let radius_m = matched_m
            .hypot(delayed_m[1])
            .max(along_share(risk) * matched_m + delayed_m[1])
            + delayed_m[0]
            + inputs.unconfirmed_m;
        // Half of what was found, as if it were random: consumers that know no radius read the covariance.
        let found = Vector2::new(cosine, sine) * (0.5 * delayed_m[0]);
        let covariance = published.place.covariance_m2 + extra + found * found.transpose();
        let inputs = Inputs {
            newest_is_beside: started.heatmaps.newest_is_beside(offset_m),
            ..inputs.clone()
        };
        let (state, reason) = inputs.judge(
            kind,
            largest_sigma(&covariance),
            radius_m,
            published.mode_count,
            config,
        );
        Some(Estimate {
            time_ns: self.now_ns,
            position: geodetic_from_plane(&started.frame, place, started.height_m.unwrap_or(0.0))?,
            covariance_m2: [
                [covariance[(0, 0)], covariance[(0, 1)]],
                [covariance[(1, 0)], covariance[(1, 1)]],
            ],
            height_m: started.height_m,
            yaw: navigator.yaw(),
            yaw_sigma_rad: self.yaw_sigma_rad(navigator),
            speed_mps,
            mode_count: published.mode_count,
            protection_radius_m: radius_m,
            state,
            reset_count: self.reset_count,
            kind,
            reason,
        })
    }

    /// 1-sigma of the yaw, wide while only the receiver's courses say that the vehicle reverses.
    fn yaw_sigma_rad(&self, navigator: &Navigator) -> f64 {
        let assumed = self.direction.is_reversing() && !self.motion(self.now_ns).lasting_speed;
        let extra_rad = if assumed { ASSUMED_SIGMA_RAD } else { 0.0 };
        navigator.yaw_sigma_rad().hypot(extra_rad)
    }

    fn inputs(&self, started: &Started, missing: Option<&str>, problems: &[String]) -> Inputs {
        let disputed_ns = started.receivers.disputed_since_ns(self.now_ns);
        let agree = started.heatmaps.supports_against(disputed_ns, self.now_ns);
        // Somebody lies, and it may be who the position follows.
        let disputed = !problems.is_empty() && !agree;
        let nearest = started.receivers.nearest().filter(|_| disputed);
        let farthest = started.receivers.farthest(agree, self.now_ns);
        let reach = nearest.into_iter().chain(farthest);
        let unclear_m = reach.fold(0.0f64, |most, [distance_m, sigma_m]| {
            let stated_m2 = Matrix2::identity() * sigma_m.powi(2);
            most.max(distance_m + receiver_radius(&stated_m2, self.config.protection_risk))
        });
        let unanswered = (!agree && disputed_ns.is_some()).then_some("GNSS is far from the track");
        let fresh = |time_ns: i64, timeout_s: f64| {
            self.now_ns.saturating_sub(time_ns) <= seconds(timeout_s)
        };
        Inputs {
            gnss: fresh(started.gnss_ns, self.config.gnss_timeout_s),
            odometry: fresh(self.odometry_ns, self.config.odometry_timeout_s),
            heading: started.navigator.yaw_known(),
            visual: visual_is_fresh(started, self.now_ns, self.odometry_ns, &self.config),
            visual_agrees: started.heatmaps.supports(),
            newest_is_beside: false,
            jumped: started.continuity.is_doubtful(),
            missing: missing.map(str::to_owned),
            problems: problems
                .iter()
                .map(String::as_str)
                .chain(started.receivers.problems())
                .chain(unanswered.filter(|_| started.receivers.problems().next().is_none()))
                .map(str::to_owned)
                .collect(),
            relocated: self.now_ns == self.relocated_ns,
            unclear_m,
            delayed_m: [0.0; 2],
            unconfirmed_m: 0.0,
        }
    }

    /// Works out what to publish, after a measurement.
    pub(super) fn refresh(&mut self) {
        let (config, now_ns) = (&self.config, self.now_ns);
        let Some(started) = &mut self.started else {
            return;
        };
        let navigator = &started.navigator;
        let track_variance_m2 = navigator.track_variance_m2;
        let (offset_m, covariance_m2) = (navigator.offset_m(), navigator.position_covariance_m2());
        let driven_m = navigator.driven_m;
        let gnss_is_fresh =
            now_ns.saturating_sub(started.gnss_ns) <= seconds(config.gnss_timeout_s);
        let alone = Place {
            offset_m,
            covariance_m2,
        };
        // After a long way without heatmaps the belief says nothing that the receiver does not.
        if started
            .last_visual
            .is_some_and(|(_, at_m)| driven_m - at_m > 4.0 * config.visual_timeout_m)
            || started.visual.as_ref().is_some_and(|visual| {
                visual.is_outlived(&alone, gnss_is_fresh, track_variance_m2, config)
            })
        {
            started.forget_visual();
        }
        let risk = config.protection_risk;
        let product = started.visual.as_mut().and_then(|visual| {
            let (product, behind_m2) = visual
                .with_gnss(offset_m, covariance_m2, track_variance_m2, config)
                .ok()?;
            if visual.updates != started.visual_only_updates {
                let (alone, alone_behind_m2) = visual.estimate(track_variance_m2);
                started.visual_only =
                    Some(published(&alone, track_variance_m2 - alone_behind_m2, risk));
                started.visual_only_updates = visual.updates;
            }
            Some(published(&product, track_variance_m2 - behind_m2, risk))
        });
        let mut fused = product.unwrap_or_else(|| Published {
            place: Place {
                offset_m,
                covariance_m2,
            },
            mode_count: 1,
            radius_m: receiver_radius(&covariance_m2, risk),
            track_variance_m2,
        });
        if started.visual.is_some() {
            let (place, verdict) =
                started
                    .guard
                    .propose(fused.place, config.jump_m, config.jump_confirmations);
            match verdict {
                Verdict::Smooth => {}
                Verdict::Held => {
                    let step = Vector2::from(place.offset_m) - Vector2::from(fused.place.offset_m);
                    fused.radius_m += step.norm();
                    fused.mode_count = fused.mode_count.max(2);
                }
                Verdict::Jumped => {
                    self.reset_count = self.reset_count.wrapping_add(1);
                    let continuity = &mut started.continuity;
                    continuity.jump(now_ns, &place, track_variance_m2, false);
                }
            }
            fused.place = place;
            if let Some(visual) = &mut started.visual
                && visual.follow(fused.place.offset_m, config).is_err()
            {
                tracing::debug!(now_ns, "the visual belief's window could not follow");
            }
        } else {
            started.guard = JumpGuard::default();
        }
        if let Some(distance_m) = started
            .heatmaps
            .candidate_distance_m(fused.place.offset_m, track_variance_m2)
        {
            fused.radius_m = fused.radius_m.max(distance_m + 2.0);
        }
        fused.radius_m += 2.0 * (started.heatmaps.shift_m() - USUAL_SHIFT_M).max(0.0);
        if let Some((agreed_ns, _)) = started.heatmaps.agreed
            && started.heatmaps.supports_at(now_ns)
        {
            started.continuity.support(agreed_ns, &fused, gnss_is_fresh);
        }
        started.fused = fused;
    }
}

/// Bound of a Gaussian error in one direction as a share of that in two, at a probability of being outside: 0.84 for
/// 0.001, since a two-dimensional one exceeds 3.7 sigma as rarely as a one-dimensional one 3.1.
fn along_share(risk: f64) -> f64 {
    let whole = (-2.0 * risk.ln()).sqrt();
    // The tail beyond z is less than the density at z over z.
    let tail = |z: f64| (-2.0 * (risk * z * std::f64::consts::TAU.sqrt()).ln()).sqrt();
    let along = (0..8).fold(whole, |z, _| tail(z));
    if along < whole { along / whole } else { 1.0 }
}

fn published(estimate: &BeliefEstimate, track_variance_m2: f64, risk: f64) -> Published {
    let [[ee, en], [ne, nn]] = estimate.covariance_m2;
    Published {
        place: Place {
            offset_m: estimate.mean_m,
            covariance_m2: Matrix2::new(ee, en, ne, nn),
        },
        mode_count: estimate.mode_count,
        radius_m: estimate.protection_radius(risk),
        track_variance_m2,
    }
}

#[cfg(test)]
mod tests {
    use super::along_share;

    #[test]
    fn a_bound_in_one_direction_is_never_too_small_and_hardly_too_large() {
        // Quantiles of the normal distribution.
        for (risk, quantile) in [
            (0.1, 1.2816),
            (1e-3, 3.0902),
            (1e-6, 4.7534),
            (1e-9, 5.9978),
        ] {
            let whole: f64 = (-2.0 * f64::ln(risk)).sqrt();
            let along = along_share(risk) * whole;
            assert!(
                along >= quantile && along < 1.12 * quantile,
                "{risk}: {along}"
            );
        }
        assert_eq!(along_share(0.5), 1.0);
    }
}
