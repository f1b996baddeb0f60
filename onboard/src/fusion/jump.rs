//! Holds the published place back until a jump is confirmed.

use nalgebra::{Matrix2, Vector2};

/// A place to publish, as an offset from the track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) offset_m: [f64; 2],
    pub(crate) covariance_m2: Matrix2<f64>,
}

/// What happened to a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It continues what was published.
    Smooth,
    /// It is far from what was published, which is held, wider, until this repeats itself.
    Held,
    /// It repeated itself: the output jumps.
    Jumped,
}

/// The published place, and a candidate far from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct JumpGuard {
    published: Option<Place>,
    candidate: Option<([f64; 2], usize)>,
}

impl JumpGuard {
    /// What to publish for this proposal. A jump is more than `jump_m` and three sigma; it is
    /// published at the `confirmations`-th consistent proposal in a row. A held place carries the
    /// second moment of the proposal about itself, so its ellipse reaches there.
    pub(crate) fn propose(
        &mut self,
        place: Place,
        jump_m: f64,
        confirmations: usize,
    ) -> (Place, Verdict) {
        let Some(published) = self.published else {
            self.published = Some(place);
            return (place, Verdict::Smooth);
        };
        let step = Vector2::from(place.offset_m) - Vector2::from(published.offset_m);
        let distance_m = step.norm();
        // Along the step; the proposal is usually the narrower of the two.
        let along = |covariance: &Matrix2<f64>| {
            (step.transpose() * covariance * step)[0].max(0.0).sqrt() / distance_m
        };
        let sigma_m = if distance_m > 0.0 {
            along(&published.covariance_m2).min(along(&place.covariance_m2))
        } else {
            0.0
        };
        if distance_m <= jump_m.max(3.0 * sigma_m) {
            self.candidate = None;
            self.published = Some(place);
            return (place, Verdict::Smooth);
        }
        let count = match self.candidate {
            Some((at, count)) if distance(at, place.offset_m) <= jump_m.max(3.0 * sigma_m) => {
                count + 1
            }
            _ => 1,
        };
        if count >= confirmations {
            self.candidate = None;
            self.published = Some(place);
            return (place, Verdict::Jumped);
        }
        self.candidate = Some((place.offset_m, count));
        let held = Place {
            offset_m: published.offset_m,
            covariance_m2: place.covariance_m2 + step * step.transpose(),
        };
        (held, Verdict::Held)
    }
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(east: f64) -> Place {
        Place {
            offset_m: [east, 0.0],
            covariance_m2: Matrix2::identity() * 0.25,
        }
    }

    #[test]
    fn small_steps_pass_and_one_far_proposal_does_not() {
        let mut guard = JumpGuard::default();
        assert_eq!(guard.propose(place(0.0), 3.0, 3).1, Verdict::Smooth);
        assert_eq!(
            guard.propose(place(2.0), 3.0, 3),
            (place(2.0), Verdict::Smooth)
        );
        let (held, verdict) = guard.propose(place(12.0), 3.0, 3);
        assert_eq!((held.offset_m, verdict), ([2.0, 0.0], Verdict::Held));
        assert!(
            (held.covariance_m2[(0, 0)] - 100.25).abs() < 1e-9,
            "its ellipse reaches the other place"
        );
        assert_eq!(guard.propose(place(2.1), 3.0, 3).1, Verdict::Smooth);
    }

    #[test]
    fn a_jump_needs_consistent_proposals_in_a_row() {
        let mut guard = JumpGuard::default();
        guard.propose(place(0.0), 3.0, 3);
        let verdicts: Vec<Verdict> = [10.0, -10.0, 10.0, 10.5, 11.0, 11.0]
            .into_iter()
            .map(|east| guard.propose(place(east), 3.0, 3).1)
            .collect();
        use Verdict::{Held, Jumped, Smooth};
        assert_eq!(verdicts, [Held, Held, Held, Held, Jumped, Smooth]);
    }
}
