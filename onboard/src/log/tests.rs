//! Writing, reading back, and surviving damage.

use std::io::Cursor;
use std::path::Path;

use crossfix_calibration::{Geodetic, Yaw};

use super::{LogError, LogReader, LogWriter, Message, Recording, TopicsConfig};
use crate::event::{
    CameraFrame, CovarianceRule, Estimate, EstimateKind, FixDimension, GnssFix, OdometrySample,
    Reception, State, YawMeasurement,
};

const START_NS: i64 = 1_700_000_000_000_000_000;

fn fix(index: i64) -> GnssFix {
    GnssFix {
        time_ns: START_NS + index * 1_000_000_000,
        position: Geodetic::new(52.0116 + index as f64 * 1e-5, 4.3571, 3.25).unwrap(),
        covariance_m2: [[4.0, 0.5], [0.5, 9.0]],
        height_sigma_m: 4.0,
        covariance_rule: CovarianceRule::Gst,
        speed_mps: Some(7.5),
        track_deg: None,
        dimension: FixDimension::Three,
        reception: Reception::default(),
    }
}

fn sample(index: i64) -> OdometrySample {
    OdometrySample {
        time_ns: START_NS + index * 100_000_000,
        forward_speed_mps: Some(7.25),
        yaw_rate_rps: Some(0.125),
        yaw: Some(YawMeasurement::from_heading_deg(90.0, 2.0)),
        speed_sigma_mps: 0.25,
        yaw_rate_sigma_rps: 0.5,
    }
}

fn frame(index: i64) -> CameraFrame {
    // As far as a log is concerned, a JPEG is what begins like one.
    let noise = (0..3000).map(|byte| (byte * 7 + index * 13) as u8);
    let bytes: Vec<u8> = [0xff, 0xd8, 0xff].into_iter().chain(noise).collect();
    CameraFrame {
        time_ns: START_NS + index,
        image: bytes.into(),
        camera: "front".into(),
    }
}

fn estimate(index: i64, state: State) -> Estimate {
    Estimate {
        time_ns: START_NS + index,
        position: fix(index).position,
        covariance_m2: [[1.0, 0.25], [0.25, 2.0]],
        height_m: Some(3.25),
        yaw: Yaw::new(0.0),
        yaw_sigma_rad: f64::INFINITY,
        speed_mps: 1.5,
        mode_count: 2,
        protection_radius_m: 6.5,
        state,
        reset_count: 1,
        kind: EstimateKind::Fused,
        reason: "no camera".into(),
    }
}

/// A log of `seconds` with one fix, ten odometry samples and one frame in each.
fn log(seconds: i64) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = LogWriter::new(&mut bytes, Path::new("test.mcap")).unwrap();
    for second in 0..seconds {
        writer.write_gnss(&fix(second)).unwrap();
        (0..10).for_each(|tenth| writer.write_odometry(&sample(10 * second + tenth)).unwrap());
        writer.write_frame(&frame(second)).unwrap();
        if second % 10 == 9 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap();
    bytes.into_inner()
}

/// Messages until the end or the damage, and the damage.
fn read(bytes: &[u8]) -> (Vec<Message>, Option<LogError>) {
    let mut messages = Vec::new();
    for item in LogReader::new(bytes, Path::new("test.mcap")) {
        match item {
            Ok(message) => messages.push(message),
            Err(error) => return (messages, Some(error)),
        }
    }
    (messages, None)
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = LogWriter::new(&mut bytes, Path::new("test.mcap")).unwrap();
    writer.write_gnss(&fix(0)).unwrap();
    writer.write_odometry(&sample(1)).unwrap();
    writer.write_frame(&frame(2)).unwrap();
    writer
        .write_estimate(&estimate(3, State::Degraded))
        .unwrap();
    writer.write_estimate(&estimate(4, State::Lost)).unwrap();
    writer.finish().unwrap();
    let (messages, damage) = read(bytes.get_ref());
    assert!(damage.is_none(), "{damage:?}");
    let [
        Message::Gnss(gnss),
        Message::Odometry(odometry),
        Message::Frame(picture),
        Message::Estimate(fused),
        states @ ..,
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(*gnss, fix(0));
    let measured = odometry.yaw.unwrap();
    assert!(
        measured.yaw.radians().abs() < 1e-12
            && (measured.sigma_rad - 2f64.to_radians()).abs() < 1e-12
    );
    assert_eq!(
        OdometrySample {
            yaw: None,
            ..*odometry
        },
        OdometrySample {
            yaw: None,
            ..sample(1)
        }
    );
    assert_eq!(*picture, frame(2));
    assert_eq!(
        fused.covariance_m2,
        estimate(3, State::Degraded).covariance_m2
    );
    assert_eq!(
        (fused.state, fused.reason.as_str(), fused.mode_count),
        (State::Degraded, "no camera", 2)
    );
    // A lost estimate leaves its state in the log, and no position.
    assert_eq!(states.len(), 2);
    assert!(states.iter().all(
        |message| matches!(message, Message::Other { topic, .. } if topic == "/crossfix/state")
    ));
}

#[test]
fn a_log_cut_short_keeps_what_came_before() {
    let whole = log(60);
    let total = read(&whole).0.len();
    assert_eq!(total, 60 * 12);
    let mut counts = Vec::new();
    for cut in (0..whole.len()).step_by(whole.len() / 97) {
        let (messages, damage) = read(&whole[..cut]);
        assert!(
            matches!(damage, Some(LogError::Damaged { .. })),
            "cut at {cut}: {damage:?}"
        );
        counts.push(messages.len());
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(*counts.last().unwrap() > total / 2, "{counts:?}");
}

#[test]
fn no_flipped_bit_aborts_and_none_in_a_chunk_goes_unnoticed() {
    let whole = log(30);
    let reference: Vec<String> = read(&whole)
        .0
        .iter()
        .map(|message| format!("{message:?}"))
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let bit = (state >> 20) as usize % (whole.len() * 8);
        let mut broken = whole.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let (messages, damage) = read(&broken);
        assert!(damage.is_some(), "bit {bit} went unnoticed");
        for (message, expected) in messages.iter().zip(&reference) {
            assert_eq!(format!("{message:?}"), *expected, "bit {bit}");
        }
    }
}

#[test]
fn bytes_that_are_no_log_are_an_error() {
    let magic = b"\x89MCAP0\r\n";
    let huge_record = [&magic[..], &[0x06], &u64::MAX.to_le_bytes()].concat();
    for bytes in [
        &b""[..],
        b"not a log",
        magic,
        &huge_record,
        &vec![0; 100_000],
    ] {
        let (messages, damage) = read(bytes);
        assert!(messages.is_empty());
        assert!(
            matches!(damage, Some(LogError::Damaged { .. })),
            "{damage:?}"
        );
    }
}

/// Names are packed well, and kept for as long as the log is read.
#[test]
fn names_without_end_are_damage() {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = mcap::Writer::new(&mut bytes).unwrap();
    for index in 0..5 {
        let topic = format!("{index}{}", "x".repeat(5 << 20));
        writer
            .add_channel(0, &topic, "json", &std::collections::BTreeMap::default())
            .unwrap();
    }
    writer.finish().unwrap();
    drop(writer);
    let bytes = bytes.into_inner();
    let reader = LogReader::new(bytes.as_slice(), Path::new("long.mcap"));
    let errors: Vec<_> = reader.filter_map(Result::err).collect();
    assert!(
        errors.len() == 1 && errors[0].to_string().contains("names"),
        "{errors:?}"
    );
    // The summary holds the same names; it is not believed, and reading says what is wrong.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.mcap");
    std::fs::write(&path, bytes).unwrap();
    let recording = Recording::open(&path, &TopicsConfig::default()).unwrap();
    assert!(recording.records().any(|record| record.is_err()));
    assert!(LogReader::open(&path).unwrap().channels().len() < 5);
    // A pipe is not waited for.
    let pipe = folder.path().join("pipe.mcap");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    assert!(LogReader::open(&pipe).is_err());
}

#[test]
fn one_bad_message_is_named_and_the_rest_still_comes() {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = mcap::Writer::new(&mut bytes).unwrap();
    let channel = writer
        .add_channel(
            0,
            super::topic::GNSS,
            "json",
            &std::collections::BTreeMap::default(),
        )
        .unwrap();
    let good = serde_json::to_vec(&super::message::LocationFix::from_gnss(&fix(0))).unwrap();
    for body in [
        &b"{"[..],
        b"{\"timestamp\":{\"sec\":1,\"nsec\":4000000000}}",
        &good,
    ] {
        let header = mcap::records::MessageHeader {
            channel_id: channel,
            sequence: 0,
            log_time: 1,
            publish_time: 1,
        };
        writer.write_to_known_channel(&header, body).unwrap();
    }
    writer.finish().unwrap();
    drop(writer);
    let items: Vec<_> =
        LogReader::new(bytes.get_ref().as_slice(), Path::new("test.mcap")).collect();
    assert_eq!(items.len(), 3);
    assert!(
        matches!(&items[0], Err(LogError::BadMessage { number: 1, topic, .. }) if topic == "/gnss/fix")
    );
    assert!(matches!(&items[1], Err(error) if !error.ends_the_log()));
    assert!(matches!(&items[2], Ok(Message::Gnss(_))));
}
