//! JSON schemas of the messages, under the names that Foxglove knows.

/// A schema and the topics' message type.
pub struct Schema {
    /// Name, such as `foxglove.LocationFix`.
    pub name: &'static str,
    /// JSON Schema text.
    pub text: &'static str,
}

macro_rules! time {
    () => {
        r#""timestamp":{"type":"object","title":"time","properties":{"sec":{"type":"integer","minimum":0},"nsec":{"type":"integer","minimum":0,"maximum":999999999}}}"#
    };
}

/// A position with covariance; `estimate` only where crossfixd wrote it.
pub const LOCATION_FIX: Schema = Schema {
    name: "foxglove.LocationFix",
    text: concat!(
        r#"{"title":"foxglove.LocationFix","type":"object","properties":{"#,
        time!(),
        r#","frame_id":{"type":"string"},"latitude":{"type":"number","description":"degrees, WGS 84"},"#,
        r#""longitude":{"type":"number","description":"degrees, WGS 84"},"#,
        r#""altitude":{"type":"number","description":"metres above the ellipsoid"},"#,
        r#""position_covariance":{"type":"array","items":{"type":"number"},"minItems":9,"maxItems":9,"description":"east, north, up, row-major, m^2, 1 sigma"},"#,
        r#""position_covariance_type":{"type":"integer","description":"0 unknown, 1 approximated, 2 diagonal known, 3 known"},"#,
        r#""speed_mps":{"type":"number"},"track_deg":{"type":"number","description":"course over ground, clockwise from true north"},"#,
        r#""covariance_rule":{"type":"string"},"dimension":{"type":"string"},"estimate":{"type":"object"}}}"#
    ),
};

/// An encoded picture.
pub const COMPRESSED_IMAGE: Schema = Schema {
    name: "foxglove.CompressedImage",
    text: concat!(
        r#"{"title":"foxglove.CompressedImage","type":"object","properties":{"#,
        time!(),
        r#","frame_id":{"type":"string"},"data":{"type":"string","contentEncoding":"base64"},"format":{"type":"string","description":"jpeg or png"}}}"#
    ),
};

/// The camera's model and mount, as crossfix-calibration reads it.
pub const CAMERA: Schema = Schema {
    name: "crossfix.Camera",
    text: r#"{"title":"crossfix.Camera","type":"object","properties":{"kind":{"type":"string","description":"equirectangular or pinhole"}}}"#,
};

/// Speed, yaw rate and perhaps heading.
pub const ODOMETRY: Schema = Schema {
    name: "crossfix.Odometry",
    text: concat!(
        r#"{"title":"crossfix.Odometry","type":"object","properties":{"#,
        time!(),
        r#","forward_speed_mps":{"type":"number"},"yaw_rate_rps":{"type":"number","description":"counter-clockwise"},"#,
        r#""heading_deg":{"type":"number","description":"clockwise from true north"},"heading_sigma_deg":{"type":"number"},"#,
        r#""speed_sigma_mps":{"type":"number"},"yaw_rate_sigma_rps":{"type":"number"}}}"#
    ),
};

/// How reliable an estimate is, and why.
pub const STATE: Schema = Schema {
    name: "crossfix.State",
    text: concat!(
        r#"{"title":"crossfix.State","type":"object","properties":{"#,
        time!(),
        r#","kind":{"type":"string","enum":["fused","visual_only"]},"#,
        r#""state":{"type":"string","enum":["ok","degraded","coasting","lost"]},"reason":{"type":"string"},"#,
        r#""heading_deg":{"type":["number","null"]},"heading_sigma_deg":{"type":["number","null"]},"speed_mps":{"type":["number","null"]},"#,
        r#""mode_count":{"type":"integer"},"protection_radius_m":{"type":["number","null"]},"reset_count":{"type":"integer"}}}"#
    ),
};

/// What two students said of a frame, one of them in shadow mode.
pub const SHADOW: Schema = Schema {
    name: "crossfix.Shadow",
    text: concat!(
        r#"{"title":"crossfix.Shadow","type":"object","properties":{"#,
        time!(),
        r#","camera":{"type":"string"},"modes_apart_m":{"type":"number","description":"between the modes of both heatmaps"},"#,
        r#""running_mode_off_m":{"type":"number","description":"mode of the student that is used, from the fused position"},"#,
        r#""shadow_mode_off_m":{"type":"number"},"#,
        r#""running_log_likelihood":{"type":"number","description":"natural logarithm of the density of the fused position, per m^2"},"#,
        r#""shadow_log_likelihood":{"type":"number"}}}"#
    ),
};

/// Why a frame was kept.
pub const SELECTION: Schema = Schema {
    name: "crossfix.Selection",
    text: concat!(
        r#"{"title":"crossfix.Selection","type":"object","properties":{"#,
        time!(),
        r#","camera":{"type":"string"},"reason":{"type":"string","enum":["distance","disagreement"]},"#,
        r#""travelled_m":{"type":["number","null"],"description":"since the frame of this camera kept before"},"#,
        r#""disagreement_m":{"type":["number","null"],"description":"best place of the heatmap against the receiver's latest fix"},"#,
        r#""disagreement_sigmas":{"type":["number","null"]}}}"#
    ),
};

/// How the daemon and its peers are.
pub const HEALTH: Schema = Schema {
    name: "crossfix.Health",
    text: concat!(
        r#"{"title":"crossfix.Health","type":"object","properties":{"time_ns":{"type":"integer"},"#,
        r#""state":{"type":["string","null"]},"reasons":{"type":"array","items":{"type":"string"}},"#,
        r#""sources":{"type":"array","items":{"type":"object"}},"sinks":{"type":"array","items":{"type":"object"}}}}"#
    ),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_json_and_carries_its_name() {
        for schema in [
            LOCATION_FIX,
            COMPRESSED_IMAGE,
            CAMERA,
            ODOMETRY,
            STATE,
            SHADOW,
            SELECTION,
            HEALTH,
        ] {
            let value: serde_json::Value = serde_json::from_str(schema.text).unwrap();
            assert_eq!(value["title"], schema.name);
        }
    }
}
