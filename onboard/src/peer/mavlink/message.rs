//! Estimates as MAVLink messages: pure, so that their fields are tested.
//!
//! # Source
//! MAVLink's common.xml. GPS time: IS-GPS-200 (weeks since 6 January 1980, 18 leap seconds since 2017).

use crossfix_calibration::LocalFrame;
use mavlink::dialects::common::{
    GLOBAL_POSITION_SENSOR_DATA, GPS_GLOBAL_ORIGIN_DATA, GPS_INPUT_DATA, GlobalPositionFlags,
    GlobalPositionSrc, GpsFixType, GpsInputIgnoreFlags, HEARTBEAT_DATA, MavAutopilot,
    MavEstimatorType, MavFrame, MavModeFlag, MavState, MavType, ODOMETRY_DATA,
};

use crate::event::{Estimate, EstimateKind, State};
use crate::peer::ellipse::Ellipse;
use crate::peer::reception::Attendant;

/// Seconds from 1970 to the start of GPS time.
const GPS_EPOCH_S: i64 = 315_964_800;
/// GPS time minus UTC since 2017, seconds.
const GPS_MINUS_UTC_S: i64 = 18;
const WEEK_MS: i64 = 7 * 86_400_000;
/// A worse yaw gives no direction, radians.
const WORST_YAW_RAD: f64 = 0.6;
/// A worse yaw is no heading for an autopilot, radians.
const WORST_HEADING_RAD: f64 = 0.26;

/// Which of GPS_INPUT's fields hold nothing: what a lost position has, and what nobody measures.
const NOTHING_KNOWN: GpsInputIgnoreFlags = GpsInputIgnoreFlags::all();

/// GPS_INPUT. While lost it has no fix, no position and nothing that is to be used.
pub fn gps_input(estimate: &Estimate, attendant: &Attendant, sensor_id: u8) -> GPS_INPUT_DATA {
    let (time_week, time_week_ms) = gps_time(estimate.time_ns);
    let mut message = GPS_INPUT_DATA {
        time_usec: micros(estimate.time_ns),
        time_week_ms,
        time_week,
        gps_id: sensor_id,
        ignore_flags: NOTHING_KNOWN,
        fix_type: GpsFixType::GPS_FIX_TYPE_NO_FIX,
        hdop: f32::from(u16::MAX),
        vdop: f32::from(u16::MAX),
        ..GPS_INPUT_DATA::DEFAULT
    };
    let Some([lat, lon]) = place(estimate) else {
        return message;
    };
    (message.lat, message.lon) = (lat, lon);
    message.fix_type = GpsFixType::GPS_FIX_TYPE_2D_FIX;
    let mut know = |flag: GpsInputIgnoreFlags| message.ignore_flags.remove(flag);
    let [[ee, _], [_, nn]] = estimate.covariance_m2;
    message.horiz_accuracy = (ee + nn).max(0.0).sqrt() as f32;
    know(GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_HORIZONTAL_ACCURACY);
    message.hdop = attendant.hdop as f32;
    know(GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_HDOP);
    if let Some(height_m) = estimate.height_m.filter(|height_m| height_m.is_finite()) {
        message.alt = (height_m - attendant.geoid_m) as f32;
        message.fix_type = GpsFixType::GPS_FIX_TYPE_3D_FIX;
        know(GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_ALT);
        if let Some(sigma_m) = attendant.height_sigma_m {
            message.vert_accuracy = sigma_m as f32;
            know(GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_VERTICAL_ACCURACY);
        }
    }
    if let Some([north, east]) = velocity(estimate) {
        (message.vn, message.ve) = (north, east);
        know(GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_VEL_HORIZ);
    }
    let satellites = attendant.satellites_used.unwrap_or(0);
    message.satellites_visible = u8::try_from(satellites).unwrap_or(254);
    message.yaw = heading_cdeg(estimate);
    message
}

/// GLOBAL_POSITION_SENSOR; none while lost. It was true and is sent at `time_usec`: the estimate is of
/// that moment.
pub fn global_position_sensor(
    estimate: &Estimate,
    attendant: &Attendant,
    sensor_id: u8,
) -> Option<GLOBAL_POSITION_SENSOR_DATA> {
    let [lat, lon] = place(estimate)?;
    let height_m = estimate.height_m.filter(|height_m| height_m.is_finite());
    let healthy = matches!(estimate.state, State::Ok | State::Degraded);
    Some(GLOBAL_POSITION_SENSOR_DATA {
        time_usec: micros(estimate.time_ns),
        processing_time: 0,
        lat,
        lon,
        alt_ellipsoid: height_m.map_or(f32::NAN, |height_m| height_m as f32),
        alt: height_m.map_or(f32::NAN, |height_m| (height_m - attendant.geoid_m) as f32),
        eph: Ellipse::new(estimate.covariance_m2).major_m as f32,
        epv: attendant
            .height_sigma_m
            .map_or(f32::NAN, |sigma_m| sigma_m as f32),
        id: sensor_id,
        source: match estimate.kind {
            EstimateKind::Fused => GlobalPositionSrc::GLOBAL_POSITION_SRC_ESTIMATOR,
            EstimateKind::VisualOnly => GlobalPositionSrc::GLOBAL_POSITION_SRC_VISION,
        },
        flags: if healthy {
            GlobalPositionFlags::empty()
        } else {
            GlobalPositionFlags::GLOBAL_POSITION_UNHEALTHY
        },
        ..GLOBAL_POSITION_SENSOR_DATA::DEFAULT
    })
}

/// ODOMETRY in the NED frame of `origin`; none while lost. Its reset counter is the estimate's, modulo 256.
pub fn odometry(estimate: &Estimate, origin: &LocalFrame) -> Option<ODOMETRY_DATA> {
    place(estimate)?;
    let position = origin.enu_from_geodetic(estimate.position);
    let [[ee, en], [_, nn]] = estimate
        .covariance_m2
        .map(|row| row.map(|value| value as f32));
    // Upper triangle of x, y, z, roll, pitch, yaw; NaN is "not known".
    let mut pose_covariance = [f32::NAN; 21];
    pose_covariance[0] = nn;
    pose_covariance[1] = en;
    pose_covariance[6] = ee;
    pose_covariance[20] = estimate.yaw_sigma_rad.powi(2) as f32;
    // A vehicle on a road: no roll and no pitch. The yaw of NED is the heading.
    let heading_rad = estimate.yaw.heading().degrees().to_radians();
    let (sin, cos) = (heading_rad / 2.0).sin_cos();
    Some(ODOMETRY_DATA {
        time_usec: micros(estimate.time_ns),
        x: position.north() as f32,
        y: position.east() as f32,
        z: if estimate.height_m.is_some() {
            -position.up() as f32
        } else {
            f32::NAN
        },
        q: [cos as f32, 0.0, 0.0, sin as f32],
        vx: estimate.speed_mps as f32,
        vy: 0.0,
        vz: 0.0,
        rollspeed: f32::NAN,
        pitchspeed: f32::NAN,
        yawspeed: f32::NAN,
        pose_covariance,
        velocity_covariance: [f32::NAN; 21],
        frame_id: MavFrame::MAV_FRAME_LOCAL_NED,
        child_frame_id: MavFrame::MAV_FRAME_BODY_FRD,
        reset_counter: (estimate.reset_count % 256) as u8,
        estimator_type: match estimate.kind {
            EstimateKind::Fused => MavEstimatorType::MAV_ESTIMATOR_TYPE_GPS_INS,
            EstimateKind::VisualOnly => MavEstimatorType::MAV_ESTIMATOR_TYPE_VISION,
        },
        quality: 0,
    })
}

/// Where the local frame of [`odometry`] is.
pub fn origin(frame: &LocalFrame, attendant: &Attendant, time_ns: i64) -> GPS_GLOBAL_ORIGIN_DATA {
    let place = frame.origin();
    GPS_GLOBAL_ORIGIN_DATA {
        latitude: degrees_e7(place.latitude_deg),
        longitude: degrees_e7(place.longitude_deg),
        altitude: ((place.height_m - attendant.geoid_m) * 1000.0) as i32,
        time_usec: micros(time_ns),
    }
}

/// HEARTBEAT: `active` with a position, `critical` while dead reckoning, `standby` without one.
pub fn heartbeat(state: Option<State>) -> HEARTBEAT_DATA {
    HEARTBEAT_DATA {
        custom_mode: 0,
        mavtype: MavType::MAV_TYPE_ONBOARD_CONTROLLER,
        autopilot: MavAutopilot::MAV_AUTOPILOT_INVALID,
        base_mode: MavModeFlag::empty(),
        system_status: match state {
            Some(State::Ok | State::Degraded) => MavState::MAV_STATE_ACTIVE,
            Some(State::Coasting) => MavState::MAV_STATE_CRITICAL,
            Some(State::Lost) | None => MavState::MAV_STATE_STANDBY,
        },
        mavlink_version: 3,
    }
}

/// GPS week and milliseconds in it.
fn gps_time(time_ns: i64) -> (u16, u32) {
    let gps_ms = time_ns.div_euclid(1_000_000) - (GPS_EPOCH_S - GPS_MINUS_UTC_S) * 1000;
    let week = u16::try_from(gps_ms.div_euclid(WEEK_MS)).unwrap_or(0);
    (week, gps_ms.rem_euclid(WEEK_MS) as u32)
}

fn micros(time_ns: i64) -> u64 {
    u64::try_from(time_ns / 1000).unwrap_or(0)
}

/// Latitude and longitude in 1e-7 degrees, unless lost.
fn place(estimate: &Estimate) -> Option<[i32; 2]> {
    let angles = [
        estimate.position.latitude_deg,
        estimate.position.longitude_deg,
    ];
    let known = estimate.state != State::Lost && angles.iter().all(|angle| angle.is_finite());
    known.then(|| angles.map(degrees_e7))
}

fn degrees_e7(degrees: f64) -> i32 {
    (degrees * 1e7).round() as i32
}

/// North and east, m/s; none when the vehicle moves and nobody knows which way it points.
fn velocity(estimate: &Estimate) -> Option<[f32; 2]> {
    let speed_mps = estimate.speed_mps;
    let known = estimate.yaw_sigma_rad < WORST_YAW_RAD || speed_mps.abs() < 0.5;
    let (sin, cos) = estimate.yaw.radians().sin_cos();
    (known && speed_mps.is_finite()).then_some([(speed_mps * sin) as f32, (speed_mps * cos) as f32])
}

/// 1 to 36000, north is 36000; 0 is "not known".
fn heading_cdeg(estimate: &Estimate) -> u16 {
    if estimate.yaw_sigma_rad.is_nan() || estimate.yaw_sigma_rad > WORST_HEADING_RAD {
        return 0;
    }
    match (estimate.yaw.heading().degrees() * 100.0).round() as u16 {
        0 => 36_000,
        heading => heading,
    }
}

#[cfg(test)]
mod tests {
    use crossfix_calibration::Yaw;

    use super::*;
    use crate::peer::reception::Receivers;
    use crate::peer::testing::{estimate, fix};

    fn attendant(estimate: &Estimate) -> Attendant {
        let mut receivers = Receivers::default();
        receivers.note(&crate::event::Event::Gnss(fix(estimate.time_ns)));
        receivers.attend(estimate)
    }

    #[test]
    fn gps_weeks_and_milliseconds_are_those_of_gps_time() {
        // 2020-07-11T22:37:48.5Z is a Saturday: GPS week 2113, and 18 s later in it.
        assert_eq!(gps_time(1_594_507_068_500_000_000), (2113, 599_886_500));
        // The week begins at midnight of GPS time, 18 s before that of UTC.
        assert_eq!(gps_time(1_594_511_982_000_000_000), (2114, 0));
        assert_eq!(gps_time(0).0, 0);
    }

    #[test]
    fn a_position_has_what_is_known_and_ignores_the_rest() {
        let estimate = estimate(State::Ok);
        let message = gps_input(&estimate, &attendant(&estimate), 3);
        assert_eq!((message.lat, message.lon), (-335_000_000, 1_512_500_000));
        assert_eq!((message.alt, message.gps_id), (18.0, 3));
        assert!((message.horiz_accuracy - 5_f32.sqrt()).abs() < 1e-6);
        assert_eq!((message.vert_accuracy, message.hdop), (3.0, 0.9));
        assert!(message.vn.abs() < 1e-5 && (message.ve - 10.0).abs() < 1e-5);
        assert_eq!((message.satellites_visible, message.yaw), (9, 9_000));
        assert_eq!(message.fix_type, GpsFixType::GPS_FIX_TYPE_3D_FIX);
        let ignored = GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_VDOP
            | GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_VEL_VERT
            | GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY;
        assert_eq!(message.ignore_flags, ignored);
    }

    #[test]
    fn what_is_not_known_is_ignored() {
        let mut estimate = estimate(State::Degraded);
        let nobody = Receivers::default().attend(&estimate);
        estimate.height_m = None;
        estimate.yaw_sigma_rad = 3.0;
        let message = gps_input(&estimate, &nobody, 0);
        assert_eq!(message.fix_type, GpsFixType::GPS_FIX_TYPE_2D_FIX);
        assert_eq!((message.yaw, message.satellites_visible), (0, 0));
        for flag in [
            GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_ALT,
            GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_VERTICAL_ACCURACY,
            GpsInputIgnoreFlags::GPS_INPUT_IGNORE_FLAG_VEL_HORIZ,
        ] {
            assert!(message.ignore_flags.contains(flag), "{flag:?}");
        }
        estimate.yaw_sigma_rad = 0.1;
        estimate.yaw = Yaw::new(std::f64::consts::FRAC_PI_2);
        assert_eq!(gps_input(&estimate, &nobody, 0).yaw, 36_000, "north");
    }

    #[test]
    fn while_lost_nothing_of_it_is_a_position() {
        let estimate = estimate(State::Lost);
        let attendant = attendant(&estimate);
        let message = gps_input(&estimate, &attendant, 0);
        assert_eq!(message.fix_type, GpsFixType::GPS_FIX_TYPE_NO_FIX);
        assert_eq!((message.lat, message.lon), (0, 0));
        assert_eq!(message.ignore_flags, NOTHING_KNOWN);
        assert!(global_position_sensor(&estimate, &attendant, 0).is_none());
        assert!(odometry(&estimate, &LocalFrame::new(estimate.position)).is_none());
        let status = |state| heartbeat(state).system_status;
        assert_eq!(status(Some(State::Lost)), MavState::MAV_STATE_STANDBY);
        assert_eq!(status(Some(State::Coasting)), MavState::MAV_STATE_CRITICAL);
    }

    #[test]
    fn a_dead_reckoned_position_is_unhealthy_and_a_visual_one_says_so() {
        let mut estimate = estimate(State::Coasting);
        let attendant = attendant(&estimate);
        let sensor = |estimate: &Estimate| global_position_sensor(estimate, &attendant, 2).unwrap();
        let message = sensor(&estimate);
        assert_eq!(
            message.flags,
            GlobalPositionFlags::GLOBAL_POSITION_UNHEALTHY
        );
        assert_eq!(
            message.source,
            GlobalPositionSrc::GLOBAL_POSITION_SRC_ESTIMATOR
        );
        assert_eq!((message.eph, message.epv, message.id), (2.0, 3.0, 2));
        assert_eq!((message.alt_ellipsoid, message.alt), (40.0, 18.0));
        estimate.kind = EstimateKind::VisualOnly;
        estimate.state = State::Ok;
        let message = sensor(&estimate);
        assert_eq!(message.flags, GlobalPositionFlags::empty());
        assert_eq!(
            message.source,
            GlobalPositionSrc::GLOBAL_POSITION_SRC_VISION
        );
    }

    #[test]
    fn odometry_is_north_east_down_with_the_covariance_turned_and_the_resets_counted() {
        let mut estimate = estimate(State::Ok);
        let frame = LocalFrame::new(estimate.position);
        let there = crossfix_calibration::Enu::new(3.0, 5.0, 1.0);
        estimate.position = frame.geodetic_from_enu(there);
        estimate.covariance_m2 = [[4.0, 0.5], [0.5, 1.0]];
        estimate.reset_count = 257;
        let message = odometry(&estimate, &frame).unwrap();
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
        assert!(near(message.x, 5.0) && near(message.y, 3.0) && near(message.z, -1.0));
        assert_eq!(message.pose_covariance[..2], [1.0, 0.5]);
        assert_eq!(message.pose_covariance[6], 4.0);
        assert!(message.pose_covariance[11].is_nan());
        assert_eq!(message.reset_counter, 1);
        // East: a quarter turn about the axis that points down.
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert!(near(message.q[0], half) && near(message.q[3], half));
    }
}
