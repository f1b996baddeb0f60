//! Frames that pyubx2 made (`tests/scripts/make_ubx.py`), in one stream with sentences.

use std::io::Write;
use std::time::Duration;

use proptest::prelude::*;

use super::{UbxConfig, UbxStream};
use crate::event::{CovarianceRule, Event, FixDimension, GnssFix, Jamming, Spoofing};
use crate::peer::Playback;
use crate::port::Peer;

/// Ten epochs at 2026-03-01T12:00:00Z + n seconds, 10 m/s to the north-east: NAV-STATUS, NAV-PVT, NAV-COV
/// (not in epochs 4 and 5), SEC-SIG, GGA and RMC of the same epoch. Spoofing is indicated in epochs 6
/// and 7, jamming in SEC-SIG of 7; 9 has no valid fix, and garbage stands between some epochs.
const MIXED: &[u8] = include_bytes!("../../../tests/data/mixed.ubx");
const START_NS: i64 = 1_772_366_400_000_000_000;

fn fixes(bytes: &[u8], config: &UbxConfig, piece: usize) -> Vec<GnssFix> {
    let mut stream = UbxStream::new(config);
    let mut fixes = Vec::new();
    for piece in bytes.chunks(piece) {
        stream.bytes(piece, Duration::ZERO);
        fixes.extend(std::iter::from_fn(|| stream.take(Duration::ZERO)));
    }
    fixes.extend(std::iter::from_fn(|| stream.finish(Duration::ZERO)));
    fixes
}

#[test]
fn an_epoch_is_one_fix_with_the_receivers_covariance() {
    let fixes = fixes(MIXED, &UbxConfig::default(), 4096);
    let times: Vec<i64> = fixes
        .iter()
        .map(|fix| ((fix.time_ns - START_NS) as f64 * 1e-9).round() as i64)
        .collect();
    assert_eq!(
        times,
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        "sentences of the same epochs do not count"
    );
    let first = &fixes[0];
    // The nanoseconds of NAV-PVT are negative there.
    assert_eq!(fixes[1].time_ns - START_NS, 999_999_750);
    assert!((first.position.latitude_deg - 52.0116).abs() < 1e-7);
    assert!((first.position.height_m - 45.25).abs() < 1e-6);
    // NAV-COV: north 4, east 9, north-east 1 m².
    assert_eq!(first.covariance_m2, [[9.0, 1.0], [1.0, 4.0]]);
    assert_eq!(
        (first.covariance_rule, first.height_sigma_m),
        (CovarianceRule::Ubx, 5.0)
    );
    assert_eq!(first.dimension, FixDimension::Three);
    assert!((first.speed_mps.unwrap() - 10.0).abs() < 0.01);
    assert!((first.track_deg.unwrap() - 45.0).abs() < 0.01);
    assert_eq!(first.reception.satellites_used, Some(17));
    // Without NAV-COV: hAcc of 2.828 m is 2 m along each axis.
    for fix in &fixes[4..6] {
        assert_eq!(fix.covariance_rule, CovarianceRule::UbxAccuracy);
        assert!((fix.covariance_m2[0][0] - 4.0).abs() < 0.01 && fix.covariance_m2[0][1] == 0.0);
    }
}

#[test]
fn spoofing_and_jamming_are_carried() {
    let said = |config: &UbxConfig| -> Vec<(Spoofing, Jamming)> {
        fixes(MIXED, config, 4096)
            .iter()
            .map(|fix| (fix.reception.spoofing, fix.reception.jamming))
            .collect()
    };
    let careful = said(&UbxConfig::default());
    // NAV-STATUS comes before NAV-PVT, and SEC-SIG after NAV-COV: it counts from the next fix on.
    assert_eq!(careful[1], (Spoofing::None, Jamming::None));
    assert_eq!(careful[6], (Spoofing::Indicated, Jamming::None));
    assert_eq!(careful[8], (Spoofing::Indicated, Jamming::Critical));
    let bold = said(&UbxConfig {
        use_spoofed: true,
        ..UbxConfig::default()
    });
    assert_eq!(bold[6].0, Spoofing::Accepted);
}

/// What looks like a message of a class and number in the stream: the garbage in it does too.
fn messages(class: u8, number: u8) -> Vec<&'static [u8]> {
    let head = [0xb5, 0x62, class, number];
    let begins = |at: &usize| MIXED[*at..].starts_with(&head);
    let whole = |at: usize| {
        let length = usize::from(u16::from_le_bytes([MIXED[at + 4], MIXED[at + 5]]));
        &MIXED[at..at + 8 + length]
    };
    (0..MIXED.len() - 8).filter(begins).map(whole).collect()
}

#[test]
fn a_jammed_receiver_without_a_fix_says_so_until_it_has_one_or_is_silent_on_it() {
    let (pvt, signals) = (messages(1, 7), messages(0x27, 9));
    let (fix, no_fix) = (pvt[0], pvt[pvt.len() - 1]);
    let mut stream = UbxStream::new(&UbxConfig::default());
    let mut after = |messages: &[&[u8]], seconds: u64| {
        let now = Duration::from_secs(seconds);
        messages.iter().for_each(|bytes| stream.bytes(bytes, now));
        while stream.take(now + Duration::from_secs(1)).is_some() {}
        stream.remarks(now)
    };
    // With a fix, the fix carries it.
    assert_eq!(after(&[signals[7], fix], 0), Vec::<String>::new());
    let jammed = after(&[signals[7], no_fix], 5);
    assert!(
        jammed.iter().any(|said| said.contains("jammed")),
        "{jammed:?}"
    );
    assert_eq!(after(&[signals[7], fix], 10), Vec::<String>::new());
    assert!(!after(&[no_fix], 11).is_empty());
    assert_eq!(after(&[], 60), Vec::<String>::new());
}

/// A sentence with its magnetic variation left empty, as receivers send it; the fixture's is 0.0 without
/// a direction, which is no RMC.
fn without_variation(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let Some((body, _)) = text.trim_end().split_once('*') else {
        return line.to_vec();
    };
    let body = body.replace(",0.0,,A,", ",,,A,");
    let sum = body.bytes().skip(1).fold(0, |sum, byte| sum ^ byte);
    format!("{body}*{sum:02X}\r\n").into_bytes()
}

#[test]
fn without_binary_messages_the_sentences_are_used() {
    let text: Vec<u8> = MIXED
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let start = line.windows(3).position(|part| part == b"$GN")?;
            Some(without_variation(&line[start..]))
        })
        .collect::<Vec<_>>()
        .concat();
    let fixes = fixes(&text, &UbxConfig::default(), 100);
    assert!(fixes.len() >= 9, "{}", fixes.len());
    assert!((fixes[0].position.latitude_deg - 52.0116).abs() < 1e-5);
}

#[test]
fn a_serial_line_is_read_as_it_comes() {
    let (mut receiver, port) = serialport::TTYPort::pair().unwrap();
    let name = serialport::SerialPort::name(&port).unwrap();
    let config = UbxConfig {
        serial: Some(name.into()),
        ..UbxConfig::default()
    };
    let connection = config.open(&Playback::default()).unwrap();
    let mut reader = connection.reader.unwrap();
    let writer = std::thread::spawn(move || {
        for piece in MIXED.chunks(17) {
            receiver.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_micros(500));
        }
        receiver
    });
    let mut found = Vec::new();
    for _ in 0..400 {
        if let Ok(Some(Event::Gnss(fix))) = reader.next() {
            found.push(fix.time_ns);
        }
        if found.len() == 9 {
            break;
        }
    }
    drop(writer.join().unwrap());
    assert_eq!(found.len(), 9);
    drop(port);
}

#[test]
fn a_set_up_is_a_valset_into_ram_alone() {
    for message in super::setup::messages() {
        assert_eq!(message[..4], [0xb5, 0x62, 0x06, 0x8a]);
        assert_eq!(message[6..8], [0, 1], "version 0, layer RAM");
        let (a, b) = message[2..message.len() - 2]
            .iter()
            .fold((0_u8, 0_u8), |(a, b), byte| {
                let a = a.wrapping_add(*byte);
                (a, b.wrapping_add(a))
            });
        assert_eq!(message[message.len() - 2..], [a, b]);
    }
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(piece in 1_usize..300) {
        let whole = fixes(MIXED, &UbxConfig::default(), MIXED.len());
        prop_assert_eq!(fixes(MIXED, &UbxConfig::default(), piece), whole);
    }
}
