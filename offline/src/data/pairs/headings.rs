//! Headings that nobody measured, or only roughly, found along drives before a picture is aligned with them.

use super::PairRow;
use crate::metrics::quantile;
use crossfix_calibration::track::{
    INDEPENDENT_ROUGHNESS, TrackModel, Waypoint, waypoint_roughness, yaws_by_course,
};
use crossfix_calibration::{Geodetic, LocalFrame, Yaw};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Headings with a larger sigma are looked for, degrees.
const WIDE_DEG: f64 = 15.0;
/// What is found to worse than this is not taken, degrees.
const MOST_SIGMA_DEG: f64 = 12.0;

/// What was found where headings were not known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoundHeadings {
    /// Rows without a heading, or with one whose sigma is above 15°.
    pub wide: usize,
    /// Those whose drive told it.
    pub found: usize,
    /// Drives with such rows.
    pub drives: usize,
    /// Drives that told it of at least half of them.
    pub drives_found: usize,
    /// 95 % of the headings found have at most this sigma, degrees; 0 where none was found.
    pub sigma_p95_deg: f64,
}

impl FoundHeadings {
    /// In a line.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "headings of {} frames were not known: odometry and coarse positions of {} of {} drives told {}",
            self.wide, self.drives_found, self.drives, self.found
        );
        if self.found > 0 {
            text += &format!(" (95 % of them to {:.1}° or better)", self.sigma_p95_deg);
        }
        text
    }
}

/// Replaces the headings of `rows` that are not known by what their drives tell, with its sigma. Rows of a drive are
/// in the order of time. `None` where all headings are known.
pub fn find(rows: &mut [PairRow]) -> Option<FoundHeadings> {
    let mut drives: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        drives.entry(&row.drive).or_default().push(index);
    }
    let is_wide = |index: &usize| rows[*index].heading_sigma_deg > WIDE_DEG;
    let wide: Vec<Vec<usize>> = drives
        .into_values()
        .filter(|drive| drive.iter().any(is_wide))
        .collect();
    if wide.is_empty() {
        return None;
    }
    let points: Vec<Vec<Waypoint>> = wide
        .par_iter()
        .map(|drive| waypoints(drive.iter().map(|index| &rows[*index])))
        .collect();
    let mut model = TrackModel::default();
    let rough = waypoint_roughness(points.iter().map(Vec::as_slice));
    if rough.is_some_and(|rough| rough > INDEPENDENT_ROUGHNESS) {
        // Positions that err anew for each frame.
        model.gnss_memory_s = 1e-6;
    }
    let yaws: Vec<_> = points
        .par_iter()
        .map(|points| yaws_by_course(points, &model))
        .collect();
    let mut told = FoundHeadings {
        wide: 0,
        found: 0,
        drives: wide.len(),
        drives_found: 0,
        sigma_p95_deg: 0.0,
    };
    let mut sigmas = Vec::new();
    for (drive, yaws) in wide.iter().zip(yaws) {
        let (mut mine, mut found) = (0, 0);
        for (index, yaw) in drive.iter().zip(yaws) {
            let row = &mut rows[*index];
            if row.heading_sigma_deg <= WIDE_DEG {
                continue;
            }
            mine += 1;
            let Some(yaw) = yaw else { continue };
            let sigma_deg = yaw.sigma_rad.to_degrees();
            if sigma_deg > MOST_SIGMA_DEG {
                continue;
            }
            found += 1;
            sigmas.push(sigma_deg);
            row.heading_deg = Yaw::new(yaw.yaw_rad).heading().degrees();
            row.heading_sigma_deg = sigma_deg;
        }
        told.wide += mine;
        told.found += found;
        told.drives_found += usize::from(2 * found >= mine);
    }
    sigmas.sort_by(f64::total_cmp);
    told.sigma_p95_deg = quantile(&sigmas, 0.95);
    Some(told)
}

fn waypoints<'a>(rows: impl Iterator<Item = &'a PairRow>) -> Vec<Waypoint> {
    let mut frame = None;
    let mut begin_ns = 0;
    let point = |row: &PairRow| {
        let coarse = Geodetic {
            latitude_deg: row.latitude_deg,
            longitude_deg: row.longitude_deg,
            height_m: 0.0,
        };
        let frame = frame.get_or_insert_with(|| {
            begin_ns = row.time_ns;
            LocalFrame::new(coarse)
        });
        let [[ee, _], [_, nn]] = row.covariance_m2;
        Waypoint {
            time_s: (row.time_ns - begin_ns) as f64 * 1e-9,
            coarse_m: frame.enu_from_geodetic(coarse).horizontal(),
            coarse_sigma_m: f64::midpoint(ee, nn).sqrt(),
            odometry: row
                .odometry
                .map(|step| [step.forward_m, step.left_m, step.yaw_rad]),
        }
    };
    rows.map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::OdometryStep;
    use crossfix_calibration::{Enu, Heading};

    /// A drive round a block, 5 m from row to row, its positions off by a lasting bias, its heading unknown.
    fn rows(drive: &str, count: usize) -> (Vec<PairRow>, Vec<f64>) {
        let origin = LocalFrame::new(Geodetic::new(52.0, 4.0, 0.0).unwrap());
        let (mut place, mut yaw) = ([0.0f64; 2], 0.7f64);
        let (mut rows, mut headings) = (Vec::new(), Vec::new());
        for index in 0..count {
            let turn = if index % 20 >= 16 { 0.3 } else { 0.0 };
            let bend = (index as f64 * 0.4).sin();
            let [east, north] = [place[0] + 4.0 + 0.5 * bend, place[1] - 3.0 - 0.4 * bend];
            let coarse = origin.geodetic_from_enu(Enu::new(east, north, 0.0));
            rows.push(PairRow {
                id: format!("{drive}-{index}"),
                drive: drive.into(),
                time_ns: 1_700_000_000_000_000_000 + index as i64 * 500_000_000,
                image: "images/a.jpg".into(),
                latitude_deg: coarse.latitude_deg,
                longitude_deg: coarse.longitude_deg,
                covariance_m2: [[25.0, 0.0], [0.0, 25.0]],
                heading_deg: 0.0,
                heading_sigma_deg: 180.0,
                odometry: (index > 0).then_some(OdometryStep {
                    forward_m: 5.0,
                    left_m: 0.0,
                    yaw_rad: if (index - 1) % 20 >= 16 { 0.3 } else { 0.0 },
                }),
            });
            headings.push(Yaw::new(yaw).heading().degrees());
            place = [place[0] + 5.0 * yaw.cos(), place[1] + 5.0 * yaw.sin()];
            yaw += turn;
        }
        (rows, headings)
    }

    fn off_deg(a: f64, b: f64) -> f64 {
        let off = Heading::from_degrees(a - b).degrees();
        off.min(360.0 - off)
    }

    #[test]
    fn a_drives_headings_are_found_and_known_ones_stay() {
        let (mut all, headings) = rows("a", 60);
        let (known, _) = rows("b", 40);
        all.extend(known.into_iter().map(|row| PairRow {
            heading_deg: 77.0,
            heading_sigma_deg: 2.0,
            ..row
        }));
        let told = find(&mut all).unwrap();
        assert_eq!(
            [told.wide, told.found, told.drives, told.drives_found],
            [60, 60, 1, 1]
        );
        for (row, heading) in all.iter().zip(&headings) {
            let off = off_deg(row.heading_deg, *heading);
            assert!(
                off < 2.5 * row.heading_sigma_deg && off < 6.0,
                "{row:?}: {heading}"
            );
        }
        assert!(told.sigma_p95_deg < 10.0, "{told:?}");
        assert!(all[60..].iter().all(|row| row.heading_deg == 77.0));
        assert!(find(&mut all).is_none());
        assert!(told.describe().contains("1 of 1 drives told 60"));
    }

    #[test]
    fn rows_that_stand_alone_stay_unknown() {
        let (mut alone, _) = rows("a", 30);
        for (index, row) in alone.iter_mut().enumerate() {
            row.drive = index.to_string();
            row.odometry = None;
        }
        let before = alone.clone();
        let told = find(&mut alone).unwrap();
        assert_eq!([told.found, told.drives_found], [0, 0]);
        assert_eq!(alone, before);
    }
}
