//! The whole page: with everything, with nothing, and with what someone hostile would put in it.

use super::sample::everything;
use super::*;

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
        "story",
        "summary",
        "study",
        "label-map",
        "features",
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
    // The overview appears in five figures and is stored once.
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
