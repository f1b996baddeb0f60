//! One receiver of a gpsd: its epoch on the way, and the fix that is made of it.

use std::time::Duration;

use crossfix_calibration::Geodetic;
use gpsd_proto::{Gst, Mode, Tpv};
use serde_json::Value;

use super::{EphConfidence, EpxConfidence, GpsdConfig};
use crate::event::{CovarianceRule, FixDimension, GnssFix, HEIGHTS_M, Reception};
use crate::peer::covariance::{self, GstSigmas, P95_INTERVAL_SIGMAS, P95_RADIUS_SIGMAS, positive};
use crate::peer::geoid::Geoid;

/// A receiver clock that steps back further than this was set anew; less is a repeated epoch.
const CLOCK_STEP_NS: i64 = 5_000_000_000;
/// 1-sigma of a height that was never measured, metres.
const UNKNOWN_HEIGHT_SIGMA_M: f64 = 1000.0;

#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) driver: Option<String>,
    pub(super) epoch: Option<Epoch>,
    pub(super) done: Option<Epoch>, // complete, because a newer one began
    pub(super) gst: Option<(i64, GstSigmas)>, // time and sigmas of the latest GST
    last_fix_ns: Option<i64>,
    last_height_m: Option<f64>,
    pub(super) reception: Reception,
    geoid: Geoid,
}

#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) time_ns: i64,
    tpv: Tpv,
    pub(super) arrived: Duration,
}

impl Device {
    pub(super) fn tpv(&mut self, time_ns: i64, tpv: Tpv, now: Duration) {
        if matches!(tpv.mode, Mode::NoFix) || tpv.lat.is_none() || tpv.lon.is_none() {
            return;
        }
        // A repeated epoch was answered already; a clock that jumped back far was set anew.
        if self
            .last_fix_ns
            .is_some_and(|last| time_ns <= last && last.saturating_sub(time_ns) < CLOCK_STEP_NS)
        {
            return;
        }
        let arrived = match self.epoch.take() {
            Some(epoch) if epoch.time_ns == time_ns => epoch.arrived,
            // A burst after a stall: nobody had the time to settle it.
            older => {
                self.done = older;
                now
            }
        };
        self.epoch = Some(Epoch {
            time_ns,
            tpv,
            arrived,
        });
    }

    pub(super) fn finish(&mut self, epoch: Epoch, config: &GpsdConfig) -> Option<GnssFix> {
        let Epoch { time_ns, tpv, .. } = epoch;
        let gst = self
            .gst
            .filter(|(gst_ns, _)| *gst_ns == time_ns)
            .map(|(_, gst)| gst);
        let dimension = if matches!(tpv.mode, Mode::Fix3d) {
            FixDimension::Three
        } else {
            FixDimension::Two
        };
        let height_m = self.height_above_ellipsoid_m(&tpv);
        self.reception.geoid_m = wide(tpv.geoid_sep).or(self.reception.geoid_m);
        self.last_height_m = height_m.or(self.last_height_m);
        let position = Geodetic::new(tpv.lat?, tpv.lon?, self.last_height_m.unwrap_or(0.0)).ok()?;
        let (covariance_m2, covariance_rule) =
            horizontal(&tpv, gst, self.driver.as_deref(), config);
        let height_sigma_m = match (height_m, dimension) {
            (Some(_), FixDimension::Three) => gst
                .and_then(|gst| positive(gst.altitude_m))
                .or(positive(wide(tpv.epv)).map(|epv_m| epv_m / P95_INTERVAL_SIGMAS))
                .unwrap_or(2.0 * config.default_sigma_m)
                .max(config.floor_sigma_m),
            _ => UNKNOWN_HEIGHT_SIGMA_M,
        };
        self.last_fix_ns = Some(time_ns);
        Some(GnssFix {
            time_ns,
            position,
            covariance_m2: covariance::floored(covariance_m2, config.floor_sigma_m),
            height_sigma_m,
            covariance_rule,
            speed_mps: wide(tpv.speed).filter(|speed| (0.0..1e3).contains(speed)),
            track_deg: wide(tpv.track).filter(|track| (0.0..=360.0).contains(track)),
            dimension,
            reception: self.reception,
        })
    }

    /// `altHAE`; else mean sea level plus the geoid's separation, gpsd's or EGM96's; else the old
    /// ambiguous `alt`.
    fn height_above_ellipsoid_m(&mut self, tpv: &Tpv) -> Option<f64> {
        let from_sea_level = wide(tpv.alt_msl).map(|above_sea_m| {
            let separation_m = wide(tpv.geoid_sep).unwrap_or_else(|| {
                let place = Geodetic::new(tpv.lat.unwrap_or(0.0), tpv.lon.unwrap_or(0.0), 0.0);
                place.map_or(0.0, |place| self.geoid.separation_m(place))
            });
            above_sea_m + separation_m
        });
        let height_m = wide(tpv.alt_hae).or(from_sea_level).or(wide(tpv.alt))?;
        HEIGHTS_M.contains(&height_m).then_some(height_m)
    }
}

/// What a SKY report says of the reception. Old releases give the satellites only.
pub(super) fn reception_of(sky: &Value) -> Reception {
    let count = |key| {
        let count = sky.get(key).and_then(Value::as_u64);
        count.and_then(|count| u32::try_from(count).ok())
    };
    let satellites = sky.get("satellites").and_then(Value::as_array);
    let listed = |used: bool| {
        let satellites = satellites.filter(|satellites| !satellites.is_empty())?;
        let is_used = |satellite: &&Value| satellite.get("used") == Some(&Value::Bool(true));
        let count = satellites
            .iter()
            .filter(|one| !used || is_used(one))
            .count();
        u32::try_from(count).ok()
    };
    Reception {
        satellites_used: count("uSat").or(listed(true)),
        satellites_visible: count("nSat").or(listed(false)),
        hdop: positive(sky.get("hdop").and_then(Value::as_f64)),
        ..Reception::default()
    }
}

/// The covariance by the best evidence there is, and which that was.
fn horizontal(
    tpv: &Tpv,
    gst: Option<GstSigmas>,
    driver: Option<&str>,
    config: &GpsdConfig,
) -> ([[f64; 2]; 2], CovarianceRule) {
    if let Some(covariance_m2) = gst.and_then(|gst| gst.covariance_m2()) {
        return (covariance_m2, CovarianceRule::Gst);
    }
    if let Some((epx_m, epy_m)) = positive(wide(tpv.epx)).zip(positive(wide(tpv.epy))) {
        let sigmas = match config.epx_confidence {
            EpxConfidence::P95 => P95_INTERVAL_SIGMAS,
            EpxConfidence::Sigma => 1.0,
        };
        return (
            covariance::diagonal(epx_m / sigmas, epy_m / sigmas),
            CovarianceRule::EpxEpy,
        );
    }
    if let Some(eph_m) = positive(wide(tpv.eph)) {
        let copies_u_blox = driver.is_some_and(|driver| driver.starts_with("u-blox"));
        let sigmas = match config.eph_confidence {
            EphConfidence::Rms => std::f64::consts::SQRT_2,
            EphConfidence::Auto if copies_u_blox => std::f64::consts::SQRT_2,
            EphConfidence::P95 | EphConfidence::Auto => P95_RADIUS_SIGMAS,
            EphConfidence::Sigma => 1.0,
        };
        return (
            covariance::diagonal(eph_m / sigmas, eph_m / sigmas),
            CovarianceRule::Eph,
        );
    }
    (
        covariance::diagonal(config.default_sigma_m, config.default_sigma_m),
        CovarianceRule::Default,
    )
}

/// The figures of a GST.
pub(super) fn sigmas(gst: &Gst) -> GstSigmas {
    GstSigmas {
        latitude_m: wide(gst.lat),
        longitude_m: wide(gst.lon),
        altitude_m: wide(gst.alt),
        major_m: wide(gst.major),
        minor_m: wide(gst.minor),
        orientation_deg: wide(gst.orient),
    }
}

/// gpsd writes three decimals; going through `f32` must not add more.
fn wide(value: Option<f32>) -> Option<f64> {
    value
        .filter(|value| value.is_finite())
        .map(|value| (f64::from(value) * 1e4).round() / 1e4)
}
