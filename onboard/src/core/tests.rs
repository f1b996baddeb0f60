//! Every fault leaves the output going, in the right state and with the right words.

use std::sync::Arc;

use crossfix_calibration::{
    Equirectangular, Geodetic, Heatmap, LeverArm, Mount, Part, PatchKey, Pinhole, RgbImage, Yaw,
};

use super::*;
use crate::card::tests::tiny_card;
use crate::card::{
    AerialInput, FittedBy, GroundInput, HeatmapCalibration, HeatmapOutput, StudentCard,
};
use crate::config::{RigCameraConfig, RigConfig};
use crate::event::{
    CovarianceRule, EstimateKind, FixDimension, GnssFix, OdometrySample, Reception, State,
    YawMeasurement,
};
use crate::matcher::{MatchError, MatchResult};
use crate::tiles::tests::{ORIGIN, stores};

const START_NS: i64 = 1_700_000_000_000_000_000;

/// Sees the vehicle a little east of every patch's centre.
struct Staged {
    card: StudentCard,
    fails: bool,
    /// Mode from the patch's centre, metres east and north, and 1-sigma.
    heatmap: ([f64; 2], f64),
}

impl Matcher for Staged {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn match_frame(
        &mut self,
        strip: GroundStrip<'_>,
        _key: PatchKey,
        patch: &RgbImage,
    ) -> Result<MatchResult, MatchError> {
        let GroundStrip { image, .. } = strip;
        assert_eq!([image.width, image.height, patch.width], [32, 4, 64]);
        if self.fails {
            return Err(MatchError::Run("staged failure".into()));
        }
        Ok(MatchResult {
            heatmap: Heatmap::gaussian(64, 1.0, self.heatmap.0, self.heatmap.1).unwrap(),
            yaw_residual_rad: Some(0.0),
            part: None,
            timings: MatchTimings::default(),
        })
    }

    /// Has a window of half the patch.
    fn match_inside(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
        inside: Inside,
    ) -> Result<MatchResult, MatchError> {
        let whole = self.match_frame(strip, key, patch)?;
        let [east, north] = inside.offset_m;
        assert!(
            east.hypot(north) < 10.0 && inside.radius_m > 1.0,
            "{inside:?}"
        );
        let part = Part {
            corner: [16; 2],
            side: 32,
        };
        Ok(MatchResult {
            part: (inside.radius_m < 16.0).then_some(part),
            ..whole
        })
    }
}

pub(crate) fn staged(fails: bool) -> Box<dyn Matcher> {
    Box::new(student(fails, [1.0, 0.0], 6.0))
}

/// Sees the vehicle there in every patch, metres east and north of its centre.
pub(crate) fn staged_at(offset_m: [f64; 2], sigma_m: f64) -> Box<dyn Matcher> {
    Box::new(student(false, offset_m, sigma_m))
}

fn student(fails: bool, offset_m: [f64; 2], sigma_m: f64) -> Staged {
    let card = StudentCard {
        ground: GroundInput {
            rows: 4,
            columns: 32,
            fov_deg: 360.0,
            top_elevation_deg: 28.0,
            orientation_bins: None,
            camera: None,
        },
        aerial: AerialInput {
            size_px: 64,
            metres_per_pixel: 1.0,
        },
        heatmap: HeatmapOutput {
            side: 64,
            metres_per_cell: 1.0,
            inner: false,
        },
        ..tiny_card()
    };
    Staged {
        card,
        fails,
        heatmap: (offset_m, sigma_m),
    }
}

fn camera() -> Camera {
    Camera::Equirectangular(Equirectangular {
        width: 32,
        height: 16,
        top_elevation_deg: 90.0,
        bottom_elevation_deg: -90.0,
        mount: Mount::default(),
    })
}

pub(crate) fn core() -> (Core, tempfile::TempDir) {
    let (folder, [archive, _]) = stores();
    let tiles = TileStore::open(archive).unwrap();
    let core = Core::new(
        FusionConfig::default(),
        Some(camera()),
        Some(tiles),
        Some(staged(false)),
    );
    (core, folder)
}

pub(crate) fn picture() -> Arc<[u8]> {
    picture_at(0)
}

/// What the camera sees at a tenth of a second: another stretch of the same sort of street.
pub(crate) fn picture_at(tick: i64) -> Arc<[u8]> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(32, 16, |col, row| {
        let (x, time) = (f64::from(col), tick as f64);
        let houses = 30.0 * (0.4 * x + 0.37 * time).sin() + 20.0 * (0.2 * x + 0.11 * time).sin();
        image::Rgb([(180.0 - 6.0 * f64::from(row) + houses) as u8; 3])
    })
    .write_to(&mut bytes, image::ImageFormat::Png)
    .unwrap();
    bytes.into_inner().into()
}

/// East of the origin by `east_m`.
fn place(east_m: f64) -> Geodetic {
    let degrees_per_m = 1.0 / (111_320.0 * ORIGIN[0].to_radians().cos());
    Geodetic::new(ORIGIN[0], ORIGIN[1] + east_m * degrees_per_m, 3.0).unwrap()
}

pub(crate) fn fix(tick: i64) -> Event {
    Event::Gnss(GnssFix {
        time_ns: START_NS + tick * 100_000_000,
        position: place(tick as f64),
        covariance_m2: [[9.0, 0.0], [0.0, 9.0]],
        height_sigma_m: 5.0,
        covariance_rule: CovarianceRule::Recorded,
        speed_mps: None,
        track_deg: None,
        dimension: FixDimension::Three,
        reception: Reception::default(),
    })
}

/// 10 m/s eastwards.
pub(crate) fn odometry(tick: i64) -> Event {
    Event::Odometry(OdometrySample {
        time_ns: START_NS + tick * 100_000_000,
        forward_speed_mps: Some(10.0),
        yaw_rate_rps: Some(0.0),
        yaw: Some(YawMeasurement {
            yaw: Yaw::new(0.0),
            sigma_rad: 0.03,
        }),
        speed_sigma_mps: 0.05,
        yaw_rate_sigma_rps: 0.005,
    })
}

pub(crate) fn frame(tick: i64, image: Arc<[u8]>) -> Event {
    Event::Frame(CameraFrame {
        time_ns: START_NS + tick * 100_000_000,
        image,
        camera: "front".into(),
    })
}

/// Fixes at 1 Hz, odometry at 10 Hz, frames at 5 Hz, for the given tenths of seconds.
fn drive(core: &mut Core, ticks: std::ops::Range<i64>, keep: fn(&Event) -> bool) -> Vec<Estimate> {
    let mut estimates = Vec::new();
    for tick in ticks {
        let mut events = vec![odometry(tick)];
        if tick % 10 == 0 {
            events.push(fix(tick));
        }
        if tick % 2 == 0 {
            events.push(frame(tick, picture_at(tick)));
        }
        for event in events.into_iter().filter(keep) {
            estimates.extend(take(core, event));
        }
    }
    estimates
}

/// The core takes in what came at the moment it was true.
fn take(core: &mut Core, event: Event) -> Vec<Estimate> {
    core.handle(Arrival::at_once("test", event))
}

fn all(_: &Event) -> bool {
    true
}

fn last(estimates: &[Estimate], kind: EstimateKind) -> &Estimate {
    estimates
        .iter()
        .rev()
        .find(|estimate| estimate.kind == kind)
        .unwrap()
}

fn assert_goes_on(estimates: &[Estimate], state: State, reason: &str) {
    let estimate = last(estimates, EstimateKind::Fused);
    assert_eq!(estimate.state, state, "{}", estimate.reason);
    assert!(estimate.reason.contains(reason), "{}", estimate.reason);
    assert!(estimate.covariance_m2[0][0].is_finite() && estimate.protection_radius_m > 0.0);
}

#[test]
fn with_everything_the_state_is_ok_and_both_outputs_come_at_ten_hertz() {
    let (mut core, _folder) = core();
    let estimates = drive(&mut core, 0..100, all);
    assert_goes_on(&estimates, State::Ok, "");
    assert_eq!(last(&estimates, EstimateKind::VisualOnly).state, State::Ok);
    let fused = estimates
        .iter()
        .filter(|e| e.kind == EstimateKind::Fused)
        .count();
    assert!((95..=140).contains(&fused), "{fused}");
    assert!(
        estimates
            .windows(2)
            .all(|pair| pair[0].time_ns <= pair[1].time_ns)
    );
    // 99 m in steps of at least 4 m, at frames 2 m apart.
    assert!(
        (20..=25).contains(&core.counters().frames),
        "{:?}",
        core.counters()
    );
    assert!(core.take_match().is_some());
}

#[test]
fn the_same_events_give_the_same_estimates_to_the_bit() {
    let (mut a, _folder_a) = core();
    let (mut b, _folder_b) = core();
    assert_eq!(
        format!("{:?}", drive(&mut a, 0..80, all)),
        format!("{:?}", drive(&mut b, 0..80, all))
    );
}

#[test]
fn before_the_first_fix_there_is_no_output() {
    let (mut core, _folder) = core();
    assert!(drive(&mut core, 0..30, |event| !matches!(event, Event::Gnss(_))).is_empty());
}

#[test]
fn without_student_tiles_or_camera_it_goes_on_degraded_and_says_which() {
    let (_folder, [archive, _]) = stores();
    let tiles = || Some(TileStore::open(&archive).unwrap());
    let config = FusionConfig::default;
    let cases = vec![
        (
            Core::new(config(), Some(camera()), tiles(), None),
            "no student",
        ),
        (
            Core::new(config(), Some(camera()), None, Some(staged(false))),
            "no aerial tiles",
        ),
        (
            Core::new(config(), None, tiles(), Some(staged(false))),
            "no camera calibration",
        ),
        (
            Core::new(config(), Some(camera()), tiles(), Some(staged(true))),
            "staged failure",
        ),
    ];
    for (mut core, reason) in cases {
        let estimates = drive(&mut core, 0..60, all);
        assert_goes_on(&estimates, State::Degraded, reason);
        assert!(
            estimates
                .iter()
                .all(|estimate| estimate.kind == EstimateKind::Fused)
        );
    }
}

#[test]
fn beyond_the_tiles_it_goes_on_with_gnss_and_names_the_missing_tile() {
    let (mut core, _folder) = core();
    let estimates = drive(&mut core, 0..400, all);
    assert_goes_on(&estimates, State::Degraded, "no aerial tile covers 52.01");
}

#[test]
fn corrupt_frames_are_counted_and_passed_over() {
    let (mut core, _folder) = core();
    drive(&mut core, 0..50, all);
    let before = core.counters();
    for (tick, bytes) in [
        (54, &b""[..]),
        (56, b"\xff\xd8\xff\xe0 rubbish"),
        (58, b"GIF89a"),
    ] {
        assert!(take(&mut core, frame(tick, bytes.into())).is_empty());
    }
    assert_eq!(core.counters().frames_unused, before.frames_unused + 3);
    let estimates = drive(&mut core, 60..100, all);
    assert_goes_on(&estimates, State::Ok, "");
}

#[test]
fn a_late_frame_counts_at_its_own_time_and_a_very_late_one_does_not_count() {
    let (mut core, _folder) = core();
    drive(&mut core, 0..60, |event| !matches!(event, Event::Frame(_)));
    let estimates = take(&mut core, frame(50, picture_at(50)));
    assert_eq!(core.counters().frames, 1);
    assert!(
        estimates
            .iter()
            .all(|estimate| estimate.time_ns >= START_NS + 59 * 100_000_000)
    );
    take(&mut core, frame(20, picture_at(20)));
    assert_eq!(
        (core.counters().frames, core.counters().frames_unused),
        (1, 1)
    );
}

#[test]
fn without_gnss_the_camera_carries_on_and_without_both_it_coasts_until_lost() {
    let (mut core, _folder) = core();
    drive(&mut core, 0..60, all);
    let estimates = drive(&mut core, 60..120, |event| !matches!(event, Event::Gnss(_)));
    assert_goes_on(&estimates, State::Degraded, "no recent GNSS");
    let estimates = drive(&mut core, 120..220, |event| {
        matches!(event, Event::Odometry(_))
    });
    assert_goes_on(&estimates, State::Coasting, "no recent GNSS");
    let before = last(&estimates, EstimateKind::Fused).covariance_m2[0][0];
    let mut silent = Vec::new();
    for tick in 221..3000 {
        silent.extend(core.tick(START_NS + tick * 100_000_000));
    }
    assert!(last(&silent, EstimateKind::Fused).covariance_m2[0][0] > before);
    assert_goes_on(&silent, State::Lost, "the error has grown");
    let estimates = drive(&mut core, 3000..3100, |event| {
        !matches!(event, Event::Frame(_))
    });
    assert_eq!(last(&estimates, EstimateKind::Fused).state, State::Degraded);
}

#[test]
fn without_odometry_the_fixes_carry_on() {
    let (mut core, _folder) = core();
    let estimates = drive(&mut core, 0..150, |event| matches!(event, Event::Gnss(_)));
    assert_goes_on(&estimates, State::Degraded, "no recent odometry");
    let estimate = last(&estimates, EstimateKind::Fused);
    let error_deg = estimate.position.longitude_deg - place(140.0).longitude_deg;
    assert!(error_deg.abs() * 68_000.0 < 3.0, "{error_deg}");
}

/// Fixes at 1 Hz, with ticks between them at these times, in milliseconds.
fn fixes_and_ticks(ticks_ms: impl Iterator<Item = i64>) -> Vec<Estimate> {
    let mut core = Core::new(FusionConfig::default(), None, None, None);
    let mut ticks_ms = ticks_ms.peekable();
    let mut after_fixes = Vec::new();
    for second in 0..20 {
        while let Some(ms) = ticks_ms.next_if(|ms| *ms < 1000 * second) {
            core.tick(START_NS + ms * 1_000_000);
        }
        let Event::Gnss(mut fix) = fix(10 * second) else {
            unreachable!()
        };
        // Braking and turning, so that what the receiver last said does not hold.
        fix.speed_mps = Some(12.0 - 0.5 * second as f64);
        fix.track_deg = Some(90.0 + 8.0 * second as f64);
        after_fixes.extend(take(&mut core, Event::Gnss(fix)));
    }
    after_fixes
}

#[test]
fn what_follows_a_measurement_does_not_depend_on_the_ticks_before_it() {
    let alone = fixes_and_ticks(std::iter::empty());
    for spacing_ms in [7, 90, 333] {
        let ticked = fixes_and_ticks((1..).map(|tick| tick * spacing_ms));
        assert_eq!(format!("{alone:?}"), format!("{ticked:?}"));
    }
}

#[test]
fn a_fix_that_comes_after_a_tick_at_its_time_is_in_the_next_estimate_and_time_goes_on() {
    let mut core = Core::new(FusionConfig::default(), None, None, None);
    let millisecond = |ms: i64| START_NS + ms * 1_000_000;
    take(&mut core, fix(0));
    let ticked = core.tick(millisecond(1100));
    let late = take(&mut core, fix(10));
    assert_eq!(ticked[0].time_ns, late[0].time_ns);
    let error_m = |estimate: &Estimate| {
        (estimate.position.longitude_deg - place(10.0).longitude_deg).abs() * 68_000.0
    };
    assert!(error_m(&ticked[0]) > 5.0 && error_m(&late[0]) < 1.0);
}

#[test]
fn no_tick_speaks_while_a_fix_is_due_and_a_lost_fix_silences_none_after_it() {
    let mut core = Core::new(FusionConfig::default(), None, None, None);
    for second in 0..3 {
        take(&mut core, fix(10 * second));
    }
    let mut spoken_ms = Vec::new();
    for ms in (2000..4500).step_by(25) {
        if !core.tick(START_NS + ms * 1_000_000).is_empty() {
            spoken_ms.push(ms);
        }
    }
    let due = |ms: &i64| (2975..3095).contains(ms) || (3975..4095).contains(ms);
    assert!(!spoken_ms.iter().any(due), "{spoken_ms:?}");
    let longest = spoken_ms.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest <= Some(225), "{spoken_ms:?}");
}

#[test]
fn a_fix_that_comes_twice_counts_once() {
    let mut core = Core::new(FusionConfig::default(), None, None, None);
    take(&mut core, fix(0));
    assert_eq!(take(&mut core, fix(10)).len(), 1);
    assert_eq!(take(&mut core, fix(10)).len(), 0);
    assert_eq!(
        (core.counters().fixes, core.counters().fixes_unused),
        (2, 1)
    );
}

#[test]
fn numbers_that_cannot_be_are_counted_and_change_nothing() {
    let (mut core, _folder) = core();
    drive(&mut core, 0..30, all);
    let spoil_fix = |spoil: fn(&mut GnssFix)| {
        let Event::Gnss(mut bad) = fix(31) else {
            unreachable!()
        };
        spoil(&mut bad);
        Event::Gnss(bad)
    };
    let bad = [
        spoil_fix(|fix| fix.position.latitude_deg = f64::NAN),
        spoil_fix(|fix| fix.position.longitude_deg = 1e9),
        spoil_fix(|fix| fix.covariance_m2[0][0] = f64::NAN),
        spoil_fix(|fix| fix.covariance_m2[1][1] = -1.0),
    ];
    for event in bad {
        assert!(take(&mut core, event).is_empty());
    }
    let Event::Odometry(mut sample) = odometry(31) else {
        unreachable!()
    };
    sample.forward_speed_mps = Some(f64::INFINITY);
    assert!(take(&mut core, Event::Odometry(sample)).is_empty());
    assert_eq!(
        (
            core.counters().fixes_unused,
            core.counters().odometry_unused
        ),
        (4, 1)
    );
    assert_goes_on(&drive(&mut core, 32..100, all), State::Ok, "");
}

/// The core takes in what came at this tenth of a second, whatever its own time.
fn take_at(core: &mut Core, tick: i64, event: Event) -> Vec<Estimate> {
    core.handle(Arrival::new("test", START_NS + tick * 100_000_000, event))
}

#[test]
fn a_wrong_time_is_passed_over_and_a_log_that_begins_again_starts_over() {
    let (mut core, _folder) = core();
    drive(&mut core, 0..60, all);
    for tick in [1_000_000, -1_000_000] {
        assert!(take_at(&mut core, 60, odometry(tick)).is_empty());
        assert!(take_at(&mut core, 60, fix(tick)).is_empty());
        take(&mut core, odometry(60));
    }
    assert_eq!(
        (core.counters().times_doubted, core.counters().restarts),
        (4, 0)
    );
    assert_goes_on(&drive(&mut core, 61..80, all), State::Ok, "");
    // The log begins again.
    let estimates = drive(&mut core, -1000..-900, |event| {
        !matches!(event, Event::Frame(_))
    });
    assert_eq!(core.counters().restarts, 1);
    assert_eq!(
        (estimates[0].state, estimates[0].reset_count),
        (State::Lost, 1)
    );
    let estimate = last(&estimates, EstimateKind::Fused);
    assert_eq!((estimate.state, estimate.reset_count), (State::Degraded, 1));
    assert!(estimate.time_ns < START_NS);
}

#[test]
fn extreme_times_never_overflow() {
    let (mut core, _folder) = core();
    drive(&mut core, 0..30, all);
    let extremes = [i64::MIN, i64::MIN + 1, 0, i64::MAX - 1, i64::MAX];
    for arrived_ns in [START_NS].into_iter().chain(extremes) {
        for time_ns in extremes {
            for _ in 0..8 {
                for mut event in [odometry(0), fix(0), frame(0, picture())] {
                    event.set_time_ns(time_ns);
                    core.handle(Arrival::at_once("test", event.clone()));
                    core.handle(Arrival::new("test", arrived_ns, event));
                }
                core.tick(time_ns);
            }
        }
    }
}

#[test]
fn a_position_that_is_known_well_needs_few_matches_and_stays_ok() {
    let (mut every, _folder) = core();
    drive(&mut every, 0..100, all);
    let every = every.counters();
    assert_eq!(every.frames_skipped, 0);
    let (mut few, _folder) = core();
    few.set_matching(MatchingConfig {
        predicted_sigma_m: 5.0,
        longest_gap_m: 20.0,
        whole_every: 1,
    });
    let estimates = drive(&mut few, 0..100, all);
    assert_goes_on(&estimates, State::Ok, "");
    let few = few.counters();
    assert!(
        2 * few.frames < every.frames && few.frames_skipped > 0,
        "{few:?} {every:?}"
    );
    // One that is wanted more exactly than it gets is matched at every frame.
    let (mut exact, _folder) = core();
    exact.set_matching(MatchingConfig {
        predicted_sigma_m: 0.01,
        longest_gap_m: 20.0,
        whole_every: 1,
    });
    drive(&mut exact, 0..100, all);
    assert_eq!(exact.counters(), every);
}

#[test]
fn one_frame_in_so_many_is_matched_with_the_whole_patch_and_all_until_the_state_is_ok() {
    for whole_every in [1, 2, 4] {
        let (mut core, _folder) = core();
        core.set_matching(MatchingConfig {
            whole_every,
            ..MatchingConfig::default()
        });
        let mut estimates = Vec::new();
        while estimates.last() != Some(&State::Ok) {
            let tick = estimates.len() as i64;
            let fused = drive(&mut core, tick..tick + 1, all);
            assert_eq!(core.counters().frames_windowed, 0, "{tick}");
            assert!(tick < 200);
            let last = fused.iter().rfind(|it| it.kind == EstimateKind::Fused);
            estimates.push(last.map_or(State::Lost, |it| it.state));
        }
        let (tick, before) = (estimates.len() as i64, core.counters());
        core.take_look();
        let (mut after, mut looks) = (Vec::new(), 0);
        for tick in tick..tick + 60 {
            after.extend(drive(&mut core, tick..tick + 1, all));
            looks += u64::from(core.take_look().is_some());
        }
        assert_goes_on(&after, State::Ok, "");
        let now = core.counters();
        let frames = now.frames - before.frames;
        assert!(frames >= 12, "{frames}");
        let whole = frames - now.frames_windowed;
        let expected = frames as f64 / f64::from(whole_every);
        assert!(whole as f64 >= expected - 1.0, "{whole_every}: {now:?}");
        assert_eq!(now.frames_windowed > 0, whole_every > 1, "{now:?}");
        // A student in shadow mode is compared where both saw the whole patch.
        assert_eq!(looks, whole);
    }
}

/// Three pinhole cameras that see all around.
fn three_cameras() -> Rig {
    let cameras = [("front", 0.0), ("left", 120.0), ("right", -120.0)];
    let camera = cameras.map(|(source, yaw_left_deg)| RigCameraConfig {
        source: source.into(),
        lens: Camera::Pinhole(Pinhole {
            mount: Mount {
                yaw_left_deg,
                ..Mount::default()
            },
            ..Pinhole::with_horizontal_view(32, 16, 2.2)
        }),
        lever_arm: LeverArm::default(),
    });
    let config = RigConfig {
        camera: camera.into(),
        width: 128,
        ..RigConfig::default()
    };
    Rig::new(&config).unwrap()
}

#[test]
fn the_frames_of_a_rig_are_matched_as_one_and_a_dead_camera_is_done_without() {
    let (mut core, _folder) = core();
    core.set_rig(three_cameras());
    // A calibration of one camera in a log is not that of the panorama.
    core.set_camera(camera());
    let mut drive_with = |ticks: std::ops::Range<i64>, names: &[&str]| {
        let mut estimates = Vec::new();
        for tick in ticks {
            estimates.extend(take(&mut core, odometry(tick)));
            if tick % 10 == 0 {
                estimates.extend(take(&mut core, fix(tick)));
            }
            for name in names {
                let Event::Frame(mut frame) = frame(tick, picture_at(tick)) else {
                    unreachable!()
                };
                frame.camera = (*name).into();
                // Each camera is a source of its own, with a clock of its own.
                estimates.extend(core.handle(Arrival::at_once(*name, Event::Frame(frame))));
            }
        }
        (estimates, core.counters(), core.take_look())
    };
    let (estimates, whole, look) = drive_with(0..100, &["left", "front", "right"]);
    assert_goes_on(&estimates, State::Ok, "");
    assert!((20..=25).contains(&whole.frames), "{whole:?}");
    assert!(
        whole.frames_partial == 0 && whole.frames_unused <= 1,
        "{whole:?}"
    );
    // What a second student would look at is the panorama.
    let look = look.unwrap();
    let panorama = decode_rgb(&look.frame.image, 8192).unwrap();
    let size = [panorama.width, panorama.height];
    assert_eq!(size, look.calibration.image_size());
    assert_eq!(size[0], 128);

    let (estimates, partial, _) = drive_with(100..150, &["left", "front"]);
    assert_goes_on(&estimates, State::Ok, "");
    assert!(partial.frames_partial >= 10, "{partial:?}");
    let (estimates, ..) = drive_with(150..220, &["front"]);
    assert_goes_on(
        &estimates,
        State::Degraded,
        "no usable picture of left, right",
    );
}

#[test]
fn a_students_card_says_how_many_heatmaps_mean_nothing_unless_the_config_does() {
    let with_card = |share: Option<f64>| -> Box<dyn Matcher> {
        let mut student = student(false, [1.0, 0.0], 6.0);
        student.card.calibration = share.map(|share| HeatmapCalibration {
            fitted_by: FittedBy::Drives,
            frames: 500,
            outlier_share: Some(share),
        });
        Box::new(student)
    };
    let share = |core: &Core| core.patches_and_outliers().1;
    let mut core = Core::new(
        FusionConfig::default(),
        None,
        None,
        Some(with_card(Some(0.4))),
    );
    assert_eq!(share(&core), 0.4);
    // The next student says another, and the ones after it fewer than is safe, and nothing.
    core.set_matcher(with_card(Some(0.3)));
    assert_eq!(share(&core), 0.3);
    core.set_matcher(with_card(Some(0.02)));
    assert_eq!(share(&core), 0.15);
    core.set_matcher(with_card(None));
    assert_eq!(share(&core), 0.15);
    let config = FusionConfig {
        visual_outlier_share: Some(0.2),
        ..FusionConfig::default()
    };
    let mut core = Core::new(config, None, None, Some(with_card(Some(0.07))));
    assert_eq!(share(&core), 0.2);
    core.set_matcher(with_card(Some(0.3)));
    assert_eq!(share(&core), 0.2);
}
