//! Metrics for Prometheus, and a health check, over HTTP.

mod config;
mod text;
mod write;

pub use self::config::MetricsConfig;
