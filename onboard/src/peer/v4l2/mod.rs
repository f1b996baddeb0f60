//! Camera frames from the Linux kernel (V4L2): USB cameras, capture cards, sensors of a board.
//!
//! Memory is bounded by the driver's few buffers, which are copied out of one at a time; nothing waits for
//! longer than [`READ_PATIENCE`](crate::port::READ_PATIENCE), so the thread ends when it is told to.

mod choose;
mod config;
#[cfg(target_os = "linux")]
mod device;
mod pixels;
mod read;
mod stamp;

pub use self::choose::PixelFormat;
pub use self::config::V4l2Config;
