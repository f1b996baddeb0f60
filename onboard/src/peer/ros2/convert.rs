//! Estimates and health as messages. Frames are those of REP 103 and REP 105: east, north, up in the map
//! frame; the vehicle's x points forward, and its yaw counts counter-clockwise from east.

use crossfix_calibration::{Enu, LocalFrame};

use super::Ros2SinkConfig;
use super::message::{DiagnosticArray, DiagnosticStatus, KeyValue, TransformStamped};
use crate::event::{Estimate, State};
use crate::health::Health;
use crate::log::ros_message::{
    Covariance6, Header, NavSatFix, NavSatStatus, Odometry, Pose, PoseWithCovariance, Quaternion,
    Time, Twist, TwistWithCovariance, Vector3,
};
use crate::peer::reception::Attendant;

/// A variance that says "not known". The definitions of pose and twist have no value for it, and 0 would be
/// taken for exact; filters of ROS give a variance this large no weight.
pub const UNKNOWN: f64 = 1e6;
/// With a larger standard deviation a yaw may be anything, radians.
const WORST_YAW_SIGMA_RAD: f64 = 1.5;

/// `NavSatStatus`: no fix, and a fix; which satellites it rests on is not known here.
const NO_FIX: i8 = -1;
const FIX: i8 = 0;
const SERVICE_UNKNOWN: u16 = 0;
/// `NavSatFix`: what is known of the covariance.
const COVARIANCE_UNKNOWN: u8 = 0;
const COVARIANCE_APPROXIMATED: u8 = 1;
const COVARIANCE_KNOWN: u8 = 3;

/// `sensor_msgs/NavSatFix` without a position.
pub fn no_fix(time_ns: i64, vehicle: &str) -> NavSatFix {
    NavSatFix {
        header: header(time_ns, vehicle),
        status: NavSatStatus {
            status: NO_FIX,
            service: SERVICE_UNKNOWN,
        },
        latitude: f64::NAN,
        longitude: f64::NAN,
        altitude: f64::NAN,
        position_covariance: [0.0; 9],
        position_covariance_type: COVARIANCE_UNKNOWN,
    }
}

/// `sensor_msgs/NavSatFix`. While lost it has the status "no fix" and no position.
pub fn nav_sat_fix(estimate: &Estimate, attendant: &Attendant, vehicle: &str) -> NavSatFix {
    let no_fix = no_fix(estimate.time_ns, vehicle);
    if estimate.state == State::Lost {
        return no_fix;
    }
    let [[ee, en], [_, nn]] = estimate.covariance_m2;
    let up = height_variance(estimate, attendant);
    NavSatFix {
        status: NavSatStatus {
            status: FIX,
            ..no_fix.status
        },
        latitude: estimate.position.latitude_deg,
        longitude: estimate.position.longitude_deg,
        altitude: estimate.height_m.unwrap_or(f64::NAN),
        position_covariance: [ee, en, 0.0, en, nn, 0.0, 0.0, 0.0, up.unwrap_or(UNKNOWN)],
        position_covariance_type: if up.is_some() {
            COVARIANCE_KNOWN
        } else {
            COVARIANCE_APPROXIMATED
        },
        ..no_fix
    }
}

/// `nav_msgs/Odometry`, whose pose is also that of `geometry_msgs/PoseWithCovarianceStamped`; none while lost.
pub fn odometry(
    estimate: &Estimate,
    attendant: &Attendant,
    frame: &LocalFrame,
    config: &Ros2SinkConfig,
) -> Option<Odometry> {
    if estimate.state == State::Lost {
        return None;
    }
    let place = frame.enu_from_geodetic(estimate.position);
    // The yaw counts from the vehicle's east, and meridians converge: the same direction in the map frame.
    let (north, east) = estimate.yaw.radians().sin_cos();
    let ahead = LocalFrame::new(estimate.position).geodetic_from_enu(Enu::new(east, north, 0.0));
    let ahead = frame.enu_from_geodetic(ahead);
    let yaw_rad = (ahead.north() - place.north()).atan2(ahead.east() - place.east());
    let (sin, cos) = (yaw_rad / 2.0).sin_cos();
    let [[ee, en], [_, nn]] = estimate.covariance_m2;
    let mut covariance: Covariance6 = [[0.0; 6]; 6];
    (covariance[0][0], covariance[0][1]) = (ee, en);
    (covariance[1][0], covariance[1][1]) = (en, nn);
    covariance[2][2] = height_variance(estimate, attendant).unwrap_or(UNKNOWN);
    // Nobody measures roll and pitch.
    (covariance[3][3], covariance[4][4]) = (UNKNOWN, UNKNOWN);
    covariance[5][5] = if estimate.yaw_sigma_rad < WORST_YAW_SIGMA_RAD {
        estimate.yaw_sigma_rad.powi(2)
    } else {
        UNKNOWN
    };
    // The filter states no error of its speed, and no other velocity.
    let mut twist_covariance: Covariance6 = [[0.0; 6]; 6];
    (0..6).for_each(|axis| twist_covariance[axis][axis] = UNKNOWN);
    Some(Odometry {
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
    })
}

/// The same as a transform.
pub fn transform(odometry: &Odometry) -> TransformStamped {
    TransformStamped {
        header: odometry.header.clone(),
        child_frame_id: odometry.child_frame_id.clone(),
        translation: odometry.pose.pose.position,
        rotation: odometry.pose.pose.orientation,
    }
}

/// `diagnostic_msgs/DiagnosticArray`: the position first, then every source.
pub fn diagnostics(health: &Health, latest: Option<&Estimate>) -> DiagnosticArray {
    let level = match health.state {
        Some(State::Ok) => DiagnosticStatus::OK,
        Some(State::Degraded | State::Coasting) => DiagnosticStatus::WARN,
        Some(State::Lost) | None => DiagnosticStatus::ERROR,
    };
    let state = health.state.map_or("no estimate yet", State::as_str);
    let mut values = vec![value("estimates", health.estimates)];
    if let Some(age_s) = health.estimate_age_s {
        values.push(value("estimate_age_s", format!("{age_s:.3}")));
    }
    if let Some(estimate) = latest {
        let radius_m = estimate.protection_radius_m;
        values.push(value("protection_radius_m", format!("{radius_m:.3}")));
        values.push(value("reset_count", estimate.reset_count));
        values.push(value("mode_count", estimate.mode_count));
    }
    values.push(value("frames_dropped", health.frames_dropped));
    let position = DiagnosticStatus {
        level,
        name: "crossfixd: position".into(),
        message: if health.reasons.is_empty() {
            state.to_owned()
        } else {
            format!("{state}: {}", health.reasons.join("; "))
        },
        hardware_id: "crossfixd".into(),
        values,
    };
    let sources = health.sources.iter().map(|source| DiagnosticStatus {
        level: if source.up {
            DiagnosticStatus::OK
        } else {
            DiagnosticStatus::WARN
        },
        name: format!("crossfixd: source {}", source.name),
        message: match (&source.error, &source.remark) {
            (Some(text), _) | (None, Some(text)) => text.clone(),
            (None, None) if source.up => "delivers".into(),
            (None, None) => "has not delivered yet".into(),
        },
        hardware_id: source.name.clone(),
        values: vec![value("events", source.events)],
    });
    DiagnosticArray {
        header: header(health.time_ns, ""),
        status: std::iter::once(position).chain(sources).collect(),
    }
}

/// Of the receiver's height, m²; none without a height, and when the receiver is silent.
fn height_variance(estimate: &Estimate, attendant: &Attendant) -> Option<f64> {
    let sigma_m = estimate.height_m.and(attendant.height_sigma_m)?;
    Some(sigma_m * sigma_m)
}

fn value(key: &str, value: impl ToString) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.to_string(),
    }
}

/// The stamp counts seconds in 31 bits: it ends in 2038.
fn header(time_ns: i64, frame_id: &str) -> Header {
    let sec = time_ns.div_euclid(1_000_000_000);
    Header {
        stamp: Time {
            sec: i32::try_from(sec).unwrap_or(i32::MAX),
            nanosec: time_ns.rem_euclid(1_000_000_000) as u32,
        },
        frame_id: frame_id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2};

    use cdr_encoding::CdrDeserializer;
    use crossfix_calibration::{Enu, Yaw};
    use serde::de::DeserializeSeed;

    use super::*;
    use crate::event::Event;
    use crate::health::SourceHealth;
    use crate::log::{Message, Recorded, RosSeed, RosType};
    use crate::peer::reception::Receivers;
    use crate::peer::testing;

    fn attendant(estimate: &Estimate) -> Attendant {
        let mut receivers = Receivers::default();
        receivers.note(&Event::Gnss(testing::fix(estimate.time_ns)));
        receivers.attend(estimate)
    }

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-6
    }

    /// As a reader of the message would have it, over CDR.
    fn read_back(message: &impl serde::Serialize, ros_type: RosType) -> Message {
        let bytes = cdr_encoding::to_vec::<_, byteorder::LittleEndian>(message).unwrap();
        let seed = RosSeed {
            ros_type,
            recorded: Recorded {
                topic: "/x",
                log_time_ns: 1,
            },
        };
        let mut cdr = CdrDeserializer::<byteorder::LittleEndian>::new(&bytes);
        seed.deserialize(&mut cdr).unwrap().unwrap()
    }

    #[test]
    fn a_fix_reads_back_with_its_place_stamp_and_covariance() {
        let mut estimate = testing::estimate(State::Ok);
        estimate.covariance_m2 = [[4.0, 0.5], [0.5, 1.0]];
        let message = nav_sat_fix(&estimate, &attendant(&estimate), "base_link");
        assert_eq!(message.header.frame_id, "base_link");
        let covariance = [4.0, 0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 9.0];
        assert_eq!(message.position_covariance, covariance);
        assert_eq!(message.position_covariance_type, COVARIANCE_KNOWN);
        let Message::Gnss(fix) = read_back(&message, RosType::NavSatFix) else {
            panic!("no fix")
        };
        assert_eq!(
            (fix.time_ns, fix.position),
            (estimate.time_ns, estimate.position)
        );
        assert_eq!(fix.covariance_m2, estimate.covariance_m2);
        assert_eq!(fix.height_sigma_m, 3.0);
    }

    #[test]
    fn a_pose_is_east_north_up_of_the_origin_with_the_yaw_from_east() {
        let mut estimate = testing::estimate(State::Ok);
        let frame = LocalFrame::new(estimate.position);
        estimate.position = frame.geodetic_from_enu(Enu::new(3.0, 5.0, 1.0));
        estimate.yaw = Yaw::new(FRAC_PI_2);
        estimate.covariance_m2 = [[4.0, 0.5], [0.5, 1.0]];
        let config = Ros2SinkConfig::default();
        let message = odometry(&estimate, &attendant(&estimate), &frame, &config).unwrap();
        let Pose {
            position,
            orientation,
        } = message.pose.pose;
        assert!(near(position.x, 3.0) && near(position.y, 5.0) && near(position.z, 1.0));
        assert!(near(orientation.z, FRAC_1_SQRT_2) && near(orientation.w, FRAC_1_SQRT_2));
        let covariance = message.pose.covariance;
        assert_eq!([covariance[0][1], covariance[1][0]], [0.5, 0.5]);
        let diagonal: Vec<f64> = (0..6).map(|axis| covariance[axis][axis]).collect();
        assert_eq!(diagonal, [4.0, 1.0, 9.0, UNKNOWN, UNKNOWN, 0.02 * 0.02]);
        assert_eq!(message.twist.twist.linear.x, 10.0);
        let transform = transform(&message);
        assert_eq!(
            (transform.translation, transform.rotation),
            (position, orientation)
        );
        let frames = (
            transform.header.frame_id.as_str(),
            transform.child_frame_id.as_str(),
        );
        assert_eq!(frames, ("map", "base_link"));
    }

    #[test]
    fn what_is_not_known_is_stated_and_never_zero() {
        let mut estimate = testing::estimate(State::Degraded);
        estimate.height_m = None;
        estimate.yaw_sigma_rad = f64::INFINITY;
        let nobody = Receivers::default().attend(&estimate);
        let fix = nav_sat_fix(&estimate, &nobody, "base_link");
        assert!(fix.altitude.is_nan());
        assert_eq!(fix.position_covariance_type, COVARIANCE_APPROXIMATED);
        assert_eq!(fix.position_covariance[8], UNKNOWN);
        let frame = LocalFrame::new(estimate.position);
        let message = odometry(&estimate, &nobody, &frame, &Ros2SinkConfig::default()).unwrap();
        for axis in 0..6 {
            assert!(message.pose.covariance[axis][axis] > 0.0, "{axis}");
            assert_eq!(message.twist.covariance[axis][axis], UNKNOWN, "{axis}");
        }
        assert_eq!(message.pose.covariance[5][5], UNKNOWN);
        assert_eq!(message.pose.pose.position.z, 0.0);
    }

    #[test]
    fn while_lost_there_is_a_fix_that_says_so_and_no_pose() {
        let estimate = testing::estimate(State::Lost);
        let attendant = attendant(&estimate);
        let fix = nav_sat_fix(&estimate, &attendant, "base_link");
        assert!(fix.latitude.is_nan() && fix.longitude.is_nan());
        assert_eq!(
            (fix.status.status, fix.position_covariance_type),
            (NO_FIX, 0)
        );
        assert!(matches!(
            read_back(&fix, RosType::NavSatFix),
            Message::Nothing(_)
        ));
        let frame = LocalFrame::new(estimate.position);
        assert!(odometry(&estimate, &attendant, &frame, &Ros2SinkConfig::default()).is_none());
        let coasting = testing::estimate(State::Coasting);
        assert_eq!(
            nav_sat_fix(&coasting, &attendant, "base_link")
                .status
                .status,
            FIX
        );
    }

    #[test]
    fn diagnostics_have_the_state_its_reasons_and_every_source() {
        let nothing = diagnostics(&Health::default(), None);
        assert_eq!(nothing.status[0].level, DiagnosticStatus::ERROR);
        let health = Health {
            state: Some(State::Degraded),
            reasons: vec!["no camera".into()],
            sources: vec![SourceHealth {
                name: "roof".into(),
                remark: Some("nobody publishes /fix".into()),
                ..SourceHealth::default()
            }],
            ..Health::default()
        };
        let told = diagnostics(&health, Some(&testing::estimate(State::Degraded)));
        let [position, roof] = &told.status[..] else {
            panic!("{told:?}")
        };
        assert_eq!(
            (position.level, position.message.as_str()),
            (1, "degraded: no camera")
        );
        assert!(position.values.contains(&value("reset_count", 0)));
        assert_eq!(roof.name, "crossfixd: source roof");
        assert_eq!(
            (roof.level, roof.message.as_str()),
            (1, "nobody publishes /fix")
        );
    }
}
