//! `crossfix tiles`: tile sets from aerial pictures, and whether one covers a drive.
//!
//! [`geotiff`] reads pictures, [`projection`] says where their pixels are, [`import`] paints Web Mercator tiles from them, and
//! [`check`](mod@check) looks whether a tile set is there, fresh and fine enough where it is needed.

mod check;
mod geotiff;
mod import;
mod projection;
#[cfg(test)]
mod tests;

pub use check::TilesCheckArgs;
pub use import::TilesImportArgs;

use crate::storage::{Files, Paths, Role};

/// Arguments of `crossfix tiles`.
#[derive(Debug, Clone, clap::Args)]
pub struct TilesArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Make a tile set of aerial pictures (GeoTIFF, COG).
    Import(TilesImportArgs),
    /// Say whether a tile set covers a drive, its scale and its age.
    Check(TilesCheckArgs),
}

impl Files for TilesArgs {
    fn paths(&mut self) -> Paths<'_> {
        let (inputs, out) = match &mut self.command {
            Command::Import(args) => (&mut args.pictures, (Role::New, &mut args.out)),
            Command::Check(args) => (&mut args.tracks, (Role::Input, &mut args.tiles)),
        };
        let mut paths = vec![out];
        paths.extend(inputs.iter_mut().map(|path| (Role::Input, path)));
        paths
    }
}

/// Runs it.
///
/// # Errors
/// When a picture or tile set cannot be used.
pub fn run(args: &TilesArgs) -> anyhow::Result<()> {
    match &args.command {
        Command::Import(args) => import::run(args),
        Command::Check(args) => check::run(args),
    }
}
