//! Messages that are only written, field by field in the order of their definitions, as CDR wants it.

use serde::Serialize;

use crate::log::ros_message::{Header, PoseWithCovariance, Quaternion, Vector3};

/// `geometry_msgs/PoseWithCovarianceStamped`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoseWithCovarianceStamped {
    pub header: Header,
    pub pose: PoseWithCovariance,
}

/// `diagnostic_msgs/DiagnosticArray`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DiagnosticArray {
    pub header: Header,
    pub status: Vec<DiagnosticStatus>,
}

/// `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DiagnosticStatus {
    pub level: u8,
    pub name: String,
    pub message: String,
    pub hardware_id: String,
    pub values: Vec<KeyValue>,
}

impl DiagnosticStatus {
    pub const OK: u8 = 0;
    pub const WARN: u8 = 1;
    pub const ERROR: u8 = 2;
}

/// `diagnostic_msgs/KeyValue`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
}

/// `tf2_msgs/TFMessage`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TfMessage {
    pub transforms: Vec<TransformStamped>,
}

/// `geometry_msgs/TransformStamped`: where the child frame is in that of the header.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransformStamped {
    pub header: Header,
    pub child_frame_id: String,
    pub translation: Vector3,
    pub rotation: Quaternion,
}
