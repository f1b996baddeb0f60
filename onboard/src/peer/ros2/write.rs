//! Estimates and health as messages, and the topics they go out on.

use crossfix_calibration::LocalFrame;
use ros2_client::Publisher;
use tracing::{info, warn};

use super::Ros2SinkConfig;
use super::config::Origin;
use super::message::{
    Covariance6, DiagnosticArray, DiagnosticStatus, Header, KeyValue, NavSatFix, NavSatStatus,
    Odometry, Pose, PoseWithCovariance, PoseWithCovarianceStamped, Quaternion, Time, Twist,
    TwistWithCovariance, Vector3,
};
use super::node::OurNode;
use crate::event::{Estimate, State};
use crate::health::Health;
use crate::peer::reception::{Attendant, Receivers};
use crate::port::{Outbound, PeerError, Writer};

/// A variance that says "not known": readers take a larger one for useless, and 0 for perfect.
const UNKNOWN: f64 = 1e6;

/// Publishes positions and diagnostics.
pub struct Ros2Writer {
    config: Ros2SinkConfig,
    frame: Option<LocalFrame>,
    receivers: Receivers,
    fix: Publisher<NavSatFix>,
    pose: Publisher<PoseWithCovarianceStamped>,
    odometry: Publisher<Odometry>,
    diagnostics: Publisher<DiagnosticArray>,
    lost_messages: u64,
    _node: OurNode,
}

impl Ros2Writer {
    /// Joins the domain.
    pub fn open(config: &Ros2SinkConfig) -> Result<Self, PeerError> {
        let mut node = OurNode::join(config.domain_id, "crossfixd")?;
        let topic = |name: &str| format!("{}/{name}", config.namespace);
        let origin = config.origin.map(Origin::place).transpose();
        let origin = origin.map_err(PeerError::Protocol)?;
        Ok(Self {
            fix: node.publisher(&topic("fix"), ("sensor_msgs", "NavSatFix"))?,
            pose: node.publisher(
                &topic("pose"),
                ("geometry_msgs", "PoseWithCovarianceStamped"),
            )?,
            odometry: node.publisher(&topic("odometry"), ("nav_msgs", "Odometry"))?,
            diagnostics: node.publisher("/diagnostics", ("diagnostic_msgs", "DiagnosticArray"))?,
            config: config.clone(),
            frame: origin.map(LocalFrame::new),
            receivers: Receivers::default(),
            lost_messages: 0,
            _node: node,
        })
    }

    fn estimate(&mut self, estimate: &Estimate) {
        let attendant = self.receivers.attend(estimate);
        let vehicle = &self.config.vehicle_frame;
        let sent = self.fix.publish(nav_sat_fix(estimate, &attendant, vehicle));
        self.note(sent.is_ok());
        if estimate.state == State::Lost {
            return;
        }
        let frame = self.frame.get_or_insert_with(|| {
            let origin = estimate.position;
            info!(sink = "ros2", ?origin, "the origin of the map frame");
            LocalFrame::new(origin)
        });
        let message = odometry(estimate, &attendant, frame, &self.config);
        let pose = PoseWithCovarianceStamped {
            header: message.header.clone(),
            pose: message.pose,
        };
        let sent = [
            self.pose.publish(pose).is_ok(),
            self.odometry.publish(message).is_ok(),
        ];
        sent.into_iter().for_each(|sent| self.note(sent));
    }

    /// A reader that is too slow costs messages and nothing else.
    fn note(&mut self, sent: bool) {
        if !sent {
            self.lost_messages += 1;
            if self.lost_messages.is_power_of_two() {
                warn!(
                    sink = "ros2",
                    messages = self.lost_messages,
                    "could not be sent; a reader is too slow"
                );
            }
        }
    }
}

impl Writer for Ros2Writer {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        match outbound {
            Outbound::Event(event) => self.receivers.note(&event.event),
            Outbound::Estimate(estimate) if estimate.kind == self.config.estimate => {
                self.estimate(estimate);
            }
            Outbound::Health(health) => {
                let sent = self.diagnostics.publish(diagnostics(health)).is_ok();
                self.note(sent);
            }
            _ => {}
        }
        Ok(())
    }
}

fn header(time_ns: i64, frame_id: &str) -> Header {
    Header {
        stamp: Time::from_ns(time_ns),
        frame_id: frame_id.to_owned(),
    }
}

fn nav_sat_fix(estimate: &Estimate, attendant: &Attendant, vehicle: &str) -> NavSatFix {
    let has_fix = matches!(estimate.state, State::Ok | State::Degraded);
    let mut message = NavSatFix {
        header: header(estimate.time_ns, vehicle),
        status: NavSatStatus {
            status: if has_fix {
                NavSatStatus::FIX
            } else {
                NavSatStatus::NO_FIX
            },
            service: NavSatStatus::SERVICE_GPS,
        },
        latitude: f64::NAN,
        longitude: f64::NAN,
        altitude: f64::NAN,
        position_covariance: [0.0; 9],
        position_covariance_type: NavSatFix::COVARIANCE_UNKNOWN,
    };
    if estimate.state == State::Lost {
        return message;
    }
    message.latitude = estimate.position.latitude_deg;
    message.longitude = estimate.position.longitude_deg;
    message.altitude = estimate.height_m.unwrap_or(f64::NAN);
    let [[ee, en], [ne, nn]] = estimate.covariance_m2;
    let up = attendant.height_sigma_m.map(|sigma_m| sigma_m * sigma_m);
    message.position_covariance = [ee, en, 0.0, ne, nn, 0.0, 0.0, 0.0, up.unwrap_or(UNKNOWN)];
    message.position_covariance_type = if up.is_some() {
        NavSatFix::COVARIANCE_KNOWN
    } else {
        NavSatFix::COVARIANCE_APPROXIMATED
    };
    message
}

fn odometry(
    estimate: &Estimate,
    attendant: &Attendant,
    frame: &LocalFrame,
    config: &Ros2SinkConfig,
) -> Odometry {
    let place = frame.enu_from_geodetic(estimate.position);
    let (sin, cos) = (estimate.yaw.radians() / 2.0).sin_cos();
    let height_variance = estimate
        .height_m
        .and(attendant.height_sigma_m)
        .map_or(UNKNOWN, |sigma_m| sigma_m * sigma_m);
    let mut covariance: Covariance6 = [[0.0; 6]; 6];
    let [[ee, en], [ne, nn]] = estimate.covariance_m2;
    (covariance[0][0], covariance[0][1]) = (ee, en);
    (covariance[1][0], covariance[1][1]) = (ne, nn);
    covariance[2][2] = height_variance;
    // Nobody measures roll and pitch.
    (covariance[3][3], covariance[4][4]) = (UNKNOWN, UNKNOWN);
    covariance[5][5] = estimate.yaw_sigma_rad.powi(2).min(UNKNOWN);
    let mut twist_covariance: Covariance6 = [[0.0; 6]; 6];
    (0..6).for_each(|axis| twist_covariance[axis][axis] = UNKNOWN);
    Odometry {
        header: header(estimate.time_ns, &config.map_frame),
        child_frame_id: config.vehicle_frame.clone(),
        pose: PoseWithCovariance {
            pose: Pose {
                position: Vector3 {
                    x: place.east(),
                    y: place.north(),
                    z: estimate.height_m.map_or(0.0, |_| place.up()),
                },
                orientation: Quaternion {
                    x: 0.0,
                    y: 0.0,
                    z: sin,
                    w: cos,
                },
            },
            covariance,
        },
        twist: TwistWithCovariance {
            twist: Twist {
                linear: Vector3 {
                    x: estimate.speed_mps,
                    ..Vector3::default()
                },
                angular: Vector3::default(),
            },
            covariance: twist_covariance,
        },
    }
}

fn diagnostics(health: &Health) -> DiagnosticArray {
    let level = match health.state {
        Some(State::Ok) => DiagnosticStatus::OK,
        Some(State::Degraded | State::Coasting) => DiagnosticStatus::WARN,
        Some(State::Lost) | None => DiagnosticStatus::ERROR,
    };
    let value = |key: &str, value: String| KeyValue {
        key: key.into(),
        value,
    };
    let state = health.state.map_or("no estimate yet", State::as_str);
    let mut status = vec![DiagnosticStatus {
        level,
        name: "crossfixd: position".into(),
        message: if health.reasons.is_empty() {
            state.to_owned()
        } else {
            format!("{state}: {}", health.reasons.join("; "))
        },
        hardware_id: "crossfixd".into(),
        values: vec![
            value("estimates", health.estimates.to_string()),
            value(
                "estimate_age_s",
                format!("{:.3}", health.estimate_age_s.unwrap_or(f64::NAN)),
            ),
            value("frames_dropped", health.frames_dropped.to_string()),
        ],
    }];
    status.extend(health.sources.iter().map(|source| DiagnosticStatus {
        level: if source.up {
            DiagnosticStatus::OK
        } else {
            DiagnosticStatus::WARN
        },
        name: format!("crossfixd: source {}", source.name),
        message: source.error.clone().unwrap_or_default(),
        hardware_id: source.name.clone(),
        values: vec![value("events", source.events.to_string())],
    }));
    DiagnosticArray {
        header: header(health.time_ns, ""),
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing;

    #[test]
    fn what_is_not_known_is_stated_and_never_zero() {
        let mut estimate = testing::estimate(State::Degraded);
        estimate.height_m = None;
        estimate.yaw_sigma_rad = f64::INFINITY;
        let attendant = Receivers::default().attend(&estimate);
        let fix = nav_sat_fix(&estimate, &attendant, "base_link");
        assert!(fix.altitude.is_nan());
        assert_eq!(
            fix.position_covariance_type,
            NavSatFix::COVARIANCE_APPROXIMATED
        );
        assert_eq!(fix.position_covariance[8], UNKNOWN);
        let frame = LocalFrame::new(estimate.position);
        let message = odometry(&estimate, &attendant, &frame, &Ros2SinkConfig::default());
        for axis in 0..6 {
            assert!(message.pose.covariance[axis][axis] > 0.0, "{axis}");
            assert!(message.twist.covariance[axis][axis] > 0.0, "{axis}");
        }
        assert_eq!(message.pose.covariance[5][5], UNKNOWN);
    }

    #[test]
    fn a_lost_position_is_no_position() {
        let estimate = testing::estimate(State::Lost);
        let attendant = Receivers::default().attend(&estimate);
        let fix = nav_sat_fix(&estimate, &attendant, "base_link");
        assert!(fix.latitude.is_nan() && fix.longitude.is_nan());
        assert_eq!(fix.status.status, NavSatStatus::NO_FIX);
        assert_eq!(
            diagnostics(&Health::default()).status[0].level,
            DiagnosticStatus::ERROR
        );
    }
}
