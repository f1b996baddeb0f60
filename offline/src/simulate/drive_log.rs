//! One simulated drive as an MCAP log, with its truth in a file of its own.

use super::{PairsPlan, SimulateError, calibration};
use crate::city::PlacedDistrict;
use crate::city::drive::{Instruments, ODOMETRY_HZ};
use crate::city::frames::{CameraKind, HEADING_SIGMA_DEG, Headings, PlannedDrive, heading_deg};
use crate::data::pairs::write::{in_file, jpeg, line};
use crossfix_calibration::{Geodetic, Yaw};
use crossfix_onboard::event::{
    CameraFrame, CovarianceRule, FixDimension, GnssFix, OdometrySample, Reception, YawMeasurement,
};
use crossfix_onboard::log::LogWriter;
use rayon::prelude::*;
use serde::Serialize;
use std::io::BufWriter;
use std::path::Path;

/// A camera picture every this many odometry samples: 2 Hz.
const LOG_FRAME_EVERY: usize = ODOMETRY_HZ / 2;

/// A line of `NAME.truth.jsonl`, beside a log and never in it.
#[derive(Serialize)]
struct LogTruth {
    time_ns: i64,
    latitude_deg: f64,
    longitude_deg: f64,
    height_m: f64,
    heading_deg: f64,
}

/// Writes a drive as an MCAP log, and its truth beside it.
///
/// # Errors
/// [`SimulateError`] when the disk refuses.
pub fn write_drive_log(
    placed: &PlacedDistrict,
    planned: &PlannedDrive,
    plan: &PairsPlan,
    path: &Path,
) -> Result<(), SimulateError> {
    let camera = plan.camera;
    let drive = &planned.drive;
    let pictures = (0..drive.truth.len())
        .into_par_iter()
        .step_by(LOG_FRAME_EVERY)
        .map(|sample| jpeg(&planned.picture(placed, sample, camera), &planned.name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut log = LogWriter::create(path)?;
    log.write_calibration(
        planned.start_ns,
        &calibration(camera, placed.detail.panorama),
    )?;
    let instruments = Instruments::default();
    let mut fixes = planned.fixes.iter().peekable();
    for (sample, odometry) in drive.odometry.iter().enumerate() {
        let time_ns = planned.time_ns(sample);
        if let Some(fix) = fixes.next_if(|fix| fix.sample == sample) {
            let variance = fix.sigma_m * fix.sigma_m;
            log.write_gnss(&GnssFix {
                time_ns,
                position: placed.geodetic(fix.position),
                covariance_m2: [[variance, 0.0], [0.0, variance]],
                height_sigma_m: 2.0 * fix.sigma_m,
                covariance_rule: CovarianceRule::Recorded,
                speed_mps: Some(fix.speed_mps),
                track_deg: fix.course_rad.map(heading_deg),
                dimension: FixDimension::Three,
                reception: Reception::default(),
            })?;
        }
        log.write_odometry(&OdometrySample {
            time_ns,
            forward_speed_mps: Some(odometry.forward_speed_mps),
            yaw_rate_rps: Some(odometry.yaw_rate_rps),
            yaw: (plan.headings == Headings::Measured).then(|| YawMeasurement {
                yaw: Yaw::new(odometry.yaw_rad),
                sigma_rad: HEADING_SIGMA_DEG.to_radians(),
            }),
            speed_sigma_mps: instruments.speed_sigma_mps
                + instruments.scale_sigma * odometry.forward_speed_mps.abs(),
            yaw_rate_sigma_rps: instruments
                .yaw_rate_sigma_rps
                .hypot(instruments.gyro_bias_sigma_rps),
        })?;
        if sample % LOG_FRAME_EVERY == 0 {
            let image = pictures[sample / LOG_FRAME_EVERY].as_slice().into();
            log.write_frame(&CameraFrame {
                time_ns,
                image,
                camera: camera_name(camera).into(),
            })?;
        }
    }
    log.finish()?;
    let truth_path = path.with_extension("truth.jsonl");
    let mut file =
        BufWriter::new(std::fs::File::create(&truth_path).map_err(in_file(&truth_path))?);
    for (sample, truth) in drive.truth.iter().enumerate() {
        let Geodetic {
            latitude_deg,
            longitude_deg,
            height_m,
        } = placed.geodetic([truth.x, truth.y]);
        let row = LogTruth {
            time_ns: planned.time_ns(sample),
            latitude_deg,
            longitude_deg,
            height_m,
            heading_deg: heading_deg(truth.yaw_rad),
        };
        line(&mut file, &truth_path, &row)?;
    }
    file.into_inner()
        .map_err(|error| in_file(&truth_path)(error.into_error()))?;
    Ok(())
}

fn camera_name(camera: CameraKind) -> &'static str {
    match camera {
        CameraKind::Panorama => "panorama",
        CameraKind::Front => "front",
    }
}
