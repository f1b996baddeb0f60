//! Exports published networks with numbers from a formula, for runtimes that are not ours:
//! `published_export FOLDER FRAMES PRESET...`, `narrow/PRESET` for a quarter of the channels, `PRESET@METRES`
//! with a window of that side.
//!
//! Writes `PRESET.onnx` and `PRESET.safetensors` (inputs and what training makes of them), which
//! `tests/scripts/check_onnx.py` compares, and prints what tract and the daemon's matcher made of it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use crossfix_offline::model::named;
use crossfix_tests::golden::Generator;
use crossfix_tests::published::{export, narrow_network};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, frames, names @ ..] = arguments.as_slice() else {
        bail!("usage: published_export FOLDER FRAMES PRESET...");
    };
    std::fs::create_dir_all(folder)?;
    for name in names {
        let (name, window_m) = match name.split_once('@') {
            Some((name, metres)) => (name, Some(metres.parse()?)),
            None => (name.as_str(), None),
        };
        let spec = match name.strip_prefix("narrow/") {
            Some(name) => narrow_network(name)?,
            None => named(name).with_context(|| format!("no preset {name}"))?,
        };
        let mut file = name.replace('/', "-");
        if window_m.is_some() {
            file += "-window";
        }
        let (generator, frames) = (Generator::new("export"), frames.parse()?);
        let found = export(
            &spec,
            &generator,
            &file,
            Path::new(folder),
            frames,
            window_m,
        )?;
        println!("{name}: {found:#?}");
    }
    Ok(())
}
