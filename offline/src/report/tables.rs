//! Tables and words: the summary, further tables, what the numbers mean, where they came from.

use super::html::{Page, lead};
use super::input::{ProvenanceRow, ReportInput, SummaryRow, SummaryTable, Table};
use super::svg::{escape, number, role_class};

/// Models against metrics, each value with its change from the first model.
pub fn summary(page: &mut Page, tables: &[SummaryTable]) {
    let body = tables.iter().filter(|table| !table.rows.is_empty());
    let body: String = body.map(summary_table).collect();
    page.section("summary", "Summary", body);
}

fn summary_table(table: &SummaryTable) -> String {
    let mut html = lead(&table.caption);
    html += "<div class=\"scroll\"><table class=\"summary\"><thead><tr><th scope=\"col\">Area</th><th scope=\"col\">Metric</th>";
    for (name, role) in &table.models {
        html += &format!(
            "<th scope=\"col\" class=\"number {}\"><i class=\"chip\"></i>{}</th>",
            role_class(*role),
            escape(name)
        );
    }
    html += "</tr></thead><tbody>";
    let mut previous: Option<&str> = None;
    for row in &table.rows {
        let repeated = previous == Some(row.area.as_str());
        previous = Some(&row.area);
        html += if repeated {
            "<tr>"
        } else {
            "<tr class=\"group\">"
        };
        let area = if repeated {
            String::new()
        } else {
            escape(&row.area)
        };
        let masked = match row.masked {
            Some(true) => " <small class=\"tag\">masked</small>",
            Some(false) => " <small class=\"tag\">unmasked</small>",
            None => "",
        };
        let unit = if row.unit.is_empty() {
            String::new()
        } else {
            format!(" <small>{}</small>", escape(&row.unit))
        };
        html += &format!(
            "<td>{area}</td><th scope=\"row\">{}{unit}{masked}</th>",
            escape(&row.metric)
        );
        for column in 0..table.models.len() {
            html += &summary_cell(row, column, &table.models[column].0);
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

fn summary_cell(row: &SummaryRow, column: usize, model: &str) -> String {
    let model = escape(model);
    let value = row.values.get(column).copied().flatten();
    let Some(value) = value.filter(|value| value.is_finite()) else {
        return format!("<td class=\"number none\" data-model=\"{model}\">–</td>");
    };
    let first = row.values.first().copied().flatten();
    let change = match first {
        Some(first) if column > 0 && first.is_finite() && first.abs() > 1e-12 => {
            let change = 100.0 * (value - first) / first.abs();
            let class = match change {
                c if c.abs() < 0.5 => "same",
                c if (c > 0.0) == row.higher_is_better => "better",
                _ => "worse",
            };
            let sign = if change >= 0.0 { "+" } else { "−" };
            format!(
                "<small class=\"{class}\">{sign}{:.0} %</small>",
                change.abs()
            )
        }
        _ => String::new(),
    };
    format!(
        "<td class=\"number\" data-model=\"{model}\">{}{change}</td>",
        number(value)
    )
}

/// Plain tables.
pub fn extra(page: &mut Page, tables: &[Table]) {
    let body = tables.iter().filter(|table| !table.rows.is_empty()).map(|table| {
        let heading = |name: &String| format!("<th scope=\"col\">{}</th>", escape(name));
            let columns: String = table.columns.iter().map(heading).collect();
        let row = |cells: &Vec<String>| {
            let cells = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell)));
            format!("<tr>{}</tr>", cells.collect::<String>())
        };
        let rows: String = table.rows.iter().map(row).collect();
        let title = if table.title.is_empty() {
            String::new()
        } else {
            format!("<h3>{}</h3>", escape(&table.title))
        };
        let note = lead(&table.note);
        format!("{title}{note}<div class=\"scroll\"><table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>")
    });
    let body = body.collect();
    page.section("tables", "More measurements", body);
}

/// What falls short, and what the words on this page mean (only those it uses).
pub fn explanations(page: &mut Page, input: &ReportInput) {
    let mut body = String::new();
    if !input.notes.is_empty() {
        let items = input
            .notes
            .iter()
            .map(|note| format!("<li>{}</li>", escape(note)));
        body += &format!(
            "<h3>What falls short</h3><ul>{}</ul>",
            items.collect::<String>()
        );
    }
    let has_models =
        !input.summary.is_empty() || input.pairs.is_some() || !input.error_curves.is_empty();
    let has_tracks = input.drive.is_some();
    let mut terms: Vec<(&str, &str)> = Vec::new();
    if has_models || input.error_map.is_some() {
        terms.extend([
            ("Position error", "Horizontal distance, in metres, from the estimated to the true camera position. Mean, median and p90 are over all samples of the area, without leaving any out."),
            ("Teacher, student", "The teacher learned with true positions in the source area. The student began as its copy and learned in the target area from labels made of the teacher's answers, never from a true position there."),
            ("Auxiliary student", "Of the recipe paper: a first student that learns every label. Labels that it contradicts are dropped, and the student learns the rest."),
            ("Upper bound", "The same network fine-tuned with true positions in the target area: what adaptation without truth could reach at best."),
            ("Masked", "The heatmap is limited to where the coarse fix says the camera can be before the most likely cell is taken. Masked is only ever compared with masked."),
        ]);
    }
    if input.pairs.is_some() {
        terms.push(("Heatmap", "Probability of the camera's position over the aerial patch. Each overlay is scaled by its own largest value; below 4 % of it nothing is drawn."));
    }
    if has_tracks || input.coverage.is_some() {
        terms.extend([
            ("95 % ellipse", "The region that should hold the true position 95 % of the time, drawn from the published covariance."),
            ("Coverage", "How often the truth lay inside the region of a given nominal probability. On the diagonal the covariance is honest; below it, overconfident; above it, too cautious."),
        ]);
    }
    if has_tracks {
        terms.push(("State", "ok: GNSS and camera agree. degraded: one of them is missing. coasting: dead reckoning. lost: no position worth publishing."));
    }
    if input.label_quality.is_some() {
        terms.push(("Label error", "Distance from the label that a student learns (pseudo ground truth) to the true position. The method never sees it; it is measured here to judge the labels."));
    }
    if input.label_map.is_some() {
        terms.push(("Support", "Probability that a label is right within a metre or two, by the evidence of its whole drive. It is the label's weight in training."));
    }
    if input.features.is_some() {
        terms.push(("Descriptor", "The numbers into which a network turns a view before it compares views. A cosine of 1 means that two of them point the same way, 0 that they have nothing in common."));
    }
    if !terms.is_empty() {
        let items = terms
            .iter()
            .map(|(term, meaning)| format!("<dt>{term}</dt><dd>{meaning}</dd>"));
        body += &format!("<dl class=\"terms\">{}</dl>", items.collect::<String>());
    }
    page.section("meaning", "What the numbers mean", body);
}

/// Commands that make it again, and where it came from.
pub fn provenance(page: &mut Page, rows: &[ProvenanceRow], reproduce: &[String]) {
    let mut body = String::new();
    if !reproduce.is_empty() {
        let lines: Vec<_> = reproduce.iter().map(|line| escape(line)).collect();
        body += &format!("<pre><code>{}</code></pre>", lines.join("\n"));
    }
    if !rows.is_empty() {
        let rows = rows.iter().map(|row| {
            let (name, value) = (escape(&row.name), escape(&row.value));
            format!("<tr><th scope=\"row\">{name}</th><td><code>{value}</code></td></tr>")
        });
        body += &format!(
            "<div class=\"scroll\"><table class=\"provenance\"><tbody>{}</tbody></table></div>",
            rows.collect::<String>()
        );
    }
    page.section("reproduce", "How to reproduce this", body);
}
