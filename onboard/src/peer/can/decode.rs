//! Messages of a bus to odometry samples: pure, so that recordings test it.

use super::signal::{Quantity, SignalConfig};
use crate::event::OdometrySample;

/// A quantity is not passed on more often than this, nanoseconds: wheels report at 100 Hz and more.
const SPACING_NS: i64 = 18_000_000;
/// 1-sigma errors of signals that state none, m/s and rad/s.
const SPEED_SIGMA_MPS: f64 = 0.2;
const YAW_RATE_SIGMA_RPS: f64 = 0.01;

/// A message of a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub id: u32,
    /// Whether the identifier has 29 bits.
    pub extended: bool,
    pub data: Vec<u8>,
}

/// What the messages so far said.
#[derive(Debug)]
pub struct CanSignals {
    signals: Vec<SignalConfig>,
    reverse: bool,
    /// Times of the last speed and yaw rate.
    last_ns: [i64; 2],
    /// Messages shorter than a signal in them.
    pub too_short: u64,
}

impl CanSignals {
    /// Before the first message.
    pub fn new(signals: &[SignalConfig]) -> Self {
        Self {
            signals: signals.to_vec(),
            reverse: false,
            last_ns: [i64::MIN; 2],
            too_short: 0,
        }
    }

    /// What a message measures that was true at `time_ns`; none of most messages.
    pub fn frame(&mut self, frame: &Frame, time_ns: i64) -> Option<OdometrySample> {
        let mut sample = OdometrySample {
            time_ns,
            forward_speed_mps: None,
            yaw_rate_rps: None,
            yaw: None,
            speed_sigma_mps: SPEED_SIGMA_MPS,
            yaw_rate_sigma_rps: YAW_RATE_SIGMA_RPS,
        };
        for signal in &self.signals {
            if signal.id != frame.id || signal.is_extended() != frame.extended {
                continue;
            }
            let Some(raw) = signal.raw(&frame.data) else {
                self.too_short += 1;
                continue;
            };
            match signal.quantity {
                Quantity::Speed => {
                    sample.forward_speed_mps = signal.value(raw);
                    sample.speed_sigma_mps = signal.sigma.unwrap_or(SPEED_SIGMA_MPS);
                }
                Quantity::YawRate => {
                    sample.yaw_rate_rps = signal.value(raw);
                    sample.yaw_rate_sigma_rps = signal.sigma.unwrap_or(YAW_RATE_SIGMA_RPS);
                }
                Quantity::Reverse => self.reverse = signal.values.contains(&raw),
            }
        }
        let [speed_ns, yaw_rate_ns] = &mut self.last_ns;
        for (value, last_ns) in [
            (&mut sample.forward_speed_mps, speed_ns),
            (&mut sample.yaw_rate_rps, yaw_rate_ns),
        ] {
            let since_ns = time_ns.saturating_sub(*last_ns);
            if value.is_some() && (0..SPACING_NS).contains(&since_ns) {
                *value = None;
            }
            if value.is_some() {
                *last_ns = time_ns;
            }
        }
        if self.reverse {
            sample.forward_speed_mps = sample.forward_speed_mps.map(|speed| -speed.abs());
        }
        (sample.forward_speed_mps.is_some() || sample.yaw_rate_rps.is_some()).then_some(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::ByteOrder;
    use super::super::signal::tests::signal;
    use super::*;

    const MS_NS: i64 = 1_000_000;

    fn frame(id: u32, data: &[u8]) -> Frame {
        Frame {
            id,
            extended: false,
            data: data.to_vec(),
        }
    }

    fn car() -> CanSignals {
        let speed = SignalConfig {
            factor: 0.1,
            ..signal(0, 8, ByteOrder::LittleEndian)
        };
        let yaw_rate = SignalConfig {
            quantity: Quantity::YawRate,
            id: 0x200,
            signed: true,
            factor: 0.01,
            ..speed.clone()
        };
        let reverse = SignalConfig {
            quantity: Quantity::Reverse,
            id: 0x300,
            values: vec![7],
            ..speed.clone()
        };
        CanSignals::new(&[speed, yaw_rate, reverse])
    }

    #[test]
    fn each_message_gives_what_it_measures() {
        let mut car = car();
        let speed = car.frame(&frame(0x123, &[80]), 0).unwrap();
        assert_eq!(
            (speed.forward_speed_mps, speed.yaw_rate_rps),
            (Some(8.0), None)
        );
        let turn = car.frame(&frame(0x200, &[0xf6]), 5 * MS_NS).unwrap();
        assert_eq!(
            (turn.forward_speed_mps, turn.yaw_rate_rps),
            (None, Some(-0.1))
        );
        assert_eq!(car.frame(&frame(0x124, &[80]), 6 * MS_NS), None);
        let extended = Frame {
            extended: true,
            ..frame(0x123, &[80])
        };
        assert_eq!(car.frame(&extended, 40 * MS_NS), None);
        assert_eq!(car.frame(&frame(0x123, &[]), 60 * MS_NS), None);
        assert_eq!(car.too_short, 1);
    }

    #[test]
    fn in_reverse_a_speed_without_sign_is_negative() {
        let mut car = car();
        assert_eq!(car.frame(&frame(0x300, &[7]), 0), None);
        let backwards = car.frame(&frame(0x123, &[20]), 1).unwrap();
        assert_eq!(backwards.forward_speed_mps, Some(-2.0));
        assert_eq!(car.frame(&frame(0x300, &[1]), 2), None);
        let forwards = car.frame(&frame(0x123, &[20]), 40 * MS_NS).unwrap();
        assert_eq!(forwards.forward_speed_mps, Some(2.0));
    }

    #[test]
    fn messages_at_a_high_rate_are_thinned_out() {
        let mut car = car();
        let passed = (0..100).filter(|index| {
            let sample = car.frame(&frame(0x123, &[80]), index * 10 * MS_NS);
            sample.is_some()
        });
        assert_eq!(passed.count(), 50);
    }

    #[test]
    fn a_recording_of_a_drive_gives_its_speed_and_yaw_rate() {
        let config = "[[signal]]\nquantity = \"speed\"\nid = 0x1a0\nstart_bit = 23\nlength = 16\n\
                      byte_order = \"big_endian\"\nfactor = 0.01\nunit = \"km/h\"\n\
                      [[signal]]\nquantity = \"yaw_rate\"\nid = 0x1a1\nstart_bit = 4\nlength = 14\n\
                      byte_order = \"little_endian\"\nsigned = true\nfactor = 0.02\nunit = \"deg/s\"\n\
                      [[signal]]\nquantity = \"reverse\"\nid = 0x18fef100\nstart_bit = 56\nlength = 3\n\
                      byte_order = \"little_endian\"\nvalues = [2]\n";
        let config: crate::peer::can::CanConfig = toml::from_str(config).unwrap();
        let mut car = CanSignals::new(&config.signal);
        let start_ns = 1_700_000_000_000_000_000;
        let (mut speeds, mut yaw_rates) = (0, 0);
        for line in include_str!("../../../tests/data/can/drive.log").lines() {
            let (time_ns, frame) = super::super::dump::frame_of(line, None).unwrap().unwrap();
            let time_s = (time_ns - start_ns) as f64 * 1e-9;
            let Some(sample) = car.frame(&frame, time_ns) else {
                continue;
            };
            if let Some(speed) = sample.forward_speed_mps {
                // The gear comes after the speed: the first speed in reverse still counts forward.
                let truth = match time_s {
                    _ if time_s < 7.99 => (2.0 * time_s).min(8.0),
                    _ if time_s < 8.02 => 1.5,
                    _ => -1.5,
                };
                assert!((speed - truth).abs() < 0.01, "{time_s} s: {speed} m/s");
                speeds += 1;
            }
            if let Some(rate) = sample.yaw_rate_rps {
                let truth: f64 = if time_s > 4.02 { 10.0 } else { 0.0 };
                assert!(
                    (rate - truth.to_radians()).abs() < 0.001,
                    "{time_s} s: {rate} rad/s"
                );
                yaw_rates += 1;
            }
        }
        assert_eq!((speeds, yaw_rates, car.too_short), (200, 200, 0));
    }
}
