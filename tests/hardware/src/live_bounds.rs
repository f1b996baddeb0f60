//! What must hold in real time, where the simulated clock says what the same drives give without its delays.

use crate::figures::Figures;
use crate::scenario::{Expect, Known};

impl Known {
    /// In real time the promise alone stays: the other figures of what is broken are those of single drives.
    pub fn live(&self, expect: &Expect) -> Self {
        Self {
            why: self.why.clone(),
            ok_outside_percent: expect.ok_outside_percent,
            outside_percent: 100.0,
            wrong_state_percent: 100.0,
            mean_m: f64::INFINITY,
            ok_again_s: f64::INFINITY,
        }
    }
}

impl Expect {
    /// What must hold in real time where the same drives gave `simulated` on the simulated clock: the same, or as
    /// simulated where that is worse (bounds are of all drives, and single ones may break them), with some room for
    /// what events that come some milliseconds apart change. Comparisons with other drives, and errors that have no
    /// bound of their own, are left to the simulated clock.
    pub fn live(&self, simulated: &Figures) -> Self {
        let as_good = |bound: f64, simulated: f64, room: f64| bound.max(simulated) + room;
        Self {
            // Two estimates of a drive: those after a jump whose fix is still under way.
            ok_outside_percent: as_good(self.ok_outside_percent, simulated.ok_outside, 0.25),
            outside_percent: as_good(self.outside_percent, simulated.outside, 1.0),
            longest_gap_s: as_good(self.longest_gap_s, simulated.gap_s, 0.2),
            mean_m: self
                .mean_m
                .map(|bound_m| 1.25 * bound_m.max(simulated.mean_m) + 0.5),
            max_m: None,
            moved_m: None,
            wrong_state_percent: as_good(
                self.wrong_state_percent,
                100.0 - simulated.right_state,
                4.0,
            ),
            ok_again_s: self
                .ok_again_s
                .map(|bound_s| as_good(bound_s, simulated.ok_again_s, 2.0)),
            ok_percent: self.ok_percent.map(|bound| bound.min(simulated.ok) - 5.0),
            without: Vec::new(),
            ..self.clone()
        }
    }
}
