//! Odometry from a vehicle's CAN bus, through SocketCAN, or from a recording of `candump -l`. Which bits of
//! which messages mean what is a table in the config, with the columns of a DBC file.

mod config;
mod decode;
mod dump;
mod read;
mod signal;

pub use self::config::CanConfig;
pub use self::signal::{ByteOrder, Quantity, SignalConfig, Unit};
