//! What the network compares, in a plane: ground views and their places on the aerial images, teacher beside
//! student, with numbers that mean something without the picture.

use super::html::{Page, figure, lead};
use super::input::Role;
use super::svg::{LegendEntry, at, escape, legend, number, percent, role_class};
use crate::evaluate::{ViewAgreement, Views};
use serde::{Deserialize, Serialize};

/// Side of a figure in SVG units.
const SIDE: f64 = 460.0;
const ROOM: f64 = 14.0;

/// Descriptors of pairs by several networks, the teacher first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Features {
    /// Of which pairs.
    pub caption: String,
    /// The networks.
    pub models: Vec<FeatureModel>,
}

/// One network's descriptors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeatureModel {
    /// The name to show.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// How well the views agree, measured on the descriptors themselves.
    pub agreement: ViewAgreement,
    /// Each pair's ground view and aerial place in the plane, which has no unit.
    pub plane: Vec<[[f64; 2]; 2]>,
}

impl FeatureModel {
    /// A network's descriptors as they were measured.
    pub fn of(name: &str, role: Role, views: Views) -> Self {
        Self {
            name: name.into(),
            role,
            agreement: views.agreement,
            plane: views.plane,
        }
    }
}

/// A table of numbers, and one figure for each network.
pub fn section(page: &mut Page, features: Option<&Features>) {
    let Some(features) = features else { return };
    let models: Vec<&FeatureModel> = features
        .models
        .iter()
        .filter(|model| !model.plane.is_empty())
        .collect();
    let Some(first) = models.first() else { return };
    let entry = |class: &str, name: &str, detail: &str| LegendEntry {
        class: class.into(),
        name: name.into(),
        detail: detail.into(),
    };
    let marks = legend(&[
        entry("f-ground", "ground view", "what the camera saw"),
        entry(
            "f-aerial",
            "aerial place",
            "the piece of aerial image where that camera was",
        ),
        entry(
            "f-joined",
            "line",
            "the two of one pair; short lines are good",
        ),
    ]);
    let figures: String = models.iter().map(|model| plane(model)).collect();
    let body = lead(&features.caption)
        + &numbers(&models, first.plane.len())
        + &marks
        + &format!("<div class=\"figures\">{figures}</div>")
        + &lead(
            "The plane is made by t-SNE: it keeps near points near, and its axes, sizes and distances between groups \
             mean nothing. Trust the table; the pictures only show what it counts.",
        );
    page.section("features", "Do the two views agree?", body);
}

fn numbers(models: &[&FeatureModel], pairs: usize) -> String {
    let chance = percent(1.0 / pairs.max(1) as f64);
    type Text = fn(&ViewAgreement) -> String;
    let rows: [(String, Text); 4] = [
        (
            format!(
                "ground views whose nearest aerial place, of {pairs}, is their own (higher is better; chance: {chance})"
            ),
            |found| percent(found.nearest_is_own),
        ),
        (
            "mean cosine of a ground view and its own place (higher is better, at most 1)".into(),
            |found| number(found.own_cosine),
        ),
        (
            "mean cosine of a ground view and other pairs' places (lower is better)".into(),
            |found| number(found.other_cosine),
        ),
        ("own less others (higher is better)".into(), |found| {
            number(found.own_cosine - found.other_cosine)
        }),
    ];
    let heading = |model: &&FeatureModel| {
        let (class, name) = (role_class(model.role), escape(&model.name));
        format!("<th scope=\"col\" class=\"number {class}\"><i class=\"chip\"></i>{name}</th>")
    };
    let headings: String = models.iter().map(heading).collect();
    let line = |(what, text): &(String, Text)| {
        let cell =
            |model: &&FeatureModel| format!("<td class=\"number\">{}</td>", text(&model.agreement));
        let cells: String = models.iter().map(cell).collect();
        format!("<tr><th scope=\"row\">{what}</th>{cells}</tr>")
    };
    let lines: String = rows.iter().map(line).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Descriptors of the first matching level</th>{headings}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
}

fn plane(model: &FeatureModel) -> String {
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for point in model.plane.iter().flatten() {
        for axis in (0..2).filter(|axis| point[*axis].is_finite()) {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let reach = (high[0] - low[0]).max(high[1] - low[1]).max(1e-9);
    let place = |[x, y]: [f64; 2]| {
        let scale = (SIDE - 2.0 * ROOM) / reach;
        let middle = [0, 1].map(|axis| f64::midpoint(low[axis], high[axis]));
        (
            SIDE / 2.0 + (x - middle[0]) * scale,
            SIDE / 2.0 - (y - middle[1]) * scale,
        )
    };
    let (mut lines, mut points) = (String::new(), String::new());
    for [ground, aerial] in &model.plane {
        let ((x0, y0), (x1, y1)) = (place(*ground), place(*aerial));
        if [x0, y0, x1, y1].iter().any(|value| !value.is_finite()) {
            continue;
        }
        lines += &format!("M{} {}L{} {}", at(x0), at(y0), at(x1), at(y1));
        points += &format!(
            "<rect class=\"f-aerial\" x=\"{}\" y=\"{}\" width=\"7\" height=\"7\"/><circle class=\"f-ground\" cx=\"{}\" cy=\"{}\" r=\"4\"/>",
            at(x1 - 3.5),
            at(y1 - 3.5),
            at(x0),
            at(y0)
        );
    }
    let svg = format!(
        "<svg class=\"plane\" viewBox=\"0 0 {SIDE} {SIDE}\" role=\"img\" aria-label=\"Descriptors of {} in a plane\"><path class=\"joined\" d=\"{lines}\"/>{points}</svg>",
        escape(&model.name)
    );
    let caption = format!(
        "{}: {} find their own place",
        model.name,
        percent(model.agreement.nearest_is_own)
    );
    figure(&caption, &svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, pairs: usize) -> FeatureModel {
        let place = |index: usize| [index as f64 - 3.0, 0.5 * index as f64];
        FeatureModel {
            name: name.into(),
            role: Role::Teacher,
            agreement: ViewAgreement {
                nearest_is_own: 0.25,
                own_cosine: 0.5,
                other_cosine: 0.125,
            },
            plane: (0..pairs)
                .map(|index| [place(index), place(index + 1)])
                .collect(),
        }
    }

    #[test]
    fn every_pair_has_two_points_and_a_line_and_the_table_says_chance() {
        let features = Features {
            caption: "Of pairs.".into(),
            models: vec![model("teacher", 40), model("stu<dent", 40)],
        };
        let mut page = Page::new("x");
        section(&mut page, Some(&features));
        let html = page.finish();
        assert_eq!(html.matches("<circle class=\"f-ground\"").count(), 80);
        assert_eq!(html.matches("<rect class=\"f-aerial\"").count(), 80);
        let lines = html.split("<path class=\"joined\" d=\"").skip(1);
        for line in lines {
            let path = line.split('"').next().unwrap();
            assert_eq!(
                (path.matches('M').count(), path.matches('L').count()),
                (40, 40)
            );
        }
        assert!(html.contains("chance: 2.5 %") && html.contains("25.0 % find their own place"));
        assert!(html.contains("stu&lt;dent") && !html.contains("stu<dent"));
    }

    #[test]
    fn points_that_are_no_numbers_are_left_out() {
        let mut broken = model("teacher", 3);
        broken.plane[1][0] = [f64::NAN, f64::INFINITY];
        let svg = plane(&broken);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_show_leaves_no_trace() {
        let mut page = Page::new("x");
        section(&mut page, Some(&Features::default()));
        section(&mut page, None);
        assert!(!page.finish().contains("features"));
    }
}
