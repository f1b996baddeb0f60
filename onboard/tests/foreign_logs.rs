//! Logs that programs of others wrote hold what ours holds: the same three seconds of a simulated drive, as
//! `tests/scripts/foreign_logs.py --fixtures` made them.

use std::path::PathBuf;

use crossfix_onboard::event::{CameraFrame, Event, FixDimension, GnssFix, OdometrySample};
use crossfix_onboard::log::{Recording, TopicsConfig};

#[derive(Default)]
struct Drive {
    fixes: Vec<GnssFix>,
    samples: Vec<OdometrySample>,
    frames: Vec<CameraFrame>,
}

fn path(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "../tests/data/foreign_logs",
        name,
    ]
    .iter()
    .collect()
}

fn read(name: &str, topics: &str) -> Drive {
    let topics: TopicsConfig = toml::from_str(topics).unwrap();
    let recording = Recording::open(&path(name), &topics).unwrap();
    let mut drive = Drive::default();
    for record in recording.records() {
        match record.unwrap().message.into_event() {
            Some(Event::Gnss(fix)) => drive.fixes.push(fix),
            Some(Event::Odometry(sample)) => drive.samples.push(sample),
            Some(Event::Frame(frame)) => drive.frames.push(frame),
            _ => {}
        }
    }
    drive
}

fn near(name: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-12 * expected.abs(),
        "{name}: {found} {expected}"
    );
}

fn same_fixes_and_frames(name: &str, found: &Drive, ours: &Drive) {
    assert_eq!(found.fixes.len(), ours.fixes.len(), "{name}");
    for (fix, expected) in found.fixes.iter().zip(&ours.fixes) {
        assert_eq!(fix.time_ns, expected.time_ns, "{name}");
        // Our JSON reader is exact to the last bit but one.
        near(
            name,
            fix.position.latitude_deg,
            expected.position.latitude_deg,
        );
        near(
            name,
            fix.position.longitude_deg,
            expected.position.longitude_deg,
        );
        near(name, fix.position.height_m, expected.position.height_m);
        assert_eq!(fix.dimension, FixDimension::Three, "{name}");
        near(name, fix.covariance_m2[0][0], expected.covariance_m2[0][0]);
        near(name, fix.covariance_m2[1][1], expected.covariance_m2[1][1]);
        near(name, fix.height_sigma_m, expected.height_sigma_m);
    }
    assert_eq!(found.frames.len(), ours.frames.len(), "{name}");
    for (frame, expected) in found.frames.iter().zip(&ours.frames) {
        assert_eq!(
            (frame.time_ns, &frame.image),
            (expected.time_ns, &expected.image),
            "{name}"
        );
    }
}

#[test]
fn every_writer_says_the_same_drive() {
    let ours = read("own_lz4.mcap", "");
    assert!(ours.fixes.len() >= 3 && ours.samples.len() >= 30 && ours.frames.len() == 1);
    for name in [
        "rosbag",
        "rosbag/rosbag.mcap",
        "mcap_ros2.mcap",
        "foxglove_sdk.mcap",
        "foxglove_json.mcap",
        "mcap_protobuf.mcap",
    ] {
        let found = read(name, "");
        same_fixes_and_frames(name, &found, &ours);
        if name == "mcap_protobuf.mcap" {
            continue; // its Protocol Buffers schemas have no odometry
        }
        assert_eq!(found.samples.len(), ours.samples.len(), "{name}");
        for (sample, expected) in found.samples.iter().zip(&ours.samples) {
            assert_eq!(sample.time_ns, expected.time_ns, "{name}");
            let [speed, rate] = [sample.forward_speed_mps, sample.yaw_rate_rps].map(Option::unwrap);
            near(name, speed, expected.forward_speed_mps.unwrap());
            near(name, rate, expected.yaw_rate_rps.unwrap());
            near(name, sample.speed_sigma_mps, expected.speed_sigma_mps);
            near(name, sample.yaw_rate_sigma_rps, expected.yaw_rate_sigma_rps);
        }
    }
}

#[test]
fn wheels_and_gyro_of_two_topics_are_the_same_odometry() {
    let ours = read("own_lz4.mcap", "");
    let apart = read(
        "rosbag_apart",
        "speed = \"/wheels\"\nyaw_rate = \"/imu/data\"",
    );
    same_fixes_and_frames("rosbag_apart", &apart, &ours);
    let speeds: Vec<_> = apart
        .samples
        .iter()
        .filter_map(|s| s.forward_speed_mps)
        .collect();
    let rates: Vec<_> = apart
        .samples
        .iter()
        .filter_map(|s| s.yaw_rate_rps)
        .collect();
    let ours_speeds: Vec<_> = ours
        .samples
        .iter()
        .filter_map(|s| s.forward_speed_mps)
        .collect();
    let ours_rates: Vec<_> = ours.samples.iter().filter_map(|s| s.yaw_rate_rps).collect();
    assert_eq!(
        (speeds.len(), rates.len()),
        (ours_speeds.len(), ours_rates.len())
    );
    for (found, ours) in [(speeds, ours_speeds), (rates, ours_rates)] {
        found
            .iter()
            .zip(ours)
            .for_each(|(found, ours)| near("apart", *found, ours));
    }
    let both = |sample: &&OdometrySample| {
        sample.forward_speed_mps.is_some() && sample.yaw_rate_rps.is_some()
    };
    assert_eq!(apart.samples.iter().filter(both).count(), 0);
}

#[test]
fn a_topic_that_is_not_wanted_gives_nothing() {
    let found = read("rosbag", "camera = []\nodometry = []\ngnss = \"/fix\"");
    assert!(!found.fixes.is_empty() && found.frames.is_empty() && found.samples.is_empty());
}
