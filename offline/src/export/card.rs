//! The card of a network: sizes from its table, origins and measurements from its weights file.

use super::ExportError;
use crate::model::{GroundProjection, Input, ModelSpec, NetworkKind};
use crate::recipe::HeatmapFit;
use anyhow::Context;
use crossfix_onboard::card::{
    AerialInput, CARD_FORMAT_VERSION, ErrorStatistics, FittedBy, GroundInput, HeatmapCalibration,
    HeatmapOutput, OrientationConvention, Provenance, StudentCard, WindowOutput,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Side of the square around the mode for which a student with a window gives the orientation, in cells: the mode,
/// its neighbours, and one more on each side, which costs nothing, as regions begin at even pixels.
const ORIENTATION_SIDE: usize = 5;

/// The card of a network: sizes from its table, the rest as given.
///
/// The ground strip's top edge is taken to be at +28°, or at the zenith for panoramas that show the
/// whole sphere.
pub fn student_card(spec: &ModelSpec, temperature: f64, licence: &str) -> StudentCard {
    let fov_deg = spec.field_of_view_deg;
    StudentCard {
        format_version: CARD_FORMAT_VERSION,
        kind: match spec.kind {
            NetworkKind::Ccvpe => "ccvpe".into(),
            NetworkKind::Ggcvt => "ggcvt".into(),
        },
        preset: spec.preset.clone(),
        ground: GroundInput {
            rows: spec.ground_rows,
            columns: spec.ground_columns,
            fov_deg,
            top_elevation_deg: spec.top_elevation_deg(),
            orientation_bins: spec.ground_left_bin().then_some(spec.orientation_bins),
            camera: None,
        },
        aerial: AerialInput {
            size_px: spec.aerial_px,
            metres_per_pixel: spec.metres_per_pixel,
        },
        heatmap: HeatmapOutput {
            side: spec.heatmap_side(),
            metres_per_cell: spec.metres_per_cell(),
            inner: spec.heatmap.side as f64 * spec.heatmap.cell_px < spec.aerial_px as f64 - 1e-6,
        },
        orientation: match spec.kind {
            NetworkKind::Ccvpe => OrientationConvention::YawResidual,
            // It looks for a place alone, with the heading that the strip was aligned with.
            NetworkKind::Ggcvt => OrientationConvention::None,
        },
        temperature,
        calibration: None,
        aerial_features: Vec::new(),
        ground_descriptors: Vec::new(),
        window: None,
        error: None,
        provenance: Provenance {
            producer: format!("crossfix {}", env!("CARGO_PKG_VERSION")),
            ..Provenance::default()
        },
        licence: licence.into(),
        licences: BTreeMap::new(),
    }
}

/// The card of a network that sees pinhole pictures: the card for one camera, `matrix` its focal
/// lengths and centre (fx, fy, cx, cy) in pixels of the ground image.
pub fn with_camera(mut card: StudentCard, matrix: [f64; 4]) -> StudentCard {
    let [fx, fy, cx, cy] = matrix;
    let columns = card.ground.columns as f64;
    let wide_rad = (cx / fx).atan() + ((columns - cx) / fx).atan();
    card.ground.camera = Some(matrix);
    card.ground.fov_deg = wide_rad.to_degrees();
    card.ground.top_elevation_deg = (cy / fy).atan().to_degrees();
    card
}

/// The card with a window of about `side_m` metres, over which the decoders are run alone.
pub fn with_window(mut card: StudentCard, side_m: f64) -> StudentCard {
    card.window = Some(WindowOutput {
        side: (side_m / card.heatmap.metres_per_cell).round() as usize,
        orientation_side: ORIENTATION_SIDE,
    });
    card
}

/// `input` as the camera of `card` takes it for the network of `spec`, where the card names one: the
/// patch is turned to the heading, or the network finds by how much it is not.
pub fn seen_by(card: &StudentCard, spec: &ModelSpec, mut input: Input) -> Input {
    if let Some(camera) = card.ground.camera {
        let heading = Some(0.0);
        let projection = spec.evaluation_projection(GroundProjection::Pinhole { camera, heading });
        input.projections = vec![projection; input.len()];
    }
    input
}

/// The card of a network whose weights file says `provenance` of itself, as `train`, `adapt` and
/// `import` write it: temperature, hashes of teacher, dataset and settings, measured errors, and the
/// licences of teacher and dataset. `licence` wins over the file's.
///
/// # Errors
/// When no licence is known.
pub fn card_of(
    spec: &ModelSpec,
    provenance: &Value,
    licence: Option<&str>,
) -> anyhow::Result<StudentCard> {
    let text = |pointer: &str| provenance.pointer(pointer).and_then(Value::as_str);
    let licence = licence.or_else(|| text("/licence"));
    let licence = licence.context(
        "names no licence; say --licence with an SPDX expression, for example CC-BY-4.0",
    )?;
    let temperature = provenance.get("temperature").and_then(Value::as_f64);
    let mut card = student_card(spec, temperature.unwrap_or(1.0), licence);
    let hash = |pointer: &str| text(pointer).unwrap_or_default().to_owned();
    card.provenance.teacher_sha256 = hash("/teacher_sha256");
    card.provenance.dataset_sha256 = hash("/dataset/sha256");
    card.provenance.config_sha256 = match provenance.get("settings") {
        None | Some(Value::Null) => String::new(),
        Some(settings) => crate::run::sha256_json(settings),
    };
    for (name, pointer) in [
        ("teacher", "/licences/teacher"),
        ("dataset", "/licences/dataset"),
    ] {
        if let Some(licence) = text(pointer) {
            card.licences.insert(name.into(), licence.into());
        }
    }
    card.error = error_statistics(provenance);
    card.calibration = match (provenance.get("heatmaps"), temperature) {
        (Some(heatmaps), Some(_)) if !heatmaps.is_null() => {
            let found: HeatmapFit = serde_json::from_value(heatmaps.clone())
                .context("says of its heatmaps what cannot be read (provenance.heatmaps)")?;
            Some(found.on_card())
        }
        // Older weights do not say by what.
        (_, Some(_)) => None,
        (_, None) => Some(UNFITTED),
    };
    Ok(card)
}

/// Of a temperature that was not fitted.
pub const UNFITTED: HeatmapCalibration = HeatmapCalibration {
    fitted_by: FittedBy::None,
    frames: 0,
    outlier_share: None,
};

/// Errors on held-out places, where a run measured its result on some.
fn error_statistics(provenance: &Value) -> Option<ErrorStatistics> {
    let measured = provenance.pointer("/test/student");
    let measured = measured.or_else(|| provenance.get("validation"))?;
    let number = |name: &str| measured.pointer(&format!("/unmasked/{name}"))?.as_f64();
    let count = number("count")? as usize;
    if count == 0 {
        return None;
    }
    Some(ErrorStatistics {
        count,
        mean_m: number("mean_m")?,
        median_m: number("median_m")?,
        p90_m: number("p90_m")?,
        yaw_median_deg: measured.pointer("/yaw/median_deg").and_then(Value::as_f64),
    })
}

/// The licence of something made of a teacher's weights and a dataset, as an SPDX expression.
pub fn joint_licence(teacher: Option<&str>, dataset: Option<&str>) -> Option<String> {
    match (teacher, dataset) {
        (Some(teacher), Some(dataset)) if teacher != dataset => {
            Some(format!("({teacher}) AND ({dataset})"))
        }
        (one, other) => one.or(other).map(str::to_owned),
    }
}

/// Whether a card describes the network of a table.
///
/// # Errors
/// [`ExportError::Disagreement`] naming the first field that differs.
pub fn agree(card: &StudentCard, spec: &ModelSpec) -> Result<(), ExportError> {
    let truth = student_card(spec, card.temperature, &card.licence);
    let fields: [(&'static str, fn(&StudentCard) -> f64); 9] = [
        ("ground.orientation_bins", |card| {
            card.ground.orientation_bins.unwrap_or(0) as f64
        }),
        ("ground.rows", |card| card.ground.rows as f64),
        ("ground.columns", |card| card.ground.columns as f64),
        ("aerial.size_px", |card| card.aerial.size_px as f64),
        ("aerial.metres_per_pixel", |card| {
            card.aerial.metres_per_pixel
        }),
        ("heatmap.side", |card| card.heatmap.side as f64),
        ("heatmap.metres_per_cell", |card| {
            card.heatmap.metres_per_cell
        }),
        ("heatmap.inner", |card| f64::from(card.heatmap.inner)),
        ("orientation (1 where it is told)", |card| {
            f64::from(card.orientation != OrientationConvention::None)
        }),
    ];
    for (what, field) in fields {
        let (card, network) = (field(card), field(&truth));
        // Written so that NaN disagrees.
        if !((card - network).abs() <= 1e-9 * network) {
            return Err(ExportError::Disagreement {
                what,
                card,
                network,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;
    use serde_json::json;

    #[test]
    fn a_card_says_where_the_student_comes_from_and_how_good_it_is() {
        let spec = named("compact").unwrap().describe();
        let provenance = json!({
            "teacher_sha256": "aa",
            "dataset": { "sha256": "bb" },
            "settings": { "epochs": 2 },
            "temperature": 0.7,
            "licence": "(MIT) AND (CC-BY-4.0)",
            "licences": { "teacher": "MIT", "dataset": "CC-BY-4.0" },
            "test": { "student": {
                "unmasked": { "count": 9, "mean_m": 1.0, "median_m": 0.5, "p90_m": 2.0 },
                "yaw": { "median_deg": 1.5 },
            } },
        });
        let card = card_of(&spec, &provenance, None).unwrap();
        assert_eq!(card.provenance.teacher_sha256, "aa");
        assert_eq!(card.provenance.dataset_sha256, "bb");
        assert_eq!(card.provenance.config_sha256.len(), 64);
        assert_eq!(card.temperature, 0.7);
        assert_eq!(card.licences["teacher"], "MIT");
        assert_eq!(card.licences["dataset"], "CC-BY-4.0");
        assert_eq!(card.calibration, None);
        let mut fitted = provenance.clone();
        fitted["heatmaps"] = json!({
            "by": "drives", "temperature": 0.7, "outlier_share": 0.04, "frames": 300, "nll": 2.0, "coverage": [],
        });
        let calibration = card_of(&spec, &fitted, None).unwrap().calibration.unwrap();
        assert_eq!(
            (
                calibration.fitted_by,
                calibration.frames,
                calibration.outlier_share
            ),
            (FittedBy::Drives, 300, Some(0.04))
        );
        let error = card.error.unwrap();
        assert_eq!(
            (error.count, error.p90_m, error.yaw_median_deg),
            (9, 2.0, Some(1.5))
        );
        assert!(card_of(&spec, &json!({}), None).is_err());
        let unfitted = card_of(&spec, &json!({}), Some("MIT")).unwrap().calibration;
        assert_eq!(unfitted.unwrap().fitted_by, FittedBy::None);
        assert_eq!(
            card_of(&spec, &json!({}), Some("MIT")).unwrap().licence,
            "MIT"
        );
    }

    #[test]
    fn both_licences_stay_and_equal_ones_are_said_once() {
        let joint = |teacher, dataset| joint_licence(teacher, dataset);
        assert_eq!(joint(Some("MIT"), Some("MIT")).unwrap(), "MIT");
        assert_eq!(joint(Some("A"), Some("B")).unwrap(), "(A) AND (B)");
        assert_eq!(joint(None, Some("B")).unwrap(), "B");
        assert!(joint(None, None).is_none());
    }
}
