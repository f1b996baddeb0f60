//! What a vehicle's instruments and the aerial tiles have wrong, from recorded drives without true
//! positions: the drives' places come from the recipe `consensus`, the numbers from
//! [`crossfix_calibration::recover`].

use crate::data::Dataset;
use crate::data::pose::wrap_rad;
use crate::model::CrossViewModel;
use crate::predict::PredictError;
use crate::recipe::consensus::{Chain, Settled};
use crate::recipe::{Consensus, Evidence, HeatmapFit, heatmap_fit};
use crate::run::Interrupt;
use crossfix_calibration::recover::{Estimate, GnssModel, Moment, gnss_model, latency, mean};
use crossfix_calibration::track::drift;
use serde::{Deserialize, Serialize};

/// Places with less support than this tell nothing.
const LEAST_SUPPORT: f64 = 0.8;

/// What was found; `None` where the drives don't tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// SHA-256 of the weights' file, where the network came from one: what is said of heatmaps is said of this network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<String>,
    /// What it rests on.
    pub evidence: Evidence,
    /// The camera's yaw on the vehicle beyond the mount that is described, degrees counter-clockwise.
    /// Only networks that find the heading tell; trained near the given heading they find less than all
    /// of what is wrong with it, so its sigma holds the headings' whole offset.
    pub mount_yaw_deg: Option<Estimate>,
    /// The heading sensor's offset from the course, degrees counter-clockwise: headings are too far
    /// clockwise by this.
    pub heading_offset_deg: Option<Estimate>,
    /// How coarse positions err.
    pub gnss: Option<GnssModel>,
    /// What their stated sigma has to be multiplied with.
    pub gnss_inflation: f64,
    /// How far from its coarse positions the tiles show the ground, metres east and north: tiles that are moved by
    /// minus this agree with them.
    pub tile_offset_m: [Estimate; 2],
    /// Seconds by which coarse positions are older than their pictures.
    pub latency_s: Option<Estimate>,
    /// Odometry's distances are too short by this share.
    pub odometry_scale: Option<Estimate>,
    /// What the network's heatmaps are worth here: their softmax temperature, and the share of them that means
    /// nothing.
    pub heatmaps: Option<HeatmapFit>,
}

/// Calibrates by all drives of `pairs`.
///
/// # Errors
/// [`PredictError`] when a pair cannot be read or does not fit the network, or on request.
pub fn calibrate(
    network: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    consensus: &Consensus,
    interrupt: &Interrupt,
) -> Result<Calibration, PredictError> {
    let settled = consensus.settle(network, pairs, interrupt)?;
    let evidence = settled.evidence();
    let drives: Vec<&Chain> = settled
        .chains
        .iter()
        .filter(|chain| chain.frames.len() > 10)
        .collect();
    let per_drive = |value: &dyn Fn(&Chain) -> Option<f64>| {
        let values = drives.iter().filter_map(|chain| {
            let support = chain.places.iter().map(|place| place.support).sum::<f64>();
            Some((value(chain)?, support))
        });
        mean(&values.collect::<Vec<_>>())
    };
    // Without the prior that labels are made with: what drives say, not what is likely.
    let drift_of = |chain: &Chain| {
        let joined = chain.frames.iter().skip(1).all(|f| f.odometry.is_some());
        joined.then(|| drift(&chain.frames, &chain.places, 1.0, 2.0))
    };
    let degrees = |estimate: Option<Estimate>| {
        estimate.map(|Estimate { value, sigma }| Estimate {
            value: value.to_degrees(),
            sigma: sigma.to_degrees(),
        })
    };
    let errors: Vec<Vec<(f64, [f64; 2])>> =
        drives.iter().map(|chain| coarse_errors(chain)).collect();
    let moments: Vec<Vec<Moment>> = drives.iter().map(|chain| moments(chain)).collect();
    // It is how far coarse positions lie from where the tiles show them.
    let [east, north] = settled.tiles.mean_m.map(|metres| -metres);
    let offset = |value| Estimate {
        value,
        sigma: settled.tiles.sigma_m,
    };
    let heading_offset_deg = degrees(per_drive(&|chain| Some(drift_of(chain)?.yaw_rad)));
    let mount = degrees(per_drive(&|chain| mount_yaw(chain, &settled, pairs)));
    let mount_yaw_deg = mount.map(|mount| Estimate {
        sigma: mount
            .sigma
            .hypot(heading_offset_deg.map_or(0.0, |heading| heading.value)),
        ..mount
    });
    Ok(Calibration {
        weights_sha256: None,
        mount_yaw_deg,
        heading_offset_deg,
        gnss: gnss_model(&errors),
        gnss_inflation: evidence.coarse_error_in_sigmas,
        tile_offset_m: [offset(east), offset(north)],
        latency_s: latency(&moments),
        odometry_scale: per_drive(&|chain| Some(drift_of(chain)?.scale)),
        heatmaps: heatmap_fit::by_settled(&settled, network, pairs, interrupt)?,
        evidence,
    })
}

/// Coarse position minus place where that is supported: seconds, metres east and north.
fn coarse_errors(chain: &Chain) -> Vec<(f64, [f64; 2])> {
    let frames = chain.frames.iter().zip(&chain.places);
    let known = frames.filter(|(frame, place)| {
        let [[ee, _], [_, nn]] = frame.coarse_covariance_m2;
        place.support >= LEAST_SUPPORT && ee.max(nn) < 1e5
    });
    let error = known.map(|(frame, place)| {
        let off = [0, 1].map(|axis| frame.coarse_m[axis] - place.mode_m[axis]);
        (frame.time_s, off)
    });
    error.collect()
}

fn moments(chain: &Chain) -> Vec<Moment> {
    let all = chain.frames.iter().zip(&chain.places).enumerate();
    let inner = all.skip(1).take(chain.frames.len().saturating_sub(2));
    let moment = inner.filter_map(|(index, (frame, place))| {
        let (before, after) = (&chain.frames[index - 1], &chain.frames[index + 1]);
        let [a, b] = [frame.odometry?, after.odometry?].map(|step| step[0].hypot(step[1]));
        let seconds = after.time_s - before.time_s;
        let (sin, cos) = place.yaw_rad.sin_cos();
        let off = [0, 1].map(|axis| frame.coarse_m[axis] - place.mode_m[axis]);
        let supported = place.support >= LEAST_SUPPORT && seconds > 0.0;
        supported.then_some(Moment {
            time_s: frame.time_s,
            ahead_m: off[0] * cos + off[1] * sin,
            speed_mps: (a + b) / seconds,
        })
    });
    moment.collect()
}

/// Median of what the network finds beyond the measured heading, less what the heading sensor has
/// wrong.
fn mount_yaw(chain: &Chain, settled: &Settled, pairs: &dyn Dataset) -> Option<f64> {
    let off = chain
        .samples
        .iter()
        .zip(&chain.places)
        .filter_map(|(index, place)| {
            let (sample, prediction) = (pairs.sample(*index), &settled.predictions[*index]);
            let near = (prediction.peak_m[0]).is_finite() && place.support >= LEAST_SUPPORT;
            let found = prediction.residual_rad.filter(|_| near)?;
            let heading = wrap_rad(place.yaw_rad - sample.yaw_rad);
            Some(wrap_rad(found - sample.heading_residual_rad - heading))
        });
    let mut off: Vec<f64> = off.collect();
    off.sort_by(f64::total_cmp);
    (off.len() >= 10).then(|| crate::metrics::quantile(&off, 0.5))
}

impl Calibration {
    /// What people read.
    pub fn table(&self) -> String {
        let line = |name: &str, estimate: Option<Estimate>, unit: &str| match estimate {
            Some(Estimate { value, sigma }) => {
                format!("{name:<28} {value:>9.3} ± {sigma:.3} {unit}\n")
            }
            None => format!("{name:<28}   the drives don't tell\n"),
        };
        let mut text = self.evidence.describe() + "\n";
        text += &line("camera yaw beyond its mount", self.mount_yaw_deg, "°");
        text += &line("headings too far clockwise", self.heading_offset_deg, "°");
        let gnss = |part: fn(&GnssModel) -> Estimate| self.gnss.as_ref().map(part);
        text += &line("GNSS bias, sigma", gnss(|model| model.bias_sigma_m), "m");
        text += &line("GNSS bias, memory", gnss(|model| model.memory_s), "s");
        text += &line("GNSS noise, sigma", gnss(|model| model.noise_sigma_m), "m");
        text += &format!(
            "{:<28} {:>9.3} times what is stated\n",
            "GNSS error", self.gnss_inflation
        );
        text += &line("tiles off, east", Some(self.tile_offset_m[0]), "m");
        text += &line("tiles off, north", Some(self.tile_offset_m[1]), "m");
        text += &line("positions older than pictures", self.latency_s, "s");
        text += &line("odometry too short, share", self.odometry_scale, "");
        let Some(found) = &self.heatmaps else {
            return text + &line("softmax temperature", None, "");
        };
        text += &format!("{:<28} {:>9.3}\n", "softmax temperature", found.temperature);
        text += &format!(
            "{:<28} {:>9.3} (with the temperature by {} frames)\n",
            "share of outliers", found.outlier_share, found.frames
        );
        let regions = found.coverage.iter().map(|region| {
            format!(
                "{:.0} % hold {:.1}",
                100.0 * region.nominal,
                100.0 * region.observed
            )
        });
        text + &format!(
            "{:<28} {}\n",
            "regions at both",
            regions.collect::<Vec<_>>().join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::frames::{CameraKind, Headings};
    use crate::city::style::Gap;
    use crate::city::{AreaConfig, AreaName, Part, build_area};
    use crate::data::pairs::PairRow;
    use crate::data::{Pairs, PairsImages, Preparation};
    use crate::model::weights;
    use crate::simulate::{Contents, PairsPlan, write_pairs};
    use std::path::Path;

    /// Drives of the source area, which the shipped network knows, their rows changed.
    fn calibrated(change: impl Fn(&mut PairRow)) -> Calibration {
        let folder = tempfile::tempdir().unwrap();
        let area = build_area(AreaConfig {
            area: AreaName::Source,
            seed: 31,
            gap: Gap::NONE,
        });
        let plan = PairsPlan {
            headings: Headings::Measured,
            part: Part::Validation,
            districts: 1,
            contents: Contents::Drives {
                drives: 5,
                length_m: 250.0,
                spacing_m: 6.0,
                logs: 0,
            },
            camera: CameraKind::Panorama,
        };
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&area, &plan, folder.path(), &hidden).unwrap();
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let (mut network, _) = weights::load(&assets.join("teacher-compact.safetensors")).unwrap();
        let mut pairs = Pairs::open(folder.path()).unwrap();
        pairs.rows.iter_mut().for_each(change);
        let images = PairsImages::open(pairs, network.describe(), Preparation::default()).unwrap();
        let (consensus, interrupt) = (Consensus::default(), Interrupt::default());
        calibrate(network.as_mut(), &images, &consensus, &interrupt).unwrap()
    }

    #[test]
    fn planted_errors_of_odometry_and_headings_come_back_within_their_uncertainty() {
        let right = calibrated(|_| {});
        let planted = calibrated(|row| {
            row.heading_deg += 3.0;
            if let Some(step) = &mut row.odometry {
                step.forward_m /= 1.04;
                step.left_m /= 1.04;
            }
        });
        // The simulated instruments have errors of their own; what was planted is the difference.
        let apart = |planted: Option<Estimate>, right: Option<Estimate>, truth: f64| {
            let (planted, right) = (planted.unwrap(), right.unwrap());
            let off = planted.value - right.value - truth;
            assert!(
                off.abs() < 3.0 * planted.sigma.max(right.sigma) && planted.sigma < 2.0,
                "{planted:?} {right:?}, planted {truth}"
            );
            assert!(off.abs() < 0.3 * truth, "{planted:?} {right:?}");
        };
        apart(planted.odometry_scale, right.odometry_scale, 0.04);
        apart(planted.heading_offset_deg, right.heading_offset_deg, 3.0);
        // Coarse positions that lie east of the truth are tiles that show the ground west of them.
        let moved = calibrated(|row| {
            let metres_per_degree = 111_320.0 * row.latitude_deg.to_radians().cos();
            row.longitude_deg += 6.0 / metres_per_degree;
        });
        // Five drives say little, so the offset is drawn towards nothing.
        let found = moved.tile_offset_m[0];
        let change = found.value - right.tile_offset_m[0].value;
        assert!(
            (change + 6.0).abs() < 3.0 * found.sigma && change < -1.5,
            "{change} {found:?}"
        );
        // A heading that is off is no camera that is off.
        let mount = planted.mount_yaw_deg.unwrap();
        assert!(mount.value.abs() < 2.0 * mount.sigma, "{mount:?}");
        let mount = right.mount_yaw_deg.unwrap();
        assert!(
            mount.value.abs() < 3.0 * mount.sigma && mount.sigma < 1.5,
            "{mount:?}"
        );
        assert!(right.latency_s.unwrap().value.abs() < 0.3, "{right:?}");
        assert!(
            right.heatmaps.as_ref().unwrap().outlier_share < 0.2,
            "{right:?}"
        );
        assert!(right.table().contains("odometry too short"));
    }
}
