//! Aerial patches and answers of a few test pairs, so that somebody else can run `student.onnx` by
//! its card alone and compare (`tests/scripts/run_by_card.py`).

use super::Measured;
use crate::data::Dataset;
use crate::run::RunFolder;
use anyhow::Context;
use image::ExtendedColorType;
use serde_json::json;

/// Writes `example/ID.png`, the aerial patch of each pair, and `example/answers.jsonl`.
pub fn write(
    folder: &RunFolder,
    pairs: &dyn Dataset,
    indices: impl Iterator<Item = usize>,
    student: &Measured,
) -> anyhow::Result<()> {
    let folder = folder.subfolder("example");
    let folder = folder.map_err(|(path, error)| anyhow::anyhow!("cannot make {path}: {error}"))?;
    folder.forget("answers.jsonl");
    for index in indices {
        let pair = pairs.pair(index)?;
        let name = format!("{}.png", pair.sample.id);
        let path = folder.file(&name);
        let [width, height] = [pair.aerial.width, pair.aerial.height].map(|side| side as u32);
        image::save_buffer(
            &path,
            &pair.aerial.data,
            width,
            height,
            ExtendedColorType::Rgb8,
        )
        .with_context(|| format!("cannot write {}", path.display()))?;
        let prediction = &student.predictions[index];
        let answer = json!({
            "id": pair.sample.id,
            "aerial": name,
            "centre_latitude_deg": pair.sample.centre.latitude_deg,
            "centre_longitude_deg": pair.sample.centre.longitude_deg,
            "mode_offset_m": prediction.mode_m,
            "residual_rad": prediction.residual_rad,
        });
        let appended = folder.append_line("answers.jsonl", &answer);
        appended.context("cannot write example/answers.jsonl")?;
    }
    Ok(())
}
