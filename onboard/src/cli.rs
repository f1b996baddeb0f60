//! The command line of `crossfixd`, also for its manual page and completions.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The config file when none is named.
pub const DEFAULT_CONFIG: &str = "/etc/crossfix/crossfixd.toml";

/// Coarse GNSS, camera, odometry and aerial tiles in, refined positions out.
#[derive(Debug, Parser)]
#[command(name = "crossfixd", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Report every problem of a config file and exit.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = DEFAULT_CONFIG, conflicts_with = "print_config")]
    pub check: Option<PathBuf>,

    /// Print a config file (or no file's) with every field and default filled in, and exit.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub print_config: Option<Option<PathBuf>>,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until TERM or INT; both finish the files, a second one exits at once. HUP loads the student
    /// that the config file names now; one that cannot be used leaves the old one running.
    Run {
        /// The config file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Play a recorded drive through the same core as fast as it goes; sources and sinks of the config
    /// are not used.
    Replay {
        /// The recorded drive: an MCAP file, or the folder of a ROS 2 bag.
        log: PathBuf,
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Write the estimates to this MCAP file, which must not exist.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print one JSON object per estimate.
        #[arg(long)]
        json: bool,
    },
    /// Print the status of a running daemon; its config must set `daemon.status_socket`.
    Status {
        /// The config file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// The same as --check.
    Check {
        /// The config file.
        #[arg(value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
}
