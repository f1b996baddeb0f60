//! Cells as one table: means over areas, their standard errors, paired differences to the teacher.

use super::Cell;
use serde::Serialize;

/// A mean over areas, and its standard error (0 of a single one).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeanAndError {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (n - 1) over the root of n.
    pub standard_error: f64,
}

impl MeanAndError {
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|value| (value - mean).powi(2));
        let standard_error = if values.len() > 1 {
            (squares.sum::<f64>() / (n - 1.0) / n).sqrt()
        } else {
            0.0
        };
        Self {
            mean,
            standard_error,
        }
    }
}

/// One row over all its areas.
#[derive(Debug, Clone, Serialize)]
pub struct RowSummary {
    /// As it was asked for.
    pub row: String,
    /// Areas that it was done in.
    pub areas: usize,
    /// Mean error of the student, metres.
    pub mean_m: MeanAndError,
    /// Median error of the student, metres.
    pub median_m: MeanAndError,
    /// Mean error inside the coarse position's 99 % ellipse, metres.
    pub masked_mean_m: MeanAndError,
    /// The student's mean error less the teacher's in the same area, metres.
    pub difference_m: MeanAndError,
    /// The student's mean error over the teacher's in the same area, less 1.
    pub relative: MeanAndError,
    /// Areas where the student is worse than its teacher.
    pub worse: usize,
    /// Share of labels learned.
    pub kept: f64,
    /// Mean error of labels that were learned and that were dropped, metres.
    pub label_error_m: [Option<f64>; 2],
}

/// The rows in the order of their first cells.
pub fn summarise(cells: &[Cell]) -> Vec<RowSummary> {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        if !names.contains(&cell.row.as_str()) {
            names.push(&cell.row);
        }
    }
    names
        .into_iter()
        .map(|name| {
            let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.row == name).collect();
            summary(name, &cells)
        })
        .collect()
}

fn summary(row: &str, cells: &[&Cell]) -> RowSummary {
    let of = |value: fn(&Cell) -> f64| {
        let values: Vec<f64> = cells.iter().map(|cell| value(cell)).collect();
        MeanAndError::of(&values)
    };
    let known = |value: fn(&Cell) -> Option<f64>| {
        let values: Vec<f64> = cells.iter().filter_map(|cell| value(cell)).collect();
        (!values.is_empty()).then(|| MeanAndError::of(&values).mean)
    };
    let worse = cells
        .iter()
        .filter(|cell| cell.student.mean_m > cell.teacher.mean_m);
    RowSummary {
        row: row.into(),
        areas: cells.len(),
        mean_m: of(|cell| cell.student.mean_m),
        median_m: of(|cell| cell.student.median_m),
        masked_mean_m: of(|cell| cell.student.masked_mean_m),
        difference_m: of(|cell| cell.student.mean_m - cell.teacher.mean_m),
        relative: of(|cell| cell.student.mean_m / cell.teacher.mean_m - 1.0),
        worse: worse.count(),
        kept: of(|cell| cell.kept).mean,
        label_error_m: [
            known(|cell| cell.kept_label_error_m),
            known(|cell| cell.dropped_label_error_m),
        ],
    }
}

/// The rows with the teacher before them and, of the first recipe that has one, the auxiliary student.
pub fn with_teacher(cells: &[Cell]) -> Vec<RowSummary> {
    let rows = summarise(cells);
    let first_of = |name: &str| {
        let of_row = cells.iter().filter(|cell| cell.row == name);
        of_row.collect::<Vec<&Cell>>()
    };
    let mut all = Vec::new();
    if let Some(first) = rows.first() {
        let of_first = first_of(&first.row);
        let teachers = of_first.iter().map(|cell| Cell {
            student: cell.teacher,
            kept_label_error_m: None,
            dropped_label_error_m: None,
            kept: f64::NAN,
            ..(*cell).clone()
        });
        let teachers: Vec<Cell> = teachers.collect();
        all.push(summary("teacher", &teachers.iter().collect::<Vec<_>>()));
    }
    let with_auxiliary = cells.iter().find(|cell| cell.auxiliary.is_some());
    if let Some(first) = with_auxiliary {
        let of_first = first_of(&first.row);
        let auxiliaries = of_first.iter().filter_map(|cell| {
            Some(Cell {
                student: cell.auxiliary?,
                kept_label_error_m: None,
                dropped_label_error_m: None,
                kept: 1.0,
                ..(*cell).clone()
            })
        });
        let auxiliaries: Vec<Cell> = auxiliaries.collect();
        let name = format!("{}, its auxiliary student (no filter)", first.row);
        all.push(summary(&name, &auxiliaries.iter().collect::<Vec<_>>()));
    }
    all.extend(rows);
    all
}

/// The table, with the teacher and, of the first recipe that has one, the auxiliary student.
pub fn markdown(cells: &[Cell]) -> String {
    let mut text = String::from(
        "| | areas | mean, m | median, m | mean in prior, m | against the teacher, m | | worse | kept | label error kept / dropped, m |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in with_teacher(cells) {
        text += &line(&row);
    }
    text
}

fn line(row: &RowSummary) -> String {
    let metres = |value: MeanAndError| format!("{:.2} ± {:.2}", value.mean, value.standard_error);
    let signed = |value: MeanAndError| format!("{:+.2} ± {:.2}", value.mean, value.standard_error);
    let percent = 100.0 * row.relative.mean;
    let label = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let [kept_m, dropped_m] = row.label_error_m.map(label);
    let kept = if row.kept.is_finite() {
        format!("{:.0} %", 100.0 * row.kept)
    } else {
        "-".into()
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {percent:+.0} % | {} | {kept} | {kept_m} / {dropped_m} |\n",
        row.row,
        row.areas,
        metres(row.mean_m),
        metres(row.median_m),
        metres(row.masked_mean_m),
        signed(row.difference_m),
        row.worse,
    )
}

#[cfg(test)]
mod tests {
    use super::super::Errors;
    use super::*;

    fn cell(row: &str, area: &str, teacher_m: f64, student_m: f64) -> Cell {
        let errors = |mean_m| Errors {
            mean_m,
            median_m: mean_m / 2.0,
            masked_mean_m: mean_m,
            masked_median_m: mean_m,
        };
        Cell {
            row: row.into(),
            area: area.into(),
            fingerprint: String::new(),
            teacher: errors(teacher_m),
            auxiliary: Some(errors(student_m + 1.0)),
            student: errors(student_m),
            kept: 0.8,
            kept_label_error_m: Some(1.0),
            dropped_label_error_m: None,
            seconds: 1.0,
        }
    }

    #[test]
    fn differences_are_taken_area_by_area() {
        // The teachers are far apart, the gains are not.
        let cells = [
            cell("a", "1", 2.0, 1.0),
            cell("a", "2", 10.0, 8.0),
            cell("a", "3", 6.0, 7.5),
        ];
        let rows = summarise(&cells);
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.areas, row.worse), (3, 1));
        assert!((row.difference_m.mean + 0.5).abs() < 1e-12);
        // Of -1, -2 and 1.5: variance (0.25 + 2.25 + 4) / 2 = 3.25, over 3.
        assert!((row.difference_m.standard_error - (3.25f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((row.relative.mean - (-0.5 - 0.2 + 0.25) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_table_has_teacher_auxiliary_and_rows_in_order() {
        let cells = [cell("b", "1", 2.0, 1.0), cell("a", "1", 2.0, 1.5)];
        let table = markdown(&cells);
        let names: Vec<&str> = table
            .lines()
            .skip(2)
            .filter_map(|l| l.split('|').nth(1))
            .collect();
        assert_eq!(
            names,
            [
                " teacher ",
                " b, its auxiliary student (no filter) ",
                " b ",
                " a "
            ]
        );
        assert!(
            table.contains("| a | 1 | 1.50 ± 0.00 | 0.75 ± 0.00 |"),
            "{table}"
        );
    }
}
