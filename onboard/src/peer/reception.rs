//! What the receiver said, for those who read our positions: an estimate has no satellites of its own.

use crossfix_calibration::Geodetic;

use super::geoid::Geoid;
use crate::event::{Estimate, Event, FixDimension, Jamming, Reception, Spoofing};

/// Older words of a receiver are not repeated, nanoseconds.
const FRESH_NS: i64 = 5_000_000_000;
/// Range error that a dilution of precision multiplies, metres; to make one where no receiver said it.
const RANGE_SIGMA_M: f64 = 3.5;

/// The latest words of the receivers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Receivers {
    latest: Option<Latest>,
    /// Time of the newest estimate: a receiver's own clock may be wrong, or forged.
    now_ns: Option<i64>,
    /// When a receiver was last heard to say so: that there is no spoofing, and that there is.
    spoofing_ns: [Option<i64>; 2],
    /// And of jamming: that there is none, that it has a fix nevertheless, that it has no reliable one.
    jamming_ns: [Option<i64>; 3],
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
    /// Whether any receiver says that its signals are forged; none when all are silent on it.
    pub is_spoofed: Option<bool>,
    /// The worst that any receiver says of jamming.
    pub jamming: Jamming,
}

impl Receivers {
    /// Listens to an event.
    pub fn note(&mut self, event: &Event) {
        if let Event::Gnss(fix) = event {
            let heard_ns = Some(self.now_ns.unwrap_or(fix.time_ns));
            match fix.reception.spoofing {
                Spoofing::NotSaid => {}
                Spoofing::None => self.spoofing_ns[0] = heard_ns,
                Spoofing::Indicated | Spoofing::Accepted => self.spoofing_ns[1] = heard_ns,
            }
            match fix.reception.jamming {
                Jamming::NotSaid => {}
                Jamming::None => self.jamming_ns[0] = heard_ns,
                Jamming::Warning => self.jamming_ns[1] = heard_ns,
                Jamming::Critical => self.jamming_ns[2] = heard_ns,
            }
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
        self.now_ns = Some(estimate.time_ns);
        let is_fresh = |time_ns: i64| {
            let age_ns = estimate.time_ns.saturating_sub(time_ns);
            age_ns.saturating_abs() <= FRESH_NS
        };
        let fresh = self.latest.filter(|latest| is_fresh(latest.time_ns));
        let is_said = |said_ns: Option<i64>| said_ns.is_some_and(is_fresh);
        let jamming = [Jamming::None, Jamming::Warning, Jamming::Critical];
        let worst =
            (jamming.into_iter().zip(self.jamming_ns)).rfind(|(_, said_ns)| is_said(*said_ns));
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
            is_spoofed: match self.spoofing_ns.map(is_said) {
                [_, true] => Some(true),
                [true, false] => Some(false),
                [false, false] => None,
            },
            jamming: worst.map_or(Jamming::NotSaid, |(jamming, _)| jamming),
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

    #[test]
    fn the_worst_that_any_receiver_says_of_attacks_is_told_while_it_is_fresh() {
        let mut receivers = Receivers::default();
        let first = estimate(State::Ok);
        let at = |seconds: i64| Estimate {
            time_ns: first.time_ns + seconds * 1_000_000_000,
            ..first.clone()
        };
        let mut say = |seconds: i64, spoofing, jamming| {
            receivers.attend(&at(seconds));
            // The receiver's clock is an hour off: what it says counts all the same.
            let mut said = fix(at(seconds + 3600).time_ns);
            said.reception.spoofing = spoofing;
            said.reception.jamming = jamming;
            receivers.note(&Event::Gnss(said));
            let attendant = receivers.attend(&at(seconds));
            (attendant.is_spoofed, attendant.jamming)
        };
        let nothing = (Spoofing::NotSaid, Jamming::NotSaid);
        assert_eq!(say(0, nothing.0, nothing.1), (None, Jamming::NotSaid));
        assert_eq!(
            say(1, Spoofing::None, Jamming::None),
            (Some(false), Jamming::None)
        );
        assert_eq!(
            say(2, Spoofing::Indicated, Jamming::Warning),
            (Some(true), Jamming::Warning)
        );
        // Another receiver sees nothing.
        assert_eq!(
            say(3, Spoofing::None, Jamming::None),
            (Some(true), Jamming::Warning)
        );
        assert_eq!(
            say(8, Spoofing::None, Jamming::Critical),
            (Some(false), Jamming::Critical)
        );
        assert_eq!(say(20, nothing.0, nothing.1), (None, Jamming::NotSaid));
    }
}
