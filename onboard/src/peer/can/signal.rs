//! One signal: where its bits are in a message, and what they mean, as in a DBC file.

use serde::{Deserialize, Serialize};

use crate::config::Checker;

/// Most bytes of a CAN FD message.
const MOST_BYTES: usize = 64;
/// Largest identifiers of 11 and of 29 bits.
const LARGEST_STANDARD_ID: u32 = 0x7ff;
const LARGEST_EXTENDED_ID: u32 = 0x1fff_ffff;

/// A signal, with the columns of a DBC file: `SG_ name : start_bit|length@byte_order signed (factor,offset)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalConfig {
    /// What it measures: "speed", "yaw_rate", or "reverse", which makes the speed negative.
    pub quantity: Quantity,
    /// Identifier of the message.
    pub id: u32,
    /// Whether the identifier has 29 bits. Default: whether it needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended: Option<bool>,
    /// As in a DBC file: bit `8 * byte + bit`, bit 0 the lowest of a byte. The lowest bit of a little-endian
    /// signal, the highest of a big-endian one.
    pub start_bit: usize,
    /// Number of bits, 1 to 64.
    pub length: usize,
    /// "little_endian" (DBC: 1, Intel) or "big_endian" (DBC: 0, Motorola).
    pub byte_order: ByteOrder,
    /// Whether it is in two's complement (DBC: -). Default false.
    #[serde(default)]
    pub signed: bool,
    /// The value is `raw * factor + offset`; a yaw rate that counts to the right has a negative factor.
    /// Default 1.
    #[serde(default = "one")]
    pub factor: f64,
    /// See `factor`. Default 0.
    #[serde(default)]
    pub offset: f64,
    /// "m/s", "km/h" or "mph"; "rad/s" or "deg/s". Default: "m/s" or "rad/s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// 1-sigma error, m/s or rad/s. Default 0.2 m/s, 0.01 rad/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// Raw values that say that there is no measurement. Default: none.
    #[serde(default)]
    pub invalid: Vec<i64>,
    /// Of a "reverse" signal: raw values that mean that the vehicle moves backwards.
    #[serde(default)]
    pub values: Vec<i64>,
}

fn one() -> f64 {
    1.0
}

/// What a signal measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Speed forward.
    Speed,
    /// Yaw rate, counter-clockwise.
    YawRate,
    /// Whether the vehicle moves backwards, for a speed without sign.
    Reverse,
}

/// Which byte of a signal comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteOrder {
    /// The lowest.
    LittleEndian,
    /// The highest.
    BigEndian,
}

/// Unit of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Metres per second.
    #[serde(rename = "m/s")]
    MetresPerSecond,
    /// Kilometres per hour.
    #[serde(rename = "km/h")]
    KilometresPerHour,
    /// Miles per hour.
    #[serde(rename = "mph")]
    MilesPerHour,
    /// Radians per second.
    #[serde(rename = "rad/s")]
    RadiansPerSecond,
    /// Degrees per second.
    #[serde(rename = "deg/s")]
    DegreesPerSecond,
}

impl Unit {
    fn quantity(self) -> Quantity {
        match self {
            Self::MetresPerSecond | Self::KilometresPerHour | Self::MilesPerHour => Quantity::Speed,
            Self::RadiansPerSecond | Self::DegreesPerSecond => Quantity::YawRate,
        }
    }

    fn in_si(self) -> f64 {
        match self {
            Self::MetresPerSecond | Self::RadiansPerSecond => 1.0,
            Self::KilometresPerHour => 1.0 / 3.6,
            Self::MilesPerHour => 0.447_04,
            Self::DegreesPerSecond => std::f64::consts::PI / 180.0,
        }
    }
}

impl SignalConfig {
    /// Whether the identifier has 29 bits.
    pub fn is_extended(&self) -> bool {
        self.extended.unwrap_or(self.id > LARGEST_STANDARD_ID)
    }

    /// The raw value in a message's bytes; none when these are too few.
    pub fn raw(&self, data: &[u8]) -> Option<i64> {
        let bit = |at: usize| data.get(at / 8).map(|byte| u64::from(byte >> (at % 8) & 1));
        let mut raw = 0_u64;
        match self.byte_order {
            ByteOrder::LittleEndian => {
                for index in 0..self.length {
                    raw |= bit(self.start_bit + index)? << index;
                }
            }
            ByteOrder::BigEndian => {
                let mut at = self.start_bit;
                for _ in 0..self.length {
                    raw = raw << 1 | bit(at)?;
                    // Down to the lowest bit of a byte, and then to the highest of the next one.
                    at = if at.is_multiple_of(8) {
                        at + 15
                    } else {
                        at - 1
                    };
                }
            }
        }
        let unused = 64 - self.length;
        Some(if self.signed {
            ((raw << unused) as i64) >> unused
        } else {
            i64::try_from(raw).unwrap_or(i64::MAX)
        })
    }

    /// The measurement of a raw value, m/s or rad/s; none when it says that there is none.
    pub fn value(&self, raw: i64) -> Option<f64> {
        let unit = self.unit.map_or(1.0, Unit::in_si);
        (!self.invalid.contains(&raw)).then_some((raw as f64 * self.factor + self.offset) * unit)
    }

    /// Reports what cannot be right.
    pub fn check(&self, index: usize, check: &mut Checker) {
        let field = |name: &str| format!("signal[{index}].{name}");
        let largest = if self.is_extended() {
            LARGEST_EXTENDED_ID
        } else {
            LARGEST_STANDARD_ID
        };
        check.range(&field("id"), f64::from(self.id), 0.0, f64::from(largest));
        check.range(&field("length"), self.length as f64, 1.0, 64.0);
        if (1..=64).contains(&self.length) && self.raw(&[0; MOST_BYTES]).is_none() {
            check.problem(
                &field("start_bit"),
                format!(
                    "its {} bits from {} on do not fit into {MOST_BYTES} bytes; check it and byte_order",
                    self.length, self.start_bit
                ),
            );
        }
        if !self.factor.is_finite() || self.factor == 0.0 || !self.offset.is_finite() {
            check.problem(&field("factor"), "factor and offset are no numbers to use");
        }
        if let Some(unit) = self.unit
            && unit.quantity() != self.quantity
        {
            check.problem(&field("unit"), "is not one of that quantity");
        }
        check.range(&field("sigma"), self.sigma.unwrap_or(0.1), 1e-5, 50.0);
        if (self.quantity == Quantity::Reverse) == self.values.is_empty() {
            check.problem(
                &field("values"),
                "are the raw values of a \"reverse\" signal that mean backwards; set them there, and only there",
            );
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A speed in these bits.
    pub fn signal(start_bit: usize, length: usize, byte_order: ByteOrder) -> SignalConfig {
        SignalConfig {
            quantity: Quantity::Speed,
            id: 0x123,
            extended: None,
            start_bit,
            length,
            byte_order,
            signed: false,
            factor: 1.0,
            offset: 0.0,
            unit: None,
            sigma: None,
            invalid: Vec::new(),
            values: Vec::new(),
        }
    }

    #[test]
    fn bits_are_numbered_as_in_a_dbc_file() {
        let data = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0];
        // Sixteen bits in bytes 1 and 2: from bit 8 on in one order, from bit 15 on in the other.
        let little = signal(8, 16, ByteOrder::LittleEndian);
        assert_eq!(little.raw(&data), Some(0x5634));
        let big = signal(15, 16, ByteOrder::BigEndian);
        assert_eq!(big.raw(&data), Some(0x3456));
        // Twelve bits across a byte boundary: the lower half of byte 0 and byte 1.
        assert_eq!(signal(3, 12, ByteOrder::BigEndian).raw(&data), Some(0x234));
        assert_eq!(
            signal(4, 12, ByteOrder::LittleEndian).raw(&data),
            Some(0x341)
        );
        assert_eq!(signal(0, 64, ByteOrder::LittleEndian).raw(&data[..7]), None);
    }

    #[test]
    fn the_highest_bit_of_a_signed_signal_is_its_sign() {
        let signed = SignalConfig {
            signed: true,
            ..signal(4, 12, ByteOrder::LittleEndian)
        };
        assert_eq!(signed.raw(&[0xf0, 0xff]), Some(-1));
        assert_eq!(signed.raw(&[0x00, 0x80]), Some(-2048));
        assert_eq!(signed.raw(&[0xf0, 0x7f]), Some(2047));
        let whole = SignalConfig {
            signed: true,
            ..signal(7, 64, ByteOrder::BigEndian)
        };
        assert_eq!(whole.raw(&[0xff; 8]), Some(-1));
    }

    #[test]
    fn factor_offset_and_unit_make_the_value_and_some_raw_values_are_none() {
        let signal = SignalConfig {
            factor: 0.5,
            offset: -8.0,
            unit: Some(Unit::KilometresPerHour),
            invalid: vec![255],
            ..signal(0, 8, ByteOrder::LittleEndian)
        };
        assert_eq!(signal.value(88), Some(36.0 / 3.6));
        assert_eq!(signal.value(255), None);
    }

    #[test]
    fn values_that_pythons_cantools_decoded() {
        #[derive(Deserialize)]
        struct Case {
            #[serde(flatten)]
            signal: SignalConfig,
            data: Vec<u8>,
            expected: f64,
        }
        let text = include_str!("../../../tests/data/can/cantools.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let found = case.signal.value(case.signal.raw(&case.data).unwrap());
            let off = (found.unwrap() - case.expected).abs();
            assert!(
                off <= 1e-9 * case.expected.abs().max(1.0),
                "{:?}",
                case.signal
            );
        }
    }
}
