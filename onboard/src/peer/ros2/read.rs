//! Messages of topics as events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfix_calibration::Geodetic;
use ros2_client::Subscription;
use tracing::warn;

use super::Ros2SourceConfig;
use super::message::{
    CompressedImage, Header, Imu, NavSatFix, NavSatStatus, Odometry, Twist, TwistStamped,
};
use super::node::OurNode;
use crate::event::{
    CameraFrame, CovarianceRule, Event, FixDimension, GnssFix, OdometrySample, Reception,
};
use crate::port::{PeerError, READ_PATIENCE, Reader};

/// How often the topics are looked at.
const POLL: Duration = Duration::from_millis(4);
/// What is assumed of motion that states no errors.
const DEFAULT_SPEED_SIGMA_MPS: f64 = 0.2;
const DEFAULT_YAW_RATE_SIGMA_RPS: f64 = 0.01;
/// A larger variance says "not known".
const LARGEST_VARIANCE: f64 = 1e4;
/// Of the height, where the fix does not state it, metres.
const DEFAULT_HEIGHT_SIGMA_M: f64 = 20.0;

/// Listens to topics.
pub struct Ros2Reader {
    config: Ros2SourceConfig,
    fix: Option<Subscription<NavSatFix>>,
    odometry: Option<Subscription<Odometry>>,
    twist: Option<Subscription<TwistStamped>>,
    imu: Option<Subscription<Imu>>,
    image: Option<Subscription<CompressedImage>>,
    motion: Motion,
    waiting: VecDeque<Event>,
    unreadable: u64,
    _node: OurNode,
}

impl Ros2Reader {
    /// Joins the domain.
    pub fn open(config: &Ros2SourceConfig) -> Result<Self, PeerError> {
        let mut node = OurNode::join(config.domain_id, "crossfixd_input")?;
        let opened = |topic: &Option<String>| topic.clone();
        let fix = opened(&config.fix)
            .map(|topic| node.subscription(&topic, ("sensor_msgs", "NavSatFix")))
            .transpose()?;
        let odometry = opened(&config.odometry)
            .map(|topic| node.subscription(&topic, ("nav_msgs", "Odometry")))
            .transpose()?;
        let twist = opened(&config.twist)
            .map(|topic| node.subscription(&topic, ("geometry_msgs", "TwistStamped")))
            .transpose()?;
        let imu = opened(&config.imu)
            .map(|topic| node.subscription(&topic, ("sensor_msgs", "Imu")))
            .transpose()?;
        let image = opened(&config.image)
            .map(|topic| node.subscription(&topic, ("sensor_msgs", "CompressedImage")))
            .transpose()?;
        Ok(Self {
            fix,
            odometry,
            twist,
            imu,
            image,
            motion: Motion {
                by_imu: config.imu.is_some(),
            },
            config: config.clone(),
            waiting: VecDeque::new(),
            unreadable: 0,
            _node: node,
        })
    }

    fn take(&mut self) {
        let Self {
            config,
            waiting,
            unreadable,
            motion,
            ..
        } = self;
        drain(self.fix.as_ref(), unreadable, |message| {
            waiting.extend(fix(&message, config).map(Event::Gnss));
        });
        drain(self.odometry.as_ref(), unreadable, |message| {
            waiting.extend(motion.odometry(&message).map(Event::Odometry));
        });
        drain(self.twist.as_ref(), unreadable, |message| {
            waiting.extend(motion.twist(&message).map(Event::Odometry));
        });
        drain(self.imu.as_ref(), unreadable, |message| {
            waiting.extend(turned(&message).map(Event::Odometry));
        });
        drain(self.image.as_ref(), unreadable, |message| {
            waiting.extend(frame(message, &config.name).map(Event::Frame));
        });
    }
}

impl Reader for Ros2Reader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let started = Instant::now();
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            self.take();
            if self.waiting.is_empty() {
                if started.elapsed() > READ_PATIENCE {
                    return Ok(None);
                }
                std::thread::sleep(POLL);
            }
        }
    }
}

fn drain<M: serde::de::DeserializeOwned + 'static>(
    subscription: Option<&Subscription<M>>,
    unreadable: &mut u64,
    mut each: impl FnMut(M),
) {
    let Some(subscription) = subscription else {
        return;
    };
    loop {
        match subscription.take() {
            Ok(Some((message, _))) => each(message),
            Ok(None) => return,
            Err(error) => {
                *unreadable += 1;
                if unreadable.is_power_of_two() {
                    warn!(
                        source = "ros2",
                        messages = *unreadable,
                        ?error,
                        "cannot be read"
                    );
                }
                return;
            }
        }
    }
}

/// Speed and yaw rate, each in samples of its own where they come on two topics.
#[derive(Clone, Copy)]
struct Motion {
    /// The yaw rate is the IMU's.
    by_imu: bool,
}

impl Motion {
    fn odometry(self, message: &Odometry) -> Option<OdometrySample> {
        let covariance = &message.twist.covariance;
        let sigmas = (
            sigma(covariance[0][0], DEFAULT_SPEED_SIGMA_MPS),
            sigma(covariance[5][5], DEFAULT_YAW_RATE_SIGMA_RPS),
        );
        self.moved(&message.header, &message.twist.twist, sigmas)
    }

    fn twist(self, message: &TwistStamped) -> Option<OdometrySample> {
        let sigmas = (DEFAULT_SPEED_SIGMA_MPS, DEFAULT_YAW_RATE_SIGMA_RPS);
        self.moved(&message.header, &message.twist, sigmas)
    }

    fn moved(self, header: &Header, twist: &Twist, sigmas: (f64, f64)) -> Option<OdometrySample> {
        let (speed_mps, yaw_rate_rps) = (twist.linear.x, twist.angular.z);
        let usable = speed_mps.is_finite() && (self.by_imu || yaw_rate_rps.is_finite());
        usable.then(|| OdometrySample {
            time_ns: header.stamp.ns(),
            forward_speed_mps: Some(speed_mps),
            yaw_rate_rps: (!self.by_imu).then_some(yaw_rate_rps),
            yaw: None,
            speed_sigma_mps: sigmas.0,
            yaw_rate_sigma_rps: sigmas.1,
        })
    }
}

/// A first element of -1 says that there is no yaw rate (sensor_msgs/Imu).
fn turned(message: &Imu) -> Option<OdometrySample> {
    let covariance = &message.angular_velocity_covariance;
    let yaw_rate_rps = message.angular_velocity.z;
    (covariance[0] >= 0.0 && yaw_rate_rps.is_finite()).then(|| OdometrySample {
        time_ns: message.header.stamp.ns(),
        forward_speed_mps: None,
        yaw_rate_rps: Some(yaw_rate_rps),
        yaw: None,
        speed_sigma_mps: DEFAULT_SPEED_SIGMA_MPS,
        yaw_rate_sigma_rps: sigma(covariance[8], DEFAULT_YAW_RATE_SIGMA_RPS),
    })
}

/// Of a variance; 0 and very large ones say that nobody knows.
fn sigma(variance: f64, default: f64) -> f64 {
    if variance > 0.0 && variance < LARGEST_VARIANCE {
        variance.sqrt()
    } else {
        default
    }
}

fn fix(message: &NavSatFix, config: &Ros2SourceConfig) -> Option<GnssFix> {
    if message.status.status < NavSatStatus::FIX {
        return None;
    }
    let has_height = message.altitude.is_finite();
    let height_m = if has_height { message.altitude } else { 0.0 };
    let position = Geodetic::new(message.latitude, message.longitude, height_m).ok()?;
    let [ee, en, _, ne, nn, _, _, _, uu] = message.position_covariance;
    let en = f64::midpoint(en, ne);
    let stated = message.position_covariance_type != NavSatFix::COVARIANCE_UNKNOWN
        && ee > 0.0
        && nn > 0.0
        && ee * nn > en * en
        && ee.max(nn).is_finite();
    let floor = config.floor_sigma_m.powi(2);
    let (covariance_m2, covariance_rule) = if stated {
        let more = (floor - ee.min(nn)).max(0.0);
        ([[ee + more, en], [en, nn + more]], CovarianceRule::Recorded)
    } else {
        let variance = config.default_sigma_m.powi(2);
        ([[variance, 0.0], [0.0, variance]], CovarianceRule::Default)
    };
    Some(GnssFix {
        time_ns: message.header.stamp.ns(),
        position,
        covariance_m2,
        height_sigma_m: if stated && has_height {
            sigma(uu, DEFAULT_HEIGHT_SIGMA_M)
        } else {
            DEFAULT_HEIGHT_SIGMA_M
        },
        covariance_rule,
        speed_mps: None,
        track_deg: None,
        dimension: if has_height {
            FixDimension::Three
        } else {
            FixDimension::Two
        },
        reception: Reception::default(),
    })
}

fn frame(message: CompressedImage, camera: &str) -> Option<CameraFrame> {
    (!message.data.is_empty()).then(|| CameraFrame {
        time_ns: message.header.stamp.ns(),
        image: Arc::from(message.data),
        camera: camera.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::message::{Quaternion, Time, Vector3};
    use super::*;

    fn nav_sat_fix() -> NavSatFix {
        NavSatFix {
            header: Header {
                stamp: Time {
                    sec: 1_700_000_000,
                    nanosec: 5,
                },
                frame_id: "gnss".into(),
            },
            latitude: 52.0,
            longitude: 4.0,
            altitude: 45.0,
            position_covariance: [4.0, 0.5, 0.0, 0.5, 9.0, 0.0, 0.0, 0.0, 16.0],
            position_covariance_type: NavSatFix::COVARIANCE_KNOWN,
            ..NavSatFix::default()
        }
    }

    #[test]
    fn a_fix_keeps_its_covariance_unless_it_has_none() {
        let config = Ros2SourceConfig::default();
        let known = fix(&nav_sat_fix(), &config).unwrap();
        assert_eq!(known.time_ns, 1_700_000_000_000_000_005);
        assert_eq!(known.covariance_m2, [[4.0, 0.5], [0.5, 9.0]]);
        assert_eq!(known.height_sigma_m, 4.0);
        let mut message = nav_sat_fix();
        message.position_covariance_type = NavSatFix::COVARIANCE_UNKNOWN;
        let unknown = fix(&message, &config).unwrap();
        assert_eq!(unknown.covariance_m2, [[100.0, 0.0], [0.0, 100.0]]);
        assert_eq!(unknown.covariance_rule, CovarianceRule::Default);
        let mut sure = nav_sat_fix();
        sure.position_covariance[..5].copy_from_slice(&[1e-6, 0.0, 0.0, 0.0, 1e-6]);
        let floor = fix(&sure, &config).unwrap().covariance_m2;
        assert!((floor[0][0] - 0.09).abs() < 1e-9 && (floor[1][1] - 0.09).abs() < 1e-9);
    }

    #[test]
    fn no_fix_and_no_place_on_earth_are_left_out() {
        let config = Ros2SourceConfig::default();
        let mut none = nav_sat_fix();
        none.status.status = NavSatStatus::NO_FIX;
        let mut nowhere = nav_sat_fix();
        nowhere.latitude = f64::NAN;
        assert!(fix(&none, &config).is_none() && fix(&nowhere, &config).is_none());
    }

    #[test]
    fn the_yaw_rate_is_the_imus_when_there_is_one() {
        let twist = |sec| TwistStamped {
            header: Header {
                stamp: Time { sec, nanosec: 0 },
                frame_id: String::new(),
            },
            twist: Twist {
                linear: Vector3 {
                    x: 7.0,
                    ..Vector3::default()
                },
                angular: Vector3 {
                    z: 0.5,
                    ..Vector3::default()
                },
            },
        };
        let imu = |sec, first| Imu {
            header: Header {
                stamp: Time {
                    sec,
                    nanosec: 100_000_000,
                },
                frame_id: String::new(),
            },
            orientation: Quaternion {
                x: 0.0,
                y: 0.0,
                z: 0.0,
                w: 1.0,
            },
            orientation_covariance: [0.0; 9],
            angular_velocity: Vector3 {
                z: 0.25,
                ..Vector3::default()
            },
            angular_velocity_covariance: [first, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4e-4],
            linear_acceleration: Vector3::default(),
            linear_acceleration_covariance: [0.0; 9],
        };
        let alone = Motion { by_imu: false };
        let sample = alone.twist(&twist(5)).unwrap();
        assert_eq!(
            (sample.forward_speed_mps, sample.yaw_rate_rps),
            (Some(7.0), Some(0.5))
        );
        let both = Motion { by_imu: true };
        let sample = both.twist(&twist(5)).unwrap();
        assert_eq!(
            (sample.forward_speed_mps, sample.yaw_rate_rps),
            (Some(7.0), None)
        );
        let sample = turned(&imu(5, 0.0)).unwrap();
        assert_eq!(
            (sample.forward_speed_mps, sample.yaw_rate_rps),
            (None, Some(0.25))
        );
        assert!((sample.yaw_rate_sigma_rps - 0.02).abs() < 1e-12);
        assert!(
            turned(&imu(5, -1.0)).is_none(),
            "it says that there is none"
        );
    }
}
