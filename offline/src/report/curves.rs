//! Curves: cumulative errors, training, label quality, coverage.

use super::html::{Page, figure};
use super::input::{Coverage, ErrorCurves, LabelQuality, ModelErrors, TrainingCurve};
use super::svg::{LegendEntry, Plot, legend, number, percent, role_class};

/// Finite values in rising order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    finite
}

/// Quantile of sorted values, the nearest one.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((share * last as f64).round() as usize).copied()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Share of samples within a distance, one figure per area.
pub fn error_curves(page: &mut Page, areas: &[ErrorCurves]) {
    let mut body = String::new();
    for area in areas {
        let has_errors = |model: &&ModelErrors| !model.errors_m.is_empty();
        if area.models.iter().any(|model| has_errors(&model)) {
            let clip = page.unique_id("clip");
            body += &error_curve(area, &clip);
        }
    }
    if !body.is_empty() {
        body = format!("<div class=\"figures\">{body}</div>");
    }
    page.section("errors", "Error distribution", body);
}

fn error_curve(area: &ErrorCurves, clip: &str) -> String {
    let models: Vec<_> = area
        .models
        .iter()
        .filter(|m| !m.errors_m.is_empty())
        .collect();
    // Nine tenths of the worst model: what lies beyond is said in the legend, and does not take
    // the width from where models differ.
    let p90 = models
        .iter()
        .filter_map(|m| quantile(&sorted(&m.errors_m), 0.9))
        .fold(0.0, f64::max);
    let automatic = p90.ceil().clamp(2.0, 20.0);
    let maximum = area
        .maximum_m
        .filter(|m| m.is_finite() && *m > 0.0)
        .unwrap_or(automatic);
    let mut plot = Plot::new(
        (0.0, maximum),
        (0.0, 1.0),
        ("position error, m", "share of samples within"),
    )
    .percent_y();
    let mut entries = Vec::new();
    for model in models {
        let class = role_class(model.role);
        let errors = sorted(&model.errors_m);
        let count = model.errors_m.len() as f64;
        let steps = 240;
        plot.line(
            class,
            (0..=steps).map(|step| {
                let distance = maximum * f64::from(step) / f64::from(steps);
                (
                    distance,
                    errors.partition_point(|e| *e <= distance) as f64 / count,
                )
            }),
        );
        let median = quantile(&errors, 0.5).unwrap_or(f64::NAN);
        plot.drop(class, median, 0.5);
        plot.dot(
            class,
            median,
            0.5,
            &format!("{}: median {} m", model.name, number(median)),
        );
        let beyond = 1.0 - errors.partition_point(|e| *e <= maximum) as f64 / count;
        let mut detail = format!(
            "median {} m, mean {} m, n = {count}",
            number(median),
            number(mean(&errors))
        );
        if beyond > 0.0 {
            detail += &format!(", {} beyond {} m", percent(beyond), number(maximum));
        }
        if errors.len() < model.errors_m.len() {
            detail += &format!(", {} without a number", model.errors_m.len() - errors.len());
        }
        entries.push(LegendEntry {
            class: class.to_owned(),
            name: model.name.clone(),
            detail,
        });
    }
    let svg = plot.finish(
        clip,
        &format!("Cumulative position error. {}", area.caption),
    );
    figure(&area.caption, &(legend(&entries) + &svg))
}

/// Loss against steps, and validation error.
pub fn training(page: &mut Page, curves: &[TrainingCurve]) {
    type Values = fn(&TrainingCurve) -> &[f64];
    let kinds: [(&str, [&str; 2], Values); 2] = [
        ("Training loss", ["step", "loss"], |curve| &curve.loss),
        (
            "Validation error",
            ["measurement", "mean position error, m"],
            |curve| &curve.validation_error_m,
        ),
    ];
    let mut body = String::new();
    for (caption, [along, label], values) in kinds {
        let shown: Vec<_> = curves
            .iter()
            .filter(|curve| !values(curve).is_empty())
            .collect();
        let all: Vec<f64> = shown
            .iter()
            .flat_map(|curve| values(curve))
            .copied()
            .collect();
        let all = sorted(&all);
        let (Some(&low), Some(&high)) = (all.first(), all.last()) else {
            continue;
        };
        let place = |curve: &TrainingCurve, index: usize| -> f64 {
            let step = curve.loss_steps.get(index).filter(|_| along == "step");
            step.copied().unwrap_or((index + 1) as f64)
        };
        let last = shown
            .iter()
            .map(|curve| place(curve, values(curve).len() - 1))
            .fold(2.0, f64::max);
        let floor = if low >= 0.0 { 0.0 } else { low };
        let mut plot = Plot::new((1.0, last), (floor, high * 1.05), (along, label));
        let mut entries = Vec::new();
        for curve in shown {
            let class = role_class(curve.role);
            let points = values(curve).iter().enumerate();
            plot.line(
                class,
                points.map(|(index, value)| (place(curve, index), *value)),
            );
            let last = values(curve).last().copied().unwrap_or(f64::NAN);
            if let [only] = values(curve) {
                plot.dot(class, 1.0, *only, &curve.name);
            }
            let detail = format!("last {}", number(last));
            entries.push(LegendEntry {
                class: class.to_owned(),
                name: curve.name.clone(),
                detail,
            });
        }
        let clip = page.unique_id("clip");
        body += &figure(caption, &(legend(&entries) + &plot.finish(&clip, caption)));
    }
    if !body.is_empty() {
        body = format!("<div class=\"figures\">{body}</div>");
    }
    let note = "Loss at each step; falling is good. Recipes and networks that learn different labels have different losses, so one curve \
                cannot be compared with another.";
    if !body.is_empty() {
        body = super::html::lead(note) + &body;
    }
    page.section("training", "Training", body);
}

/// Errors of kept and dropped labels as two histograms.
pub fn label_quality(page: &mut Page, labels: Option<&LabelQuality>) {
    let Some(labels) = labels else { return };
    let kept = sorted(&labels.kept_errors_m);
    let dropped = sorted(&labels.dropped_errors_m);
    let kept_back = sorted(&labels.kept_back_errors_m);
    let groups = [
        ("learned", &kept, "r-kept"),
        ("dropped by the filter", &dropped, "r-dropped"),
        ("of drives of which none was learned", &kept_back, "r-back"),
    ];
    let groups: Vec<_> = groups
        .into_iter()
        .filter(|(_, errors, _)| !errors.is_empty())
        .collect();
    if groups.is_empty() {
        return;
    }
    let all: Vec<f64> = groups
        .iter()
        .flat_map(|(_, errors, _)| errors.iter().copied())
        .collect();
    let limit = quantile(&sorted(&all), 0.98)
        .unwrap_or(1.0)
        .ceil()
        .clamp(1.0, 40.0);
    let bins = 16;
    let width = limit / f64::from(bins);
    // The last bar holds everything beyond, so the shares of a group always sum to one.
    let share = |errors: &[f64], bin: i32| {
        let inside = |e: &&f64| ((**e / width) as i32).clamp(0, bins - 1) == bin;
        errors.iter().filter(inside).count() as f64 / errors.len().max(1) as f64
    };
    let highest = groups
        .iter()
        .flat_map(|(_, errors, _)| (0..bins).map(|bin| share(errors, bin)))
        .fold(0.0, f64::max);
    let mut plot = Plot::new(
        (0.0, limit),
        (0.0, highest * 1.08),
        (
            "error of the label, m (last bar: and more)",
            "share of the group",
        ),
    )
    .percent_y();
    let mut entries = Vec::new();
    let bar = 0.84 / groups.len() as f64;
    for (index, (name, errors, class)) in groups.into_iter().enumerate() {
        for bin in 0..bins {
            let left = f64::from(bin) * width + (0.08 + bar * index as f64) * width;
            plot.bar(class, (left, left + bar * width), share(errors, bin));
        }
        plot.drop(class, mean(errors), highest * 1.08);
        let detail = format!(
            "{} labels, mean error {} m (dashed line)",
            errors.len(),
            number(mean(errors))
        );
        entries.push(LegendEntry {
            class: class.to_owned(),
            name: name.to_owned(),
            detail,
        });
    }
    let clip = page.unique_id("clip");
    let svg = plot.finish(&clip, "Histogram of label errors");
    let body = figure(&labels.caption, &(legend(&entries) + &svg));
    page.section(
        "labels",
        "Label quality",
        format!("<div class=\"figures\">{body}</div>"),
    );
}

/// Nominal against empirical coverage, as a figure and a table.
pub fn coverage(page: &mut Page, coverage: Option<&Coverage>) {
    let Some(coverage) = coverage else { return };
    let series: Vec<_> = coverage
        .series
        .iter()
        .filter(|s| !s.points.is_empty())
        .collect();
    if series.is_empty() {
        return;
    }
    let mut plot = Plot::new(
        (0.0, 1.0),
        (0.0, 1.0),
        ("nominal probability of the region", "truth really inside"),
    )
    .percent_y();
    plot.line("r-other", [(0.0, 0.0), (1.0, 1.0)]);
    let diagonal = (plot.place_x(0.80), plot.place_y(0.80));
    plot.raw(&format!(
        "<text class=\"tick\" x=\"{}\" y=\"{}\">honest</text>",
        super::svg::at(diagonal.0 + 8.0),
        super::svg::at(diagonal.1 + 12.0)
    ));
    let mut entries = Vec::new();
    for one in &series {
        let class = role_class(one.role);
        plot.line(class, one.points.iter().map(|p| (p.nominal, p.empirical)));
        for point in &one.points {
            let tooltip = format!(
                "{} nominal, {} empirical",
                percent(point.nominal),
                percent(point.empirical)
            );
            plot.dot(class, point.nominal, point.empirical, &tooltip);
        }
        let detail = format!("{} positions", one.sample_count);
        entries.push(LegendEntry {
            class: class.to_owned(),
            name: one.name.clone(),
            detail,
        });
    }
    let clip = page.unique_id("clip");
    let svg = plot.finish(&clip, "Nominal against empirical coverage");
    let mut body = figure(&coverage.caption, &(legend(&entries) + &svg));
    body += &coverage_table(&series);
    page.section(
        "coverage",
        "Is the stated uncertainty honest?",
        format!("<div class=\"figures\">{body}</div>"),
    );
}

fn coverage_table(series: &[&super::input::CoverageSeries]) -> String {
    let mut nominal: Vec<f64> = sorted(
        &series
            .iter()
            .flat_map(|s| &s.points)
            .map(|p| p.nominal)
            .collect::<Vec<_>>(),
    );
    nominal.dedup();
    let mut html =
        "<div class=\"scroll\"><table><thead><tr><th scope=\"col\" class=\"number\">Nominal</th>"
            .to_owned();
    for one in series {
        html += &format!(
            "<th scope=\"col\" class=\"number\">{}</th>",
            super::svg::escape(&one.name)
        );
    }
    html += "</tr></thead><tbody>";
    for level in nominal {
        html += &format!("<tr><td class=\"number\">{}</td>", percent(level));
        for one in series {
            let point = one
                .points
                .iter()
                .find(|p| p.nominal.total_cmp(&level).is_eq());
            let text = point.map_or_else(|| "–".to_owned(), |p| percent(p.empirical));
            html += &format!("<td class=\"number\">{text}</td>");
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}
