//! What the passing of time does to the core: long silences, clocks that are set, starting over.

use super::Core;
use crate::clocks::EventKind;
use crate::event::{Arrival, Estimate, Event, State};

/// After this long without an event or a tick the machine slept, or the program was stopped, and the
/// vehicle may be anywhere, nanoseconds.
pub(super) const LONGEST_PAUSE_NS: i64 = 60_000_000_000;

impl Core {
    /// An arrival or a tick. After a long pause, or when the clock of the arrivals was set back,
    /// everything starts over. What waited for the core may come out of order, and that is neither.
    pub(super) fn note_passing(&mut self, arrived_ns: i64, set_back: bool) -> Vec<Estimate> {
        let before_ns = self.last_arrived_ns.unwrap_or(arrived_ns);
        let passed_ns = arrived_ns.saturating_sub(before_ns);
        if !set_back && passed_ns <= LONGEST_PAUSE_NS {
            self.last_arrived_ns = Some(arrived_ns.max(before_ns));
            return Vec::new();
        }
        self.last_arrived_ns = Some(arrived_ns);
        self.clocks.doubt();
        let reason = if set_back {
            "the log started over".to_owned()
        } else {
            format!("nothing was heard for {:.0} s", passed_ns as f64 * 1e-9)
        };
        self.start_over(&reason, arrived_ns)
    }

    /// Forgets where the vehicle is, and says so: `lost`, with the next number of resets.
    pub(super) fn start_over(&mut self, reason: &str, arrived_ns: i64) -> Vec<Estimate> {
        tracing::warn!(reason, "starting over");
        self.counters.restarts += 1;
        self.fusion.restart();
        if let Some(rig) = &mut self.rig {
            rig.forget();
        }
        self.last_output_ns = i64::MIN;
        self.cadence_ns = None;
        let lost_sigma_m = self.fusion.config().lost_sigma_m;
        for last in &mut self.last {
            last.state = State::Lost;
            last.reset_count = last.reset_count.wrapping_add(1);
            last.reason = format!("{reason}; waiting for a GNSS fix");
            last.covariance_m2 = [[lost_sigma_m.powi(2), 0.0], [0.0, lost_sigma_m.powi(2)]];
            last.protection_radius_m = last.protection_radius_m.max(10.0 * lost_sigma_m);
        }
        let now_ns = self.clocks.now_ns(arrived_ns);
        now_ns.map_or_else(Vec::new, |now_ns| self.still_lost(now_ns))
    }

    /// The last output again, if it was `lost`, at this time.
    pub(super) fn still_lost(&mut self, time_ns: i64) -> Vec<Estimate> {
        for last in &mut self.last {
            if last.state != State::Lost {
                return Vec::new();
            }
            last.time_ns = time_ns;
        }
        self.last.clone()
    }

    /// An event was not used because of its stamp: the camera does not contribute for that reason.
    pub(super) fn note_set_aside(&mut self, arrival: &Arrival) {
        if let Event::Frame(_) = arrival.event {
            self.counters.frames_unused += 1;
            // Of a rig the others go on, and the moments say which camera is missing.
            if self.rig.is_none()
                && let Some(problem) = self.clocks.problem(&arrival.source, EventKind::Camera)
            {
                self.missing = Some(problem);
            }
        }
    }
}
