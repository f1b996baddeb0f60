//! Writes the manual pages and the shell completions of `crossfix` into a folder, for packages.
//!
//! ```sh
//! cargo run --release -p crossfix-offline --example offline_manual -- target/manual/crossfix
//! ```

use clap::CommandFactory;
use clap_complete::Shell;
use crossfix_offline::cli::Cli;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.expect("usage: offline_manual FOLDER");
    std::fs::create_dir_all(&folder)?;
    let mut command = Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "crossfix", &folder)?;
    }
    clap_mangen::generate_to(command, &folder)
}
