//! One receiver's connection, read and written at once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use super::NmeaConfig;
use crate::event::{EstimateKind, Event, State};
use crate::peer::Playback;
use crate::peer::reception::Receivers;
use crate::peer::testing::{estimate, outbound};
use crate::port::{Interests, Peer};

#[test]
fn a_receiver_delivers_fixes_and_gets_positions_over_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = NmeaConfig {
        tcp: Some(listener.local_addr().unwrap().to_string()),
        send: Some(EstimateKind::Fused),
        ..NmeaConfig::default()
    };
    assert_eq!(config.wants(), Interests::ESTIMATES | Interests::FIXES);
    let mut connection = config.open(&Playback::default()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let sent = estimate(State::Ok);
    let position = super::sentences(&sent, &Receivers::default().attend(&sent)).concat();
    (&receiver).write_all(position.as_bytes()).unwrap();

    let mut reader = connection.reader.take().unwrap();
    let fix = (0..40)
        .find_map(|_| match reader.next().unwrap() {
            Some(Event::Gnss(fix)) => Some(fix),
            _ => None,
        })
        .expect("a fix within two seconds");
    assert!((fix.position.latitude_deg + 33.5).abs() < 1e-6);

    let mut writer = connection.writer.take().unwrap();
    writer.write(&outbound(State::Ok)).unwrap();
    let line = BufReader::new(&receiver).lines().next().unwrap().unwrap();
    assert!(line.starts_with("$GNGGA,223748"), "{line}");
}

#[test]
fn without_send_nothing_is_written_and_a_file_is_never_written_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = NmeaConfig {
        tcp: Some(listener.local_addr().unwrap().to_string()),
        ..NmeaConfig::default()
    };
    assert!(config.wants().is_empty());
    assert!(config.open(&Playback::default()).unwrap().writer.is_none());
    let text = "[[source]]\nkind = \"nmea\"\nfile = \"x.nmea\"\nsend = \"fused\"";
    let problems = crate::config::Config::parse(text).unwrap().check();
    assert!(
        problems.iter().any(|p| p.field == "source[0].send"),
        "{problems:?}"
    );
}
