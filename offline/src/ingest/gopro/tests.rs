//! Telemetry of real cameras, and videos made here.

use super::*;
use std::io::Cursor;

/// `tests/data/gpmf/NAME.raw`: payloads one after another.
fn recorded(name: &str) -> Vec<Vec<u8>> {
    let path = format!(
        "{}/../tests/data/gpmf/{name}.raw",
        env!("CARGO_MANIFEST_DIR")
    );
    let bytes = std::fs::read(path).unwrap();
    let devices = entries(&bytes).map(|device| entry(b"DEVC", 0, 1, device.data));
    devices.collect()
}

/// An entry of structures of `size` bytes.
fn entry(key: &[u8; 4], kind: u8, size: u8, data: &[u8]) -> Vec<u8> {
    let repeat = (data.len() / usize::from(size)) as u16;
    let mut bytes = [key.as_slice(), &[kind, size], &repeat.to_be_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A payload as a HERO5 writes it: `places` are latitude, longitude and speed.
pub(in crate::ingest) fn payload(utc: &str, places: &[[f64; 3]]) -> Vec<u8> {
    let numbers = |values: &[i32]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_be_bytes())
            .collect()
    };
    let structure = |[latitude_deg, longitude_deg, speed_mps]: &[f64; 3]| {
        let degrees = [latitude_deg, longitude_deg].map(|value| (value * 1e7).round() as i32);
        let speed = (speed_mps * 1e3) as i32;
        numbers(&[degrees[0], degrees[1], 0, speed, speed / 10])
    };
    let stream = [
        entry(
            b"STNM",
            b'c',
            1,
            b"GPS (Lat., Long., Alt., 2D speed, 3D speed)",
        ),
        entry(b"GPSF", b'L', 4, &numbers(&[3])),
        entry(b"GPSU", b'U', 16, utc.as_bytes()),
        entry(b"GPSP", b'S', 2, &150_u16.to_be_bytes()),
        entry(
            b"SCAL",
            b'l',
            4,
            &numbers(&[10_000_000, 10_000_000, 1000, 1000, 100]),
        ),
        entry(
            b"GPS5",
            b'l',
            20,
            &places.iter().flat_map(structure).collect::<Vec<u8>>(),
        ),
    ]
    .concat();
    entry(b"DEVC", 0, 1, &entry(b"STRM", 0, 1, &stream))
}

fn boxed(name: &[u8; 4], inside: &[&[u8]]) -> Vec<u8> {
    let inside = inside.concat();
    let size = inside.len() as u32 + 8;
    [&size.to_be_bytes(), name.as_slice(), &inside].concat()
}

fn words(values: &[u32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect()
}

/// A video of one-second payloads, without pictures; a thousand ticks a second.
pub(in crate::ingest) fn video(payloads: &[Vec<u8>]) -> Vec<u8> {
    let count = payloads.len() as u32;
    let name = boxed(b"ftyp", &[b"mp41", &words(&[0]), b"mp41"]);
    let offset = name.len() as u32 + 8;
    let data: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let data = boxed(b"mdat", &data);
    let sizes: Vec<u32> = payloads.iter().map(|one| one.len() as u32).collect();
    let matrix = words(&[0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000]);
    let table = boxed(
        b"stbl",
        &[
            &boxed(
                b"stsd",
                &[
                    &words(&[0, 1]),
                    &boxed(b"gpmd", &[&[0; 6], &[0, 1], &[0; 4]]),
                ],
            ),
            &boxed(b"stts", &[&words(&[0, 1, count, 1000])]),
            &boxed(b"stsc", &[&words(&[0, 1, 1, count, 1])]),
            &boxed(b"stsz", &[&words(&[0, 0, count]), &words(&sizes)]),
            &boxed(b"stco", &[&words(&[0, 1, offset])]),
        ],
    );
    let handler = boxed(
        b"hdlr",
        &[
            &words(&[0, 0]),
            b"meta",
            &words(&[0, 0, 0]),
            b"\x0bGoPro MET  \0",
        ],
    );
    let media = boxed(
        b"mdia",
        &[
            &boxed(b"mdhd", &[&words(&[0, 0, 0, 1000, count * 1000, 0])]),
            &handler,
            &boxed(b"minf", &[&table]),
        ],
    );
    let track = boxed(
        b"trak",
        &[
            &boxed(
                b"tkhd",
                &[
                    &words(&[7, 0, 0, 1, 0, count * 1000, 0, 0, 0, 0]),
                    &matrix,
                    &words(&[0, 0]),
                ],
            ),
            &media,
        ],
    );
    let movie = boxed(
        b"mvhd",
        &[
            &words(&[0, 0, 0, 1000, count * 1000, 0x1_0000, 0x100_0000, 0, 0]),
            &matrix,
            &words(&[0, 0, 0, 0, 0, 0, 2]),
        ],
    );
    [name, data, boxed(b"moov", &[&movie, &track])].concat()
}

fn utc(text: &[u8]) -> i64 {
    utc_ns(text).unwrap()
}

fn read(video: &[u8]) -> anyhow::Result<Telemetry> {
    let payloads = payloads(&mut Cursor::new(video), video.len() as u64)?;
    telemetry(&payloads)
}

/// The numbers are those that the npm package gopro-telemetry 1.2.11 finds in the same bytes.
#[test]
fn a_hero5_was_where_others_say() {
    let recorded = recorded("hero5");
    let found = block(&recorded[0]);
    assert_eq!(found.positions.len(), 18);
    let first = found.positions[0];
    assert_eq!(
        [first.latitude_deg, first.longitude_deg, first.speed_mps],
        [33.126_496_9, -117.327_354_2, 0.167]
    );
    assert_eq!((first.dop, first.fix), (6.06, 3));
    let read = read(&video(&recorded)).unwrap();
    assert_eq!(read.begins_ns, 1_492_450_263_000_000_000);
    assert_eq!(read.fixes.len(), 1);
    assert!((read.fixes[0].covariance_m2[0][0].sqrt() - 4.0 * 6.06).abs() < 1e-9);
    assert_eq!(read.fixes[0].track_deg, None, "it stands still");
}

#[test]
fn a_hero11_tells_the_time_of_every_position() {
    let recorded = recorded("hero11");
    let read = read(&video(&recorded)).unwrap();
    let positions = recorded.iter().map(|one| block(one).positions.len());
    assert_eq!(positions.sum::<usize>(), 110);
    let first = block(&recorded[0]);
    assert_eq!(first.positions[0].latitude_deg, 42.426_152_9);
    assert_eq!(first.positions[0].longitude_deg, -8.649_979_5);
    // 13:29:36.899, by GPS9; GPSU of the same second says 13:29:37.299.
    let begins = utc(b"220920132936") + 899_000_000;
    assert!((first.utc_ns.unwrap() - begins).abs() < 1000);
    // The camera's payloads begin up to a fifth of a second beside this video's whole seconds.
    assert!((read.begins_ns - begins).abs() < 250_000_000, "{read:?}");
    assert_eq!(read.fixes.len(), recorded.len());
    assert_eq!(read.notes, [""; 0]);
}

#[test]
fn fixes_have_the_course_and_the_clock_of_the_pictures() {
    let east = |second: usize| {
        let place = |i: usize| [52.0, 4.0 + 1e-4 * (second as f64 + i as f64 / 10.0), 6.9];
        (0..10).map(place).collect::<Vec<_>>()
    };
    let mut payloads: Vec<Vec<u8>> = (0..5)
        .map(|second| payload(&format!("26010203040{second}.250"), &east(second)))
        .collect();
    // The clock of one payload is an hour off.
    payloads[3] = payload("260102050403.250", &east(3));
    let found = read(&video(&payloads)).unwrap();
    let begins = utc(b"260102030400") + 250_000_000;
    assert_eq!(found.begins_ns, begins);
    assert_eq!(found.fixes.len(), 5);
    for (second, fix) in found.fixes.iter().enumerate() {
        assert_eq!(
            fix.time_ns,
            begins + second as i64 * 1_000_000_000 + 500_000_000
        );
        let longitude_deg = 4.0 + 1e-4 * (second as f64 + 0.5);
        assert!((fix.position.longitude_deg - longitude_deg).abs() < 1e-9);
        assert!((fix.track_deg.unwrap() - 90.0).abs() < 0.01);
        assert_eq!(fix.covariance_m2[0][0], 36.0);
    }
    assert!(
        found.notes[0].contains("1 of 5 payloads"),
        "{:?}",
        found.notes
    );
}

#[test]
fn no_fix_no_video_no_telemetry() {
    let say = |video: &[u8]| read(video).unwrap_err().to_string();
    let without = payload("260102030405.000", &[]);
    assert!(say(&video(&[without])).contains("has a position"));
    assert!(say(b"not a video").contains("no MP4 file"));
    let mut other = video(&recorded("hero5"));
    let at = other.windows(4).position(|four| four == b"gpmd").unwrap();
    other[at..at + 4].copy_from_slice(b"text");
    assert!(say(&other).contains("no telemetry"));
    // Ten thousand payloads, all of the same bytes.
    let mut many = video(&recorded("hero5"));
    let at = many.windows(4).position(|four| four == b"stsz").unwrap() + 8;
    many[at..at + 8].copy_from_slice(&words(&[4000, 10_000]));
    assert!(say(&many).contains("claims 40000000 bytes"));
}

/// A payload as a HERO11 writes it: latitude, days and seconds as numbers of its file, kinds of fix.
fn payload9(latitude: i32, days: i32, milliseconds: i32, fixes: &[u16]) -> Vec<u8> {
    let scales: Vec<u8> = [10_000_000, 10_000_000, 1000, 1000, 100, 1, 1000, 100, 1]
        .iter()
        .flat_map(|scale: &i32| scale.to_be_bytes())
        .collect();
    let structure = |fix: &u16| {
        let numbers = [latitude, 40_000_000, 0, 0, 0, days, milliseconds];
        let mut bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        bytes.extend(150_u16.to_be_bytes());
        bytes.extend(fix.to_be_bytes());
        bytes
    };
    let positions: Vec<u8> = fixes.iter().flat_map(structure).collect();
    let stream = [
        entry(b"SCAL", b'l', 4, &scales),
        entry(b"GPS9", b'?', 32, &positions),
    ]
    .concat();
    entry(b"DEVC", 0, 1, &entry(b"STRM", 0, 1, &stream))
}

#[test]
fn positions_and_times_that_cannot_be_are_none() {
    let of = |payload: Vec<u8>| read(&video(&[payload]));
    // Of two positions one has a fix.
    assert_eq!(
        of(payload9(520_000_000, 9000, 1000, &[3, 0]))
            .unwrap()
            .fixes
            .len(),
        1
    );
    for (latitude, days, milliseconds) in [
        (950_000_000, 9000, 1000),
        (520_000_000, 2_921_939, i32::MAX),
        (520_000_000, -1, 1000),
        (520_000_000, 9000, -1),
    ] {
        let found = of(payload9(latitude, days, milliseconds, &[3, 3]));
        let message = found.unwrap_err().to_string();
        assert!(message.contains("none of its 1 payloads"), "{message}");
    }
}

/// Every byte of the boxes and of the first payload changed, and every length: an answer or an error, at once.
#[test]
fn damaged_videos_end_in_an_answer() {
    let whole = video(&recorded("hero5"));
    let boxes = whole.len() - 700..whole.len();
    for at in (0..300).chain(boxes) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let _ = read(&damaged);
        }
        let _ = read(&whole[..at]);
    }
}
