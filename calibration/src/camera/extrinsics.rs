//! How a camera sits on the vehicle: the rotation from the body frame to the lens frame.

use nalgebra::{Matrix3, Rotation3, Vector3};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Mount angles in degrees, all zero for a level camera that looks forward.
///
/// The names say which way is positive. The camera is turned left first, then tipped up, then rolled.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// Looking left of forward is positive.
    pub yaw_left_deg: f64,
    /// Looking up is positive.
    pub pitch_up_deg: f64,
    /// Right side down is positive.
    pub roll_right_deg: f64,
}

impl Mount {
    /// The rotation that takes a body ray (x forward, y left, z up) to a lens ray (x right, y down, z forward).
    pub fn lens_from_body(&self) -> Matrix3<f64> {
        let yaw = Rotation3::from_axis_angle(&Vector3::z_axis(), self.yaw_left_deg.to_radians());
        // Turning about the axis to the left tips the nose down, hence the sign.
        let pitch = Rotation3::from_axis_angle(&Vector3::y_axis(), -self.pitch_up_deg.to_radians());
        let roll = Rotation3::from_axis_angle(&Vector3::x_axis(), self.roll_right_deg.to_radians());
        let body_from_mount = (yaw * pitch * roll).into_inner();
        let lens_from_mount = Matrix3::new(
            0.0, -1.0, 0.0, // right is minus left
            0.0, 0.0, -1.0, // down is minus up
            1.0, 0.0, 0.0, // along the axis is forward
        );
        lens_from_mount * body_from_mount.transpose()
    }

    /// Whether the camera is upright and level, so that turning the vehicle only shifts a panorama.
    pub fn is_level(&self) -> bool {
        self.pitch_up_deg == 0.0 && self.roll_right_deg == 0.0
    }

    pub(super) fn check(&self) -> Result<()> {
        let angles = [
            ("yaw_left_deg", self.yaw_left_deg, 360.0),
            ("pitch_up_deg", self.pitch_up_deg, 90.0),
            ("roll_right_deg", self.roll_right_deg, 360.0),
        ];
        for (name, value, limit) in angles {
            if !(-limit..=limit).contains(&value) {
                return Err(Error::Camera(format!(
                    "mount.{name} is {value}; it must be within ±{limit} degrees"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: Vector3<f64>, expected: [f64; 3]) {
        assert!(
            (got - Vector3::from(expected)).norm() < 1e-12,
            "{got:?}, expected {expected:?}"
        );
    }

    #[test]
    fn a_level_forward_camera_sees_forward_along_its_axis() {
        let lens = Mount::default().lens_from_body();
        close(lens * Vector3::x(), [0.0, 0.0, 1.0]);
        close(lens * Vector3::y(), [-1.0, 0.0, 0.0]);
        close(lens * Vector3::z(), [0.0, -1.0, 0.0]);
    }

    #[test]
    fn each_angle_turns_the_way_its_name_says() {
        let left = Mount {
            yaw_left_deg: 90.0,
            ..Mount::default()
        }
        .lens_from_body();
        close(left * Vector3::y(), [0.0, 0.0, 1.0]);
        let up = Mount {
            pitch_up_deg: 90.0,
            ..Mount::default()
        }
        .lens_from_body();
        close(up * Vector3::z(), [0.0, 0.0, 1.0]);
        let rolled = Mount {
            roll_right_deg: 90.0,
            ..Mount::default()
        }
        .lens_from_body();
        // With its right side down, the camera's right is the world's down.
        close(rolled * -Vector3::z(), [1.0, 0.0, 0.0]);
    }
}
