//! Every line of `dataset.toml`, `pairs.jsonl` and `truth.jsonl`, the order of drives, and their clocks.

use super::{Report, Rows};
use crate::data::error::DatasetError;
use crate::data::pairs::truth::Truth;
use crate::data::pairs::{DatasetManifest, every_row};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// 2000-01-01, nanoseconds UTC: no fleet drove before.
const EARLIEST_NS: i64 = 946_684_800 * SECOND_NS;
const SECOND_NS: i64 = 1_000_000_000;
/// A drive that takes longer holds rows of several.
const LONGEST_DRIVE_S: i64 = 7 * 24 * 3600;

/// Reads manifest and rows, each wrong line a problem.
pub(super) fn read<'a>(folder: &'a Path, report: &mut Report) -> Rows<'a> {
    let manifest = DatasetManifest::read(folder);
    let manifest = manifest.map_err(|error| {
        let what = match error {
            DatasetError::Manifest { what, .. } => what,
            other => other.to_string(),
        };
        let remedy = "write dataset.toml as docs/pairs.md describes it";
        report.problem("manifest", ("dataset.toml", None), what, remedy);
    });
    let rows = every_row(folder, |line, what| {
        let remedy = "correct these lines; docs/pairs.md describes each field";
        report.problem("row", ("pairs.jsonl", Some(line)), what, remedy);
    });
    let rows = rows.unwrap_or_else(|error| {
        let remedy = "give the folder that holds dataset.toml and pairs.jsonl";
        report.problem("file", ("pairs.jsonl", None), error.to_string(), remedy);
        Vec::new()
    });
    Rows {
        folder,
        manifest: manifest.ok(),
        rows,
    }
}

/// Rows of a drive are in the order of time, and times are nanoseconds UTC.
pub(super) fn order_and_clocks(rows: &Rows, report: &mut Report) {
    let mut last: HashMap<&str, (i64, usize)> = HashMap::new();
    let mut first: HashMap<&str, i64> = HashMap::new();
    for (line, row) in &rows.rows {
        let at = ("pairs.jsonl", Some(*line));
        let before = last.insert(&row.drive, (row.time_ns, *line));
        if let Some((before, before_line)) = before.filter(|(time, _)| *time >= row.time_ns) {
            let what = format!(
                "time_ns {} of drive {:?} is not after {before} on line {before_line}",
                row.time_ns, row.drive
            );
            let remedy = "sort each drive by time, and give rows of one time different drives";
            report.problem("order", at, what, remedy);
        }
        let begun = *first.entry(&row.drive).or_insert(row.time_ns);
        let seconds = row.time_ns.saturating_sub(begun) / SECOND_NS;
        if seconds.abs() > LONGEST_DRIVE_S {
            let what = format!(
                "time_ns {} is {} days from the beginning of drive {:?}",
                row.time_ns,
                seconds / 86_400,
                row.drive
            );
            let remedy =
                "one drive is one journey on one clock: correct the times, or split the drive";
            report.problem("clock", at, what, remedy);
        }
    }
    let mut times: Vec<i64> = rows.rows.iter().map(|(_, row)| row.time_ns).collect();
    times.sort_unstable();
    let Some(middle) = times.get(times.len() / 2).copied() else {
        return;
    };
    let at = ("pairs.jsonl", None);
    if (EARLIEST_NS..2 * 2_000_000_000 * SECOND_NS).contains(&middle) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(i64::MAX, |now| now.as_nanos() as i64);
        if middle > now.saturating_add(86_400 * SECOND_NS) {
            let what = format!("time_ns is about {middle}, in the future");
            let remedy = "write UTC, not TAI or local time; nothing depends on the offset but logs and reports";
            report.note("clock", at, what, remedy);
        }
        return;
    }
    let units = [
        (1_000, "microseconds"),
        (1_000_000, "milliseconds"),
        (SECOND_NS, "seconds"),
    ];
    let unit = units.iter().find(|(factor, _)| {
        let earliest = EARLIEST_NS / factor;
        (earliest..earliest.saturating_mul(4)).contains(&middle)
    });
    if let Some((_, unit)) = unit {
        let what = format!("time_ns is about {middle}; it fits as {unit} since 1970");
        report.problem("clock", at, what, "write nanoseconds since 1970, UTC");
    } else {
        let what = format!("time_ns is about {middle}, which is no UTC time since the year 2000");
        let remedy = "a clock that counts from the start of a machine is good enough within a drive; UTC is better";
        report.note("clock", at, what, remedy);
    }
}

/// Reads `truth.jsonl` where there is one.
pub(super) fn truth(rows: &Rows, report: &mut Report) -> Option<Truth> {
    const NAME: &str = "truth.jsonl";
    if !rows.folder.join(NAME).exists() {
        return None;
    }
    let truth = Truth::every(rows.folder, |line, what| {
        let remedy = "correct these lines; docs/pairs.md describes each field";
        report.problem("row", (NAME, Some(line)), what, remedy);
    });
    let truth = truth.map_err(|error| {
        let remedy = "make it a regular file, or remove it";
        report.problem("file", (NAME, None), error.to_string(), remedy);
    });
    let truth = truth.ok()?;
    let ids: HashSet<&str> = rows.rows.iter().map(|(_, row)| row.id.as_str()).collect();
    let strangers = truth.rows().filter(|row| !ids.contains(row.id.as_str()));
    let strangers = strangers.count();
    let missing = ids.iter().filter(|id| truth.get(id).is_none()).count();
    let at = (NAME, None);
    if strangers > 0 {
        let what = format!("{strangers} ids are in no row of pairs.jsonl");
        report.note("truth", at, what, "is it the truth of this dataset?");
    }
    if missing > 0 {
        let what = format!("{missing} of {} pairs have no truth", ids.len());
        report.note("truth", at, what, "they are left out where truth is needed");
    }
    Some(truth)
}
