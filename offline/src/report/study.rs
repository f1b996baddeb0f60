//! Recipes beside each other over several areas: means with standard errors, paired differences, and the figures
//! that the paper reports for the same parts of the method.

use super::html::{Page, figure, lead};
use super::svg::{at, escape, number, round_number, ticks};
use serde::{Deserialize, Serialize};

/// A mean over areas and its standard error.
pub type MeanAndError = [f64; 2];

/// One study.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StudyTable {
    /// What was compared, over how many areas.
    pub caption: String,
    /// The teacher first, then the recipes.
    pub rows: Vec<StudyRow>,
    /// What the paper reports of some of them.
    pub published: Vec<PublishedRow>,
}

/// One recipe over all its areas.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StudyRow {
    /// Its name, with settings.
    pub name: String,
    /// What it is, in a line.
    pub what: String,
    /// Areas that it was done in.
    pub areas: usize,
    /// Mean error, metres.
    pub mean_m: MeanAndError,
    /// Median error, metres.
    pub median_m: MeanAndError,
    /// Mean error inside the coarse position's 99 % ellipse, metres.
    pub in_prior_m: MeanAndError,
    /// Mean error less the teacher's in the same area, metres; none for the teacher itself.
    pub difference_m: Option<MeanAndError>,
    /// Mean of the change against the teacher in the same area, as a share.
    pub change: f64,
    /// Areas where it is worse than the teacher.
    pub worse: usize,
    /// Share of labels learned, where there are labels.
    pub learned: Option<f64>,
    /// Mean error of labels that were learned and that were not, metres.
    pub label_error_m: [Option<f64>; 2],
}

/// A figure of the paper beside ours.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishedRow {
    /// The row of this study that does the same.
    pub row: String,
    /// What the paper calls it.
    pub what: String,
    /// The published network.
    pub network: String,
    /// Mean error of the paper's teacher and student, metres.
    pub published_m: [f64; 2],
}

/// The figure, the table and the paper's figures.
pub fn section(page: &mut Page, study: Option<&StudyTable>) {
    let Some(study) = study.filter(|study| !study.rows.is_empty()) else {
        return;
    };
    let reading = "Dots are means over areas, bars one standard error of the mean (none for a single area). Errors: lower \
                   is better. Differences are taken area by area, so that how hard an area is cancels out: left of 0 is \
                   better than the teacher, and a bar that reaches 0 may be chance.";
    let difference = |row: &StudyRow| row.difference_m;
    let figures = [
        dots(&study.rows, "mean position error, m", None, |row| {
            Some(row.mean_m)
        }),
        dots(
            &study.rows,
            "mean error less the teacher's in the same area, m",
            Some(0.0),
            difference,
        ),
    ];
    let captions = ["Mean error", "Against the teacher, area by area"];
    let figures = captions
        .iter()
        .zip(figures)
        .map(|(caption, svg)| figure(caption, &svg));
    let body = lead(&study.caption)
        + &lead(reading)
        + &format!(
            "<div class=\"figures\">{}</div>",
            figures.collect::<String>()
        )
        + &table(&study.rows);
    page.section("study", "Recipes beside each other", body);
    published(page, study);
}

/// For each row its name and, below it, a dot and a bar of one standard error to each side. The first row's value, or
/// `zero`, is a line from top to bottom.
fn dots(
    rows: &[StudyRow],
    label: &str,
    zero: Option<f64>,
    value: impl Fn(&StudyRow) -> Option<MeanAndError>,
) -> String {
    const WIDTH: f64 = 640.0;
    const SIDE: f64 = 18.0;
    const LINE: f64 = 40.0;
    let shown: Vec<(&StudyRow, MeanAndError)> = rows
        .iter()
        .filter_map(|row| Some((row, value(row)?)))
        .filter(|(_, [mean, error])| mean.is_finite() && error.is_finite())
        .collect();
    let Some((_, first)) = shown.first() else {
        return String::new();
    };
    let line = zero.unwrap_or(first[0]);
    let ends = shown
        .iter()
        .flat_map(|(_, [mean, error])| [mean - error, mean + error]);
    let (low, high) = ends.fold((line, line), |(low, high), end| {
        (low.min(end), high.max(end))
    });
    let room = 0.05 * (high - low).max(0.1);
    let (low, high) = (low - room, high + room);
    let x = |value: f64| SIDE + (value - low) / (high - low) * (WIDTH - 2.0 * SIDE);
    let bottom = 8.0 + LINE * shown.len() as f64;
    let mut svg = format!(
        "<svg class=\"plot study\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
        at(bottom + 42.0),
        escape(label)
    );
    for tick in ticks((low, high), 6) {
        svg += &format!(
            "<path class=\"grid\" d=\"M{0} 6V{1}\"/><text class=\"tick\" x=\"{0}\" y=\"{2}\" text-anchor=\"middle\">{3}</text>",
            at(x(tick)),
            at(bottom),
            at(bottom + 16.0),
            round_number(tick)
        );
    }
    svg += &format!(
        "<path class=\"reference\" d=\"M{} 6V{}\"/>",
        at(x(line)),
        at(bottom)
    );
    for (index, (row, [mean, error])) in shown.iter().enumerate() {
        let y = 8.0 + LINE * (index as f64 + 0.74);
        let class = match row.difference_m {
            None => "r-teacher",
            Some([difference, _]) if difference > 0.0 => "r-worse",
            Some(_) => "r-student",
        };
        svg += &format!(
            "<g class=\"{class}\"><text class=\"name\" x=\"{SIDE}\" y=\"{}\">{}</text>\
             <path class=\"bar-line\" d=\"M{} {y}H{}\"/><circle class=\"dot\" cx=\"{}\" cy=\"{y}\" r=\"5\"><title>{} ± {}</title></circle></g>",
            at(y - 14.0),
            escape(&short(&row.name)),
            at(x(mean - error)),
            at(x(mean + error)),
            at(x(*mean)),
            number(*mean),
            number(*error)
        );
    }
    svg + &format!(
        "<text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></svg>",
        at(WIDTH / 2.0),
        at(bottom + 36.0),
        escape(label)
    )
}

/// A name that fits above its dot; the table has it whole.
fn short(name: &str) -> String {
    const MOST: usize = 56;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 1).chain(['…']).collect()
}

fn with_error([mean, error]: MeanAndError) -> String {
    format!("{} ± {}", number(mean), number(error))
}

fn signed(share: f64) -> String {
    if share.is_finite() {
        format!("{:+.0} %", 100.0 * share).replace('-', "−")
    } else {
        "–".into()
    }
}

fn table(rows: &[StudyRow]) -> String {
    let columns = [
        "recipe",
        "areas",
        "mean error, m",
        "median, m",
        "mean in prior, m",
        "less the teacher's, m",
        "change",
        "worse than the teacher in",
        "labels learned",
        "label error, learned / not, m",
    ];
    let headings = columns
        .map(|name| format!("<th scope=\"col\">{name}</th>"))
        .concat();
    let metres = |value: Option<f64>| value.map_or_else(|| "–".into(), number);
    let line = |row: &StudyRow| {
        let name = format!(
            "{}<br/><small>{}</small>",
            escape(&row.name),
            escape(&row.what)
        );
        let teacher = row.difference_m.is_none();
        let class = if teacher {
            "same"
        } else if row.change < 0.0 {
            "better"
        } else {
            "worse"
        };
        let cells = [
            row.areas.to_string(),
            with_error(row.mean_m),
            with_error(row.median_m),
            with_error(row.in_prior_m),
            row.difference_m.map_or_else(|| "–".into(), with_error),
            if teacher {
                "–".into()
            } else {
                format!("<span class=\"{class}\">{}</span>", signed(row.change))
            },
            if teacher {
                "–".into()
            } else {
                format!("{} of {}", row.worse, row.areas)
            },
            row.learned
                .map_or_else(|| "–".into(), |share| format!("{:.0} %", 100.0 * share)),
            format!(
                "{} / {}",
                metres(row.label_error_m[0]),
                metres(row.label_error_m[1])
            ),
        ];
        let cells = cells
            .map(|cell| format!("<td class=\"figure\">{cell}</td>"))
            .concat();
        format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>")
    };
    let lines: String = rows.iter().map(line).collect();
    format!(
        "<div class=\"scroll\"><table class=\"study\"><thead><tr>{headings}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
}

/// The paper's figures of the rows that this study has.
fn published(page: &mut Page, study: &StudyTable) {
    let mut lines = String::new();
    for published in &study.published {
        let Some(ours) = study.rows.iter().find(|row| row.name == published.row) else {
            continue;
        };
        let [teacher, student] = published.published_m;
        lines += &format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{teacher:.2} → {student:.2}</td><td>{}</td><td>{}</td></tr>",
            escape(&published.row),
            escape(&published.what),
            escape(&published.network),
            signed(student / teacher - 1.0),
            signed(ours.change)
        );
    }
    if lines.is_empty() {
        return;
    }
    let columns = [
        "recipe",
        "in the paper",
        "its network",
        "teacher → student, m",
        "change there",
        "change here",
    ];
    let headings = columns
        .map(|name| format!("<th scope=\"col\">{name}</th>"))
        .concat();
    let note = "Mean position errors on VIGOR with known orientation, as reported by Xia, Shi, Li and Kooij, Adapting \
                Fine-Grained Cross-View Localization to Areas without Fine Ground Truth, ECCV 2024. Their data and \
                networks are others than those of this page: compare which way and in what order things change, not metres.";
    let body = lead(note)
        + &format!(
            "<div class=\"scroll\"><table><thead><tr>{headings}</tr></thead><tbody>{lines}</tbody></table></div>"
        );
    page.section("published", "Beside the paper", body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> StudyTable {
        let row = |name: &str, mean: f64, difference: Option<f64>| StudyRow {
            name: name.into(),
            areas: 5,
            mean_m: [mean, 0.2],
            difference_m: difference.map(|difference| [difference, 0.1]),
            change: difference.unwrap_or(0.0) / 4.0,
            ..StudyRow::default()
        };
        let published = |row: &str| PublishedRow {
            row: row.into(),
            what: "the method".into(),
            network: "CCVPE".into(),
            published_m: [4.0, 3.0],
        };
        StudyTable {
            caption: "Five areas.".into(),
            rows: vec![
                row("teacher", 4.0, None),
                row("paper", 3.0, Some(-1.0)),
                row("consensus", 1.5, Some(-2.5)),
                row("bad", 4.5, Some(0.5)),
            ],
            published: vec![published("paper"), published("a row that was not done")],
        }
    }

    #[test]
    fn every_row_has_a_dot_a_bar_and_a_line_of_the_table() {
        let mut page = Page::new("x");
        section(&mut page, Some(&study()));
        let html = page.finish();
        // Four in the first figure; the teacher has no difference.
        assert_eq!(html.matches("<circle class=\"dot\"").count(), 7);
        assert_eq!(html.matches("class=\"bar-line\"").count(), 7);
        assert!(
            html.contains("3.00 ± 0.20") && html.contains("−1.00 ± 0.10"),
            "{html}"
        );
        assert_eq!(
            html.matches("r-worse").count() - html.matches(".r-worse").count(),
            2
        );
        // Of the paper: one row, 4 to 3 is −25 %, and so is ours.
        assert!(html.contains("4.00 → 3.00</td><td>−25 %</td><td>−25 %</td>"));
        assert!(!html.contains("a row that was not done") && html.contains("ECCV 2024"));
    }

    #[test]
    fn broken_numbers_and_hostile_names_do_no_harm() {
        let mut study = study();
        study.rows[1].name = "<script>".into();
        study.rows[2].mean_m = [f64::NAN, f64::INFINITY];
        study.rows[3].difference_m = Some([f64::NAN; 2]);
        let mut page = Page::new("x");
        section(&mut page, Some(&study));
        let html = page.finish();
        assert!(!html.contains("<script>") || html.matches("<script>").count() == 1);
        assert!(!html.contains("NaN") && html.contains("&lt;script&gt;"));
    }
}
