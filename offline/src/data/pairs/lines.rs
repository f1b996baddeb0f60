//! Reads the text of a dataset, line by line, within bounds.

use crate::data::error::DatasetError;
use crossfix_onboard::file;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

/// Longest line of a `.jsonl` file.
const MOST_LINE_BYTES: u64 = 64 << 10;
/// Most pairs in one dataset.
const MOST_PAIRS: usize = 5_000_000;

/// Reads a text file of at most `most` bytes.
pub(super) fn read_small(
    path: &Path,
    most: u64,
    fix: &'static str,
) -> Result<String, DatasetError> {
    let read = |path: &Path| {
        let text = file::read_text(path, most).map_err(std::io::Error::from)?;
        Ok(text.trim_start_matches('\u{feff}').to_owned())
    };
    read(path).map_err(|error| DatasetError::Read {
        path: path.display().to_string(),
        error,
        fix,
    })
}

/// Reads a JSON-lines file whose ids are unique, checking each line; stops at the first that is wrong.
pub(super) fn read_lines<T: DeserializeOwned>(
    path: &Path,
    check: impl Fn(&T) -> Result<(), String>,
    id: impl Fn(&T) -> &String,
) -> Result<Vec<T>, DatasetError> {
    let mut first = None;
    let rows = each_line(path, check, id, |line, what| {
        first = Some((line, what));
        ControlFlow::Break(())
    })?;
    match first {
        None => Ok(rows.into_iter().map(|(_, row)| row).collect()),
        Some((line, what)) => Err(DatasetError::Line {
            path: path.display().to_string(),
            line,
            what,
        }),
    }
}

/// Reads the rows of a JSON-lines file with their lines, from 1; `wrong` gets the line of each row that is
/// not one, and what is wrong.
pub(super) fn each_line<T: DeserializeOwned>(
    path: &Path,
    check: impl Fn(&T) -> Result<(), String>,
    id: impl Fn(&T) -> &String,
    mut wrong: impl FnMut(usize, String) -> ControlFlow<()>,
) -> Result<Vec<(usize, T)>, DatasetError> {
    let unreadable = |error: std::io::Error| DatasetError::Read {
        path: path.display().to_string(),
        error,
        fix: "a pairs dataset has this file beside dataset.toml",
    };
    let file = file::open(path).map_err(|error| unreadable(error.into()))?;
    let mut reader = BufReader::new(file);
    let mut rows: Vec<(usize, T)> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut bytes = Vec::new();
    // Empty lines count only when a row follows.
    let mut empty = None;
    let mut any = false;
    for line in 1.. {
        bytes.clear();
        let read = (&mut reader)
            .take(MOST_LINE_BYTES + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(unreadable)?;
        if read == 0 {
            break;
        }
        let row = row_of(&bytes, line == 1).and_then(|text| match text {
            Some(_) if rows.len() >= MOST_PAIRS => {
                Err(format!("more than {MOST_PAIRS} rows; split the dataset"))
            }
            Some(text) => parsed(text, bytes.ends_with(b"\n")).map(Some),
            None => Ok(None),
        });
        if !matches!(row, Ok(None)) {
            any = true;
            if let Some(empty) = empty.take()
                && wrong(empty, "an empty line; remove it".into()).is_break()
            {
                return Ok(rows);
            }
        }
        let endless = bytes.len() as u64 > MOST_LINE_BYTES || rows.len() >= MOST_PAIRS;
        let what = match row {
            Ok(None) => {
                empty.get_or_insert(line);
                continue;
            }
            Ok(Some(row)) => match check(&row) {
                Ok(()) => match seen.insert(id(&row).clone(), line) {
                    None => {
                        rows.push((line, row));
                        continue;
                    }
                    Some(before) => format!(
                        "id {:?} is also on line {before}; make ids unique",
                        id(&row)
                    ),
                },
                Err(what) => what,
            },
            Err(what) => what,
        };
        if wrong(line, what).is_break() || endless {
            return Ok(rows);
        }
    }
    if !any {
        let _ = wrong(1, "no row; the dataset is empty".into());
    }
    Ok(rows)
}

/// The text of a line without blanks around it, nothing of an empty one.
fn row_of(bytes: &[u8], first: bool) -> Result<Option<&str>, String> {
    if bytes.len() as u64 > MOST_LINE_BYTES {
        return Err(format!(
            "longer than {MOST_LINE_BYTES} bytes; one row is one line"
        ));
    }
    if first && (bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])) {
        return Err("UTF-16 text; save the file as UTF-8".into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("{error}; write UTF-8"))?;
    // A byte order mark is what some editors put before UTF-8.
    let text = if first {
        text.trim_start_matches('\u{feff}')
    } else {
        text
    };
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

fn parsed<T: DeserializeOwned>(text: &str, whole: bool) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        let what = error.to_string();
        // Each line is a text of its own to the parser.
        let what = what.replace(" at line 1 column ", " at column ");
        let cut = if whole {
            ""
        } else {
            "; the file ends inside the line: it was cut short, copy it again"
        };
        let remedy = NOT_READ
            .iter()
            .find(|(field, _)| what.contains(&format!("unknown field `{field}`")));
        let remedy = remedy.map_or(String::new(), |(_, remedy)| format!("; {remedy}"));
        let number = if text.contains("NaN") || text.contains("Infinity") {
            "; JSON has no NaN and no Infinity: leave the row out, or write null where odometry is unknown"
        } else {
            ""
        };
        format!("{what}{remedy}{number}{cut}")
    })
}

/// Fields that people expect and that would change nothing, with what to do instead.
const NOT_READ: [(&str, &str); 10] = [
    ("camera", "each camera has its own dataset: split the rows"),
    (
        "camera_id",
        "each camera has its own dataset: split the rows",
    ),
    (
        "lever_arm_m",
        "positions are the camera's: move them from the antenna to the camera",
    ),
    (
        "antenna",
        "positions are the camera's: move them from the antenna to the camera",
    ),
    (
        "time_offset_s",
        "positions are those at time_ns: interpolate them, or let `crossfix calibrate` find the offset",
    ),
    (
        "latency_s",
        "positions are those at time_ns: interpolate them, or let `crossfix calibrate` find the offset",
    ),
    ("altitude", "heights are not used: leave it out"),
    ("height_m", "heights are not used: leave it out"),
    (
        "yaw_rad",
        "write heading_deg, degrees clockwise from true north",
    ),
    (
        "file_name",
        "write image; `metadata.jsonl` is the copy for other programs",
    ),
];
