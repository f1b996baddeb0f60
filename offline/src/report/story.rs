//! What happened, step by step, for someone who was not there.

use super::html::Page;
use super::svg::escape;
use serde::{Deserialize, Serialize};

/// One step: what was done, and what came of it with its figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoryStep {
    /// In a few words.
    pub title: String,
    /// In a sentence or three.
    pub text: String,
}

impl StoryStep {
    /// A step.
    pub fn new(title: &str, text: String) -> Self {
        Self {
            title: title.into(),
            text,
        }
    }
}

/// The steps as a numbered list.
pub fn section(page: &mut Page, steps: &[StoryStep]) {
    let item = |step: &StoryStep| {
        let (title, text) = (escape(&step.title), escape(&step.text));
        format!("<li><b>{title}</b> {text}</li>")
    };
    let items: String = steps.iter().map(item).collect();
    if !items.is_empty() {
        page.section(
            "story",
            "What happened",
            format!("<ol class=\"story\">{items}</ol>"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_and_escaped_and_none_leave_no_trace() {
        let mut page = Page::new("x");
        section(&mut page, &[StoryStep::new("A <b>", "what & how".into())]);
        let html = page.finish();
        assert!(html.contains("<li><b>A &lt;b&gt;</b> what &amp; how</li>"));
        let mut page = Page::new("x");
        section(&mut page, &[]);
        assert!(!page.finish().contains("What happened"));
    }
}
