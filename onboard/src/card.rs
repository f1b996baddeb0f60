//! The card of an exported student: its description inside `student.onnx`.
//!
//! The exporter writes it as JSON into the ONNX `metadata_props` under [`CARD_KEY`]; the daemon
//! refuses a student without one, because sizes, metres per pixel and the meaning of the yaw output
//! cannot be guessed from tensors.

use std::f64::consts::{PI, TAU};

use crossfix_calibration::{PatchSpec, PinholeView, StripSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Key of the card in the ONNX `metadata_props`.
pub const CARD_KEY: &str = "crossfix.card";

/// ONNX input of students that see part of the circle: the bin on which the strip's left edge lies,
/// counted clockwise from the one that begins at south; see [`GroundInput::left_bin`].
pub const LEFT_BIN_INPUT: &str = "ground_left_bin";

/// Values of students with a [`WindowOutput`]: where the window begins, row and column `[2]`, a 64-bit integer
/// each; and what they make of it.
pub const WINDOW_START: &str = "window_start";
/// Probabilities over the window, which sum to 1: `[1, side, side]`.
pub const HEATMAP_WINDOW: &str = "heatmap_window";
/// Unit vectors around the window's mode: `[1, 2, orientation_side, orientation_side]`.
pub const ORIENTATION_WINDOW: &str = "orientation_window";
/// Row and column of the heatmap where those begin, `[2]`.
pub const ORIENTATION_START: &str = "orientation_window_start";

/// The card format that this version reads and writes.
pub const CARD_FORMAT_VERSION: u32 = 1;

/// Longest side of any picture or map that a card may announce, in pixels.
const LARGEST_SIDE_PX: usize = 4096;
/// Most orientation bins that a card may have.
const MOST_BINS: usize = 360;
/// Outlier shares that the fusion takes from a card. Less than its default makes fused positions worse: frames of one
/// street err together, which a share fitted frame by frame does not know (docs/results.md).
pub(crate) const LEAST_OUTLIER_SHARE: f64 = 0.15;
const MOST_OUTLIER_SHARE: f64 = 0.9;
/// How far from a bin a strip may begin, as a part of the bin's width.
const BIN_TOLERANCE: f64 = 1e-3;

/// Everything about an exported student that is needed to run it.
///
/// # Shapes and units
/// ONNX inputs `ground` `[1, 3, ground.rows, ground.columns]` and `aerial`
/// `[1, 3, aerial.size_px, aerial.size_px]`, pixel values 0 to 255 in RGB, and, where the card gives
/// `ground.orientation_bins`, [`LEFT_BIN_INPUT`] `[1]` 64-bit integer; outputs `heatmap`
/// `[1, heatmap.side, heatmap.side]`, which sums to 1, and, unless the card's `orientation` is none,
/// `orientation` `[1, 2, heatmap.side, heatmap.side]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentCard {
    /// Format of the card; see [`CARD_FORMAT_VERSION`].
    pub format_version: u32,
    /// Network family, for example `ccvpe`.
    pub kind: String,
    /// Size preset, for example `compact` or `compact-front`.
    pub preset: String,
    /// The strip of the camera picture that is the network's input.
    pub ground: GroundInput,
    /// The aerial patch that is the network's input.
    pub aerial: AerialInput,
    /// The heatmap that is the network's output.
    pub heatmap: HeatmapOutput,
    /// What the orientation output means.
    pub orientation: OrientationConvention,
    /// Softmax temperature that is already inside the graph; for the record.
    pub temperature: f64,
    /// How that temperature was found, and how many heatmaps mean nothing at it, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<HeatmapCalibration>,
    /// Value names that depend on the aerial patch alone and on which everything else rests, in order.
    pub aerial_features: Vec<String>,
    /// Value names of the ground descriptors, in order.
    pub ground_descriptors: Vec<String>,
    /// Which part of the heatmap can be had alone, of students exported for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowOutput>,
    /// Errors on held-out places, where they were measured.
    #[serde(default)]
    pub error: Option<ErrorStatistics>,
    /// What made this student.
    pub provenance: Provenance,
    /// Licence of the weights, as an SPDX expression.
    pub licence: String,
    /// Licences of what the weights were made of, by part (`teacher`, `dataset`), as far as known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub licences: BTreeMap<String, String>,
}

/// A part of the heatmap that costs less than the whole: the values [`HEATMAP_WINDOW`],
/// [`ORIENTATION_WINDOW`] and [`ORIENTATION_START`], which are no outputs of the graph, for the place that
/// replaces the constant [`WINDOW_START`]. Inside the window they are what the whole gives there, the
/// probabilities divided by their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowOutput {
    /// Side of the window, in cells of the heatmap.
    pub side: usize,
    /// Side of the square around the window's mode for which the orientation is given, in cells.
    pub orientation_side: usize,
}

/// How far a student's heatmaps can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeatmapCalibration {
    /// What the temperature was fitted by.
    pub fitted_by: FittedBy,
    /// Frames that it was fitted by.
    #[serde(default)]
    pub frames: usize,
    /// Share of heatmaps that mean nothing, fitted together with the temperature: the default of
    /// `fusion.visual_outlier_share`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_share: Option<f64>,
}

/// What a student's temperature was fitted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FittedBy {
    /// True positions.
    Truth,
    /// Recorded drives without true positions: odometry, GNSS, and the heatmaps of other frames.
    Drives,
    /// Nothing: it was given, or is 1.
    None,
}

/// The ground image: a strip, north-aligned with the heading at hand, or a pinhole picture.
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
    /// For students that see part of the circle: the number of orientation bins of the whole circle.
    /// The strip's left edge lies on one of them, and its number is an input of the graph. Absent
    /// where the strip is the whole circle, north in its centre.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orientation_bins: Option<usize>,
    /// For students that see a pinhole picture instead of a strip, and a patch whose right edge is
    /// ahead instead of one with north up: the level camera that looks along the vehicle's nose which
    /// they see with, its focal lengths and centre (fx, fy, cx, cy) in pixels of the picture; the centre
    /// counts from that of the first pixel, as `OpenCV`'s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<[f64; 4]>,
}

impl GroundInput {
    /// The strip to cut for a vehicle with this yaw (radians counter-clockwise from east), by the
    /// rule of training.
    pub fn strip_spec(&self, yaw_rad: f64) -> StripSpec {
        let wide_rad = self.fov_deg.to_radians();
        let left_azimuth_rad = self.orientation_bins.map_or(-PI, |bins| {
            StripSpec::left_edge_on_bin(wide_rad, bins, yaw_rad)
        });
        StripSpec {
            rows: self.rows,
            columns: self.columns,
            top_elevation_rad: self.top_elevation_deg.to_radians(),
            radians_per_pixel: wide_rad / self.columns as f64,
            left_azimuth_rad,
        }
    }

    /// The picture to make, for students that see a pinhole picture.
    pub fn pinhole_view(&self) -> Option<PinholeView> {
        self.camera.map(|[fx, fy, cx, cy]| PinholeView {
            rows: self.rows,
            columns: self.columns,
            fx,
            fy,
            cx,
            cy,
        })
    }

    /// The bin on which a strip that begins at this azimuth lies, clockwise from south; nothing when
    /// it begins between bins.
    pub fn left_bin(&self, left_azimuth_rad: f64) -> Option<usize> {
        let bins = self.orientation_bins.unwrap_or(1);
        let bin = (left_azimuth_rad + PI) * bins as f64 / TAU;
        let near = (bin - bin.round()).abs() <= BIN_TOLERANCE;
        near.then(|| bin.round().rem_euclid(bins as f64) as usize)
    }
}

/// The aerial patch, north up; for students with a [`GroundInput::camera`], its right edge ahead.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AerialInput {
    /// Side in pixels.
    pub size_px: usize,
    /// Ground resolution.
    pub metres_per_pixel: f64,
}

impl AerialInput {
    /// The same as the patch to render.
    pub fn patch_spec(&self) -> PatchSpec {
        PatchSpec {
            size_px: self.size_px,
            metres_per_pixel: self.metres_per_pixel,
        }
    }
}

/// The heatmap over the same ground as the aerial patch, or over a square in its middle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeatmapOutput {
    /// Side in cells.
    pub side: usize,
    /// Ground resolution.
    pub metres_per_cell: f64,
    /// Whether the map covers a square in the middle of the patch alone: places nearer to the edge
    /// are not looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inner: bool,
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
    /// [`CardError`] when it is not a card, or a value is impossible.
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
    /// [`CardError`] when a value of the card is impossible, so that no such file is ever written.
    pub fn to_json(&self) -> Result<String, CardError> {
        self.check()?;
        Ok(serde_json::to_string(self)?)
    }

    /// Whether the window, if there is one, is a part of the heatmap.
    ///
    /// # Errors
    /// [`CardError::Invalid`] when it is not.
    pub fn check_window(&self) -> Result<(), CardError> {
        if let Some(window) = self.window {
            // Around the mode, its neighbours are read.
            if !(3..=window.side).contains(&window.orientation_side)
                || window.side >= self.heatmap.side
            {
                return invalid(format!(
                    "a window of {} cells, with the orientation in {} of them, in a heatmap of {}",
                    window.side, window.orientation_side, self.heatmap.side
                ));
            }
            if self.orientation == OrientationConvention::None {
                return invalid("a window, and no orientation".to_owned());
            }
        }
        Ok(())
    }

    /// Names of the graph's outputs that driving needs, in order.
    pub fn outputs(&self) -> &'static [&'static str] {
        match self.orientation {
            OrientationConvention::YawResidual => &["heatmap", "orientation"],
            OrientationConvention::None => &["heatmap"],
        }
    }

    /// Share of heatmaps that mean nothing, where it was found, within what the fusion takes.
    pub fn outlier_share(&self) -> Option<f64> {
        let share = self.calibration?.outlier_share?;
        Some(share.clamp(LEAST_OUTLIER_SHARE, MOST_OUTLIER_SHARE))
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
        let patch_side_m = self.patch_side_m();
        let (fits, place) = if self.heatmap.inner {
            (heatmap_side_m < patch_side_m, "inside")
        } else {
            let apart_m = (heatmap_side_m - patch_side_m).abs();
            (apart_m <= 1e-6 * patch_side_m, "over")
        };
        if !fits {
            return invalid(format!(
                "a heatmap of {heatmap_side_m} m {place} an aerial patch of {patch_side_m} m"
            ));
        }
        if let Some(share) = self.calibration.and_then(|found| found.outlier_share)
            && !(0.0..=1.0).contains(&share)
        {
            return invalid(format!(
                "calibration.outlier_share = {share}, outside 0 to 1"
            ));
        }
        if let Some(bins) = self.ground.orientation_bins
            && !(2..=MOST_BINS).contains(&bins)
        {
            return invalid(format!(
                "ground.orientation_bins = {bins}, outside 2 to {MOST_BINS}"
            ));
        }
        if let Some(camera) = self.ground.camera
            && !(camera.iter().all(|value| value.is_finite()) && camera[0].min(camera[1]) > 0.0)
        {
            return invalid(format!("ground.camera = {camera:?}, which is none"));
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
        self.check_window()?;
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
                orientation_bins: None,
                camera: None,
            },
            aerial: AerialInput {
                size_px: 8,
                metres_per_pixel: 8.0,
            },
            heatmap: HeatmapOutput {
                side: 8,
                metres_per_cell: 8.0,
                inner: false,
            },
            orientation: OrientationConvention::YawResidual,
            temperature: 1.0,
            calibration: None,
            window: None,
            aerial_features: vec!["aerial_features_0".into()],
            ground_descriptors: vec![],
            error: None,
            provenance: Provenance::default(),
            licence: "MIT".into(),
            licences: BTreeMap::new(),
        }
    }

    #[test]
    fn a_card_survives_its_json() {
        let mut card = tiny_card();
        for calibration in [
            None,
            Some(HeatmapCalibration {
                fitted_by: FittedBy::Drives,
                frames: 640,
                outlier_share: Some(0.004),
            }),
        ] {
            card.calibration = calibration;
            let json = card.to_json().unwrap();
            // Daemons that know no calibration read cards without one.
            assert_eq!(json.contains("calibration"), calibration.is_some());
            assert_eq!(StudentCard::from_json(&json).unwrap(), card);
        }
        assert_eq!(card.outlier_share(), Some(LEAST_OUTLIER_SHARE));
    }

    #[test]
    fn impossible_cards_are_refused_by_name() {
        type Break = fn(&mut StudentCard);
        let cases: [(Break, &str); 12] = [
            (
                |c| {
                    c.calibration = Some(HeatmapCalibration {
                        fitted_by: FittedBy::Drives,
                        frames: 1,
                        outlier_share: Some(f64::NAN),
                    });
                },
                "calibration.outlier_share",
            ),
            (
                |c| c.ground.camera = Some([0.0, 1.0, 4.0, 2.0]),
                "ground.camera",
            ),
            (
                |c| c.ground.camera = Some([1.0, 1.0, f64::NAN, 2.0]),
                "ground.camera",
            ),
            (
                |c| c.ground.orientation_bins = Some(1 << 40),
                "ground.orientation_bins",
            ),
            (|c| c.heatmap.side = 0, "heatmap.side"),
            (|c| c.ground.columns = 1 << 40, "ground.columns"),
            (
                |c| c.aerial.metres_per_pixel = f64::NAN,
                "aerial.metres_per_pixel",
            ),
            (|c| c.heatmap.metres_per_cell = 1.0, "over an aerial patch"),
            (|c| c.heatmap.inner = true, "inside an aerial patch"),
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

    #[test]
    fn a_front_strip_begins_on_the_bin_nearest_to_centring_the_heading() {
        let ground = GroundInput {
            rows: 48,
            columns: 96,
            fov_deg: 135.0,
            top_elevation_deg: 28.0,
            orientation_bins: Some(16),
            camera: None,
        };
        // Heading, left edge in degrees clockwise from north, its bin clockwise from south.
        for (heading_deg, left_deg, bin) in [
            (0.0, -67.5, 5),
            (90.0, 22.5, 9),
            (180.0, 112.5, 13),
            (-112.4, -180.0, 0),
            (-124.0, 157.5, 15),
        ] {
            let strip = ground.strip_spec((90.0f64 - heading_deg).to_radians());
            assert!((strip.left_azimuth_rad.to_degrees() - left_deg).abs() < 1e-9);
            assert_eq!(ground.left_bin(strip.left_azimuth_rad), Some(bin));
        }
        assert_eq!(ground.left_bin(0.1), None);
        assert_eq!(ground.left_bin(f64::NAN), None);
    }

    #[test]
    fn a_panorama_begins_in_the_south_whatever_the_heading() {
        let ground = tiny_card().ground;
        for yaw_rad in [-3.0, 0.0, 1.0] {
            let strip = ground.strip_spec(yaw_rad);
            assert_eq!(ground.left_bin(strip.left_azimuth_rad), Some(0));
            assert!((strip.radians_per_pixel - TAU / 8.0).abs() < 1e-12);
        }
        assert_eq!(ground.left_bin(0.0), None);
    }
}
