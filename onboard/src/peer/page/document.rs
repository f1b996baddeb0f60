//! The page itself: one HTML document with its script and style inside, and a policy that lets a browser
//! run nothing else and ask nobody else (Content Security Policy Level 3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPTS: [&str; 2] = [include_str!("map.js"), include_str!("page.js")];

/// The document and the header fields that go with it.
pub struct Document {
    /// HTML.
    pub html: String,
    /// Header fields, each with its `\r\n`.
    pub headers: String,
}

impl Document {
    /// The page of this version.
    pub fn new() -> Self {
        let script = format!("\"use strict\";\n{}", SCRIPTS.concat());
        let html = HTML
            .replace("/* page.css */", STYLE)
            .replace("/* page.js */", &script);
        // What stands in the document is run because its hash is here, and nothing else is.
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src 'self' data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            hash(&script),
            hash(STYLE)
        );
        Self {
            html,
            headers: format!("Content-Security-Policy: {policy}\r\n{PRIVATE}"),
        }
    }
}

/// Header fields of every answer: no other site may embed it or learn that it was open.
pub const PRIVATE: &str = "Referrer-Policy: no-referrer\r\nX-Frame-Options: DENY\r\n\
                           Cross-Origin-Resource-Policy: same-origin\r\n";

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_needs_nothing_from_elsewhere_and_puts_text_in_as_text() {
        let Document { html, headers } = Document::new();
        assert!(!html.contains("/* page."), "style and script are in it");
        for foreign in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!html.contains(sink), "{sink}");
        }
        assert_eq!(html.matches("<script>").count(), 1);
        assert!(!html.contains(" style=") && !html.contains(" onclick="));
        assert!(headers.contains("default-src 'none'") && !headers.contains("unsafe"));
    }

    #[test]
    fn the_hashes_are_those_of_what_stands_in_the_document() {
        let Document { html, headers } = Document::new();
        for tag in ["script", "style"] {
            let inside = html.split(&format!("<{tag}>")).nth(1).unwrap();
            let inside = inside.split(&format!("</{tag}>")).next().unwrap();
            assert!(headers.contains(&hash(inside)), "{tag}");
        }
    }
}
