//! Turns `{code 12ab}`, an offset in the running program, into a source line.

use std::process::Command;

/// The message with every `{code …}` replaced by `at file:line`, or left out where `addr2line`
/// (part of the binutils that g++ brings) does not know.
pub fn resolve(message: &str) -> String {
    let mut resolved = String::new();
    let mut rest = message;
    while let Some(begin) = rest.find(" {code ") {
        let code = &rest[begin + " {code ".len()..];
        let end = code.find('}').unwrap_or(code.len());
        resolved += &rest[..begin];
        if let Some(line) = source_line(&code[..end]) {
            resolved += " at ";
            resolved += &line;
        }
        rest = code.get(end + 1..).unwrap_or("");
    }
    resolved + rest
}

fn source_line(code: &str) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new("addr2line")
        .arg("-e")
        .arg(program)
        .arg(code)
        .output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    // "/path/file.cu:12 (discriminator 3)"
    let line = text.split_whitespace().next()?.rsplit('/').next()?;
    (!line.starts_with('?')).then(|| line.to_string())
}
