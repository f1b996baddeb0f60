//! A page with everything, made up: what the tests render, and what the look of a page is judged by.

use super::*;
use crossfix_calibration::{Heatmap, RgbImage};

/// A small smooth noise in 0..1, the same everywhere and every time.
fn noise(seed: u64) -> f64 {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d;
    bits ^= bits >> 29;
    bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 32;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Something Gaussian enough, mean 0 and sigma 1.
fn bell(seed: u64) -> f64 {
    let total: f64 = (0..12).map(|part| noise(seed * 12 + part)).sum();
    total - 6.0
}

/// Streets and roofs: enough to judge the look of a page by.
fn town(width: usize, height: usize, metres_per_pixel: f64, seed: u64) -> RgbImage {
    let mut data = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        for column in 0..width {
            let (east, north) = (
                column as f64 * metres_per_pixel,
                row as f64 * metres_per_pixel,
            );
            let street = (east + 20.0) % 80.0 < 9.0 || (north + 30.0) % 65.0 < 9.0;
            let block = (east / 16.0) as u64 * 31 + (north / 13.0) as u64 * 17 + seed;
            let grain = 14.0 * noise((row * 7919 + column) as u64 + seed);
            let base = match (street, noise(block)) {
                (true, _) => [92.0, 94.0, 98.0],
                (false, kind) if kind < 0.35 => [86.0, 118.0, 74.0],
                (false, kind) if kind < 0.65 => [146.0, 96.0, 82.0],
                _ => [152.0, 146.0, 136.0],
            };
            data.extend(base.map(|level| (level + grain) as u8));
        }
    }
    RgbImage {
        width,
        height,
        data,
    }
}

fn heatmap(seed: u64, sigma_m: f64) -> Heatmap {
    let (east, north) = (6.0 * bell(seed), 6.0 * bell(seed + 1));
    let mut cells: Vec<f32> = (0..64 * 64)
        .map(|index| {
            let (e, n) = (
                (index % 64) as f64 - 31.5 - east,
                31.5 - (index / 64) as f64 - north,
            );
            let second = (e - 14.0).hypot(n + 9.0);
            let main = (-(e * e + n * n) / (2.0 * sigma_m * sigma_m)).exp();
            (main + 0.3 * (-second * second / 18.0).exp()) as f32
        })
        .collect();
    let sum: f32 = cells.iter().sum();
    for cell in &mut cells {
        *cell /= sum;
    }
    Heatmap::new(64, 1.0, cells).unwrap()
}

fn errors(seed: u64, scale_m: f64) -> Vec<f64> {
    let one = |i| scale_m * bell(seed + i).hypot(bell(seed + 7000 + i));
    (0..400).map(one).collect()
}

fn pair(index: u64, group: PairGroup) -> PairPicture {
    let ground = town(256, 48, 0.7, index);
    let aerial = town(128, 128, 0.5, index);
    let model = |name: &str, role, seed: u64, sigma_m| PairModel {
        name: name.into(),
        role,
        heatmap: Some(Picture::heatmap_overlay(&heatmap(seed, sigma_m)).unwrap()),
        mode_offset_m: Some([6.0 * bell(seed), 6.0 * bell(seed + 1)]),
        error_m: Some(3.0 * noise(seed)),
    };
    PairPicture {
        id: format!("drive-2/{index:05}"),
        group,
        ground: Some(Picture::jpeg(&ground, 512).unwrap()),
        aerial: Some(Picture::jpeg(&aerial, 512).unwrap()),
        aerial_side_m: 64.0,
        truth_offset_m: Some([5.0 * bell(index), 5.0 * bell(index + 3)]),
        coarse_offset_m: Some([0.2, -0.1]),
        coarse_radius_m: Some(12.0),
        models: vec![
            model("teacher", Role::Teacher, index * 5, 6.0),
            model("student", Role::Student, index * 5 + 1, 2.5),
        ],
    }
}

fn drive(map: MapPicture) -> Drive {
    let place = |t: f64| {
        let along = 6.0 * t;
        let corner = |x: f64| x.clamp(0.0, 180.0);
        [
            40.0 + corner(along),
            40.0 + corner(along - 180.0) + 1.5 * (t / 9.0).sin(),
        ]
    };
    let covariance = |sigma: f64| {
        Some([
            [sigma * sigma, 0.3 * sigma],
            [0.3 * sigma, 0.6 * sigma * sigma],
        ])
    };
    let samples = |rate: f64, sigma: f64, gap: bool, published: bool| -> Vec<TrackSample> {
        let count = (60.0 * rate) as u64;
        let time = |i: u64| i as f64 / rate;
        (0..count)
            .filter(|i| !(gap && (22.0..34.0).contains(&time(*i))))
            .map(|i| {
                let t = time(i);
                let away = (22.0..34.0).contains(&t);
                let wide = if away {
                    sigma * (1.0 + 0.2 * (t - 22.0))
                } else {
                    sigma
                };
                let drift = |s: f64| wide * (0.8 * (t / 4.0 + s).sin() + 0.15 * bell(i + s as u64));
                let [e, n] = place(t);
                TrackSample {
                    time_s: t,
                    east_m: e + drift(1.0),
                    north_m: n + drift(5.0),
                    covariance_m2: covariance(wide.max(0.1)).filter(|_| published),
                    state: published.then_some(match t {
                        t if t > 30.0 && away => TrackState::Coasting,
                        _ if away => TrackState::Degraded,
                        _ => TrackState::Ok,
                    }),
                }
            })
            .collect()
    };
    let track = |name: &str, role, samples| Track {
        name: name.into(),
        role,
        samples,
    };
    Drive {
        caption: "Simulated drive 1, target area, 60 s.".into(),
        map: Some(map),
        tracks: vec![
            track("truth", Role::Truth, samples(10.0, 0.0, false, false)),
            track("GNSS", Role::Gnss, samples(1.0, 4.0, true, false)),
            track(
                "camera only",
                Role::VisualOnly,
                samples(2.0, 1.6, true, false),
            ),
            track("fused", Role::Fused, samples(10.0, 0.9, false, true)),
        ],
    }
}

fn labels(map: MapPicture) -> LabelMap {
    let frame = |index: u64| {
        let along = 20.0 + 3.0 * index as f64;
        let near = |seed: u64, sigma: f64| {
            [
                along + sigma * bell(seed + index),
                60.0 + sigma * bell(seed + 900 + index),
            ]
        };
        label_map::LabelFrame {
            coarse_m: near(1, 6.0),
            teacher_m: near(2, 3.0),
            label_m: near(3, 0.6),
            truth_m: Some([along, 60.0]),
            support: noise(index),
            learned: !index.is_multiple_of(6),
        }
    };
    LabelMap {
        caption: "One drive of nine.".into(),
        not_learned: "dropped by the filter".into(),
        supported: true,
        map: Some(map),
        drives: vec![label_map::LabelDrive {
            name: "drive-1".into(),
            frames: (0..80).map(frame).collect(),
        }],
    }
}

fn planes() -> Features {
    let model = |name: &str, role, apart: f64| {
        let pair = |index: u64| {
            let place = [9.0 * bell(index), 9.0 * bell(index + 500)];
            [
                place,
                [
                    place[0] + apart * bell(index + 70),
                    place[1] + apart * bell(index + 90),
                ],
            ]
        };
        FeatureModel {
            name: name.into(),
            role,
            agreement: crate::evaluate::ViewAgreement {
                nearest_is_own: 0.4,
                own_cosine: 0.7,
                other_cosine: 0.1,
            },
            plane: (0..60).map(pair).collect(),
        }
    };
    Features {
        caption: "60 pairs.".into(),
        models: vec![
            model("teacher", Role::Teacher, 4.0),
            model("student", Role::Student, 0.7),
        ],
    }
}

fn study_of(models: &[(&str, Role, f64)]) -> StudyTable {
    let row = |(name, _, mean): &(&str, Role, f64)| StudyRow {
        name: (*name).into(),
        what: "as named".into(),
        areas: 5,
        mean_m: [*mean, 0.2],
        difference_m: (*name != "teacher").then(|| [mean - models[0].2, 0.1]),
        change: mean / models[0].2 - 1.0,
        ..StudyRow::default()
    };
    StudyTable {
        caption: "Four rows.".into(),
        rows: models.iter().map(row).collect(),
        published: Vec::new(),
    }
}

pub fn everything() -> ReportInput {
    let overview = town(1200, 900, 0.25, 3);
    let map = MapPicture {
        picture: Picture::jpeg(&overview, 1600).unwrap(),
        top_left_m: [0.0, 225.0],
        metres_per_pixel: 0.25,
    };
    let models = [
        ("teacher", Role::Teacher, 2.6),
        ("auxiliary", Role::Auxiliary, 1.9),
        ("student", Role::Student, 1.4),
        ("upper bound", Role::UpperBound, 0.9),
    ];
    let row = |area: &str, metric: &str, unit: &str, masked, values: [Option<f64>; 4]| SummaryRow {
        area: area.into(),
        metric: metric.into(),
        unit: unit.into(),
        masked,
        values: values.to_vec(),
        ..SummaryRow::default()
    };
    let groups = [
        PairGroup::BestGain,
        PairGroup::Typical,
        PairGroup::WorstRegression,
    ];
    let point = |i: u64, scale: f64| ErrorPoint {
        east_m: 20.0 + 260.0 * noise(i + 1),
        north_m: 20.0 + 185.0 * noise(i + 900),
        error_m: scale * bell(i).hypot(bell(i + 50)),
    };
    let model_errors = |factor: f64| {
        models
            .iter()
            .enumerate()
            .map(move |(i, (name, role, scale))| ModelErrors {
                name: (*name).into(),
                role: *role,
                errors_m: errors(i as u64 * 999, scale * factor),
            })
    };
    let squared: Vec<f64> = (0..600)
        .map(|i| 1.2 * (bell(i).powi(2) + bell(i + 70_000).powi(2)))
        .collect();
    let visual: Vec<f64> = squared.iter().map(|d| d * 1.7).collect();
    ReportInput {
        title: "Adapting to the target area".into(),
        verdict: "The student's mean position error in the target area is 1.75 m, 46 % below the teacher's 3.26 m, without a single true position from there. On the drive, the fused position is wrong by 0.8 m on average where GNSS alone is wrong by 3.4 m, and the truth lies inside the published 95 % region 94 % of the time.".into(),
        headlines: vec![
            Headline { label: "student, target, mean".into(), value: "1.75 m".into(), note: "teacher 3.26 m, −46 %".into(), good: Some(true) },
            Headline { label: "labels kept".into(), value: "80 %".into(), note: "error 1.5 m kept, 4.9 m dropped".into(), good: None },
            Headline { label: "fused drive, mean".into(), value: "0.80 m".into(), note: "GNSS alone 3.4 m".into(), good: Some(true) },
            Headline { label: "95 % coverage".into(), value: "94.1 %".into(), note: "asked for 90 % to 99 %".into(), good: Some(true) },
            Headline { label: "one frame in the daemon".into(), value: "31 ms".into(), note: "budget 20 ms".into(), good: Some(false) },
        ],
        summary: vec![SummaryTable {
            caption: "Test areas: 400 pairs each, never trained on. Changes are against the teacher.".into(),
            models: models.iter().map(|(name, role, _)| ((*name).to_owned(), *role)).collect(),
            rows: vec![
                row("source test", "mean position error", "m", Some(true), [Some(1.21), None, Some(1.30), None]),
                row("target test", "mean position error", "m", Some(true), [Some(3.26), Some(2.35), Some(1.75), Some(1.12)]),
                row("target test", "median position error", "m", Some(true), [Some(2.9), Some(2.1), Some(1.5), Some(0.98)]),
                row("target test", "mean position error", "m", Some(false), [Some(4.4), Some(3.0), Some(2.2), Some(f64::NAN)]),
                row("target test", "mean yaw error", "°", None, [Some(3.1), Some(3.3), Some(3.0), Some(2.0)]),
            ],
        }],
        pairs: Some(Pairs {
            selection: "Nine of 400 target test pairs: three with the largest gain over the teacher, three around the median change, three with the largest loss. No other pairs were looked at.".into(),
            pairs: (0..9).map(|i| pair(i, groups[i as usize / 3])).collect(),
        }),
        error_curves: vec![
            ErrorCurves { caption: "Target test, masked".into(), models: model_errors(1.0).collect(), maximum_m: None },
            ErrorCurves { caption: "Source test, masked".into(), models: model_errors(0.6).take(3).collect(), maximum_m: None },
        ],
        error_map: Some(ErrorMap {
            caption: "Target test area, every test pair at its true position.".into(),
            map: Some(map.clone()),
            models: models.iter().step_by(2).map(|(name, role, scale)| ErrorMapModel {
                name: (*name).into(),
                role: *role,
                points: (0..260).map(|i| point(i, *scale)).collect(),
            }).collect(),
            colour_limit_m: None,
        }),
        story: vec![StoryStep::new("A teacher from elsewhere.", "It is 3.26 m wrong here.".into())],
        study: Some(study_of(&models)),
        label_map: Some(labels(map.clone())),
        features: Some(planes()),
        drive: Some(drive(map)),
        coverage: Some(Coverage {
            caption: "Positions of one drive".into(),
            series: vec![
                coverage_series("fused", Role::Fused, &squared),
                coverage_series("camera only", Role::VisualOnly, &visual),
            ],
        }),
        label_quality: Some(LabelQuality {
            caption: "Pseudo ground truth in the target area, split by the outlier filter".into(),
            kept_errors_m: errors(5, 1.2),
            dropped_errors_m: errors(6, 3.9).into_iter().take(100).collect(),
            kept_back_errors_m: errors(7, 1.3).into_iter().take(60).collect(),
        }),
        training: vec![
            TrainingCurve { name: "teacher".into(), role: Role::Teacher, loss: (1..20).map(|e| 6.0 / f64::from(e) + 2.0).collect(), loss_steps: Vec::new(), validation_error_m: (1..20).map(|e| 5.0 / f64::from(e) + 1.1).collect() },
            TrainingCurve { name: "student".into(), role: Role::Student, loss: (1..9).map(|e| 3.0 / f64::from(e) + 2.4).collect(), loss_steps: Vec::new(), validation_error_m: (1..9).map(|e| 1.5 / f64::from(e) + 1.6).collect() },
        ],
        tables: vec![Table {
            title: "Export".into(),
            note: "Largest relative difference to the training engine over 20 pairs.".into(),
            columns: vec!["engine".into(), "difference".into(), "time per frame".into()],
            rows: vec![vec!["tract".into(), "3.1e−6".into(), "31 ms".into()]],
        }],
        notes: vec!["One frame takes 31 ms, not 20.".into()],
        reproduce: vec!["cargo run --release --bin crossfix -- demo --seed 7".into()],
        provenance: vec![
            ProvenanceRow { name: "seed".into(), value: "7".into() },
            ProvenanceRow { name: "teacher sha256".into(), value: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into() },
        ],
    }
}
