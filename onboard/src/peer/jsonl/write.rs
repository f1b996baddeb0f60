//! One JSON object per estimate on standard output, for scripts.

use std::io::Write;

use serde_json::{Value, json};

use crate::event::{Estimate, State};
use crate::port::{Outbound, PeerError, Writer};
use crate::shadow::{Comparison, Score};

/// Prints estimates.
pub struct JsonlWriter;

impl Writer for JsonlWriter {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        let value = match outbound {
            Outbound::Estimate(estimate) => estimate_json(estimate),
            Outbound::Shadow(comparison) => comparison_json(comparison),
            _ => return Ok(()),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{value}")
            .and_then(|()| out.flush())
            .map_err(PeerError::io("writing to standard output"))
    }
}

/// An estimate as one JSON object; without a position when it is lost. Numbers that are not finite are
/// null.
pub fn estimate_json(estimate: &Estimate) -> Value {
    let mut value = json!({
        "time_ns": estimate.time_ns,
        "kind": estimate.kind,
        "state": estimate.state,
        "reason": estimate.reason,
        "mode_count": estimate.mode_count,
        "reset_count": estimate.reset_count,
    });
    if estimate.state != State::Lost {
        value["latitude_deg"] = json!(estimate.position.latitude_deg);
        value["longitude_deg"] = json!(estimate.position.longitude_deg);
        value["height_m"] = json!(estimate.height_m);
        value["covariance_m2"] = json!(estimate.covariance_m2);
        value["heading_deg"] = json!(estimate.yaw.heading().degrees());
        value["heading_sigma_deg"] = json!(estimate.yaw_sigma_rad.to_degrees());
        value["speed_mps"] = json!(estimate.speed_mps);
        value["protection_radius_m"] = json!(estimate.protection_radius_m);
    }
    value
}

/// What a student in shadow mode said of a frame, as one JSON object.
pub fn comparison_json(comparison: &Comparison) -> Value {
    let score = |score: &Score| json!({"mode_off_m": score.mode_off_m, "log_likelihood": score.log_likelihood});
    json!({
        "time_ns": comparison.time_ns,
        "kind": "shadow",
        "camera": comparison.camera,
        "modes_apart_m": comparison.modes_apart_m,
        "running": score(&comparison.running),
        "shadow": score(&comparison.shadow),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing::estimate;

    #[test]
    fn a_lost_estimate_has_no_position_in_it() {
        let value = estimate_json(&estimate(State::Lost));
        assert_eq!(value["state"], "lost");
        assert!(value.get("latitude_deg").is_none());
        assert_eq!(estimate_json(&estimate(State::Ok))["heading_deg"], 90.0);
    }
}
