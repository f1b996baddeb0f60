//! Staged drives through a recorder, and what is in its files then.

use std::path::Path;
use std::sync::Arc;

use crossfix_calibration::{Geodetic, Heatmap, LocalFrame, PatchGeoreference, PatchSpec, RgbImage};
use serde_json::Value;

use super::write::Recorder;
use super::{RecordSinkConfig, Zone};
use crate::event::{Arrival, CameraFrame, CrossViewFix, Event, Match, OdometrySample, State};
use crate::log::{LogReader, Message, topic};
use crate::peer::testing;
use crate::port::{Outbound, Writer};

const START_NS: i64 = 1_594_507_068_000_000_000;
const TENTH_NS: i64 = 100_000_000;
/// Metres in a tenth of a second.
const STEP_M: f64 = 1.0;

fn config(folder: &Path) -> RecordSinkConfig {
    RecordSinkConfig {
        folder: folder.to_owned(),
        min_free_mb: 0,
        flush_s: 600.0,
        ..RecordSinkConfig::default()
    }
}

/// So many metres east of the start.
fn place(east_m: f64) -> Geodetic {
    let frame = LocalFrame::new(Geodetic::new(-33.5, 151.25, 40.0).unwrap());
    frame.geodetic_from_enu(crossfix_calibration::Enu::new(east_m, 0.0, 0.0))
}

struct Drive {
    recorder: Box<Recorder>,
    tenth: i64,
    east_m: f64,
    /// Metres that matches lie north of the truth.
    match_off_m: f64,
    state: State,
}

impl Drive {
    fn new(config: &RecordSinkConfig) -> Self {
        Self {
            recorder: Box::new(Recorder::open(config).unwrap()),
            tenth: 0,
            east_m: 0.0,
            match_off_m: 0.0,
            state: State::Ok,
        }
    }

    fn send(&mut self, outbound: &Outbound) {
        self.recorder.write(outbound).unwrap();
    }

    fn event(&mut self, source: &str, event: Event) {
        let arrival = Arrival::at_once(source, event);
        self.send(&Outbound::Event(Arc::new(arrival)));
    }

    /// So many tenths of a second eastward: odometry, a fix each second, a frame that is matched.
    fn go(&mut self, tenths: i64, step_m: f64) {
        for _ in 0..tenths {
            let time_ns = START_NS + self.tenth * TENTH_NS;
            let position = place(self.east_m);
            if self.tenth % 10 == 0 {
                let mut fix = testing::fix(time_ns);
                fix.position = position;
                self.event("gnss", Event::Gnss(fix));
            }
            self.event(
                "wheels",
                Event::Odometry(OdometrySample {
                    time_ns,
                    forward_speed_mps: Some(10.0 * step_m),
                    yaw_rate_rps: Some(0.0),
                    yaw: None,
                    speed_sigma_mps: 0.1,
                    yaw_rate_sigma_rps: 0.01,
                }),
            );
            let mut estimate = testing::estimate(self.state);
            estimate.time_ns = time_ns;
            estimate.position = position;
            estimate.speed_mps = 10.0 * step_m;
            self.send(&Outbound::Estimate(Arc::new(estimate)));
            self.event(
                "front",
                Event::Frame(CameraFrame {
                    time_ns,
                    image: [&[0xff, 0xd8, 0xff][..], &[self.tenth as u8; 97]]
                        .concat()
                        .into(),
                    camera: "front".into(),
                }),
            );
            let found = found(position, self.match_off_m, time_ns);
            self.send(&Outbound::Match(Arc::new(found)));
            self.tenth += 1;
            self.east_m += step_m;
        }
    }

    fn finish(self) {
        self.recorder.finish().unwrap();
    }
}

fn found(centre: Geodetic, north_m: f64, time_ns: i64) -> Match {
    let (side, metres_per_cell) = (41, 1.0);
    let row = (20.0 - north_m) as usize;
    let mut probabilities = vec![0.0; side * side];
    probabilities[row * side + 20] = 1.0;
    let spec = PatchSpec {
        size_px: side,
        metres_per_pixel: metres_per_cell,
    };
    Match {
        fix: CrossViewFix {
            time_ns,
            centre,
            heatmap: Heatmap::new(side, metres_per_cell, probabilities).unwrap(),
            yaw: None,
            yaw_sigma_rad: 0.1,
        },
        georeference: PatchGeoreference::exactly_at(centre, spec).unwrap(),
        patch: Arc::new(RgbImage::black(side, side)),
        camera: "front".into(),
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn messages(folder: &Path) -> Vec<(String, Message)> {
    let read = |file: &std::path::PathBuf| {
        LogReader::open(file)
            .unwrap()
            .records()
            .map(|record| record.unwrap())
            .map(|record| (record.topic.to_string(), record.message))
            .collect::<Vec<_>>()
    };
    files(folder).iter().flat_map(read).collect()
}

fn count(messages: &[(String, Message)], wanted: &str) -> usize {
    messages.iter().filter(|(topic, _)| topic == wanted).count()
}

fn selections(messages: &[(String, Message)]) -> Vec<Value> {
    let selections = messages.iter().filter_map(|(_, message)| match message {
        Message::Other { topic, data, .. } if topic == topic::SELECTION => {
            Some(serde_json::from_slice(data).unwrap())
        }
        _ => None,
    });
    selections.collect()
}

#[test]
fn a_frame_is_kept_every_few_metres_and_everything_else_always() {
    let folder = tempfile::tempdir().unwrap();
    let mut drive = Drive::new(&config(folder.path()));
    drive.go(200, STEP_M);
    drive.finish();
    let messages = messages(folder.path());
    assert_eq!(count(&messages, topic::GNSS), 20);
    // The first file begins with the first fix, before the first sample.
    assert_eq!(count(&messages, topic::ODOMETRY), 200);
    assert_eq!(count(&messages, topic::FUSED), 200);
    assert_eq!(count(&messages, topic::STATE), 200);
    assert_eq!(count(&messages, topic::IMAGE), 40);
    let selections = selections(&messages);
    assert_eq!(selections.len(), 40);
    assert!(selections[0]["travelled_m"].is_null());
    for selection in &selections[1..] {
        assert_eq!(selection["reason"], "distance");
        let travelled_m = selection["travelled_m"].as_f64().unwrap();
        assert!((travelled_m - 5.0).abs() < 1e-6, "{selection}");
        assert!(
            selection["disagreement_m"].as_f64().unwrap() < 1.5,
            "{selection}"
        );
    }
    let picture = messages.iter().find_map(|(_, message)| match message {
        Message::Frame(frame) => Some(frame.clone()),
        _ => None,
    });
    let image = picture.unwrap().image;
    assert_eq!(image[3..], [0; 97]);
}

#[test]
fn frames_whose_match_and_receiver_disagree_are_kept_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let mut drive = Drive::new(&config(folder.path()));
    drive.go(50, STEP_M);
    drive.match_off_m = 15.0;
    drive.go(20, STEP_M);
    drive.finish();
    let selections = selections(&messages(folder.path()));
    let disagreeing: Vec<&Value> = selections
        .iter()
        .filter(|selection| selection["reason"] == "disagreement")
        .collect();
    // Every frame, a metre apart, and those 5 m after the one before none that is due by distance.
    assert_eq!(disagreeing.len(), 19, "{selections:?}");
    for selection in disagreeing {
        let metres = selection["disagreement_m"].as_f64().unwrap();
        assert!((metres - 15.0).abs() < 1.5, "{selection}");
        assert!(selection["disagreement_sigmas"].as_f64().unwrap() > 3.0);
    }
}

#[test]
fn no_frame_is_kept_where_the_vehicle_may_be_in_a_zone_nor_where_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let centre = place(100.0);
    let mut config = config(folder.path());
    config.zones = vec![Zone::Circle {
        latitude_deg: centre.latitude_deg,
        longitude_deg: centre.longitude_deg,
        radius_m: 20.0,
    }];
    let mut drive = Drive::new(&config);
    drive.go(200, STEP_M);
    drive.state = State::Lost;
    drive.go(50, STEP_M);
    drive.finish();
    let messages = messages(folder.path());
    let frames: Vec<f64> = messages
        .iter()
        .filter_map(|(_, message)| match message {
            Message::Frame(frame) => {
                Some((frame.time_ns - START_NS) as f64 / TENTH_NS as f64 * STEP_M)
            }
            _ => None,
        })
        .collect();
    // A radius of 20 m, a protection radius of 7.5 m, and a second of 10 m/s.
    assert!(
        frames
            .iter()
            .all(|east_m| !(62.5..137.5).contains(east_m) && *east_m < 200.0)
    );
    assert!(frames.iter().any(|east_m| (55.0..62.5).contains(east_m)));
    assert!(frames.iter().any(|east_m| (137.5..145.0).contains(east_m)));
    assert_eq!(count(&messages, topic::GNSS), 25, "positions stay");
}

#[test]
fn positions_are_rounded_and_their_variances_grow() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.round_position_m = 100.0;
    let mut drive = Drive::new(&config);
    drive.go(100, STEP_M);
    drive.finish();
    let mut places = std::collections::BTreeSet::new();
    for (_, message) in messages(folder.path()) {
        let (position, variance_m2) = match message {
            Message::Gnss(fix) => (fix.position, fix.covariance_m2[0][0]),
            Message::Estimate(estimate) => (estimate.position, estimate.covariance_m2[0][0]),
            _ => continue,
        };
        assert!(variance_m2 > 833.0, "{variance_m2}");
        places.insert(position.longitude_deg.to_bits());
    }
    assert!((1..=3).contains(&places.len()), "{places:?}");
}

#[test]
fn a_standing_vehicle_fills_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut drive = Drive::new(&config(folder.path()));
    drive.go(10, STEP_M);
    drive.go(3_000, 0.0);
    let frames_before = 2;
    drive.go(20, STEP_M);
    drive.finish();
    let messages = messages(folder.path());
    // 31 s at full rate, 270 s at a tenth of a Hertz, 2 s at full rate.
    let odometry = count(&messages, topic::ODOMETRY);
    assert!((330..370).contains(&odometry), "{odometry}");
    let fixes = count(&messages, topic::GNSS);
    assert!((58..64).contains(&fixes), "{fixes}");
    let frames = count(&messages, topic::IMAGE);
    assert!(
        (frames_before + 3..=frames_before + 5).contains(&frames),
        "{frames}"
    );
}

#[test]
fn each_source_has_a_topic_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut drive = Drive::new(&config(folder.path()));
    drive.go(10, STEP_M);
    for source in ["roof", "gnss"] {
        drive.event(source, Event::Gnss(testing::fix(START_NS + 10 * TENTH_NS)));
    }
    drive.finish();
    let messages = messages(folder.path());
    assert_eq!(count(&messages, topic::GNSS), 2);
    assert_eq!(count(&messages, "/gnss/fix/roof"), 1);
}

#[test]
fn what_is_too_old_goes_from_a_full_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("crossfix-000001-20200101T000000Z.mcap");
    std::fs::write(&old, b"old").unwrap();
    let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(438_288);
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(then).unwrap();
    let full = RecordSinkConfig {
        retention_days: 1.0,
        min_free_mb: 1_000_000_000,
        ..config(folder.path())
    };
    assert!(Recorder::open(&full).is_err(), "there is no room");
    assert!(!old.exists());
}

#[test]
fn files_have_a_size_and_the_oldest_give_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.flush_s = 0.0;
    config.file_mb = 0; // the smallest there is: a file for each flush
    config.total_mb = 0;
    let mut drive = Drive::new(&config);
    drive.go(3, STEP_M);
    drive.finish();
    let files = files(folder.path());
    assert_eq!(files.len(), 1, "{files:?}");
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with("-20200711T223748Z.mcap"), "{name}");
    let number: u64 = name["crossfix-".len()..][..6].parse().unwrap();
    assert!(number > 3, "{name}");
}
