use super::*;
use crate::city::gnss::MAX_OFFSET_M;
use crate::data::pairs::Pairs;
use crate::data::pairs::truth::Truth;
use crossfix_calibration::{Geodetic, LocalFrame, PatchSpec, RgbImage};
use crossfix_onboard::tiles::TileStore;
use sha2::{Digest, Sha256};
use std::fs;

fn area(name: AreaName) -> Area {
    build_area(AreaConfig {
        area: name,
        seed: 31,
        gap: Gap::default(),
    })
}

fn write(name: AreaName, contents: Contents, camera: CameraKind) -> (tempfile::TempDir, Written) {
    let folder = tempfile::tempdir().unwrap();
    let plan = PairsPlan {
        headings: Headings::Measured,
        part: Part::Test,
        districts: 1,
        contents,
        camera,
    };
    let written = write_pairs(&area(name), &plan, folder.path(), &ProgressBar::hidden()).unwrap();
    (folder, written)
}

const DRIVE: Contents = Contents::Drives {
    drives: 1,
    length_m: 160.0,
    spacing_m: 4.5,
    logs: 1,
};

fn digest(folder: &Path, hash: &mut Sha256) {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            digest(&path, hash);
        } else {
            hash.update(path.file_name().unwrap().to_string_lossy().as_bytes());
            hash.update(fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_same_plan_writes_the_same_files() {
    let hash = |folder: &Path| {
        let mut hash = Sha256::new();
        digest(folder, &mut hash);
        hash.finalize()
    };
    let (a, written) = write(AreaName::Target, DRIVE, CameraKind::Panorama);
    let (b, _) = write(AreaName::Target, DRIVE, CameraKind::Panorama);
    assert_eq!(hash(a.path()), hash(b.path()));
    assert!(written.pairs > 30 && written.tiles > 36, "{written:?}");
}

#[test]
fn the_reader_takes_what_the_writer_wrote() {
    let (folder, written) = write(
        AreaName::Source,
        Contents::Random { pairs: 12 },
        CameraKind::Front,
    );
    let dataset = Pairs::open(folder.path()).unwrap();
    assert_eq!(dataset.rows.len(), written.pairs);
    let truth = Truth::open(folder.path()).unwrap();
    for row in &dataset.rows {
        let place = truth.get(&row.id).unwrap();
        let coarse = Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0).unwrap();
        let true_place = Geodetic::new(place.latitude_deg, place.longitude_deg, 0.0).unwrap();
        let offset = LocalFrame::new(coarse).enu_from_geodetic(true_place);
        assert!(offset.east().abs() < MAX_OFFSET_M + 0.01, "{offset:?}");
        assert!(offset.north().abs() < MAX_OFFSET_M + 0.01, "{offset:?}");
        let picture = image::open(folder.path().join(&row.image)).unwrap();
        let [width, height] = dataset.manifest.camera.image_size();
        assert_eq!(
            (picture.width() as usize, picture.height() as usize),
            (width, height)
        );
    }
    let again = PairsWriter::create(folder.path())
        .err()
        .expect("a folder in use is refused");
    assert!(again.to_string().contains("not empty"), "{again}");
}

#[test]
fn every_patch_of_a_drive_lies_within_the_tiles() {
    let (folder, _) = write(AreaName::Target, DRIVE, CameraKind::Panorama);
    let dataset = Pairs::open(folder.path()).unwrap();
    let mut tiles = TileStore::open(dataset.tiles()).unwrap();
    let spec = PatchSpec {
        size_px: 128,
        metres_per_pixel: 0.5,
    };
    for row in dataset.rows.iter().step_by(7) {
        let coarse = Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0).unwrap();
        let (_, patch) = tiles.patch(coarse, spec, 0.5).unwrap();
        assert_eq!((patch.width, patch.height), (128, 128));
    }
}

#[test]
fn a_log_replays_what_was_simulated_and_holds_no_truth() {
    use crossfix_onboard::log::{LogReader, Message};
    let (folder, written) = write(AreaName::Target, DRIVE, CameraKind::Panorama);
    let path = &written.logs[0];
    let (mut fixes, mut frames, mut odometry, mut last) = (0, 0, 0, i64::MIN);
    for message in LogReader::open(path).unwrap() {
        match message.unwrap() {
            Message::Gnss(fix) => {
                assert!(fix.time_ns >= last);
                last = fix.time_ns;
                fixes += 1;
            }
            Message::Frame(frame) => {
                assert_eq!(image::load_from_memory(&frame.image).unwrap().width(), 256);
                frames += 1;
            }
            Message::Odometry(_) => odometry += 1,
            Message::Calibration(camera) => assert_eq!(
                camera,
                calibration(CameraKind::Panorama, PanoramaSize::DEFAULT)
            ),
            other => panic!("{other:?}"),
        }
    }
    let truth = fs::read_to_string(path.with_extension("truth.jsonl")).unwrap();
    assert_eq!(truth.lines().count(), odometry);
    assert!(
        fixes * 10 <= odometry + 10 && frames * 5 >= odometry,
        "{fixes} {frames} {odometry}"
    );
    assert!(folder.path().join("truth.jsonl").is_file());
}

/// Before towns could be drawn finer, this picture had these mean values in its quarters, read from its
/// JPEG. A mean, not a hash: the last bit of a sine is the C library's. Whole data sets kept their
/// bytes on the machine where fineness came in.
#[test]
fn the_default_town_is_drawn_as_it_was_before_it_could_be_drawn_finer() {
    let placed = area(AreaName::Target).district(Part::Test, 0);
    let frame = random_frame(&placed, 3, CameraKind::Panorama, Headings::Measured).image;
    let means = |image: &RgbImage| -> Vec<f64> {
        let (width, height) = (image.width, image.height);
        let quarter = |right: usize, down: usize| {
            let mut sum = 0.0;
            for row in down * height / 2..(down + 1) * height / 2 {
                let at = 3 * (row * width + right * width / 2);
                let part = &image.data[at..at + 3 * width / 2];
                sum += part.iter().map(|value| f64::from(*value)).sum::<f64>();
            }
            sum / (3 * width * height / 4) as f64
        };
        vec![quarter(0, 0), quarter(1, 0), quarter(0, 1), quarter(1, 1)]
    };
    let found = means(&frame);
    let before = [123.277, 139.862, 133.635, 142.389];
    for (found, before) in found.iter().zip(before) {
        assert!((found - before).abs() < 0.3, "{found:?}");
    }
}

#[test]
fn lanes_keep_the_order_and_stop_at_an_error() {
    let made = in_lanes(20, 3, |index| Ok::<_, ()>(index * index)).unwrap();
    assert_eq!(made, (0..20).map(|i| i * i).collect::<Vec<_>>());
    let begun = AtomicUsize::new(0);
    let failed = in_lanes(1000, 2, |index| {
        begun.fetch_add(1, Ordering::Relaxed);
        if index == 4 { Err(index) } else { Ok(()) }
    });
    assert_eq!(failed, Err(4));
    assert!(begun.load(Ordering::Relaxed) < 1000);
}

#[test]
fn a_front_camera_takes_no_panorama() {
    use clap::Parser;
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let words = ["simulate", "--front", "--panorama", "320x640", "--out"];
    let words = words.iter().map(|word| (*word).to_string());
    let line = Line::parse_from(words.chain([out.display().to_string()]));
    let error = run(&line.args, &ProgressBar::hidden()).unwrap_err();
    assert!(error.to_string().contains("--front"), "{error}");
    assert!(!out.exists());
    for zoom in ["15", "21"] {
        let words = ["simulate", "--zoom", zoom, "--out", "x"];
        assert!(Line::try_parse_from(words).is_err());
    }
}

#[test]
fn a_drive_without_headings_has_none_and_its_own_odometry_tells_them() {
    let folder = tempfile::tempdir().unwrap();
    let plan = PairsPlan {
        part: Part::Test,
        districts: 1,
        contents: Contents::Drives {
            drives: 1,
            length_m: 300.0,
            spacing_m: 10.0,
            logs: 0,
        },
        camera: CameraKind::Panorama,
        headings: Headings::Unknown,
    };
    let hidden = ProgressBar::hidden();
    write_pairs(&area(AreaName::Target), &plan, folder.path(), &hidden).unwrap();
    let mut rows = Pairs::open(folder.path()).unwrap().rows;
    let unknown = |row: &PairRow| row.heading_deg == 0.0 && row.heading_sigma_deg == 180.0;
    assert!(rows.iter().all(unknown));
    let told = crate::data::pairs::headings::find(&mut rows).unwrap();
    assert_eq!((told.wide, told.drives_found), (rows.len(), 1), "{told:?}");
    // A drive of 300 m does not tell it well enough everywhere; what is told is right.
    assert!(2 * told.found > told.wide, "{told:?}");
    rows.retain(|row| row.heading_sigma_deg < 180.0);
    assert_eq!(rows.len(), told.found);
    let truth = Truth::open(folder.path()).unwrap();
    for row in &rows {
        let heading_deg = truth.get(&row.id).unwrap().heading_deg;
        let off = (row.heading_deg - heading_deg + 180.0).rem_euclid(360.0) - 180.0;
        assert!(off.abs() < 3.5 * row.heading_sigma_deg, "{off}: {row:?}");
    }
}
