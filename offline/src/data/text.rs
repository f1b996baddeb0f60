//! Foreign text, bounded: label files, list files, calibration files.

use crossfix_onboard::file;
use std::path::Path;

/// Largest text file of a published dataset.
const MOST_TEXT_BYTES: u64 = 256 << 20;
/// Longest line of one.
const MOST_LINE_BYTES: usize = 4096;

/// The lines of a text file, without their ends. A newline after the last is optional.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn lines(path: &Path) -> Result<Vec<String>, String> {
    let say = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let text = file::read_text(path, MOST_TEXT_BYTES).map_err(|error| say(&error))?;
    let text = text.trim_start_matches('\u{feff}');
    if let Some(at) = text.lines().position(|line| line.len() > MOST_LINE_BYTES) {
        return Err(say(&format!(
            "line {} is longer than {MOST_LINE_BYTES} bytes",
            at + 1
        )));
    }
    Ok(text.lines().map(str::to_owned).collect())
}

/// A name that stays in its folder: one path component with this extension.
///
/// # Errors
/// What is wrong with it.
pub fn plain_name<'a>(name: &'a str, extension: &str) -> Result<&'a str, String> {
    let plain = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains(['/', '\\', ':'])
        && !name.chars().any(char::is_control);
    if !plain {
        return Err(format!("{name:?} is not a plain file name"));
    }
    if !name.ends_with(extension) {
        return Err(format!("{name:?} does not end in {extension}"));
    }
    Ok(name)
}

/// A finite number.
///
/// # Errors
/// What stands there instead.
pub fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("{text:?} is not a finite number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for name in [
            "../a.png", "/a.png", "a/b.png", "..", "", ".png", "a\\b.png", "C:a.png", "a\0.png",
        ] {
            assert!(plain_name(name, ".png").is_err(), "{name:?}");
        }
        assert!(plain_name("a,40.7,-73.9,.png", ".png").is_ok());
        assert!(plain_name("a.jpg", ".png").is_err());
    }

    #[test]
    fn numbers_are_finite() {
        assert_eq!(number("-3.5e1"), Ok(-35.0));
        for text in ["nan", "inf", "", "1,5", "0x10", "1e999"] {
            assert!(number(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lines_end_with_or_without_a_newline_and_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        std::fs::write(&path, "one\r\ntwo").unwrap();
        assert_eq!(lines(&path).unwrap(), ["one", "two"]);
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(lines(&path).unwrap_err().contains("line 1"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(lines(&path).is_err());
    }
}
