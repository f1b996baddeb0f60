//! A receiver's bytes to GNSS fixes: pure, so that recorded bytes test it.
//!
//! # Source
//! u-blox F9 HPG 1.32 interface description (UBX-22008968): NAV-PVT, NAV-COV, NAV-STATUS, SEC-SIG. It states
//! no confidence for `hAcc`; it is taken as the radial 1-sigma error, as for gpsd's `eph` of these receivers.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::NaiveDate;
use crossfix_calibration::Geodetic;
use ublox::proto31::{PacketRef, Proto31};
use ublox::{AnyPacketRef, GnssFixType, Parser, ParserBuilder, UbxPacket};

use super::UbxConfig;
use crate::event::{CovarianceRule, FixDimension, GnssFix, Jamming, Reception, Spoofing};
use crate::peer::covariance::{diagonal, floored, positive};
use crate::peer::nmea::NmeaSentences;

/// NAV-COV comes at most so long after its NAV-PVT.
const COVARIANCE_WITHIN: Duration = Duration::from_millis(150);
/// After so many epochs in a row without NAV-COV none is waited for any more, until one comes.
const COVARIANCE_GIVEN_UP: u32 = 3;
/// After so long without NAV-PVT the sentences count again.
const UBX_SILENCE: Duration = Duration::from_secs(3);
/// Older words about spoofing and jamming say nothing.
const WARNED_WITHIN: Duration = Duration::from_secs(10);
/// 1-sigma of a height that was never measured, metres.
const UNKNOWN_HEIGHT_SIGMA_M: f64 = 1000.0;
/// A slower vehicle has no course, m/s.
const COURSE_FROM_MPS: f64 = 0.3;

/// Cuts bytes into messages and sentences, and makes a fix of each epoch.
pub struct UbxStream {
    config: UbxConfig,
    parser: Parser<Vec<u8>, Proto31>,
    nmea: NmeaSentences,
    pending: Option<(Pvt, Duration)>,
    covariance: Option<Covariance>,
    /// Epochs in a row without one.
    without_covariance: u32,
    fixes: VecDeque<GnssFix>,
    latest_pvt: Option<Duration>,
    warnings: Warnings,
    bad_messages: u64,
    readable: u64,
    remarks: Vec<&'static str>,
    /// Whether the latest NAV-PVT gave no fix, and no sentence after it.
    is_without_fix: bool,
    acknowledged: Option<bool>,
}

/// What we take of a message; the parser's borrow ends with it.
enum Part {
    Pvt(Pvt),
    Covariance(Covariance),
    /// NAV-STATUS.
    Status {
        spoofing: Spoofing,
    },
    /// SEC-SIG.
    Signals {
        spoofing: Spoofing,
        jamming: Jamming,
    },
    Acknowledged(bool),
    Sentence(Vec<u8>),
    Bad,
}

#[derive(Debug, Clone)]
struct Pvt {
    itow_ms: u32,
    time_ns: Option<i64>,
    place: [f64; 3],
    horizontal_m: f64,
    vertical_m: f64,
    velocity_mps: [f64; 2],
    satellites: u8,
    dimension: Option<FixDimension>,
}

/// East and north, m², and the variance of the height.
#[derive(Debug, Clone, Copy)]
struct Covariance {
    itow_ms: u32,
    horizontal_m2: [[f64; 2]; 2],
    height_m2: f64,
}

/// The latest words of each message that warns, and when they came.
#[derive(Debug, Default)]
struct Warnings {
    status: Option<(Spoofing, Duration)>,
    signals: Option<(Spoofing, Jamming, Duration)>,
}

impl UbxStream {
    /// Starts without any message.
    pub fn new(config: &UbxConfig) -> Self {
        Self {
            nmea: NmeaSentences::new(&config.nmea()),
            config: config.clone(),
            parser: ParserBuilder::new()
                .with_protocol::<Proto31>()
                .with_vec_buffer(),
            pending: None,
            covariance: None,
            without_covariance: 0,
            fixes: VecDeque::new(),
            latest_pvt: None,
            warnings: Warnings::default(),
            bad_messages: 0,
            readable: 0,
            remarks: Vec::new(),
            is_without_fix: false,
            acknowledged: None,
        }
    }

    /// Takes bytes in that arrived at `now`, any monotonic time. Take fixes out after each.
    pub fn bytes(&mut self, bytes: &[u8], now: Duration) {
        let mut parts = Vec::new();
        let mut readable = 0;
        let mut messages = self.parser.consume_ubx_rtcm_nmea(bytes);
        while let Some(message) = messages.next() {
            let part = part_of(message);
            readable += u64::from(!matches!(part, Some(Part::Bad | Part::Sentence(_))));
            parts.extend(part);
        }
        drop(messages);
        self.readable += readable;
        for part in parts {
            self.take_in(part, now);
        }
    }

    /// The next fix, if one is complete at `now`.
    pub fn take(&mut self, now: Duration) -> Option<GnssFix> {
        self.complete(now, false);
        while let Some(fix) = self.nmea.take(now) {
            let speaks = |at: Duration| now.saturating_sub(at) < UBX_SILENCE;
            if self.latest_pvt.is_some_and(speaks) {
                self.remark(
                    "its sentences are not used while it sends NAV-PVT: one receiver counts once",
                );
            } else {
                let mut fix = fix;
                self.warnings.add_to(&mut fix.reception, now, &self.config);
                self.is_without_fix = false;
                self.fixes.push_back(fix);
            }
        }
        self.fixes.pop_front()
    }

    /// What is still held back, at the end of a recording.
    pub fn finish(&mut self, now: Duration) -> Option<GnssFix> {
        self.complete(now, true);
        if self.latest_pvt.is_none() {
            self.fixes.extend(self.nmea.finish());
        }
        self.fixes.pop_front()
    }

    /// Says what date and time it is where the bytes are read.
    pub fn set_machine_time(&mut self, machine: Option<chrono::NaiveDateTime>) {
        self.nmea.set_machine_time(machine);
    }

    /// Messages and sentences that are damaged.
    pub fn bad_messages(&self) -> u64 {
        self.bad_messages + self.nmea.bad_sentences()
    }

    /// Whole messages and sentences, of kinds that tell nothing here too.
    pub fn readable(&self) -> u64 {
        self.readable + self.nmea.readable()
    }

    /// What is to be said about it at `now`. Attacks are told here only while there is no fix to carry the words.
    pub fn remarks(&self, now: Duration) -> Vec<String> {
        let mut remarks = self.nmea.remarks();
        remarks.extend(self.remarks.iter().map(|remark| (*remark).to_owned()));
        if self.is_without_fix {
            let mut said = Reception::default();
            self.warnings.add_to(&mut said, now, &self.config);
            if matches!(said.jamming, Jamming::Warning | Jamming::Critical) {
                remarks.push("it says that it is jammed, and has no fix".into());
            }
            if matches!(said.spoofing, Spoofing::Indicated | Spoofing::Accepted) {
                remarks.push("it says that its signals are forged, and has no fix".into());
            }
        }
        remarks
    }

    /// Whether the receiver took what it was told to set; none before it answered.
    pub fn take_acknowledged(&mut self) -> Option<bool> {
        self.acknowledged.take()
    }

    fn remark(&mut self, remark: &'static str) {
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    fn take_in(&mut self, part: Part, now: Duration) {
        match part {
            Part::Pvt(pvt) => {
                // The epoch before has no covariance any more.
                self.complete(now, true);
                self.latest_pvt = Some(now);
                self.pending = Some((pvt, now));
            }
            Part::Covariance(covariance) => {
                self.without_covariance = 0;
                self.covariance = Some(covariance);
                self.complete(now, false);
            }
            Part::Status { spoofing } => self.warnings.status = Some((spoofing, now)),
            Part::Signals { spoofing, jamming } => {
                self.warnings.signals = Some((spoofing, jamming, now));
            }
            Part::Acknowledged(taken) => self.acknowledged = Some(taken),
            Part::Sentence(sentence) => self.nmea.line(sentence.trim_ascii(), now),
            Part::Bad => self.bad_messages += 1,
        }
    }

    /// Makes a fix of the pending NAV-PVT when its NAV-COV is there, or is not to be expected.
    fn complete(&mut self, now: Duration, at_once: bool) {
        let Some((pvt, came)) = &self.pending else {
            return;
        };
        let covariance = self
            .covariance
            .filter(|covariance| covariance.itow_ms == pvt.itow_ms);
        let waits = covariance.is_none()
            && self.without_covariance < COVARIANCE_GIVEN_UP
            && now.saturating_sub(*came) < COVARIANCE_WITHIN;
        if waits && !at_once {
            return;
        }
        self.without_covariance = match covariance {
            Some(_) => 0,
            None => self.without_covariance.saturating_add(1),
        };
        let pvt = pvt.clone();
        self.pending = None;
        if let Some(fix) = self.fix(&pvt, covariance, now) {
            self.fixes.push_back(fix);
        }
    }

    fn fix(&mut self, pvt: &Pvt, covariance: Option<Covariance>, now: Duration) -> Option<GnssFix> {
        self.is_without_fix = true;
        let dimension = pvt.dimension?;
        let Some(time_ns) = pvt.time_ns else {
            self.remark("it does not know the time yet; its fixes are not used");
            return None;
        };
        let [latitude_deg, longitude_deg, height_m] = pvt.place;
        let position = Geodetic::new(latitude_deg, longitude_deg, height_m).ok()?;
        let (covariance_m2, covariance_rule) = match (covariance, positive(Some(pvt.horizontal_m)))
        {
            (Some(covariance), _) => (covariance.horizontal_m2, CovarianceRule::Ubx),
            (None, Some(radial_m)) => {
                let axis_m = radial_m / std::f64::consts::SQRT_2;
                (diagonal(axis_m, axis_m), CovarianceRule::UbxAccuracy)
            }
            (None, None) => {
                let sigma_m = self.config.default_sigma_m;
                (diagonal(sigma_m, sigma_m), CovarianceRule::Default)
            }
        };
        let height_sigma_m = covariance
            .map(|covariance| covariance.height_m2.sqrt())
            .or(positive(Some(pvt.vertical_m)))
            .filter(|_| dimension == FixDimension::Three);
        let [north_mps, east_mps] = pvt.velocity_mps;
        let speed_mps = north_mps.hypot(east_mps);
        let course_deg = east_mps.atan2(north_mps).to_degrees().rem_euclid(360.0);
        let mut reception = Reception {
            satellites_used: Some(u32::from(pvt.satellites)),
            ..Reception::default()
        };
        self.warnings.add_to(&mut reception, now, &self.config);
        self.is_without_fix = false;
        Some(GnssFix {
            time_ns,
            position,
            covariance_m2: floored(covariance_m2, self.config.floor_sigma_m),
            height_sigma_m: height_sigma_m.unwrap_or(UNKNOWN_HEIGHT_SIGMA_M),
            covariance_rule,
            speed_mps: Some(speed_mps),
            track_deg: (speed_mps >= COURSE_FROM_MPS).then_some(course_deg),
            dimension,
            reception,
        })
    }
}

impl Warnings {
    fn add_to(&self, reception: &mut Reception, now: Duration, config: &UbxConfig) {
        let fresh = |at: Duration| now.saturating_sub(at) < WARNED_WITHIN;
        let status = self.status.filter(|(_, at)| fresh(*at));
        let signals = self.signals.filter(|(_, _, at)| fresh(*at));
        let said = [
            status.map(|(spoofing, _)| spoofing),
            signals.map(|(s, _, _)| s),
        ];
        reception.spoofing = if said.contains(&Some(Spoofing::Indicated)) {
            if config.use_spoofed {
                Spoofing::Accepted
            } else {
                Spoofing::Indicated
            }
        } else if said.contains(&Some(Spoofing::None)) {
            Spoofing::None
        } else {
            Spoofing::NotSaid
        };
        reception.jamming = signals.map_or(Jamming::NotSaid, |(_, jamming, _)| jamming);
    }
}

fn part_of<E>(message: Result<AnyPacketRef<'_>, E>) -> Option<Part> {
    let packet = match message {
        Ok(AnyPacketRef::Ubx(UbxPacket::Proto31(packet))) => packet,
        Ok(AnyPacketRef::Nmea(sentence)) => return Some(Part::Sentence(sentence.data.to_vec())),
        Ok(_) => return None,
        Err(_) => return Some(Part::Bad),
    };
    Some(match packet {
        PacketRef::NavPvt(pvt) => {
            use ublox::nav_pvt::common::{NavPvtFlags, NavPvtValidFlags};
            let good = pvt.flags().contains(NavPvtFlags::GPS_FIX_OK) && !pvt.flags3().invalid_llh();
            let dimension = match pvt.fix_type() {
                GnssFixType::Fix2D => Some(FixDimension::Two),
                GnssFixType::Fix3D | GnssFixType::GPSPlusDeadReckoning => Some(FixDimension::Three),
                // No fix, time only, and dead reckoning alone: no measurement of satellites.
                _ => None,
            };
            let known = NavPvtValidFlags::VALID_DATE
                | NavPvtValidFlags::VALID_TIME
                | NavPvtValidFlags::FULLY_RESOLVED;
            let date = NaiveDate::from_ymd_opt(
                i32::from(pvt.year()),
                u32::from(pvt.month()),
                u32::from(pvt.day()),
            );
            // A leap second is the second after: UTC nanoseconds have none.
            let time = date.and_then(|date| {
                date.and_hms_opt(
                    pvt.hour().into(),
                    pvt.min().into(),
                    pvt.sec().min(59).into(),
                )
            });
            let leap_ns = i64::from(pvt.sec().saturating_sub(59)) * 1_000_000_000;
            let time_ns = time
                .filter(|_| pvt.valid().contains(known))
                .and_then(|time| time.and_utc().timestamp_nanos_opt())
                .and_then(|ns| ns.checked_add(leap_ns + i64::from(pvt.nanosec())));
            Part::Pvt(Pvt {
                itow_ms: pvt.itow(),
                time_ns,
                place: [
                    pvt.latitude(),
                    pvt.longitude(),
                    pvt.height_above_ellipsoid(),
                ],
                horizontal_m: pvt.horizontal_accuracy(),
                vertical_m: pvt.vertical_accuracy(),
                velocity_mps: [pvt.vel_north(), pvt.vel_east()],
                satellites: pvt.num_satellites(),
                dimension: dimension.filter(|_| good),
            })
        }
        PacketRef::NavCov(covariance) => {
            let [nn, ne, ee, dd] = [
                covariance.pos_cov_nn(),
                covariance.pos_cov_ne(),
                covariance.pos_cov_ee(),
                covariance.pos_cov_dd(),
            ]
            .map(f64::from);
            let good = covariance.pos_cov_valid() == 1
                && [nn, ne, ee, dd].iter().all(|value| value.is_finite())
                && nn > 0.0
                && ee > 0.0
                && dd > 0.0
                && nn * ee > ne * ne;
            if !good {
                return None;
            }
            Part::Covariance(Covariance {
                itow_ms: covariance.itow(),
                horizontal_m2: [[ee, ne], [ne, nn]],
                height_m2: dd,
            })
        }
        PacketRef::NavStatus(status) => Part::Status {
            spoofing: spoofing_of((status.flags2_raw() >> 3) & 3),
        },
        PacketRef::SecSig(signals) => return signals_of(signals.as_bytes()),
        PacketRef::AckAck(_) => Part::Acknowledged(true),
        PacketRef::AckNak(_) => Part::Acknowledged(false),
        _ => return None,
    })
}

/// SEC-SIG in both of its versions: 1 has a byte of flags for each, 2 one for both.
fn signals_of(payload: &[u8]) -> Option<Part> {
    let (jamming, spoofing) = match (payload.first()?, payload) {
        (1, [_, _, _, _, jamming, _, _, _, spoofing, ..]) => {
            ((jamming >> 1) & 3, (spoofing >> 1) & 7)
        }
        (2, [_, flags, ..]) => ((flags >> 1) & 3, (flags >> 4) & 7),
        _ => return None,
    };
    Some(Part::Signals {
        spoofing: spoofing_of(spoofing),
        jamming: match jamming {
            1 => Jamming::None,
            2 => Jamming::Warning,
            3 => Jamming::Critical,
            _ => Jamming::NotSaid,
        },
    })
}

/// 0 is unknown, 1 none, 2 indicated, 3 multiple indications.
fn spoofing_of(state: u8) -> Spoofing {
    match state {
        1 => Spoofing::None,
        2 | 3 => Spoofing::Indicated,
        _ => Spoofing::NotSaid,
    }
}
