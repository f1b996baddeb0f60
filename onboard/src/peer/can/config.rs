//! The `can` source of the config.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::read::{DumpReader, open_interface};
use super::signal::{Quantity, SignalConfig};
use crate::clocks::{ClockRule, ODOMETRY_LATENCY_S};
use crate::config::Checker;
use crate::peer::{Playback, check_latency};
use crate::port::{Connection, Peer, PeerError};

/// Speed and yaw rate from the messages of a CAN bus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CanConfig {
    /// Name in logs and states. Default "can".
    pub name: String,
    /// The interface, such as "can0"; with `file`, the one whose messages are taken of the recording.
    pub interface: Option<String>,
    /// A recording of `candump -l` in place of an interface, played at its own speed; its stamps are UTC.
    pub file: Option<PathBuf>,
    /// Time from the measurement until its message arrives here, seconds. Default 0.02.
    pub delay_s: f64,
    /// Longest such time, seconds; what does not fit it is not used. Default 0.5.
    pub latency_s: Option<f64>,
    /// Which bits mean what; at least one is a speed or a yaw rate.
    pub signal: Vec<SignalConfig>,
}

impl Default for CanConfig {
    fn default() -> Self {
        Self {
            name: "can".into(),
            interface: None,
            file: None,
            delay_s: 0.02,
            latency_s: None,
            signal: Vec::new(),
        }
    }
}

impl Peer for CanConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        // A bus has no clock: messages are stamped as they arrive, on this machine's own.
        let rule = if self.file.is_some() {
            ClockRule::Refuse
        } else {
            ClockRule::Correct
        };
        (self.latency_s, rule)
    }

    fn open(&self, playback: &Playback) -> Result<Connection, PeerError> {
        match (&self.interface, &self.file) {
            (_, Some(_)) => DumpReader::open(self, playback.clone()).map(Connection::reader),
            (Some(interface), None) => open_interface(self, interface),
            (None, None) => Err(PeerError::Protocol(
                "neither interface nor file is set".to_owned(),
            )),
        }
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        let latency_s = self.latency_s.unwrap_or(ODOMETRY_LATENCY_S);
        check.range("delay_s", self.delay_s, 0.0, latency_s);
        if self.interface.is_none() && self.file.is_none() {
            check.problem(
                "interface",
                "set either interface, such as \"can0\", or file",
            );
        }
        if let Some(file) = &self.file {
            check.exists("file", file);
        }
        for (index, signal) in self.signal.iter().enumerate() {
            signal.check(index, check);
        }
        for quantity in [Quantity::Speed, Quantity::YawRate, Quantity::Reverse] {
            let same = self
                .signal
                .iter()
                .filter(|signal| signal.quantity == quantity);
            if same.count() > 1 {
                check.problem("signal", format!("{quantity:?} is there twice; keep one"));
            }
        }
        let measures = |signal: &SignalConfig| signal.quantity != Quantity::Reverse;
        if !self.signal.iter().any(measures) {
            check.problem(
                "signal",
                "has neither a speed nor a yaw_rate; add a [[source.signal]] table with the columns of your DBC \
                 file",
            );
        }
    }

    fn check_machine(&self, check: &mut Checker) {
        if let (Some(interface), None) = (&self.interface, &self.file)
            && !Path::new("/sys/class/net").join(interface).exists()
        {
            let message = format!(
                "there is no interface {interface:?} now; set it up with `ip link set {interface} up type can \
                 bitrate 500000`"
            );
            check.machine("interface", message);
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        self.file.iter_mut().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const SPEED: &str = "[[source.signal]]\nquantity = \"speed\"\nid = 0x1a0\nstart_bit = 8\nlength = 16\n\
                         byte_order = \"little_endian\"\n";

    fn problems(text: &str) -> Vec<String> {
        let text = format!("[[source]]\nkind = \"can\"\n{text}");
        let problems = Config::parse(&text).unwrap().check();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_table_of_signals_is_checked_by_its_columns() {
        assert!(problems(&format!("interface = \"can0\"\n{SPEED}")).is_empty());
        for (text, field) in [
            (SPEED.to_owned(), "interface"),
            ("interface = \"can0\"".to_owned(), "signal"),
            (format!("interface = \"can0\"\n{SPEED}{SPEED}"), "signal"),
            (
                format!("interface = \"can0\"\n{SPEED}unit = \"deg/s\""),
                "signal[0].unit",
            ),
            (
                format!("interface = \"can0\"\n{SPEED}factor = 0.0"),
                "signal[0].factor",
            ),
            (
                format!("interface = \"can0\"\n{SPEED}extended = false\nvalues = [1]"),
                "signal[0].values",
            ),
            (
                format!("interface = \"can0\"\n{}", SPEED.replace("= 8", "= 510")),
                "signal[0].start_bit",
            ),
            (
                format!(
                    "interface = \"can0\"\n{}extended = false",
                    SPEED.replace("0x1a0", "0x1fff")
                ),
                "signal[0].id",
            ),
        ] {
            let found = problems(&text);
            let named = format!("source[0].{field}: ");
            assert!(
                found.len() == 1 && found[0].starts_with(&named),
                "{text}: {found:?}"
            );
        }
    }
}
