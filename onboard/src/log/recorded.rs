//! What a recorder writes: messages with the time at which they arrived, on a topic for each source.

use std::io::{Seek, Write};

use crossfix_calibration::Camera;
use serde::Serialize;

use super::message::{CompressedImage, LocationFix, Odometry, StateMessage, Timestamp};
use super::writer::{LogWriter, Times};
use super::{LogError, schema, topic};
use crate::event::{CameraFrame, Estimate, EstimateKind, GnssFix, OdometrySample, State};
use crate::health::Health;

/// Why a frame was kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection<'a> {
    /// Time of the frame, nanoseconds UTC.
    pub time_ns: i64,
    /// Its camera.
    pub camera: &'a str,
    /// `distance` or `disagreement`.
    pub reason: &'a str,
    /// Way since the frame of this camera that was kept before, metres.
    pub travelled_m: Option<f64>,
    /// Its match against the receiver's fix: metres, and in their common sigma.
    pub disagreement: Option<[f64; 2]>,
}

#[derive(Serialize)]
struct SelectionMessage<'a> {
    timestamp: Timestamp,
    camera: &'a str,
    reason: &'a str,
    travelled_m: Option<f64>,
    disagreement_m: Option<f64>,
    disagreement_sigmas: Option<f64>,
}

impl<W: Write + Seek> LogWriter<W> {
    /// Writes a fix of the source `name` that arrived at `log_ns`.
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses or a number is not finite; so for all of these.
    pub fn record_gnss(
        &mut self,
        topic: &str,
        name: &str,
        log_ns: i64,
        fix: &GnssFix,
    ) -> Result<(), LogError> {
        let body = LocationFix::from_gnss(fix).named(name);
        self.write_to(
            topic,
            &schema::LOCATION_FIX,
            times(log_ns, fix.time_ns),
            &body,
        )
    }

    /// Writes a picture that arrived at `log_ns`.
    ///
    /// # Errors
    /// As [`LogWriter::record_gnss`].
    pub fn record_frame(
        &mut self,
        topic: &str,
        log_ns: i64,
        frame: &CameraFrame,
    ) -> Result<(), LogError> {
        let body = CompressedImage::from_frame(frame);
        self.write_to(
            topic,
            &schema::COMPRESSED_IMAGE,
            times(log_ns, frame.time_ns),
            &body,
        )
    }

    /// Writes how the vehicle moved, as it arrived at `log_ns`.
    ///
    /// # Errors
    /// As [`LogWriter::record_gnss`].
    pub fn record_odometry(
        &mut self,
        topic: &str,
        log_ns: i64,
        sample: &OdometrySample,
    ) -> Result<(), LogError> {
        let body = Odometry::from_sample(sample);
        self.write_to(
            topic,
            &schema::ODOMETRY,
            times(log_ns, sample.time_ns),
            &body,
        )
    }

    /// Writes the camera's model and mount to [`topic::CALIBRATION`].
    ///
    /// # Errors
    /// As [`LogWriter::record_gnss`].
    pub fn record_calibration(&mut self, log_ns: i64, camera: &Camera) -> Result<(), LogError> {
        self.write_to(
            topic::CALIBRATION,
            &schema::CAMERA,
            times(log_ns, log_ns),
            camera,
        )
    }

    /// Writes an estimate made at `log_ns`: its state always, its position unless it is lost.
    ///
    /// # Errors
    /// As [`LogWriter::record_gnss`].
    pub fn record_estimate(&mut self, log_ns: i64, estimate: &Estimate) -> Result<(), LogError> {
        let times = times(log_ns, estimate.time_ns);
        let topic = match estimate.kind {
            EstimateKind::Fused => topic::FUSED,
            EstimateKind::VisualOnly => topic::VISUAL_ONLY,
        };
        if estimate.state != State::Lost {
            let body = LocationFix::from_estimate(estimate);
            self.write_to(topic, &schema::LOCATION_FIX, times, &body)?;
        }
        let body = StateMessage::from_estimate(estimate);
        self.write_to(topic::STATE, &schema::STATE, times, &body)
    }

    /// Writes why a frame was kept to [`topic::SELECTION`].
    ///
    /// # Errors
    /// As [`LogWriter::record_gnss`].
    pub fn record_selection(
        &mut self,
        log_ns: i64,
        selection: &Selection<'_>,
    ) -> Result<(), LogError> {
        let body = SelectionMessage {
            timestamp: Timestamp::from_ns(selection.time_ns),
            camera: selection.camera,
            reason: selection.reason,
            travelled_m: selection.travelled_m,
            disagreement_m: selection.disagreement.map(|[metres, _]| metres),
            disagreement_sigmas: selection.disagreement.map(|[_, sigmas]| sigmas),
        };
        let times = times(log_ns, selection.time_ns);
        self.write_to(topic::SELECTION, &schema::SELECTION, times, &body)
    }

    /// Writes how the daemon is to [`topic::HEALTH`].
    ///
    /// # Errors
    /// As [`LogWriter::record_gnss`].
    pub fn record_health(&mut self, log_ns: i64, health: &Health) -> Result<(), LogError> {
        let times = times(log_ns, health.time_ns);
        self.write_to(topic::HEALTH, &schema::HEALTH, times, health)
    }
}

fn times(log_ns: i64, publish_ns: i64) -> Times {
    Times { log_ns, publish_ns }
}
