//! The labels of an adaptation as places on a map: from memory, or from its `labels.jsonl`.

use super::input::LabelQuality;
use super::label_map::{LabelDrive, LabelFrame, LabelMap};
use super::overview::Square;
use crate::data::Dataset;
use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::sample::{Drive, Sample};
use crate::recipe::PseudoLabel;
use anyhow::{Context, ensure};
use crossfix_calibration::{Enu, Geodetic, LocalFrame};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Drives that begin this near to the first one are on its map.
const NEAR_M: f64 = 900.0;
/// Drives on one map.
const MOST_DRIVES: usize = 3;

/// A line of `labels.jsonl`.
#[derive(Deserialize)]
struct Line {
    label: PseudoLabel,
    kept: bool,
}

/// The labels of a run's `labels.jsonl`; those that were not learned have weight 0.
///
/// # Errors
/// The file, and the line that is no label.
pub fn read_labels(path: &Path) -> anyhow::Result<Vec<PseudoLabel>> {
    let cannot = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(cannot)?;
    let mut labels = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(cannot)?;
        let line: Line = serde_json::from_str(&line)
            .with_context(|| format!("{}, line {}: no label", path.display(), number + 1))?;
        let weight = if line.kept { line.label.weight } else { 0.0 };
        labels.push(PseudoLabel {
            weight,
            ..line.label
        });
    }
    Ok(labels)
}

/// The names of drives of which a student learned no frame: kept back to judge it, as a rule, or dropped whole.
pub fn kept_back<'a>(dataset: &'a dyn Dataset, labels: &[PseudoLabel]) -> HashSet<&'a str> {
    let learned: HashSet<&str> = labels
        .iter()
        .filter(|label| label.is_kept())
        .map(|label| label.id.as_str())
        .collect();
    let mut drives: HashMap<&str, bool> = HashMap::new();
    for sample in dataset.samples().filter(|sample| !sample.drive.is_empty()) {
        *drives.entry(sample.drive.as_str()).or_default() |= learned.contains(sample.id.as_str());
    }
    let back = drives.into_iter().filter(|(_, learned)| !learned);
    back.map(|(name, _)| name).collect()
}

/// The first drive's labels and those of drives near it, over the aerial picture of `tiles`. `None` where no
/// labelled frame is of a drive. Truth is for the map's reader alone. Where the tiles show too little, the caption says
/// so and there is no picture.
///
/// # Errors
/// Labels that are of other pairs.
pub fn label_map(
    dataset: &dyn Dataset,
    labels: &[PseudoLabel],
    truth: Option<&Truth>,
    tiles: &Path,
) -> anyhow::Result<Option<LabelMap>> {
    let by_id: HashMap<&str, &PseudoLabel> = labels
        .iter()
        .map(|label| (label.id.as_str(), label))
        .collect();
    let labelled = dataset
        .samples()
        .filter(|sample| by_id.contains_key(sample.id.as_str()))
        .count();
    ensure!(
        2 * labelled >= labels.len(),
        "{labelled} of {} labels are of these pairs; give the pairs that the run learned",
        labels.len()
    );
    let drives = dataset.drives();
    let start = |drive: &Drive| {
        drive
            .samples
            .first()
            .map(|index| dataset.sample(*index).centre)
    };
    let Some(origin) = drives.iter().find_map(start) else {
        return Ok(None);
    };
    let frame = LocalFrame::new(origin);
    let near = |drive: &&Drive| {
        let start = start(drive).map(|place| frame.enu_from_geodetic(place));
        start.is_some_and(|start| start.east().hypot(start.north()) < NEAR_M)
    };
    let of_drive = |drive: &Drive| LabelDrive {
        name: drive.name.clone(),
        frames: drive
            .samples
            .iter()
            .filter_map(|index| {
                let sample = dataset.sample(*index);
                let label = by_id.get(sample.id.as_str())?;
                Some(label_frame(sample, label, truth, &frame))
            })
            .collect(),
    };
    let shown: Vec<LabelDrive> = drives
        .iter()
        .filter(near)
        .take(MOST_DRIVES)
        .map(of_drive)
        .collect();
    let places: Vec<[f64; 2]> = shown
        .iter()
        .flat_map(|drive| &drive.frames)
        .map(|frame| frame.label_m)
        .collect();
    if places.is_empty() {
        return Ok(None);
    }
    let mut caption = format!(
        "{} of {} drives that were labelled: the first, and those that begin within {NEAR_M:.0} m of it.",
        shown.len(),
        drives.len()
    );
    // Ingested tiles lie along the drives only, and long drives need more of them than one picture holds.
    let map = match Square::around(places.iter().copied()).picture(tiles, origin) {
        Ok(map) => Some(map),
        Err(error) => {
            caption += &format!(" Without an aerial picture: {error:#}.");
            None
        }
    };
    Ok(Some(LabelMap {
        caption,
        not_learned: not_learned(dataset, labels),
        supported: labels.iter().any(|label| label.support < 1.0),
        map,
        drives: shown,
    }))
}

/// How far the labels are from the truth, by what became of them.
pub fn label_quality(dataset: &dyn Dataset, labels: &[PseudoLabel], truth: &Truth) -> LabelQuality {
    let by_id: HashMap<&str, &PseudoLabel> = labels
        .iter()
        .map(|label| (label.id.as_str(), label))
        .collect();
    let back = kept_back(dataset, labels);
    let mut quality = LabelQuality {
        caption:
            "How far labels are from the truth, which adaptation never saw; further left is better."
                .into(),
        ..LabelQuality::default()
    };
    for sample in dataset.samples() {
        let label = by_id.get(sample.id.as_str());
        let Some((label, pose)) = label.zip(true_pose(sample, truth)) else {
            continue;
        };
        let group = match (label.is_kept(), back.contains(sample.drive.as_str())) {
            (true, _) => &mut quality.kept_errors_m,
            (false, true) => &mut quality.kept_back_errors_m,
            (false, false) => &mut quality.dropped_errors_m,
        };
        let [east, north] = [0, 1].map(|axis| label.offset_m[axis] - pose.offset_m[axis]);
        group.push(east.hypot(north));
    }
    quality
}

/// Why labels were not learned, of the whole run.
fn not_learned(dataset: &dyn Dataset, labels: &[PseudoLabel]) -> String {
    let back = kept_back(dataset, labels);
    let of_drive: HashMap<&str, &str> = dataset
        .samples()
        .map(|sample| (sample.id.as_str(), sample.drive.as_str()))
        .collect();
    let unlearned = labels.iter().filter(|label| !label.is_kept());
    let (held, dropped): (Vec<_>, Vec<_>) = unlearned.partition(|label| {
        let drive = of_drive.get(label.id.as_str());
        drive.is_some_and(|drive| back.contains(drive))
    });
    let held = (!held.is_empty()).then(|| {
        format!(
            "{} frames of drives of which none was learned (kept back to judge the student, or dropped whole)",
            held.len()
        )
    });
    let dropped = (!dropped.is_empty()).then(|| format!("{} dropped by the filter", dropped.len()));
    let parts: Vec<String> = held.into_iter().chain(dropped).collect();
    format!("in the whole run {}", parts.join(", "))
}

fn label_frame(
    sample: &Sample,
    label: &PseudoLabel,
    truth: Option<&Truth>,
    frame: &LocalFrame,
) -> LabelFrame {
    let at = |offset_m| place(sample.centre, offset_m, frame);
    LabelFrame {
        coarse_m: at(sample.coarse_offset_m),
        teacher_m: at(label.peak_m),
        label_m: at(label.offset_m),
        truth_m: truth
            .and_then(|truth| true_pose(sample, truth))
            .map(|pose| at(pose.offset_m)),
        support: label.support,
        learned: label.is_kept(),
    }
}

/// Metres east and north about a patch's centre in the map's frame.
fn place(centre: Geodetic, [east, north]: [f64; 2], frame: &LocalFrame) -> [f64; 2] {
    let there = LocalFrame::new(centre).geodetic_from_enu(Enu::new(east, north, 0.0));
    let there = frame.enu_from_geodetic(there);
    [there.east(), there.north()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sample::Pair;
    use crate::model::GroundProjection;
    use crossfix_calibration::RgbImage;

    fn pairs() -> Vec<Pair> {
        let projection = GroundProjection::Panorama {
            metres_per_pixel: 0.5,
            turn_rad: 0.0,
        };
        let empty = RgbImage {
            width: 0,
            height: 0,
            data: Vec::new(),
        };
        let pair = |index: usize| {
            let mut sample = Sample::unplaced(format!("{index}"), projection);
            sample.drive = if index < 4 { "a" } else { "b" }.into();
            sample.time_ns = index as i64;
            sample.centre = Geodetic::new(52.0 + 1e-5 * index as f64, 4.0, 0.0).unwrap();
            Pair {
                sample,
                ground: empty.clone(),
                aerial: empty.clone(),
            }
        };
        (0..8).map(pair).collect()
    }

    fn label(index: usize, weight: f64) -> PseudoLabel {
        PseudoLabel {
            id: format!("{index}"),
            column: 0.0,
            row: 0.0,
            offset_m: [1.0, 2.0],
            residual_rad: 0.0,
            peak_m: [5.0, 0.0],
            peak: 0.1,
            entropy: 1.0,
            support: 0.9,
            weight,
            map: None,
        }
    }

    #[test]
    fn drives_of_which_nothing_is_learned_are_kept_back_and_others_dropped() {
        let pairs = pairs();
        // Frame 1 of drive a is dropped, drive b is kept back.
        let weights = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let labels: Vec<PseudoLabel> = weights
            .iter()
            .enumerate()
            .map(|(i, w)| label(i, *w))
            .collect();
        assert_eq!(kept_back(&pairs, &labels), HashSet::from(["b"]));
        assert_eq!(
            not_learned(&pairs, &labels),
            "in the whole run 4 frames of drives of which none was learned (kept back to judge the student, or dropped whole), 1 dropped by the filter"
        );
    }

    #[test]
    fn a_label_lies_where_its_patch_and_offset_say() {
        let pairs = pairs();
        let frame = LocalFrame::new(pairs[0].sample.centre);
        let found = label_frame(&pairs[3].sample, &label(3, 1.0), None, &frame);
        // 3e-5 degrees of latitude are 3.34 m.
        assert!((found.label_m[0] - 1.0).abs() < 1e-3 && (found.label_m[1] - 5.337).abs() < 0.01);
        assert!((found.teacher_m[0] - 5.0).abs() < 1e-3 && found.truth_m.is_none());
    }

    #[test]
    fn labels_are_read_back_as_they_were_learned_and_those_of_other_pairs_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.jsonl");
        let line = |label: &PseudoLabel, kept: bool| {
            serde_json::json!({ "label": label, "distance_m": null, "kept": kept }).to_string()
        };
        let text = format!(
            "{}\n{}\n",
            line(&label(0, 0.7), true),
            line(&label(1, 0.7), false)
        );
        std::fs::write(&path, text).unwrap();
        let labels = read_labels(&path).unwrap();
        assert_eq!([labels[0].weight, labels[1].weight], [0.7, 0.0]);
        let strangers: Vec<PseudoLabel> = (20..30).map(|index| label(index, 1.0)).collect();
        let error = label_map(&pairs(), &strangers, None, Path::new("none")).unwrap_err();
        assert!(error.to_string().contains("0 of 10 labels"), "{error}");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(
            read_labels(&path)
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }
}
