//! Whether the published place continues the one that heatmaps supported before.
//!
//! Where the place jumps away from one that was supported, either the heatmaps of before or those of now are wrong, and
//! heatmaps that agree with each other tell nothing about which. So the state waits before it is `ok` again, longer
//! where dead reckoning from the place before contradicts too, and the radius reaches back meanwhile.

use nalgebra::{Matrix2, Vector2};

use super::filter::Published;
use super::jump::Place;
use super::largest_sigma;

/// After a jump that dead reckoning does not contradict, heatmaps have to agree with the new place for this long, and
/// after one that it does, nanoseconds: with less, students that are sure of one wrong place were `ok` there.
const WAIT_NS: i64 = 8_000_000_000;
const CONTRADICTED_WAIT_NS: i64 = 30_000_000_000;
/// Dead reckoning contradicts a jump of more than so many sigma.
const CONTRADICTS_SIGMAS: f64 = 2.0;

/// The last supported place, carried on by dead reckoning, and the doubt after a jump away from it.
#[derive(Debug, Clone)]
pub(super) struct Continuity {
    anchor: Option<Published>,
    until_ns: Option<i64>,
    /// Radius that leaves the accepted risk of a two-dimensional Gaussian outside, sigma.
    bound_sigmas: f64,
}

impl Continuity {
    /// No place was supported yet. `risk`: probability of being outside the radius.
    pub(super) fn new(risk: f64) -> Self {
        Self {
            anchor: None,
            until_ns: None,
            bound_sigmas: (-2.0 * risk.ln()).sqrt(),
        }
    }

    /// Heatmaps support what is published, the last of them at `agreed_ns`. While no receiver is heard, only a place
    /// that continues the one before is taken over: heatmaps that went astray have nobody to tell.
    pub(super) fn support(&mut self, agreed_ns: i64, published: &Published, is_gnss_fresh: bool) {
        if self.until_ns.is_some_and(|until_ns| agreed_ns >= until_ns) {
            self.until_ns = None;
        }
        if self.is_doubtful() {
            return;
        }
        let continues = self.anchor.as_ref().is_some_and(|anchor| {
            distance_m(anchor, &published.place)
                <= self.bound_m(anchor, published.track_variance_m2)
        });
        if is_gnss_fresh || continues {
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
        if !is_replaced && off_m <= self.bound_m(anchor, track_variance_m2) {
            return;
        }
        let known_m2 = anchor.place.covariance_m2 + place.covariance_m2;
        let sigma_m = largest_sigma(&known_m2).hypot(grown_m2(anchor, track_variance_m2).sqrt());
        let wait_ns = if off_m > CONTRADICTS_SIGMAS * sigma_m {
            CONTRADICTED_WAIT_NS
        } else {
            WAIT_NS
        };
        self.until_ns = Some(now_ns.saturating_add(wait_ns));
    }

    /// Starts over: the belief was given up.
    pub(super) fn forget(&mut self) {
        self.anchor = None;
        self.until_ns = None;
    }

    /// Whether the place has jumped, and heatmaps have not yet agreed with the new one for long enough.
    pub(super) fn is_doubtful(&self) -> bool {
        self.until_ns.is_some()
    }

    /// Meanwhile, where the vehicle was supported before, carried on by dead reckoning.
    pub(super) fn former(&self, track_variance_m2: f64) -> Option<Place> {
        let anchor = self.anchor.as_ref().filter(|_| self.is_doubtful())?;
        Some(Place {
            covariance_m2: anchor.place.covariance_m2
                + Matrix2::identity() * grown_m2(anchor, track_variance_m2),
            ..anchor.place
        })
    }

    /// Meanwhile the vehicle may be where it was supported before: a radius about `place` that reaches there, metres.
    pub(super) fn reach_m(&self, place: &Place, track_variance_m2: f64) -> f64 {
        let anchor = self.anchor.as_ref().filter(|_| self.is_doubtful());
        anchor.map_or(0.0, |anchor| {
            distance_m(anchor, place) + self.bound_m(anchor, track_variance_m2)
        })
    }

    /// How far the vehicle may be from the place that was supported, metres.
    fn bound_m(&self, anchor: &Published, track_variance_m2: f64) -> f64 {
        let grown_m = grown_m2(anchor, track_variance_m2).sqrt();
        anchor.radius_m.hypot(self.bound_sigmas * grown_m)
    }
}

/// What dead reckoning has added since the place was supported.
fn grown_m2(anchor: &Published, track_variance_m2: f64) -> f64 {
    (track_variance_m2 - anchor.track_variance_m2).max(0.0)
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

    /// Supported at 0 m, then jumped.
    fn jumped(to_m: f64, track_variance_m2: f64) -> Continuity {
        let mut continuity = Continuity::new(0.001);
        continuity.support(0, &published(0.0), true);
        continuity.jump(SECOND_NS, &place(to_m), track_variance_m2, true);
        continuity
    }

    #[test]
    fn the_first_place_that_heatmaps_find_is_not_doubted() {
        let mut continuity = Continuity::new(0.001);
        continuity.jump(0, &place(12.0), 0.0, false);
        assert!(!continuity.is_doubtful());
        assert_eq!(continuity.reach_m(&place(12.0), 0.0), 0.0);
    }

    #[test]
    fn a_jump_that_dead_reckoning_contradicts_is_doubted_for_longer_and_the_radius_reaches_back() {
        // 3 m of radius, and 3.7 times 7 m that dead reckoning has added.
        for (track_variance_m2, wait_s, radius_m) in [(0.0, 30, 3.0), (49.0, 8, 26.1)] {
            let mut continuity = jumped(12.0, track_variance_m2);
            let former = continuity.former(track_variance_m2).unwrap();
            assert_eq!(former.offset_m, [0.0, 0.0]);
            assert!(former.covariance_m2[(0, 0)] >= track_variance_m2);
            let reach_m = continuity.reach_m(&place(12.0), track_variance_m2);
            assert!((reach_m - 12.0 - radius_m).abs() < 0.2, "{reach_m}");
            continuity.support(wait_s * SECOND_NS, &published(12.0), true);
            assert!(continuity.is_doubtful());
            continuity.support((wait_s + 1) * SECOND_NS, &published(12.0), true);
            assert!(!continuity.is_doubtful());
        }
    }

    #[test]
    fn time_alone_ends_no_doubt() {
        let mut continuity = jumped(12.0, 0.0);
        for _ in 0..100 {
            // The last heatmap that agreed is from soon after the jump: the vehicle stands.
            continuity.support(2 * SECOND_NS, &published(12.0), true);
        }
        assert!(continuity.is_doubtful());
    }

    #[test]
    fn a_jump_back_shortens_the_doubt_and_a_step_within_the_radius_is_none() {
        let mut continuity = Continuity::new(0.001);
        continuity.support(0, &published(0.0), true);
        continuity.jump(0, &place(2.0), 0.0, false);
        assert!(!continuity.is_doubtful());
        continuity.jump(SECOND_NS, &place(12.0), 0.0, true);
        // While it is doubted, support for the new place does not make it the one to return to.
        continuity.support(2 * SECOND_NS, &published(12.0), true);
        continuity.jump(3 * SECOND_NS, &place(0.5), 0.0, true);
        continuity.support(10 * SECOND_NS, &published(0.5), true);
        assert!(continuity.is_doubtful());
        continuity.support(11 * SECOND_NS, &published(0.5), true);
        assert!(!continuity.is_doubtful());
    }

    #[test]
    fn without_a_receiver_a_place_is_carried_on_and_another_is_not_taken_over() {
        let mut continuity = Continuity::new(0.001);
        continuity.support(0, &published(0.0), false);
        assert!(continuity.anchor.is_none());
        continuity.support(0, &published(0.0), true);
        for (east_m, kept_m) in [(2.0, 2.0), (4.0, 4.0), (20.0, 4.0)] {
            continuity.support(0, &published(east_m), false);
            assert_eq!(continuity.anchor.unwrap().place.offset_m, [kept_m, 0.0]);
        }
    }
}
