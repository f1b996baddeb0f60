//! Writes the manual pages and the shell completions of `crossfixd` into a folder, for packages.
//!
//! ```sh
//! cargo run --release -p crossfix-onboard --example manual -- target/manual
//! ```

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use crossfix_onboard::cli::Arguments;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.expect("usage: manual FOLDER");
    std::fs::create_dir_all(&folder)?;
    let mut command = Arguments::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "crossfixd", &folder)?;
    }
    clap_mangen::generate_to(command, &folder)
}
