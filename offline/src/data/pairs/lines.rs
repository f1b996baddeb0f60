//! Reads the text of a dataset, line by line, within bounds.

use crate::data::error::DatasetError;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
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
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(most + 1)
            .read_to_string(&mut text)?;
        if text.len() as u64 > most {
            return Err(std::io::Error::other(format!("more than {most} bytes")));
        }
        Ok(text)
    };
    read(path).map_err(|error| DatasetError::Read {
        path: path.display().to_string(),
        error,
        fix,
    })
}

/// Reads a JSON-lines file whose ids are unique, checking each line.
pub(super) fn read_lines<T: DeserializeOwned>(
    path: &Path,
    check: impl Fn(&T) -> Result<(), String>,
    id: impl Fn(&T) -> &String,
) -> Result<Vec<T>, DatasetError> {
    let unreadable = |error| DatasetError::Read {
        path: path.display().to_string(),
        error,
        fix: "a pairs dataset has this file beside dataset.toml",
    };
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(unreadable)?);
    let mut rows = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        let wrong = |what: String| DatasetError::Line {
            path: path.display().to_string(),
            line,
            what,
        };
        bytes.clear();
        let read = (&mut reader)
            .take(MOST_LINE_BYTES + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(unreadable)?;
        if read == 0 {
            break;
        }
        if read as u64 > MOST_LINE_BYTES {
            return Err(wrong(format!(
                "longer than {MOST_LINE_BYTES} bytes; one row is one line"
            )));
        }
        if rows.len() >= MOST_PAIRS {
            return Err(wrong(format!(
                "more than {MOST_PAIRS} rows; split the dataset"
            )));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| wrong(format!("{error}; write UTF-8")))?
            .trim();
        if text.is_empty() {
            return Err(wrong("an empty line; remove it".into()));
        }
        let row: T = serde_json::from_str(text).map_err(|error| {
            let whole = bytes.ends_with(b"\n");
            let cut = if whole {
                ""
            } else {
                "; the file ends inside the line: it was cut short, copy it again"
            };
            wrong(format!("{error}{cut}"))
        })?;
        check(&row).map_err(wrong)?;
        if let Some(before) = seen.insert(id(&row).clone(), line) {
            return Err(wrong(format!(
                "id {:?} is also on line {before}; make ids unique",
                id(&row)
            )));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(DatasetError::Line {
            path: path.display().to_string(),
            line: 1,
            what: "no row; the dataset is empty".into(),
        });
    }
    Ok(rows)
}
