//! Errors at their places over the aerial overview, one map per model on one colour scale.

use super::curves::{quantile, sorted};
use super::html::{Page, figure, lead};
use super::input::ErrorMap;
use super::picture::error_colour;
use super::svg::{at, escape, number, role_class};
use super::viewport::Viewport;

/// More dots than this hide each other and swell the page; every n-th is drawn, and it is said.
const MOST_POINTS: usize = 4000;

/// Maps side by side, with buttons to look at one alone.
pub fn section(page: &mut Page, map: Option<&ErrorMap>) {
    let Some(map) = map else { return };
    let points = || map.models.iter().flat_map(|m| &m.points);
    let places = points().map(|p| [p.east_m, p.north_m]);
    let Some(view) = Viewport::over(places, map.map.as_ref()) else {
        return;
    };
    let errors = sorted(&points().map(|p| p.error_m).collect::<Vec<_>>());
    let limit = map.colour_limit_m.filter(|l| l.is_finite() && *l > 0.0);
    let limit = limit.or(quantile(&errors, 0.95)).unwrap_or(1.0).max(0.1);

    let mut maps = String::new();
    let mut buttons =
        "<button type=\"button\" data-show=\"all\" aria-pressed=\"true\">side by side</button>"
            .to_owned();
    let mut thinned = false;
    for (index, model) in map.models.iter().enumerate() {
        let stride = model.points.len().div_ceil(MOST_POINTS).max(1);
        thinned |= stride > 1;
        let mut svg = format!(
            "<svg class=\"map\" viewBox=\"{}\" role=\"img\" aria-label=\"Errors of {} on the aerial image\">{}<g class=\"errors\">",
            view.view_box(),
            escape(&model.name),
            view.background(page, map.map.as_ref())
        );
        // Large errors last, so that no small one hides them.
        let mut order: Vec<_> = model.points.iter().step_by(stride).collect();
        order.sort_by(|a, b| a.error_m.total_cmp(&b.error_m));
        for point in order {
            let (x, y) = view.place([point.east_m, point.north_m]);
            if !(x.is_finite() && y.is_finite()) {
                continue;
            }
            let level = if point.error_m.is_finite() {
                (point.error_m / limit).clamp(0.0, 1.0)
            } else {
                1.0
            };
            let [red, green, blue] = error_colour(level);
            svg += &format!(
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"#{red:02x}{green:02x}{blue:02x}\"><title>{} m</title></circle>",
                at(x),
                at(y),
                at(6.0 + 5.0 * level),
                number(point.error_m)
            );
        }
        svg += &format!("</g>{}</svg>", view.scale_bar());
        let all = sorted(&model.points.iter().map(|p| p.error_m).collect::<Vec<_>>());
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        maps += &format!(
            "<figure class=\"{}\" data-part=\"{index}\"><figcaption><i class=\"chip\"></i>{} <span>mean {} m over {} places</span></figcaption>{svg}</figure>",
            role_class(model.role),
            escape(&model.name),
            number(mean),
            model.points.len()
        );
        buttons += &format!(
            "<button type=\"button\" data-show=\"{index}\" aria-pressed=\"false\">{}</button>",
            escape(&model.name)
        );
    }
    let mut body = lead(&map.caption);
    if thinned {
        body += &lead("There are too many places to draw; every n-th is shown.");
    }
    if map.models.len() > 1 {
        body += &format!(
            "<div class=\"buttons\" data-toggle=\"error-maps\" role=\"group\" aria-label=\"Which map\" hidden>{buttons}</div>"
        );
    }
    body += &format!(
        "<div class=\"maps\" id=\"error-maps\">{maps}</div>{}",
        scale(limit)
    );
    page.section("map", "Errors on the map", figure("", &body));
}

fn scale(limit: f64) -> String {
    let steps = 24;
    let bars = (0..steps).map(|step| {
        let [red, green, blue] = error_colour((f64::from(step) + 0.5) / f64::from(steps));
        format!("<rect x=\"{}\" width=\"10.5\" height=\"12\" fill=\"#{red:02x}{green:02x}{blue:02x}\"/>", step * 10)
    });
    format!(
        "<div class=\"colours\"><span>0 m</span><svg viewBox=\"0 0 240 12\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{}</svg><span>{} m and more</span></div>",
        bars.collect::<String>(),
        number(limit)
    )
}
