//! Whether the published place continues the one that heatmaps supported before.
//!
//! Where the place jumps away from one that was supported, either the heatmaps of before or those of now are wrong, and
//! heatmaps that agree with each other tell nothing about which. So the state waits before it is `ok` again, longer
//! where dead reckoning from the place before contradicts too, and the radius reaches back meanwhile.

use nalgebra::{Matrix2, Vector2};

use super::filter::Published;
use super::jump::Place;
use super::largest_sigma;

/// After a jump that dead reckoning allows for, heatmaps have to agree with the new place for this long, nanoseconds.
const ALLOWED_WAIT_NS: i64 = 8_000_000_000;
/// After one that it does not allow for, nanoseconds.
const CONTRADICTED_WAIT_NS: i64 = 30_000_000_000;
/// Dead reckoning allows for a jump of so many sigma.
const ALLOWED_SIGMAS: f64 = 2.0;
/// Radius that leaves 0.1 % of a Gaussian outside, sigma.
const BOUND_SIGMAS: f64 = 3.7;

/// The last supported place, carried on by dead reckoning, and the doubt after a jump away from it.
#[derive(Debug, Clone, Default)]
pub(super) struct Continuity {
    anchor: Option<Published>,
    until_ns: Option<i64>,
}

impl Continuity {
    /// Heatmaps support what is published.
    pub(super) fn support(&mut self, now_ns: i64, published: &Published) {
        if !self.is_doubtful(now_ns) {
            self.anchor = Some(*published);
        }
    }

    /// The place is another one now. `is_replaced`: heatmaps that contradicted the one before have replaced it.
    pub(super) fn jump(
        &mut self,
        now_ns: i64,
        place: &Place,
        track_variance_m2: f64,
        is_replaced: bool,
    ) {
        let Some(anchor) = &self.anchor else { return };
        let off_m = distance_m(anchor, place);
        let grown_m2 = (track_variance_m2 - anchor.track_variance_m2).max(0.0);
        let known_m2 = anchor.place.covariance_m2 + place.covariance_m2;
        let sigma_m = largest_sigma(&known_m2).hypot(grown_m2.sqrt());
        let bound_m = anchor.radius_m.hypot(BOUND_SIGMAS * grown_m2.sqrt());
        if !is_replaced && off_m <= bound_m {
            return;
        }
        let wait_ns = if off_m > ALLOWED_SIGMAS * sigma_m {
            CONTRADICTED_WAIT_NS
        } else {
            ALLOWED_WAIT_NS
        };
        self.until_ns = Some(now_ns.saturating_add(wait_ns));
    }

    /// Whether the place has jumped too lately to be called good.
    pub(super) fn is_doubtful(&self, now_ns: i64) -> bool {
        self.until_ns.is_some_and(|until_ns| now_ns < until_ns)
    }

    /// Meanwhile, where the vehicle was supported before, carried on by dead reckoning.
    pub(super) fn former(&self, now_ns: i64, track_variance_m2: f64) -> Option<Place> {
        let anchor = self.anchor.as_ref().filter(|_| self.is_doubtful(now_ns))?;
        let grown_m2 = (track_variance_m2 - anchor.track_variance_m2).max(0.0);
        Some(Place {
            covariance_m2: anchor.place.covariance_m2 + Matrix2::identity() * grown_m2,
            ..anchor.place
        })
    }

    /// Meanwhile the vehicle may be where it was supported before: a radius about `place` that reaches there, metres.
    pub(super) fn reach_m(&self, now_ns: i64, place: &Place, track_variance_m2: f64) -> f64 {
        let Some(anchor) = self.anchor.as_ref().filter(|_| self.is_doubtful(now_ns)) else {
            return 0.0;
        };
        let grown_m2 = (track_variance_m2 - anchor.track_variance_m2).max(0.0);
        distance_m(anchor, place) + anchor.radius_m.hypot(BOUND_SIGMAS * grown_m2.sqrt())
    }
}

fn distance_m(anchor: &Published, place: &Place) -> f64 {
    (Vector2::from(anchor.place.offset_m) - Vector2::from(place.offset_m)).norm()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;

    fn published(east_m: f64) -> Published {
        Published {
            place: place(east_m),
            mode_count: 1,
            radius_m: 3.0,
            track_variance_m2: 0.0,
        }
    }

    fn place(east_m: f64) -> Place {
        Place {
            offset_m: [east_m, 0.0],
            covariance_m2: Matrix2::identity() * 0.5,
        }
    }

    #[test]
    fn the_first_place_that_heatmaps_find_is_not_doubted() {
        let mut continuity = Continuity::default();
        continuity.jump(0, &place(12.0), 0.0, false);
        assert!(!continuity.is_doubtful(0));
        assert_eq!(continuity.reach_m(0, &place(12.0), 0.0), 0.0);
    }

    #[test]
    fn a_jump_that_dead_reckoning_contradicts_is_doubted_for_longer_and_the_radius_reaches_back() {
        for (track_variance_m2, wait_s) in [(0.0, 30), (49.0, 8)] {
            let mut continuity = Continuity::default();
            continuity.support(0, &published(0.0));
            continuity.jump(SECOND_NS, &place(12.0), track_variance_m2, true);
            assert!(continuity.is_doubtful(wait_s * SECOND_NS));
            assert!(!continuity.is_doubtful((wait_s + 1) * SECOND_NS));
            let former = continuity.former(SECOND_NS, track_variance_m2).unwrap();
            assert_eq!(former.offset_m, [0.0, 0.0]);
            assert!(former.covariance_m2[(0, 0)] >= track_variance_m2);
            let reach_m = continuity.reach_m(SECOND_NS, &place(12.0), track_variance_m2);
            assert!(reach_m >= 15.0, "{reach_m}");
        }
    }

    #[test]
    fn a_jump_back_shortens_the_doubt_and_a_step_within_the_radius_is_none() {
        let mut continuity = Continuity::default();
        continuity.support(0, &published(0.0));
        continuity.jump(0, &place(2.0), 0.0, false);
        assert!(!continuity.is_doubtful(0));
        continuity.jump(SECOND_NS, &place(12.0), 0.0, true);
        // While it is doubted, support for the new place does not make it the one to return to.
        continuity.support(2 * SECOND_NS, &published(12.0));
        continuity.jump(3 * SECOND_NS, &place(0.5), 0.0, true);
        assert!(continuity.is_doubtful(10 * SECOND_NS));
        assert!(!continuity.is_doubtful(12 * SECOND_NS));
    }
}
