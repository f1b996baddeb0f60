//! Labels on the map: what the area gave (coarse positions, the teacher's modes) beside what was learned.

use super::html::{Page, lead};
use super::input::MapPicture;
use super::picture::good_colour;
use super::svg::{LegendEntry, at, escape, legend, number, path, percent};
use super::viewport::Viewport;
use serde::{Deserialize, Serialize};

/// Frames of a drive that are drawn; of more, every n-th.
const MOST_FRAMES: usize = 600;

/// The labels of one or more drives.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelMap {
    /// Which drives, of how many.
    pub caption: String,
    /// What a label that was not learned is: dropped, or kept back to judge the student.
    pub not_learned: String,
    /// Whether labels have support from their drive; otherwise they are the teacher's modes.
    pub supported: bool,
    /// The aerial overview.
    pub map: Option<MapPicture>,
    /// The drives.
    pub drives: Vec<LabelDrive>,
}

/// One drive's frames, in the order of time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelDrive {
    /// Its name.
    pub name: String,
    /// The frames.
    pub frames: Vec<LabelFrame>,
}

/// One frame: metres east and north of the map's origin.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelFrame {
    /// The coarse position.
    pub coarse_m: [f64; 2],
    /// Where the teacher's heatmap is largest.
    pub teacher_m: [f64; 2],
    /// The label.
    pub label_m: [f64; 2],
    /// Where the camera was, in evaluations.
    pub truth_m: Option<[f64; 2]>,
    /// Probability that the label is right, 0 to 1.
    pub support: f64,
    /// Whether the student learned it.
    pub learned: bool,
}

type Place = fn(&LabelFrame) -> [f64; 2];

/// Two maps side by side.
pub fn section(page: &mut Page, map: Option<&LabelMap>) {
    let Some(map) = map else { return };
    let frames = || map.drives.iter().flat_map(|drive| &drive.frames);
    let all = frames().flat_map(|frame| {
        let places = [frame.coarse_m, frame.teacher_m, frame.label_m];
        places.into_iter().chain(frame.truth_m)
    });
    let Some(view) = Viewport::over(all, map.map.as_ref()) else {
        return;
    };
    let with_truth = frames().any(|frame| frame.truth_m.is_some());
    let (coarse, teacher, label): (Place, Place, Place) = (
        |frame| frame.coarse_m,
        |frame| frame.teacher_m,
        |frame| frame.label_m,
    );
    let detail = |place: Place| {
        if !with_truth {
            return String::new();
        }
        let errors = frames().filter_map(|frame| Some(distance(place(frame), frame.truth_m?)));
        let errors: Vec<f64> = errors.collect();
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        format!("{} m from the truth on average", number(mean))
    };
    let entry = |class: &str, name: &str, detail: String| LegendEntry {
        class: class.into(),
        name: name.into(),
        detail,
    };
    let mut given = vec![
        entry("l-coarse", "coarse position", detail(coarse)),
        entry("l-teacher", "teacher's mode", detail(teacher)),
    ];
    let name = if map.supported {
        "label, by support"
    } else {
        "label"
    };
    let mut learned = vec![entry("l-label", name, detail(label))];
    if frames().any(|frame| !frame.learned) {
        learned.push(entry("l-dropped", "not learned", map.not_learned.clone()));
    }
    if with_truth {
        let truth = || {
            entry(
                "l-truth",
                "true track",
                "only to judge; the student never saw it".into(),
            )
        };
        given.push(truth());
        learned.push(truth());
    }
    let moved = frames().filter(|frame| distance(frame.teacher_m, frame.label_m) > 3.0);
    let share = percent(moved.count() as f64 / frames().count().max(1) as f64);
    let mut body = lead(&map.caption);
    if map.supported {
        body += &lead(&format!(
            "The label is more than 3 m from the teacher's own mode at {share} of these frames: there the drive \
             contradicts the teacher."
        ));
    }
    let mut figure = |caption: &str, legend_entries: &[LegendEntry], drawn: String| {
        let background = view.background(page, map.map.as_ref());
        format!(
            "<figure class=\"over\"><figcaption>{}</figcaption>{}<svg class=\"map labels\" viewBox=\"{}\" role=\"img\" aria-label=\"{}\">{background}{drawn}{}</svg></figure>",
            escape(caption),
            legend(legend_entries),
            view.view_box(),
            escape(caption),
            view.scale_bar()
        )
    };
    let before = figure(
        "What the area gave",
        &given,
        truth_lines(map, &view) + &evidence(map, &view),
    );
    let after = figure(
        "What the student learned from",
        &learned,
        truth_lines(map, &view) + &labels(map, &view),
    );
    body += &format!("<div class=\"maps\">{before}{after}</div>");
    if map.supported {
        body += &support_scale();
    }
    page.section("label-map", "Labels on the map", body);
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Frames that are drawn.
fn drawn(drive: &LabelDrive) -> impl Iterator<Item = &LabelFrame> + Clone {
    let stride = drive.frames.len().div_ceil(MOST_FRAMES).max(1);
    drive.frames.iter().step_by(stride)
}

fn truth_lines(map: &LabelMap, view: &Viewport) -> String {
    let line = |drive: &LabelDrive| {
        let places = drawn(drive).filter_map(|frame| frame.truth_m);
        let line = path(places.map(|place| view.place(place)));
        format!("<path class=\"casing\" d=\"{line}\"/><path class=\"truth\" d=\"{line}\"/>")
    };
    let has_truth = |drive: &&LabelDrive| drive.frames.iter().any(|frame| frame.truth_m.is_some());
    map.drives.iter().filter(has_truth).map(line).collect()
}

/// Coarse positions as a dashed line with rings, the teacher's modes as squares.
fn evidence(map: &LabelMap, view: &Viewport) -> String {
    let mut svg = String::new();
    for drive in &map.drives {
        let line = path(drawn(drive).map(|frame| view.place(frame.coarse_m)));
        svg += &format!("<path class=\"coarse\" d=\"{line}\"/>");
        for frame in drawn(drive) {
            let (x, y) = view.place(frame.teacher_m);
            if x.is_finite() && y.is_finite() {
                svg += &format!(
                    "<rect class=\"teacher\" x=\"{}\" y=\"{}\" width=\"9\" height=\"9\"/>",
                    at(x - 4.5),
                    at(y - 4.5)
                );
            }
        }
    }
    svg
}

/// Labels as dots coloured by support; hollow where they are not learned.
fn labels(map: &LabelMap, view: &Viewport) -> String {
    let mut svg = String::new();
    for frame in map.drives.iter().flat_map(drawn) {
        let (x, y) = view.place(frame.label_m);
        if !(x.is_finite() && y.is_finite()) {
            continue;
        }
        let [red, green, blue] = good_colour(if map.supported { frame.support } else { 1.0 });
        let class = if frame.learned {
            "label"
        } else {
            "label unlearned"
        };
        svg += &format!(
            "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"6\" style=\"--s:#{red:02x}{green:02x}{blue:02x}\"><title>support {}{}</title></circle>",
            at(x),
            at(y),
            number(frame.support),
            if frame.learned { "" } else { ", not learned" }
        );
    }
    svg
}

fn support_scale() -> String {
    let bars = (0..24).map(|step| {
        let [red, green, blue] = good_colour((f64::from(step) + 0.5) / 24.0);
        format!("<rect x=\"{}\" width=\"10.5\" height=\"12\" fill=\"#{red:02x}{green:02x}{blue:02x}\"/>", step * 10)
    });
    format!(
        "<div class=\"colours\"><span>support 0 (a guess)</span><svg viewBox=\"0 0 240 12\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{}</svg><span>1 (the drive is sure)</span></div>",
        bars.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(truth: bool) -> LabelMap {
        let frame = |index: usize| LabelFrame {
            coarse_m: [5.0 * index as f64, 8.0],
            teacher_m: [5.0 * index as f64, if index == 3 { 20.0 } else { 0.5 }],
            label_m: [5.0 * index as f64, 0.25],
            truth_m: truth.then_some([5.0 * index as f64, 0.0]),
            support: 0.9,
            learned: index < 8,
        };
        LabelMap {
            caption: "One drive.".into(),
            not_learned: "kept back".into(),
            supported: true,
            map: None,
            drives: vec![LabelDrive {
                name: "a".into(),
                frames: (0..10).map(frame).collect(),
            }],
        }
    }

    fn html(map: &LabelMap) -> String {
        let mut page = Page::new("x");
        section(&mut page, Some(map));
        page.finish()
    }

    #[test]
    fn every_frame_is_drawn_and_measured() {
        let html = html(&map(true));
        assert_eq!(html.matches("<rect class=\"teacher\"").count(), 10);
        assert_eq!(html.matches("<circle class=\"label\"").count(), 8);
        assert_eq!(html.matches("<circle class=\"label unlearned\"").count(), 2);
        assert_eq!(html.matches("<path class=\"truth\"").count(), 2);
        // (9 · 0.5 + 20) / 10, 8 and 0.25.
        for error in ["2.45 m from", "8.00 m from", "0.25 m from"] {
            assert!(html.contains(error), "{error}");
        }
        assert!(html.contains("at 10.0 % of these frames"));
    }

    #[test]
    fn without_truth_nothing_of_it_is_said() {
        let html = html(&map(false));
        assert!(!html.contains("class=\"truth\"") && !html.contains("from the truth"));
        assert!(html.contains("not learned") && html.contains("kept back"));
    }

    #[test]
    fn no_frames_leave_no_trace_and_many_are_thinned() {
        let mut none = map(true);
        none.drives[0].frames.clear();
        assert!(!html(&none).contains("label-map"));
        let mut many = map(true);
        let frame = many.drives[0].frames[0];
        many.drives[0].frames = vec![frame; 5000];
        assert!(html(&many).matches("<circle class=\"label\"").count() <= MOST_FRAMES);
    }
}
