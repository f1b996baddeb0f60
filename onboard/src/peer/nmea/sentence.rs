//! One NMEA 0183 sentence, as far as it tells about position, speed and time.

use chrono::{NaiveDateTime, NaiveTime};
use nmea::sentences::rmc::RmcStatusOfFix;
use nmea::sentences::{
    FixType, GgaData, GllData, GnsData, RmcData, parse_gga, parse_gll, parse_gns, parse_gst,
    parse_rmc, parse_vtg, parse_zda,
};
use nmea::{NmeaSentence, SentenceType, parse_nmea_sentence};

use super::quality::Quality;
use crate::peer::covariance::GstSigmas;

/// Metres per second of one knot.
const MPS_PER_KNOT: f64 = 1852.0 / 3600.0;
/// Where GGA's quality and GNS's mode stand among their fields.
const QUALITY_FIELD: usize = 5;
/// Mode letters of NMEA 0183, the best first.
const MODES_BEST_FIRST: &str = "RFPDASEMN";

/// What a sentence tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sentence {
    /// GGA or GNS.
    Position {
        /// Time of day, UTC.
        time: NaiveTime,
        /// What it says.
        position: Position,
    },
    /// RMC.
    Minimum {
        /// Time of day, UTC.
        time: NaiveTime,
        /// The place, with its quality.
        position: Position,
        /// The time with its date.
        date_time: Option<NaiveDateTime>,
        /// Speed and course.
        velocity: Velocity,
    },
    /// GLL.
    Place {
        /// Time of day, UTC.
        time: NaiveTime,
        /// The place, with its quality.
        position: Position,
    },
    /// GST.
    Errors {
        /// Time of day, UTC.
        time: NaiveTime,
        /// Sigmas.
        sigmas: GstSigmas,
    },
    /// VTG, which has no time.
    Velocity(Velocity),
    /// ZDA.
    Date(NaiveDateTime),
}

/// A place as a sentence has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// How it was found; none where the sentence does not say.
    pub quality: Option<Quality>,
    /// Degrees.
    pub latitude_deg: Option<f64>,
    /// Degrees.
    pub longitude_deg: Option<f64>,
    /// Metres above mean sea level.
    pub sea_level_height_m: Option<f64>,
    /// Mean sea level above the ellipsoid, metres.
    pub geoid_m: Option<f64>,
    /// Horizontal dilution of precision.
    pub hdop: Option<f64>,
    /// Satellites used.
    pub satellites: Option<u32>,
}

/// Speed and course over ground.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Velocity {
    /// m/s.
    pub speed_mps: Option<f64>,
    /// Degrees clockwise from true north.
    pub track_deg: Option<f64>,
}

/// Why a line is no sentence that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// A kind that tells nothing we use.
    Other,
    /// A wrong checksum or shape.
    Bad,
}

impl Sentence {
    /// Reads a line; a sentence begins at its last `$`, because receivers mix binary messages in.
    ///
    /// # Errors
    /// [`Unread`] for lines without a sentence of ours.
    pub fn parse(line: &[u8]) -> Result<Self, Unread> {
        let start = line.iter().rposition(|byte| *byte == b'$');
        let text = start.and_then(|start| std::str::from_utf8(&line[start..]).ok());
        let text = text.filter(|text| text.is_ascii()).ok_or(Unread::Other)?;
        let sentence = match parse_nmea_sentence(text.trim_ascii_end()) {
            Ok(sentence) => sentence,
            // Proprietary and unknown kinds have no three letters that the crate knows.
            Err(_) if !has_known_kind(text) => return Err(Unread::Other),
            Err(_) => return Err(Unread::Bad),
        };
        if sentence.checksum != sentence.calc_checksum() {
            return Err(Unread::Bad);
        }
        let read = match sentence.message_id {
            SentenceType::GGA => gga(sentence),
            SentenceType::GNS => gns(sentence),
            SentenceType::RMC => parse_rmc(sentence).ok().map(|rmc| of_rmc(&rmc)),
            SentenceType::GLL => parse_gll(sentence).ok().map(|gll| of_gll(&gll)),
            SentenceType::GST => parse_gst(sentence).ok().map(|gst| {
                Some(Self::Errors {
                    time: gst.time?,
                    sigmas: GstSigmas {
                        latitude_m: wide(gst.lat_sd),
                        longitude_m: wide(gst.long_sd),
                        altitude_m: wide(gst.alt_sd),
                        major_m: wide(gst.ellipse_semi_major_sd),
                        minor_m: wide(gst.ellipse_semi_minor_sd),
                        orientation_deg: wide(gst.err_ellipse_orientation),
                    },
                })
            }),
            SentenceType::VTG => parse_vtg(sentence).ok().map(|vtg| {
                Some(Self::Velocity(velocity(
                    vtg.speed_over_ground,
                    vtg.true_course,
                )))
            }),
            SentenceType::ZDA => parse_zda(sentence)
                .ok()
                .map(|zda| zda.utc_date_time().map(Self::Date)),
            _ => return Err(Unread::Other),
        };
        // A sentence without a time belongs to no epoch: the receiver has just started.
        read.ok_or(Unread::Bad)?.ok_or(Unread::Other)
    }
}

fn has_known_kind(text: &str) -> bool {
    let kind = text.get(3..6).unwrap_or_default();
    ["GGA", "GNS", "RMC", "GLL", "GST", "VTG", "ZDA"].contains(&kind)
}

/// GGA, with the quality 9 that NovAtel receivers send for SBAS, which the crate does not know.
fn gga(sentence: NmeaSentence<'_>) -> Option<Option<Sentence>> {
    let data = with_field(sentence.data, QUALITY_FIELD, |quality| match quality {
        "9" => "2",
        known => known,
    });
    let gga = parse_gga(NmeaSentence {
        data: &data,
        ..sentence
    });
    gga.ok().map(|gga| of_gga(&gga))
}

/// GNS, whose mode has a letter for each constellation; the crate knows two of them. The best is the
/// mode of the position.
fn gns(sentence: NmeaSentence<'_>) -> Option<Option<Sentence>> {
    let data = with_field(sentence.data, QUALITY_FIELD, |modes| {
        let letters = (0..modes.len()).filter_map(|at| modes.get(at..=at));
        let rank = |letter: &&str| MODES_BEST_FIRST.find(*letter).unwrap_or(usize::MAX);
        letters.min_by_key(rank).unwrap_or(modes)
    });
    let gns = parse_gns(NmeaSentence {
        data: &data,
        ..sentence
    });
    gns.ok().map(|gns| of_gns(&gns))
}

/// The fields, one of them changed.
fn with_field(data: &str, index: usize, change: impl FnOnce(&str) -> &str) -> String {
    let mut fields: Vec<&str> = data.split(',').collect();
    if let Some(field) = fields.get_mut(index) {
        *field = change(field);
    }
    fields.join(",")
}

fn of_gga(gga: &GgaData) -> Option<Sentence> {
    Some(Sentence::Position {
        time: gga.fix_time?,
        position: Position {
            quality: Some(Quality::of(gga.fix_type.unwrap_or(FixType::Invalid))),
            latitude_deg: gga.latitude,
            longitude_deg: gga.longitude,
            sea_level_height_m: wide(gga.altitude),
            geoid_m: wide(gga.geoid_separation),
            hdop: wide(gga.hdop),
            satellites: gga.fix_satellites,
        },
    })
}

fn of_gns(gns: &GnsData) -> Option<Sentence> {
    Some(Sentence::Position {
        time: gns.fix_time?,
        position: Position {
            quality: Some(Quality::of(gns.faa_modes.into())),
            latitude_deg: gns.lat,
            longitude_deg: gns.lon,
            sea_level_height_m: wide(gns.alt),
            geoid_m: wide(gns.geoid_separation),
            hdop: wide(gns.hdop),
            satellites: Some(u32::from(gns.nsattelites)),
        },
    })
}

fn of_rmc(rmc: &RmcData) -> Option<Sentence> {
    let time = rmc.fix_time?;
    let quality = match (rmc.status_of_fix, rmc.faa_mode) {
        (RmcStatusOfFix::Invalid, _) => Some(Quality::Invalid),
        (_, Some(mode)) => Some(Quality::of(mode.into())),
        (RmcStatusOfFix::Differential, None) => Some(Quality::Differential),
        (RmcStatusOfFix::Autonomous, None) => None,
    };
    Some(Sentence::Minimum {
        time,
        position: place(quality, rmc.lat, rmc.lon),
        date_time: rmc.fix_date.map(|date| date.and_time(time)),
        velocity: velocity(rmc.speed_over_ground, rmc.true_course),
    })
}

fn of_gll(gll: &GllData) -> Option<Sentence> {
    let quality = match (gll.valid, gll.faa_mode) {
        (false, _) => Some(Quality::Invalid),
        (true, mode) => mode.map(|mode| Quality::of(mode.into())),
    };
    Some(Sentence::Place {
        time: gll.fix_time?,
        position: place(quality, gll.latitude, gll.longitude),
    })
}

fn place(
    quality: Option<Quality>,
    latitude_deg: Option<f64>,
    longitude_deg: Option<f64>,
) -> Position {
    Position {
        quality,
        latitude_deg,
        longitude_deg,
        sea_level_height_m: None,
        geoid_m: None,
        hdop: None,
        satellites: None,
    }
}

fn velocity(knots: Option<f32>, course_deg: Option<f32>) -> Velocity {
    Velocity {
        speed_mps: wide(knots)
            .map(|knots| knots * MPS_PER_KNOT)
            .filter(|speed| (0.0..1e3).contains(speed)),
        track_deg: wide(course_deg).filter(|track| (0.0..=360.0).contains(track)),
    }
}

/// Sentences have at most four decimals; going through `f32` must not add more.
fn wide(value: Option<f32>) -> Option<f64> {
    value
        .filter(|value| value.is_finite())
        .map(|value| (f64::from(value) * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(body: &str) -> Option<Position> {
        let checksum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        match Sentence::parse(format!("${body}*{checksum:02X}\r\n").as_bytes()) {
            Ok(
                Sentence::Position { position, .. }
                | Sentence::Minimum { position, .. }
                | Sentence::Place { position, .. },
            ) => Some(position),
            _ => None,
        }
    }

    #[test]
    fn each_quality_is_what_the_receiver_means() {
        let expected = [
            ("0", Quality::Invalid),
            ("1", Quality::Plain),
            ("2", Quality::Differential),
            ("4", Quality::RtkFixed),
            ("5", Quality::RtkFloat),
            ("6", Quality::Invalid),
            ("7", Quality::Invalid),
            ("8", Quality::Simulated),
            ("9", Quality::Differential),
        ];
        for (digit, quality) in expected {
            let gga =
                format!("GPGGA,100000.00,5200.696,N,00421.426,E,{digit},10,0.9,10.0,M,40.0,M,,");
            assert_eq!(position(&gga).unwrap().quality, Some(quality), "{digit}");
        }
        let expected = [
            ("NA", Quality::Plain),
            ("RN", Quality::RtkFixed),
            ("NN", Quality::Invalid),
        ];
        for (modes, quality) in expected {
            let gns = format!("GNGNS,100000.00,5200.696,N,00421.426,E,{modes},12,0.8,10.0,40.0,,");
            assert_eq!(position(&gns).unwrap().quality, Some(quality), "{modes}");
        }
        let void = position("GNGLL,5200.696,N,00421.426,E,100000.00,V,N");
        assert_eq!(void.unwrap().quality, Some(Quality::Invalid));
    }

    #[test]
    fn other_kinds_are_no_error_and_damage_is_one() {
        for (line, why) in [
            ("$GPGSV,1,1,00*79", Unread::Other),
            ("$PUBX,00,1*2A", Unread::Other),
            ("no sentence", Unread::Other),
            ("$GPGGA,100000.00*00", Unread::Bad),
            ("$GPGGA,1000", Unread::Bad),
        ] {
            assert_eq!(Sentence::parse(line.as_bytes()), Err(why), "{line}");
        }
    }
}
