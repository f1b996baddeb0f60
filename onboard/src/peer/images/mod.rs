//! Camera frames from a folder of JPEG or PNG pictures.

mod config;
mod read;
mod watch;

pub use self::config::{ImagesConfig, ImagesMode};
pub use self::read::image_time_ns;
