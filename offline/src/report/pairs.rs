//! Pair cards: what the camera saw, where the models say it was, and where it really was.

use super::html::{Page, lead};
use super::input::{PairGroup, PairModel, PairPicture, Pairs};
use super::svg::{LegendEntry, at, escape, legend, number, role_class};

/// Side of an aerial patch in SVG units.
const SIDE: f64 = 256.0;

/// Cards in the order best gains, typical, worst regressions, others.
pub fn section(page: &mut Page, pairs: Option<&Pairs>) {
    let Some(pairs) = pairs else { return };
    let groups = [
        (
            PairGroup::BestGain,
            "Best gains",
            "where the student improved most on the teacher",
        ),
        (PairGroup::Typical, "Typical", "around the median change"),
        (
            PairGroup::WorstRegression,
            "Worst regressions",
            "where the student lost most",
        ),
        (PairGroup::Other, "Others", ""),
    ];
    let mut left_out = 0;
    let mut body = String::new();
    for (group, title, note) in groups {
        let mut cards = String::new();
        for pair in pairs.pairs.iter().filter(|pair| pair.group == group) {
            if page.afford(picture_bytes(pair)) {
                cards += &card(pair);
            } else {
                left_out += 1;
            }
        }
        if !cards.is_empty() {
            let note = if note.is_empty() {
                String::new()
            } else {
                format!(" <small>{note}</small>")
            };
            body += &format!("<h3>{title}{note}</h3><div class=\"cards\">{cards}</div>");
        }
    }
    if body.is_empty() {
        return;
    }
    let mut intro = lead(&pairs.selection);
    if left_out > 0 {
        intro += &lead(&format!(
            "{left_out} more pairs were left out to keep this page under 6 MB."
        ));
    }
    page.section(
        "pairs",
        "Ground and aerial pairs",
        intro + &marks(pairs) + &body,
    );
}

fn picture_bytes(pair: &PairPicture) -> usize {
    let aerial = pair
        .aerial
        .iter()
        .map(|p| p.page_bytes() * pair.models.len().max(1));
    let overlays = pair.models.iter().filter_map(|m| m.heatmap.as_ref());
    let own = pair
        .ground
        .iter()
        .chain(overlays)
        .map(super::Picture::page_bytes);
    own.chain(aerial).sum()
}

fn marks(pairs: &Pairs) -> String {
    let mut entries = Vec::new();
    let mut entry = |class: &str, name: &str, detail: &str| {
        entries.push(LegendEntry {
            class: class.to_owned(),
            name: name.to_owned(),
            detail: detail.to_owned(),
        });
    };
    if pairs.pairs.iter().any(|p| p.truth_offset_m.is_some()) {
        entry("m-truth", "cross", "where the camera was");
    }
    if pairs.pairs.iter().any(|p| p.coarse_offset_m.is_some()) {
        entry("m-coarse", "ring", "the coarse fix and its uncertainty");
    }
    let models = pairs.pairs.iter().flat_map(|p| &p.models);
    if models.clone().any(|m| m.mode_offset_m.is_some()) {
        entry("m-dot", "dot", "where the model says");
    }
    if models.clone().any(|m| m.heatmap.is_some()) {
        entry("m-heat", "glow", "the model's heatmap, bright is likely");
    }
    if entries.is_empty() {
        String::new()
    } else {
        legend(&entries)
    }
}

fn card(pair: &PairPicture) -> String {
    let error = |model: Option<&PairModel>| model.and_then(|m| m.error_m).filter(|e| e.is_finite());
    let first = error(pair.models.first());
    let last = error(pair.models.last());
    let change = match (first, last) {
        (Some(first), Some(last)) if pair.models.len() > 1 => {
            let class = if last <= first { "better" } else { "worse" };
            let sign = if last <= first { "−" } else { "+" };
            format!(
                "<b class=\"{class}\">{sign}{} m</b>",
                number((last - first).abs())
            )
        }
        _ => String::new(),
    };
    let mut html = format!(
        "<article class=\"card\"><h4><span>{}</span>{change}</h4>",
        escape(&pair.id)
    );
    if let Some(ground) = &pair.ground {
        html += &format!(
            "<img class=\"strip\" alt=\"Ground view of {}\" width=\"{}\" height=\"{}\" src=\"{}\">",
            escape(&pair.id),
            ground.width_px(),
            ground.height_px(),
            ground.data_uri()
        );
    }
    html += "<div class=\"patches\">";
    for model in &pair.models {
        let error = model
            .error_m
            .map_or_else(String::new, |e| format!("<b>{} m</b>", number(e)));
        html += &format!(
            "<figure class=\"{}\"><figcaption><i class=\"chip\"></i>{} {error}</figcaption>{}</figure>",
            role_class(model.role),
            escape(&model.name),
            patch(pair, Some(model))
        );
    }
    if pair.models.is_empty() {
        html += &format!("<figure>{}</figure>", patch(pair, None));
    }
    html + "</div></article>"
}

fn patch(pair: &PairPicture, model: Option<&PairModel>) -> String {
    let metres = if pair.aerial_side_m.is_finite() && pair.aerial_side_m > 0.0 {
        pair.aerial_side_m
    } else {
        64.0
    };
    let scale = SIDE / metres;
    let place = |offset: [f64; 2]| {
        let sound = offset.iter().all(|v| v.is_finite());
        sound.then(|| {
            (
                SIDE / 2.0 + offset[0] * scale,
                SIDE / 2.0 - offset[1] * scale,
            )
        })
    };
    let image = |picture: &super::Picture, class: &str| {
        format!(
            "<image class=\"{class}\" width=\"{SIDE}\" height=\"{SIDE}\" preserveAspectRatio=\"none\" href=\"{}\"/>",
            picture.data_uri()
        )
    };
    let mut svg = format!(
        "<svg class=\"patch\" viewBox=\"0 0 {SIDE} {SIDE}\" role=\"img\" aria-label=\"Aerial patch of {}\"><rect class=\"ground\" width=\"{SIDE}\" height=\"{SIDE}\"/>",
        escape(&pair.id)
    );
    if let Some(aerial) = &pair.aerial {
        svg += &image(aerial, "aerial");
    }
    if let Some(heatmap) = model.and_then(|m| m.heatmap.as_ref()) {
        svg += &image(heatmap, "heat");
    }
    let truth = pair.truth_offset_m.and_then(place);
    let mode = model.and_then(|m| m.mode_offset_m).and_then(place);
    if let Some((x, y)) = pair.coarse_offset_m.and_then(place) {
        let radius = pair
            .coarse_radius_m
            .filter(|r| r.is_finite() && *r > 0.0)
            .unwrap_or(1.5)
            * scale;
        svg += &format!(
            "<circle class=\"coarse\" cx=\"{}\" cy=\"{}\" r=\"{}\"/>",
            at(x),
            at(y),
            at(radius)
        );
    }
    if let (Some(a), Some(b)) = (truth, mode) {
        svg += &format!("<path class=\"miss\" d=\"{}\"/>", super::svg::path([a, b]));
    }
    if let Some((x, y)) = truth {
        let (x, y) = (at(x), at(y));
        let cross = format!("M{x} {y}m-8 0h16m-8 -8v16");
        svg += &format!(
            "<path class=\"cross halo\" d=\"{cross}\"/><path class=\"cross\" d=\"{cross}\"/>"
        );
    }
    if let Some((x, y)) = mode {
        svg += &format!(
            "<circle class=\"mode\" cx=\"{}\" cy=\"{}\" r=\"5\"/>",
            at(x),
            at(y)
        );
    }
    svg + "</svg>"
}
