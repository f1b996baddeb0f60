//! Dead reckoning: from one moment to the next, for good or as a look ahead.

use super::filter::{Filter, Started};
use super::history::{History, TrackPoint};
use super::motion::Owed;
use super::navigator::{Motion, Navigator};
use super::{geodetic_from_plane, seconds};
use crossfix_calibration::LocalFrame;

/// Longest step of the dead reckoning, seconds.
const LONGEST_STEP_S: f64 = 0.1;
/// The local frame gets a new origin when the vehicle is this far from it.
const FRAME_RADIUS_M: f64 = 10_000.0;

/// The state at the latest measurement, as far as a tick changes it. The next measurement starts from
/// here: ticks only look ahead, and estimates after a measurement do not depend on the ticks before.
#[derive(Debug, Clone)]
pub(super) struct Checkpoint {
    now_ns: i64,
    owed: Owed,
    frame: LocalFrame,
    navigator: Navigator,
    history: History,
}

impl Filter {
    /// Looks ahead to `time_ns` by dead reckoning; earlier times change nothing. The next measurement
    /// is taken in as if there had been no look.
    pub(super) fn look_ahead(&mut self, time_ns: i64) {
        if time_ns <= self.now_ns {
            return;
        }
        if let (None, Some(started)) = (&self.checkpoint, &self.started) {
            self.checkpoint = Some(Checkpoint {
                now_ns: self.now_ns,
                owed: self.owed,
                frame: started.frame.clone(),
                navigator: started.navigator.clone(),
                history: started.history.clone(),
            });
        }
        self.advance(time_ns);
    }

    /// Back to where the measurements had left things.
    pub(super) fn come_back(&mut self) {
        if let (Some(checkpoint), Some(started)) = (self.checkpoint.take(), &mut self.started) {
            self.now_ns = checkpoint.now_ns;
            self.owed = checkpoint.owed;
            started.frame = checkpoint.frame;
            started.navigator = checkpoint.navigator;
            started.history = checkpoint.history;
        }
    }

    pub(super) fn advance(&mut self, time_ns: i64) {
        if self.now_ns == i64::MIN || self.started.is_none() {
            self.now_ns = self.now_ns.max(time_ns);
            return;
        }
        while self.now_ns < time_ns {
            let step_ns = (time_ns - self.now_ns).min((LONGEST_STEP_S * 1e9) as i64);
            let mut motion = self.motion(self.now_ns + step_ns);
            self.owed.pay(step_ns, &mut motion);
            self.step(step_ns, motion);
        }
    }

    fn step(&mut self, step_ns: i64, motion: Motion) {
        let config = &self.config;
        self.now_ns += step_ns;
        let is_look_ahead = self.checkpoint.is_some();
        if let Some(started) = &mut self.started {
            let dt_s = step_ns as f64 * 1e-9;
            if !started.navigator.yaw_known() && !is_look_ahead {
                let middle_rad =
                    started.navigator.yaw().radians() + 0.5 * motion.yaw_rate_rps * dt_s;
                started
                    .alignment
                    .step(self.now_ns, dt_s, motion, middle_rad);
            }
            started.navigator.predict(dt_s, motion, config);
            let track_m = started.navigator.track_m();
            if track_m[0].hypot(track_m[1]) > FRAME_RADIUS_M {
                started.move_frame();
            }
        }
        self.remember();
    }

    /// Writes the track at `now_ns` into the history, replacing what was there for this moment.
    pub(super) fn remember(&mut self) {
        let yaw_rate_rps = self.motion(self.now_ns).yaw_rate_rps;
        // Late pictures are looked up so much further back.
        let late_ns = self.picture_delay_ns.max(0);
        let (now_ns, keep_ns) = (self.now_ns, seconds(self.config.history_s) + late_ns);
        if let Some(started) = &mut self.started {
            let point = TrackPoint {
                time_ns: now_ns,
                track_m: started.navigator.track_m(),
                yaw: started.navigator.yaw(),
                driven_m: started.navigator.driven_m,
                yaw_rate_rps,
            };
            started.history.push(point, keep_ns);
        }
    }
}

impl Started {
    /// Puts the origin of the local frame under the vehicle.
    fn move_frame(&mut self) {
        let track_m = self.navigator.track_m();
        let Some(under) = geodetic_from_plane(&self.frame, track_m, 0.0) else {
            return;
        };
        self.frame = LocalFrame::new(under);
        let shift_m = [-track_m[0], -track_m[1]];
        self.navigator.shift(shift_m);
        self.history.shift(shift_m);
    }
}
