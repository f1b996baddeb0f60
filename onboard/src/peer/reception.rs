//! What the receiver said, for those who read our positions: an estimate has no satellites of its own.

use crossfix_calibration::Geodetic;

use super::geoid::Geoid;
use crate::event::{Estimate, Event, FixDimension, Reception};

/// Older words of a receiver are not repeated, nanoseconds.
const FRESH_NS: i64 = 5_000_000_000;
/// Range error that a dilution of precision multiplies, metres; to make one where no receiver said it.
const RANGE_SIGMA_M: f64 = 3.5;

/// The latest words of the receivers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Receivers {
    latest: Option<Latest>,
    geoid: Geoid,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    time_ns: i64,
    reception: Reception,
    height_sigma_m: Option<f64>,
}

/// What goes with an estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attendant {
    /// Satellites of the receiver's latest solution; none when it is silent.
    pub satellites_used: Option<u32>,
    /// Satellites in its view.
    pub satellites_visible: Option<u32>,
    /// Its horizontal dilution of precision, or the estimate's horizontal error over 3.5 m.
    pub hdop: f64,
    /// Mean sea level above the ellipsoid, metres: the receiver's, or EGM96.
    pub geoid_m: f64,
    /// 1-sigma error of the receiver's height, metres.
    pub height_sigma_m: Option<f64>,
}

impl Receivers {
    /// Listens to an event.
    pub fn note(&mut self, event: &Event) {
        if let Event::Gnss(fix) = event {
            self.latest = Some(Latest {
                time_ns: fix.time_ns,
                reception: fix.reception,
                height_sigma_m: (fix.dimension == FixDimension::Three)
                    .then_some(fix.height_sigma_m)
                    .filter(|sigma_m| sigma_m.is_finite()),
            });
        }
    }

    /// What goes with `estimate`.
    pub fn attend(&mut self, estimate: &Estimate) -> Attendant {
        let fresh = self.latest.filter(|latest| {
            estimate
                .time_ns
                .saturating_sub(latest.time_ns)
                .saturating_abs()
                <= FRESH_NS
        });
        let reception = fresh.map_or(Reception::default(), |latest| latest.reception);
        let [[ee, _], [_, nn]] = estimate.covariance_m2;
        let own_hdop = (ee + nn).max(0.0).sqrt() / RANGE_SIGMA_M;
        let hdop = reception
            .hdop
            .filter(|hdop| hdop.is_finite())
            .unwrap_or(own_hdop);
        Attendant {
            satellites_used: reception.satellites_used,
            satellites_visible: reception.satellites_visible,
            hdop: hdop.clamp(0.01, 99.99),
            geoid_m: self.separation_m(reception, estimate.position),
            height_sigma_m: fresh.and_then(|latest| latest.height_sigma_m),
        }
    }

    fn separation_m(&mut self, reception: Reception, position: Geodetic) -> f64 {
        let said = reception.geoid_m.filter(|geoid_m| geoid_m.abs() < 200.0);
        said.unwrap_or_else(|| self.geoid.separation_m(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::State;
    use crate::peer::testing::{estimate, fix};

    #[test]
    fn a_receiver_is_quoted_while_it_speaks() {
        let mut receivers = Receivers::default();
        let estimate = estimate(State::Ok);
        let alone = receivers.attend(&estimate);
        assert_eq!(alone.satellites_used, None);
        assert!((alone.hdop - 5.0_f64.sqrt() / 3.5).abs() < 1e-12);
        // EGM96 south-east of Australia.
        assert!((15.0..35.0).contains(&alone.geoid_m), "{}", alone.geoid_m);
        receivers.note(&Event::Gnss(fix(estimate.time_ns - 1_000_000_000)));
        let quoted = receivers.attend(&estimate);
        assert_eq!(
            (quoted.satellites_used, quoted.satellites_visible),
            (Some(9), Some(14))
        );
        assert_eq!((quoted.hdop, quoted.geoid_m), (0.9, 22.0));
        let later = Estimate {
            time_ns: estimate.time_ns + 2 * FRESH_NS,
            ..estimate
        };
        assert_eq!(receivers.attend(&later).satellites_used, None);
    }
}
