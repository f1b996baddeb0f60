//! The topics that estimates and health go out on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfix_calibration::LocalFrame;
use ros2_client::Publisher;
use serde::Serialize;
use tracing::{info, warn};

use super::convert::{diagnostics, nav_sat_fix, no_fix, odometry, transform};
use super::message::{DiagnosticArray, PoseWithCovarianceStamped, TfMessage};
use super::node::OurNode;
use super::sink_config::{Origin, Ros2SinkConfig};
use crate::event::{Estimate, State};
use crate::log::ros_message::{NavSatFix, Odometry};
use crate::peer::local_frame;
use crate::peer::reception::Receivers;
use crate::port::{Outbound, PeerError, Writer};

/// After so long without an estimate there is none.
const SILENT: Duration = Duration::from_secs(2);

/// Publishes positions and diagnostics.
pub struct Ros2Writer {
    config: Ros2SinkConfig,
    /// East, north, up at the origin.
    frame: Option<LocalFrame>,
    receivers: Receivers,
    latest: Option<(Arc<Estimate>, Instant)>,
    /// Time and state of the estimate that was sent last.
    sent: Option<(i64, State)>,
    fix: Publisher<NavSatFix>,
    pose: Publisher<PoseWithCovarianceStamped>,
    odometry: Publisher<Odometry>,
    diagnostics: Publisher<DiagnosticArray>,
    tf: Option<Publisher<TfMessage>>,
    unsent: u64,
    _node: OurNode,
}

impl Ros2Writer {
    /// Joins the domain.
    pub fn open(config: &Ros2SinkConfig) -> Result<Self, PeerError> {
        let origin = config.origin.map(Origin::place).transpose();
        let origin = origin.map_err(PeerError::Protocol)?;
        let mut node = OurNode::join(&config.domain(), &config.namespace, "crossfixd")?;
        let [fix, pose, odometry] = config.topics();
        let tf = config
            .tf
            .then(|| node.publisher("/tf", ("tf2_msgs", "TFMessage")));
        Ok(Self {
            fix: node.publisher(&fix, ("sensor_msgs", "NavSatFix"))?,
            pose: node.publisher(&pose, ("geometry_msgs", "PoseWithCovarianceStamped"))?,
            odometry: node.publisher(&odometry, ("nav_msgs", "Odometry"))?,
            diagnostics: node.publisher("/diagnostics", ("diagnostic_msgs", "DiagnosticArray"))?,
            tf: tf.transpose()?,
            config: config.clone(),
            frame: origin.map(LocalFrame::new),
            receivers: Receivers::default(),
            latest: None,
            sent: None,
            unsent: 0,
            _node: node,
        })
    }

    /// Whether an estimate is to be sent: at the rate asked for, and at once when the state changes.
    fn is_due(&self, estimate: &Estimate) -> bool {
        let Some((sent_ns, state)) = self.sent else {
            return true;
        };
        // A little less, so that jitter does not cost every second one.
        let every_ns = (0.9e9 / self.config.rate_hz) as i64;
        let since_ns = estimate.time_ns.saturating_sub(sent_ns);
        state != estimate.state || !(0..every_ns).contains(&since_ns)
    }

    fn estimate(&mut self, estimate: &Estimate) {
        if !self.is_due(estimate) {
            return;
        }
        self.sent = Some((estimate.time_ns, estimate.state));
        let attendant = self.receivers.attend(estimate);
        let fix = nav_sat_fix(estimate, &attendant, &self.config.vehicle_frame);
        let mut unsent = publish(&self.fix, fix);
        if estimate.state != State::Lost && self.frame.is_none() {
            let frame = local_frame::of(&format!("ros2 {:?}", self.config), estimate.position);
            let origin = frame.origin();
            info!(
                sink = "ros2",
                ?origin,
                "the origin of the map frame is the first position"
            );
            self.frame = Some(frame);
        }
        let placed = self
            .frame
            .as_ref()
            .and_then(|frame| odometry(estimate, &attendant, frame, &self.config));
        if let Some(message) = placed {
            let pose = PoseWithCovarianceStamped {
                header: message.header.clone(),
                pose: message.pose,
            };
            unsent += publish(&self.pose, pose);
            if let Some(tf) = &self.tf {
                let transforms = vec![transform(&message)];
                unsent += publish(tf, TfMessage { transforms });
            }
            unsent += publish(&self.odometry, message);
        }
        self.count(unsent);
    }

    /// Counts messages that could not be sent.
    fn count(&mut self, unsent: u64) {
        let before = self.unsent;
        self.unsent += unsent;
        if self.unsent > 0 && self.unsent.ilog2() != before.checked_ilog2().unwrap_or(u32::MAX) {
            let messages = self.unsent;
            warn!(
                sink = "ros2",
                messages, "could not be sent; a reader is too slow"
            );
        }
    }
}

/// The number of messages that could not be sent.
fn publish<M: Serialize>(publisher: &Publisher<M>, message: M) -> u64 {
    u64::from(publisher.publish(message).is_err())
}

impl Writer for Ros2Writer {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        match outbound {
            Outbound::Event(event) => self.receivers.note(&event.event),
            Outbound::Estimate(estimate) if estimate.kind == self.config.estimate => {
                self.latest = Some((estimate.clone(), Instant::now()));
                self.estimate(estimate);
            }
            Outbound::Health(health) => {
                let latest = self.latest.as_ref();
                let latest = latest.filter(|(_, came)| came.elapsed() < SILENT);
                let message = diagnostics(health, latest.map(|(estimate, _)| &**estimate));
                let mut unsent = publish(&self.diagnostics, message);
                if latest.is_none() {
                    // As before the first estimate: readers are told instead of waiting.
                    let message = no_fix(health.time_ns, &self.config.vehicle_frame);
                    unsent += publish(&self.fix, message);
                }
                self.count(unsent);
            }
            _ => {}
        }
        Ok(())
    }
}
