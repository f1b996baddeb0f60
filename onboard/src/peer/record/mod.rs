//! Records what a later adaptation learns from: chosen frames, fixes, odometry and estimates, in files of
//! bounded size. The format is described in `docs/recording.md`.

mod choose;
mod config;
mod folder;
mod private;
#[cfg(test)]
mod tests;
mod write;

pub use self::config::RecordSinkConfig;
pub use self::private::Zone;
