//! Estimates as NMEA 0183: pure, so that its texts are tested.
//!
//! GGA's quality and RMC's mode agree: 1/A for a fix, 6/E while coasting, 0/N and no position when lost.
//! Altitude is above mean sea level: the height above the ellipsoid less the receiver's geoid separation,
//! or EGM96's. Satellites and HDOP are the receiver's; without a word of it the number of satellites is
//! empty, and the HDOP is the estimate's own error over a range error of 3.5 m.

use crate::event::{Estimate, State};
use crate::peer::ellipse::Ellipse;
use crate::peer::reception::Attendant;
use crate::utc;

const KNOTS_PER_MPS: f64 = 3600.0 / 1852.0;

/// GGA, RMC and GST of one estimate, each with checksum and line end.
pub fn sentences(estimate: &Estimate, attendant: &Attendant) -> Vec<String> {
    let (time, date) = utc::nmea_time_and_date(estimate.time_ns);
    let [[ee, _], [_, nn]] = estimate.covariance_m2;
    let numbers = [
        estimate.position.latitude_deg,
        estimate.position.longitude_deg,
        ee.sqrt(),
        nn.sqrt(),
    ];
    let known = estimate.state != State::Lost && numbers.iter().all(|number| number.is_finite());
    if !known {
        return vec![
            sentence(&format!("GNGGA,{time},,,,,0,,,,M,,M,,")),
            sentence(&format!("GNRMC,{time},V,,,,,,,{date},,,N,V")),
            sentence(&format!("GNGST,{time},,,,,,,")),
        ];
    }
    let (quality, mode) = if estimate.state == State::Coasting {
        ('6', 'E')
    } else {
        ('1', 'A')
    };
    let latitude = degrees_minutes(estimate.position.latitude_deg, 2, 'N', 'S');
    let longitude = degrees_minutes(estimate.position.longitude_deg, 3, 'E', 'W');
    let speed_mps = if estimate.speed_mps.is_finite() {
        estimate.speed_mps
    } else {
        0.0
    };
    let course = if estimate.yaw_sigma_rad < 0.6 && speed_mps.abs() >= 0.5 {
        estimate.course().format(2)
    } else {
        String::new()
    };
    let ellipse = Ellipse::new(estimate.covariance_m2);
    // Empty where nobody measured a height.
    let altitude = estimate
        .height_m
        .filter(|height_m| height_m.is_finite())
        .map_or(String::new(), |height_m| {
            format!("{:.3}", height_m - attendant.geoid_m)
        });
    let satellites = attendant
        .satellites_used
        .map_or(String::new(), |satellites| format!("{satellites:02}"));
    vec![
        sentence(&format!(
            "GNGGA,{time},{latitude},{longitude},{quality},{satellites},{:.2},{altitude},M,{:.3},M,,",
            attendant.hdop, attendant.geoid_m,
        )),
        sentence(&format!(
            "GNRMC,{time},A,{latitude},{longitude},{:.3},{course},{date},,,{mode},V",
            speed_mps.abs() * KNOTS_PER_MPS
        )),
        sentence(&format!(
            "GNGST,{time},,{:.3},{:.3},{},{:.3},{:.3},",
            ellipse.major_m,
            ellipse.minor_m,
            ellipse.orientation.format(1),
            nn.sqrt(),
            ee.sqrt()
        )),
    ]
}

/// `ddmm.mmmmmmm,N`: a seventh decimal is 0.2 mm.
fn degrees_minutes(angle_deg: f64, digits: usize, positive: char, negative: char) -> String {
    const PER_MINUTE: u64 = 10_000_000;
    // Whole units first, so that 59.99999999 minutes become the next degree and never 60.
    let units = (angle_deg.abs() * 60.0 * PER_MINUTE as f64).round() as u64;
    let (minutes, fraction) = (units / PER_MINUTE, units % PER_MINUTE);
    let hemisphere = if angle_deg < 0.0 { negative } else { positive };
    format!(
        "{:0digits$}{:02}.{fraction:07},{hemisphere}",
        minutes / 60,
        minutes % 60
    )
}

fn sentence(body: &str) -> String {
    let checksum = body.bytes().fold(0, |sum, byte| sum ^ byte);
    format!("${body}*{checksum:02X}\r\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossfix_calibration::Geodetic;
    use nmea::ParseResult;
    use nmea::sentences::FixType;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{CovarianceRule, Event, GnssFix};
    use crate::peer::nmea::{NmeaConfig, NmeaSentences};
    use crate::peer::reception::Receivers;
    use crate::peer::testing::{estimate, fix};

    /// With a receiver of nine satellites.
    fn said(estimate: &Estimate) -> Vec<String> {
        let mut receivers = Receivers::default();
        receivers.note(&Event::Gnss(fix(estimate.time_ns)));
        sentences(estimate, &receivers.attend(estimate))
    }

    fn read_back(estimate: &Estimate) -> Option<GnssFix> {
        let mut reader = NmeaSentences::new(&NmeaConfig::default());
        for line in said(estimate) {
            assert!(line.len() <= 102, "{line}");
            reader.line(line.trim_ascii().as_bytes(), Duration::ZERO);
        }
        assert_eq!(reader.bad_sentences(), 0, "{:?}", said(estimate));
        reader.finish()
    }

    #[test]
    fn sentences_are_as_the_standard_writes_them() {
        assert_eq!(
            said(&estimate(State::Degraded)),
            [
                "$GNGGA,223748.50,3330.0000000,S,15115.0000000,E,1,09,0.90,18.000,M,22.000,M,,*69\r\n",
                "$GNRMC,223748.50,A,3330.0000000,S,15115.0000000,E,19.438,90.00,110720,,,A,V*13\r\n",
                "$GNGST,223748.50,,2.000,1.000,90.0,1.000,2.000,*7D\r\n",
            ]
        );
    }

    #[test]
    fn without_a_height_the_fix_has_two_dimensions() {
        let flat = Estimate {
            height_m: None,
            ..estimate(State::Degraded)
        };
        assert!(said(&flat)[0].contains(",1,09,0.90,,M,22.000,M,"));
        let fix = read_back(&flat).unwrap();
        assert_eq!(fix.dimension, crate::event::FixDimension::Two);
    }

    #[test]
    fn coasting_is_estimated_in_both_and_lost_has_no_position() {
        let kinds = |state| {
            said(&estimate(state))
                .iter()
                .map(|line| nmea::parse_str(line.trim_ascii()).unwrap())
                .collect::<Vec<_>>()
        };
        let [ParseResult::GGA(gga), ParseResult::RMC(rmc), _] = &kinds(State::Coasting)[..] else {
            panic!()
        };
        assert_eq!(gga.fix_type, Some(FixType::Estimated));
        assert_eq!(rmc.faa_mode, Some(nmea::sentences::FaaMode::Estimated));
        let [ParseResult::GGA(gga), ParseResult::RMC(rmc), _] = &kinds(State::Lost)[..] else {
            panic!()
        };
        assert_eq!(
            (gga.fix_type, gga.latitude, rmc.lat),
            (Some(FixType::Invalid), None, None)
        );
        assert_eq!(read_back(&estimate(State::Lost)), None);
    }

    proptest! {
        #[test]
        fn our_own_reader_reads_every_position_back(latitude in -90.0..=90.0, longitude in -180.0..=180.0, height in -500.0..9000.0, sigma in 0.5..50.0f64) {
            let sent = Estimate {
                position: Geodetic::new(latitude, longitude, height).unwrap(),
                height_m: Some(height),
                covariance_m2: [[sigma * sigma, 0.0], [0.0, sigma * sigma]],
                ..estimate(State::Ok)
            };
            let fix = read_back(&sent).unwrap();
            prop_assert_eq!(fix.time_ns, sent.time_ns);
            prop_assert!((fix.position.latitude_deg - latitude).abs() < 2e-9);
            prop_assert!((fix.position.longitude_deg - longitude).abs() < 2e-9);
            prop_assert_eq!(fix.covariance_rule, CovarianceRule::Gst);
            prop_assert!((fix.covariance_m2[0][0].sqrt() - sigma).abs() < 1e-3);
        }
    }
}
