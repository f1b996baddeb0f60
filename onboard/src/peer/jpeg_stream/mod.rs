//! Camera frames as JPEG pictures one after the other, as GStreamer, FFmpeg and most cameras can write them:
//! over standard input or a Unix socket.

mod config;
mod read;
mod split;

pub use self::config::JpegStreamConfig;
