//! What an exported student says about itself: the card inside `student.onnx`.
//!
//! The exporter writes it as JSON into the ONNX `metadata_props` under [`CARD_KEY`]; the daemon
//! refuses a student without one, because sizes, metres per pixel and the meaning of the yaw output
//! cannot be guessed from tensors.

use serde::{Deserialize, Serialize};

/// Key of the card in the ONNX `metadata_props`.
pub const CARD_KEY: &str = "crossfix.card";

/// The card format that this version reads and writes.
pub const CARD_FORMAT_VERSION: u32 = 1;

/// Longest side of any picture or map that a card may announce, in pixels.
const LARGEST_SIDE_PX: usize = 4096;

/// Everything that driving must know about an exported student.
///
/// # Shapes and units
/// ONNX inputs `ground` `[1, 3, ground.rows, ground.columns]` and `aerial`
/// `[1, 3, aerial.size_px, aerial.size_px]`, pixel values 0 to 255 in RGB; outputs `heatmap`
/// `[1, heatmap.side, heatmap.side]`, which sums to 1, and `orientation`
/// `[1, 2, heatmap.side, heatmap.side]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentCard {
    /// Format of the card; see [`CARD_FORMAT_VERSION`].
    pub format_version: u32,
    /// Network family, for example `ccvpe`.
    pub kind: String,
    /// Size preset, for example `compact` or `compact-front`.
    pub preset: String,
    /// The strip of camera picture that the network eats.
    pub ground: GroundInput,
    /// The aerial patch that the network eats.
    pub aerial: AerialInput,
    /// The map that the network answers with.
    pub heatmap: HeatmapOutput,
    /// What the orientation output means.
    pub orientation: OrientationConvention,
    /// Softmax temperature that is already inside the graph; for the record.
    pub temperature: f64,
    /// Value names that depend on the aerial patch alone and on which everything else rests, in order.
    pub aerial_features: Vec<String>,
    /// Value names of the ground descriptors, in order.
    pub ground_descriptors: Vec<String>,
    /// Errors on held-out places, where they were measured.
    #[serde(default)]
    pub error: Option<ErrorStatistics>,
    /// What made this student.
    pub provenance: Provenance,
    /// Licence of the weights, as an SPDX expression.
    pub licence: String,
}

/// The ground strip, north-aligned with the heading at hand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroundInput {
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
    /// Horizontal field of view in degrees: 360 for a panorama.
    pub fov_deg: f64,
    /// Elevation of the top edge in degrees above the horizon.
    pub top_elevation_deg: f64,
}

/// The aerial patch, north up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AerialInput {
    /// Side in pixels.
    pub size_px: usize,
    /// Ground resolution.
    pub metres_per_pixel: f64,
}

/// The heatmap over the same ground as the aerial patch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeatmapOutput {
    /// Side in cells.
    pub side: usize,
    /// Ground resolution.
    pub metres_per_cell: f64,
}

/// What the two channels of the orientation output mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrientationConvention {
    /// Channel 0 is the cosine and channel 1 the sine of (true yaw − assumed yaw), radians
    /// counter-clockwise.
    YawResidual,
    /// The outputs carry no usable orientation.
    None,
}

/// Position and yaw errors on places the student was not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorStatistics {
    /// Number of pairs measured.
    pub count: usize,
    /// Mean position error of the heatmap's mode, metres.
    pub mean_m: f64,
    /// Median position error, metres.
    pub median_m: f64,
    /// 90th percentile of the position error, metres.
    pub p90_m: f64,
    /// Median yaw error, degrees.
    #[serde(default)]
    pub yaw_median_deg: Option<f64>,
}

/// Hashes of what made the student, lower-case hexadecimal SHA-256.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Weights of the teacher.
    #[serde(default)]
    pub teacher_sha256: String,
    /// The dataset it was adapted on.
    #[serde(default)]
    pub dataset_sha256: String,
    /// The resolved configuration of the run.
    #[serde(default)]
    pub config_sha256: String,
    /// Program and version that wrote the file.
    #[serde(default)]
    pub producer: String,
}

/// Why a card cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Not JSON, or not the JSON of a card.
    #[error("the student's card is not readable: {0}; export the student again")]
    Json(#[from] serde_json::Error),
    /// Readable, and impossible.
    #[error("the student's card says {0}; export the student again")]
    Invalid(String),
}

impl StudentCard {
    /// Reads and checks a card.
    ///
    /// # Errors
    /// [`CardError`] when it is not a card, or says something impossible.
    pub fn from_json(json: &str) -> Result<Self, CardError> {
        // The version is looked at first, so that a newer card is called newer and not malformed.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_str(json)?;
        if format_version != CARD_FORMAT_VERSION {
            return Err(CardError::Invalid(format!(
                "format_version {format_version}, and this version reads {CARD_FORMAT_VERSION}"
            )));
        }
        let card: Self = serde_json::from_str(json)?;
        card.check()?;
        Ok(card)
    }

    /// The JSON that belongs into the ONNX `metadata_props`.
    ///
    /// # Errors
    /// [`CardError`] when the card says something impossible, so that no such file is ever written.
    pub fn to_json(&self) -> Result<String, CardError> {
        self.check()?;
        Ok(serde_json::to_string(self)?)
    }

    /// Side of the aerial patch in metres.
    pub fn patch_side_m(&self) -> f64 {
        self.aerial.size_px as f64 * self.aerial.metres_per_pixel
    }

    /// Checks that sizes are possible and agree with each other.
    ///
    /// # Errors
    /// [`CardError::Invalid`] naming the field and its value.
    pub fn check(&self) -> Result<(), CardError> {
        let sides = [
            ("ground.rows", self.ground.rows),
            ("ground.columns", self.ground.columns),
            ("aerial.size_px", self.aerial.size_px),
            ("heatmap.side", self.heatmap.side),
        ];
        for (name, value) in sides {
            if value == 0 || value > LARGEST_SIDE_PX {
                return invalid(format!("{name} = {value}, outside 1 to {LARGEST_SIDE_PX}"));
            }
        }
        let ranges = [
            ("ground.fov_deg", self.ground.fov_deg, 1.0, 360.0),
            (
                "ground.top_elevation_deg",
                self.ground.top_elevation_deg,
                -90.0,
                90.0,
            ),
            (
                "aerial.metres_per_pixel",
                self.aerial.metres_per_pixel,
                0.01,
                10.0,
            ),
            (
                "heatmap.metres_per_cell",
                self.heatmap.metres_per_cell,
                0.01,
                100.0,
            ),
            ("temperature", self.temperature, 1e-3, 1e3),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return invalid(format!("{name} = {value}, outside {low} to {high}"));
            }
        }
        let heatmap_side_m = self.heatmap.side as f64 * self.heatmap.metres_per_cell;
        if (heatmap_side_m - self.patch_side_m()).abs() > 1e-6 * self.patch_side_m() {
            return invalid(format!(
                "a heatmap of {heatmap_side_m} m over an aerial patch of {} m",
                self.patch_side_m()
            ));
        }
        if self.aerial_features.is_empty() {
            return invalid("no aerial_features, so nothing could be cached".to_owned());
        }
        let names: Vec<&String> = self
            .aerial_features
            .iter()
            .chain(&self.ground_descriptors)
            .collect();
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() || names[..i].contains(name) {
                return invalid(format!("the cut point `{name}` empty or twice"));
            }
        }
        if self.licence.trim().is_empty() {
            return invalid("no licence".to_owned());
        }
        Ok(())
    }
}

fn invalid<T>(what: String) -> Result<T, CardError> {
    Err(CardError::Invalid(what))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The card of a network small enough to build by hand.
    pub(crate) fn tiny_card() -> StudentCard {
        StudentCard {
            format_version: CARD_FORMAT_VERSION,
            kind: "ccvpe".into(),
            preset: "tiny".into(),
            ground: GroundInput {
                rows: 4,
                columns: 8,
                fov_deg: 360.0,
                top_elevation_deg: 28.0,
            },
            aerial: AerialInput {
                size_px: 8,
                metres_per_pixel: 8.0,
            },
            heatmap: HeatmapOutput {
                side: 8,
                metres_per_cell: 8.0,
            },
            orientation: OrientationConvention::YawResidual,
            temperature: 1.0,
            aerial_features: vec!["aerial_features_0".into()],
            ground_descriptors: vec![],
            error: None,
            provenance: Provenance::default(),
            licence: "MIT".into(),
        }
    }

    #[test]
    fn a_card_survives_its_json() {
        let card = tiny_card();
        assert_eq!(
            StudentCard::from_json(&card.to_json().unwrap()).unwrap(),
            card
        );
    }

    #[test]
    fn impossible_cards_are_refused_by_name() {
        type Break = fn(&mut StudentCard);
        let cases: [(Break, &str); 7] = [
            (|c| c.heatmap.side = 0, "heatmap.side"),
            (|c| c.ground.columns = 1 << 40, "ground.columns"),
            (
                |c| c.aerial.metres_per_pixel = f64::NAN,
                "aerial.metres_per_pixel",
            ),
            (|c| c.heatmap.metres_per_cell = 1.0, "over an aerial patch"),
            (|c| c.aerial_features.clear(), "aerial_features"),
            (|c| c.aerial_features = vec!["a".into(), "a".into()], "`a`"),
            (|c| c.licence = " ".into(), "licence"),
        ];
        for (spoil, expected) in cases {
            let mut card = tiny_card();
            spoil(&mut card);
            let message = card.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(card.to_json().is_err());
        }
    }

    #[test]
    fn foreign_json_is_an_error_and_a_newer_card_is_called_newer() {
        for json in ["", "{", "[]", "null", "{}", "{\"format_version\":1}"] {
            assert!(StudentCard::from_json(json).is_err(), "{json}");
        }
        let newer = StudentCard::from_json("{\"format_version\":2,\"more\":1}").unwrap_err();
        assert!(newer.to_string().contains("format_version 2"), "{newer}");
    }
}
