//! The whole page: with everything, with nothing, and with what someone hostile would put in it.

use crossfix_calibration::{Heatmap, RgbImage};

use super::*;

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

fn everything() -> ReportInput {
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

/// Every element closed in order, the way a browser would not need to guess. Void elements and
/// self-closing ones aside, and the style and script left out.
fn assert_well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(start) = rest.find('<') {
        let tag = &rest[start + 1..start + rest[start..].find('>').unwrap()];
        rest = &rest[start + tag.len() + 2..];
        let name = tag
            .trim_start_matches('/')
            .split([' ', '\n'])
            .next()
            .unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(
                open.pop(),
                Some(closed),
                "near {}",
                &rest[..rest.len().min(80)]
            );
        } else if !tag.ends_with('/') && !["meta", "img", "input"].contains(&name) {
            open.push(name);
        }
        if name == "style" || name == "script" {
            let end = format!("</{name}>");
            if !tag.starts_with('/') {
                rest = &rest[rest.find(&end).unwrap()..];
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn assert_self_contained(html: &str) {
    assert!(html.len() < 6_000_000, "{} bytes", html.len());
    // Base64 may spell anything, so the pictures are left out of the search.
    let mut pieces = html.split(";base64,");
    let mut text = pieces.next().unwrap().to_owned();
    for piece in pieces {
        text += &piece[piece.find('"').unwrap()..];
    }
    for outside in [
        "http:", "https:", "@import", "src=\"/", "href=\"/", "NaN", "inf\"", " inf", ">inf",
    ] {
        assert!(!text.contains(outside), "found {outside}");
    }
}

#[test]
fn a_full_report_is_one_file_with_every_section() {
    let html = render(&everything());
    assert_well_formed(&html);
    assert_self_contained(&html);
    for anchor in [
        "summary",
        "pairs",
        "errors",
        "map",
        "drive",
        "coverage",
        "labels",
        "training",
        "tables",
        "meaning",
        "reproduce",
    ] {
        assert!(
            html.contains(&format!("<section id=\"{anchor}\">")),
            "{anchor}"
        );
    }
    // The overview appears in three figures and is stored once.
    assert_eq!(html.matches("<image id=\"map-").count(), 1);
    if let Ok(path) = std::env::var("CROSSFIX_REPORT_SAMPLE") {
        write(Path::new(&path), &everything()).unwrap();
    }
}

#[test]
fn an_empty_report_has_a_title_and_no_sections() {
    let html = render(&ReportInput::default());
    assert_well_formed(&html);
    assert_self_contained(&html);
    assert!(html.contains("<h1>Crossfix report</h1>"));
    assert!(!html.contains("<section") && !html.contains("<nav") && !html.contains("<svg"));
}

#[test]
fn empty_parts_vanish() {
    let input = ReportInput {
        summary: vec![SummaryTable::default()],
        pairs: Some(Pairs::default()),
        error_curves: vec![ErrorCurves {
            models: vec![ModelErrors::default()],
            ..ErrorCurves::default()
        }],
        error_map: Some(ErrorMap::default()),
        drive: Some(Drive {
            tracks: vec![Track::default()],
            ..Drive::default()
        }),
        coverage: Some(Coverage {
            series: vec![CoverageSeries::default()],
            ..Coverage::default()
        }),
        label_quality: Some(LabelQuality::default()),
        training: vec![TrainingCurve::default()],
        tables: vec![Table::default()],
        ..ReportInput::default()
    };
    let html = render(&input);
    assert_well_formed(&html);
    for anchor in [
        "summary", "pairs", "errors", "map", "drive", "coverage", "labels", "training", "tables",
    ] {
        assert!(
            !html.contains(&format!("<section id=\"{anchor}\">")),
            "{anchor}"
        );
    }
}

#[test]
fn hostile_text_stays_text() {
    let evil = "</script><img src=x onerror=alert(1)>\"'\u{202e}";
    let mut input = everything();
    input.title = evil.into();
    input.verdict = evil.into();
    input.headlines[0].value = evil.into();
    input.notes.push(evil.into());
    input.reproduce.push(evil.into());
    input.provenance[0].value = evil.into();
    input.tables[0].rows[0][0] = evil.into();
    input.summary[0].rows[0].area = evil.into();
    input.summary[0].models[0].0 = evil.into();
    input.error_curves[0].caption = evil.into();
    input.error_curves[0].models[0].name = evil.into();
    input.training[0].name = evil.into();
    input.error_map.as_mut().unwrap().models[0].name = evil.into();
    input.coverage.as_mut().unwrap().series[0].name = evil.into();
    let drive = input.drive.as_mut().unwrap();
    drive.caption = evil.into();
    drive.tracks[0].name = evil.into();
    let pair = &mut input.pairs.as_mut().unwrap().pairs[0];
    pair.id = evil.into();
    pair.models[0].name = evil.into();
    let html = render(&input);
    assert_well_formed(&html);
    assert!(!html.contains("<img src=x"));
    assert_eq!(html.matches("</script>").count(), 2);
}

#[test]
fn numbers_that_are_none_do_not_reach_the_page() {
    for bad in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e300,
        -1e300,
        f64::MIN_POSITIVE,
    ] {
        let mut input = everything();
        input.summary[0].rows[0].values[0] = Some(bad);
        input.error_curves[0].maximum_m = Some(bad);
        input.error_curves[0].models[0].errors_m.fill(bad);
        input
            .label_quality
            .as_mut()
            .unwrap()
            .kept_errors_m
            .fill(bad);
        input.training[0].loss.fill(bad);
        input.training[1].loss[0] = bad;
        input.coverage.as_mut().unwrap().series[0].points[3].empirical = bad;
        let map = input.error_map.as_mut().unwrap();
        map.colour_limit_m = Some(bad);
        map.models[0].points[0] = ErrorPoint {
            east_m: bad,
            north_m: bad,
            error_m: bad,
        };
        map.map.as_mut().unwrap().metres_per_pixel = bad;
        let drive = input.drive.as_mut().unwrap();
        drive.map.as_mut().unwrap().top_left_m = [bad, bad];
        drive.tracks[3].samples[5].east_m = bad;
        drive.tracks[3].samples[9].time_s = bad;
        drive.tracks[3].samples[7].covariance_m2 = Some([[bad, 0.0], [0.0, 1.0]]);
        let pair = &mut input.pairs.as_mut().unwrap().pairs[0];
        pair.aerial_side_m = bad;
        pair.truth_offset_m = Some([bad, 0.0]);
        pair.coarse_radius_m = Some(bad);
        pair.models[0].error_m = Some(bad);
        let html = render(&input);
        assert_well_formed(&html);
        assert_self_contained(&html);
    }
}

#[test]
fn a_flood_of_pictures_is_cut_and_said() {
    let mut input = everything();
    let pairs = &mut input.pairs.as_mut().unwrap().pairs;
    let first = pairs[0].clone();
    pairs.extend(std::iter::repeat_n(first, 400));
    let html = render(&input);
    assert_self_contained(&html);
    assert!(html.contains("more pairs were left out"));
}

#[test]
fn the_input_survives_json_with_and_without_pictures() {
    let input = everything();
    let text = serde_json::to_string(&input).unwrap();
    let back: ReportInput = serde_json::from_str(&text).unwrap();
    assert_eq!(render(&back).len(), render(&input).len());
    let bare = input.without_pictures();
    let small = serde_json::to_string(&bare).unwrap();
    assert!(small.len() < text.len() / 2);
    assert!(!render(&bare).contains("base64"));
}

#[test]
fn writing_into_a_missing_folder_names_it() {
    let error = write(
        Path::new("/no/such/folder/report.html"),
        &ReportInput::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"));
}
