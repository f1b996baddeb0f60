//! Simulated drives go the whole way: logs, ingest, check, adapt.

use super::*;
use crate::check::{self, Look};
use crate::city::frames::{CameraKind, Headings};
use crate::city::style::Gap;
use crate::city::{AreaConfig, AreaName, Part, build_area};
use crate::data::pairs::PairRow;
use crate::data::{Dataset, Pairs, PairsImages, Preparation};
use crate::model::named;
use crate::recipe::{adapt, defaults};
use crate::run::{Interrupt, RunContext};
use crate::simulate::{Contents, PairsPlan, write_pairs};
use crossfix_calibration::{Geodetic, LocalFrame};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Three drives with their logs, a frame every 3 m.
fn simulated() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let area = build_area(AreaConfig {
            area: AreaName::Target,
            seed: 8,
            gap: Gap::default(),
        });
        let plan = PairsPlan {
            headings: Headings::Measured,
            part: Part::Adapt,
            districts: 1,
            contents: Contents::Drives {
                drives: 3,
                length_m: 240.0,
                spacing_m: 3.0,
                logs: 3,
            },
            camera: CameraKind::Panorama,
        };
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&area, &plan, folder.path(), &hidden).unwrap();
        folder
    });
    made.path()
}

fn args(sources: &[&Path], out: &Path) -> IngestArgs {
    IngestArgs {
        sources: sources.iter().map(|path| path.to_path_buf()).collect(),
        out: out.into(),
        tiles: simulated().join("tiles.pmtiles"),
        track: None,
        config: None,
        area: Some("simulated".into()),
        licence: Some("CC0-1.0".into()),
        every_m: Some(6.0),
        json: false,
    }
}

fn metres(a: [f64; 2], b: [f64; 2]) -> f64 {
    let place = |[latitude, longitude]: [f64; 2]| Geodetic::new(latitude, longitude, 0.0).unwrap();
    let enu = LocalFrame::new(place(a)).enu_from_geodetic(place(b));
    enu.east().hypot(enu.north())
}

#[test]
fn logs_become_pairs_that_pass_the_check_and_are_adapted_on() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("pairs");
    let args = args(&[&simulated().join("logs")], &out);
    let made = ingest(&args, &args.settings().unwrap()).unwrap();
    assert_eq!(made.drives, 3, "{made:?}");
    // 240 m every 6 m, less the beginnings without a fix; the first rows of a drive without odometry.
    assert!((90..=125).contains(&made.pairs), "{made:?}");
    assert_eq!(made.with_odometry, made.pairs - 3, "{made:?}");
    assert_eq!(made.with_heading, made.pairs, "{made:?}");
    assert!((600.0..740.0).contains(&made.travelled_m), "{made:?}");
    let pairs = Pairs::open(&out).unwrap();
    let mut usual = 0;
    for row in pairs.rows.iter().filter(|row| row.odometry.is_some()) {
        let step = row.odometry.unwrap();
        let length = step.forward_m.hypot(step.left_m);
        assert!(length > 5.3, "{row:?}");
        // From 6 m less a tenth, to the next frame after that: the log has one about every 5.4 m. Steps
        // are longer where the receiver was silent.
        usual += usize::from(length < 12.0);
        assert!(row.heading_sigma_deg < 15.0, "{row:?}");
    }
    assert!(
        10 * usual >= 9 * (pairs.rows.len() - 3),
        "{usual} of {}",
        pairs.rows.len()
    );
    // The fixes of the log lie along the simulated drive.
    let there = Pairs::open(simulated()).unwrap();
    for row in &pairs.rows {
        let place = [row.latitude_deg, row.longitude_deg];
        let nearest = there
            .rows
            .iter()
            .map(|other| metres(place, [other.latitude_deg, other.longitude_deg]));
        assert!(nearest.fold(f64::INFINITY, f64::min) < 25.0, "{row:?}");
    }
    assert!(!out.join("truth.jsonl").exists());
    let record = fs::read_to_string(out.join("ingest.json")).unwrap();
    assert!(record.contains("sha256") && record.contains("every_m"));
    let report = check::pairs(&out, Look::default(), &Interrupt::default()).unwrap();
    assert!(!report.refuses(), "{report}");
    let teacher = named("compact").unwrap().build(1).unwrap();
    let mut recipe = defaults::consensus(teacher.describe());
    recipe.filter = crate::recipe::Filter::Support {
        least: 0.0,
        keep_alone: 0.8,
    };
    recipe.fit.steps = Some(1);
    recipe.gate.enforce = false;
    let images = PairsImages::open(pairs, teacher.describe(), Preparation::default()).unwrap();
    let interrupt = Interrupt::default();
    let run = RunContext {
        seed: 1,
        folder: None,
        resume: false,
        interrupt: &interrupt,
        world: crate::train::World::alone(),
    };
    let adapted = adapt(teacher.as_ref(), &images, &recipe, &run).unwrap();
    assert_eq!(adapted.labels.len(), images.len());
}

#[test]
fn nothing_of_a_zone_is_taken_and_the_antenna_is_not_the_camera() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let logs = simulated().join("logs");
    let plain = args(&[&logs], &whole);
    ingest(&plain, &plain.settings().unwrap()).unwrap();
    let before = Pairs::open(&whole).unwrap().rows;
    let home = [before[10].latitude_deg, before[10].longitude_deg];
    let zone = Zone {
        latitude_deg: home[0],
        longitude_deg: home[1],
        radius_m: 30.0,
    };
    let out = folder.path().join("zone");
    let given = args(&[&logs], &out);
    let mut settings = given.settings().unwrap();
    settings.zones = vec![zone];
    settings.antenna.forward_m = -1.5;
    let made = ingest(&given, &settings).unwrap();
    assert!(made.left_out["in a zone"] > 5, "{made:?}");
    let after = Pairs::open(&out).unwrap().rows;
    assert!(after.len() < before.len());
    for row in &after {
        assert!(metres(home, [row.latitude_deg, row.longitude_deg]) > 30.0);
    }
    let record = fs::read_to_string(out.join("ingest.json")).unwrap();
    assert!(
        record.contains("\"zones\": 1") && !record.contains("radius_m"),
        "{record}"
    );
    // The same pictures, 1.5 m ahead along their headings.
    let mut compared = 0;
    for camera in &after {
        let same = |row: &&PairRow| row.drive == camera.drive && row.time_ns == camera.time_ns;
        let Some(antenna) = before.iter().find(same) else {
            continue;
        };
        let place =
            |row: &PairRow| Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0).unwrap();
        let enu = LocalFrame::new(place(antenna)).enu_from_geodetic(place(camera));
        let (sine, cosine) = antenna.heading_deg.to_radians().sin_cos();
        let ahead = enu.east() * sine + enu.north() * cosine;
        let aside = enu.east() * cosine - enu.north() * sine;
        assert!(
            (ahead - 1.5).abs() < 0.01 && aside.abs() < 0.01,
            "{ahead} {aside}"
        );
        compared += 1;
    }
    assert!(compared > 0);
}

/// Pictures of the simulated drives, named by their times, in a folder of their own.
fn frames_folder(folder: &Path) -> Vec<PairRow> {
    fs::create_dir_all(folder).unwrap();
    let pairs = Pairs::open(simulated()).unwrap();
    let first = pairs.rows[0].drive.clone();
    let rows: Vec<PairRow> = pairs
        .rows
        .into_iter()
        .filter(|row| row.drive == first)
        .collect();
    for row in &rows {
        let from = simulated().join(&row.image);
        fs::copy(from, folder.join(format!("{}.jpg", row.time_ns))).unwrap();
    }
    rows
}

#[test]
fn pictures_beside_a_gpx_or_nmea_track_become_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames");
    let rows = frames_folder(&frames);
    let mut gpx = String::from(
        "<?xml version=\"1.0\"?><gpx version=\"1.1\" creator=\"test\" xmlns=\"http://www.topografix.com/GPX/1/1\"><trk><trkseg>",
    );
    for row in &rows {
        let time = time::OffsetDateTime::from_unix_timestamp_nanos(row.time_ns.into()).unwrap();
        let time = time
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap();
        gpx += &format!(
            "<trkpt lat=\"{}\" lon=\"{}\"><time>{time}</time><hdop>1.5</hdop></trkpt>",
            row.latitude_deg, row.longitude_deg
        );
    }
    gpx += "</trkseg></trk></gpx>";
    let track = folder.path().join("track.gpx");
    fs::write(&track, gpx).unwrap();
    let config = folder.path().join("ingest.toml");
    let manifest = fs::read_to_string(simulated().join("dataset.toml")).unwrap();
    let camera = manifest.find("[camera]").unwrap();
    fs::write(&config, &manifest[camera..]).unwrap();
    let out = folder.path().join("pairs");
    let mut given = args(&[&frames], &out);
    given.track = Some(track.clone());
    let message = ingest(&given, &given.settings().unwrap())
        .unwrap_err()
        .to_string();
    assert!(message.contains("[camera]"), "{message}");
    given.config = Some(config);
    let made = ingest(&given, &given.settings().unwrap()).unwrap();
    assert!(made.pairs > 20 && made.with_odometry == 0, "{made:?}");
    let ingested = Pairs::open(&out).unwrap();
    for row in &ingested.rows {
        let same = rows
            .iter()
            .find(|other| other.time_ns == row.time_ns)
            .unwrap();
        let place = |row: &PairRow| [row.latitude_deg, row.longitude_deg];
        assert!(metres(place(row), place(same)) < 0.05);
        assert_eq!(row.covariance_m2[0][0], 36.0, "an HDOP of 1.5 is 6 m");
    }
    // A track of another day.
    let text = fs::read_to_string(&track).unwrap();
    fs::write(&track, text.replace("<time>20", "<time>19")).unwrap();
    let out = folder.path().join("other");
    let other = IngestArgs { out, ..given };
    let message = ingest(&other, &other.settings().unwrap())
        .unwrap_err()
        .to_string();
    assert!(message.contains("local time"), "{message}");
}

#[test]
fn pictures_cut_from_a_video_take_their_places_from_its_telemetry() {
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("named");
    let rows = frames_folder(&frames);
    let drive: Vec<&PairRow> = rows
        .iter()
        .filter(|row| row.drive == rows[0].drive)
        .collect();
    let begins_ns = drive[0].time_ns / 1_000_000_000 * 1_000_000_000;
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for row in &drive {
        let name = format!("{}.jpg", (row.time_ns - begins_ns) / 1_000_000);
        fs::copy(
            frames.join(format!("{}.jpg", row.time_ns)),
            pictures.join(name),
        )
        .unwrap();
    }
    // Ten positions a second, between the rows around them.
    let place = |time_ns: i64| {
        let after = drive
            .partition_point(|row| row.time_ns < time_ns)
            .clamp(1, drive.len() - 1);
        let (a, b) = (drive[after - 1], drive[after]);
        let share = (time_ns - a.time_ns) as f64 / (b.time_ns - a.time_ns) as f64;
        let mix = |a: f64, b: f64| a + (b - a) * share;
        [
            mix(a.latitude_deg, b.latitude_deg),
            mix(a.longitude_deg, b.longitude_deg),
            8.0,
        ]
    };
    let seconds = (drive[drive.len() - 1].time_ns - begins_ns) / 1_000_000_000 + 2;
    let payloads: Vec<Vec<u8>> = (0..seconds)
        .map(|second| {
            let at_ns = begins_ns + second * 1_000_000_000;
            let time = time::OffsetDateTime::from_unix_timestamp_nanos(at_ns.into()).unwrap();
            let utc = format!(
                "{:02}{:02}{:02}{:02}{:02}{:02}.000",
                time.year() % 100,
                u8::from(time.month()),
                time.day(),
                time.hour(),
                time.minute(),
                time.second()
            );
            let places: Vec<[f64; 3]> = (0..10).map(|i| place(at_ns + i * 100_000_000)).collect();
            gopro::tests::payload(&utc, &places)
        })
        .collect();
    let track = folder.path().join("GX010042.MP4");
    fs::write(&track, gopro::tests::video(&payloads)).unwrap();
    let config = folder.path().join("ingest.toml");
    let manifest = fs::read_to_string(simulated().join("dataset.toml")).unwrap();
    fs::write(&config, &manifest[manifest.find("[camera]").unwrap()..]).unwrap();
    let out = folder.path().join("pairs");
    let mut given = args(&[&pictures], &out);
    given.track = Some(track.clone());
    given.config = Some(config);
    let made = ingest(&given, &given.settings().unwrap()).unwrap();
    assert!(
        made.pairs > 20 && 10 * made.with_heading > 9 * made.pairs,
        "{made:?}"
    );
    let (mut far, mut off_deg) = (Vec::new(), Vec::new());
    for row in &Pairs::open(&out).unwrap().rows {
        let near = |other: &&&PairRow| (other.time_ns - row.time_ns).abs() < 1_000_000;
        let same = drive.iter().find(near).unwrap();
        let place = |row: &PairRow| [row.latitude_deg, row.longitude_deg];
        far.push(metres(place(row), place(same)));
        let turned = (row.heading_deg - same.heading_deg + 540.0).rem_euclid(360.0) - 180.0;
        off_deg.push(turned.abs());
    }
    far.sort_by(f64::total_cmp);
    off_deg.sort_by(f64::total_cmp);
    // Coarse positions wander, and a second's course is not a heading while the vehicle turns.
    assert!(off_deg[off_deg.len() / 2] < 25.0, "{off_deg:?}");
    // A fix a second: corners are cut.
    assert!(far[far.len() / 2] < 1.5, "{far:?}");
    // Pictures of such names need the video.
    let other = IngestArgs {
        track: Some(folder.path().join("track.gpx")),
        out: folder.path().join("other"),
        ..given
    };
    fs::write(other.track.as_ref().unwrap(), "<gpx version=\"1.1\" creator=\"x\" xmlns=\"http://www.topografix.com/GPX/1/1\"><trk><trkseg><trkpt lat=\"52\" lon=\"4\"><time>2026-01-01T00:00:00Z</time></trkpt></trkseg></trk></gpx>").unwrap();
    let message = ingest(&other, &other.settings().unwrap()).unwrap_err();
    assert!(message.to_string().contains("nanoseconds UTC"), "{message}");
}

/// A photo with its place, time and direction in EXIF.
fn photo(from: &Path, to: &Path, row: &PairRow) {
    use exif::{Field, In, Rational, Tag, Value};
    let degrees = |value: f64| {
        Value::Rational(vec![
            Rational {
                num: (value.abs() * 1e7) as u32,
                denom: 10_000_000,
            },
            Rational { num: 0, denom: 1 },
            Rational { num: 0, denom: 1 },
        ])
    };
    let text = |text: &str| Value::Ascii(vec![text.as_bytes().to_vec()]);
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(row.time_ns.into()).unwrap();
    let whole = |num: u32| Rational { num, denom: 1 };
    let milliseconds = Rational {
        num: u32::from(at.second()) * 1000 + u32::from(at.millisecond()),
        denom: 1000,
    };
    let clock = vec![
        whole(at.hour().into()),
        whole(at.minute().into()),
        milliseconds,
    ];
    let date = format!(
        "{:04}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day()
    );
    let heading = Rational {
        num: (row.heading_deg.rem_euclid(360.0) * 100.0) as u32,
        denom: 100,
    };
    let fields = [
        (Tag::GPSLatitudeRef, text("N")),
        (Tag::GPSLatitude, degrees(row.latitude_deg)),
        (Tag::GPSLongitudeRef, text("E")),
        (Tag::GPSLongitude, degrees(row.longitude_deg)),
        (Tag::GPSTimeStamp, Value::Rational(clock)),
        (Tag::GPSDateStamp, text(&date)),
        (Tag::GPSImgDirectionRef, text("T")),
        (Tag::GPSImgDirection, Value::Rational(vec![heading])),
        (Tag::GPSDOP, Value::Rational(vec![whole(2)])),
    ];
    let fields: Vec<Field> = fields
        .into_iter()
        .map(|(tag, value)| Field {
            tag,
            ifd_num: In::PRIMARY,
            value,
        })
        .collect();
    let mut writer = exif::experimental::Writer::new();
    fields.iter().for_each(|field| writer.push_field(field));
    let mut block = std::io::Cursor::new(Vec::new());
    writer.write(&mut block, false).unwrap();
    let block = [b"Exif\0\0", block.into_inner().as_slice()].concat();
    let jpeg = fs::read(from).unwrap();
    let length = (block.len() as u16 + 2).to_be_bytes();
    let bytes = [&jpeg[..2], &[0xff, 0xe1], &length, &block, &jpeg[2..]].concat();
    fs::write(to, bytes).unwrap();
}

#[test]
fn photos_with_their_places_become_pairs_that_say_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    let rows = frames_folder(&photos);
    for row in &rows {
        photo(
            &simulated().join(&row.image),
            &photos.join(format!("{}.jpg", row.time_ns)),
            row,
        );
    }
    fs::write(photos.join("readme.txt"), "no picture").unwrap();
    let config = folder.path().join("ingest.toml");
    let manifest = fs::read_to_string(simulated().join("dataset.toml")).unwrap();
    fs::write(&config, &manifest[manifest.find("[camera]").unwrap()..]).unwrap();
    let out = folder.path().join("pairs");
    let mut given = args(&[&photos], &out);
    given.config = Some(config);
    let made = ingest(&given, &given.settings().unwrap()).unwrap();
    assert!(
        made.pairs > 20 && made.with_heading == made.pairs,
        "{made:?}"
    );
    // The same camera, said to look to the left: the vehicle's heading is a quarter turn to the right of it.
    let turned = folder.path().join("turned.toml");
    let text = fs::read_to_string(given.config.clone().unwrap()).unwrap();
    let aside = text.replace("yaw_left_deg = 0.0", "yaw_left_deg = 90.0");
    assert_ne!(aside, text);
    fs::write(&turned, aside).unwrap();
    let aside = IngestArgs {
        out: folder.path().join("aside"),
        config: Some(turned),
        ..given.clone()
    };
    ingest(&aside, &aside.settings().unwrap()).unwrap();
    let aside = Pairs::open(&aside.out).unwrap();
    let ingested = Pairs::open(&out).unwrap();
    for (row, ahead) in aside.rows.iter().zip(&ingested.rows) {
        let turn = (row.heading_deg - ahead.heading_deg).rem_euclid(360.0);
        assert!((turn - 90.0).abs() < 1e-6, "{row:?} {ahead:?}");
    }
    for row in &ingested.rows {
        // EXIF here has milliseconds.
        let same = rows
            .iter()
            .find(|other| (other.time_ns - row.time_ns).abs() < 2_000_000)
            .unwrap();
        let place = |row: &PairRow| [row.latitude_deg, row.longitude_deg];
        assert!(metres(place(row), place(same)) < 0.05);
        let turned = (row.heading_deg - same.heading_deg + 540.0).rem_euclid(360.0) - 180.0;
        assert!(turned.abs() < 0.02, "{row:?} {same:?}");
        assert_eq!(row.covariance_m2[0][0], 64.0, "a DOP of 2 is 8 m");
        let bytes = fs::read(out.join(&row.image)).unwrap();
        assert!(!bytes.windows(4).any(|part| part == b"Exif"));
        assert!(crate::data::picture::decode(&bytes).is_ok());
    }
}

#[test]
fn drives_of_one_name_stay_apart() {
    let folder = tempfile::tempdir().unwrap();
    let log = simulated().join("logs");
    let first = frames::files(&log).unwrap().remove(0);
    // The first recording again, under a name that a later part of a drive could have, and by the folder's name `.`.
    let again = folder.path().join("again");
    fs::create_dir_all(&again).unwrap();
    fs::copy(&first, again.join(first.file_name().unwrap())).unwrap();
    let out = folder.path().join("pairs");
    let args = args(&[&log, &again], &out);
    let made = ingest(&args, &args.settings().unwrap()).unwrap();
    let pictures = fs::read_dir(out.join("images")).unwrap();
    let pictures = pictures
        .filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "jpg")
        .count();
    assert_eq!((made.drives, pictures), (4, made.pairs), "{made:?}");
    assert_eq!(name_of(&again.join(".")), "again");
    let mut taken = HashSet::from(["a-1".to_owned(), "a-1-again".to_owned()]);
    let mut chosen = vec![select::Chosen {
        time_ns: 0,
        placed: track::Placed {
            position: Geodetic::new(0.0, 0.0, 0.0).unwrap(),
            covariance_m2: [[1.0, 0.0], [0.0, 1.0]],
            yaw: None,
        },
        file: PathBuf::new(),
        extension: "jpg",
        drive: "a-1".into(),
        number: 0,
        odometry: None,
        travelled_m: 0.0,
    }];
    select::unlike(&mut chosen, &mut taken);
    assert_eq!(chosen[0].drive, "a-1-again-again");
}

#[test]
fn sources_without_anything_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let message = |source: &Path| {
        let given = args(&[source], &folder.path().join("out"));
        ingest(&given, &given.settings().unwrap())
            .unwrap_err()
            .to_string()
    };
    assert!(message(&empty).contains("there is none"));
    assert!(message(&folder.path().join("nowhere")).contains("is not there"));
    let text = folder.path().join("notes.txt");
    fs::write(&text, "x").unwrap();
    assert!(message(&text).contains("neither a .mcap"));
    let mut given = args(&[&simulated().join("logs")], &folder.path().join("out"));
    given.track = Some(folder.path().join("track.gpx"));
    let message = ingest(&given, &given.settings().unwrap()).unwrap_err();
    assert!(message.to_string().contains("--track"), "{message}");
    let mut given = args(&[&empty], &folder.path().join("out"));
    given.licence = None;
    assert!(
        given
            .settings()
            .unwrap_err()
            .to_string()
            .contains("licence")
    );
}
