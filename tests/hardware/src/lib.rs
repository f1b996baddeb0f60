//! Recorded drives through the daemon's core, with faults or without, and what came out of them.

pub mod drive;
pub mod fault;
pub mod figures;
pub mod live;
mod live_bounds;
mod picture;
pub mod run;
pub mod scenario;
mod student;
#[cfg(test)]
mod tests;
