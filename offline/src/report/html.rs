//! The page: sections in order, the pictures once each, styles and script inline.

use super::input::{Headline, MapPicture};
use super::picture::Picture;
use super::svg::escape;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// What the pictures of one page may take, as base64: the rest of a 6 MB page is for tracks.
const PICTURE_BUDGET: usize = 4_700_000;

/// What a section may write into, and what keeps the page's ids and size in hand.
pub struct Page {
    title: String,
    header: String,
    sections: Vec<Section>,
    definitions: String,
    maps: Vec<(Picture, String)>,
    picture_bytes: usize,
    ids: usize,
}

struct Section {
    anchor: &'static str,
    title: &'static str,
    body: String,
}

impl Page {
    /// An empty page.
    pub fn new(title: &str) -> Self {
        let title = if title.trim().is_empty() {
            "Crossfix report"
        } else {
            title
        };
        Self {
            title: escape(title),
            header: String::new(),
            sections: Vec::new(),
            definitions: String::new(),
            maps: Vec::new(),
            picture_bytes: 0,
            ids: 0,
        }
    }

    /// The paragraph and the large numbers under the title.
    pub fn verdict(&mut self, verdict: &str, headlines: &[Headline]) {
        if !verdict.trim().is_empty() {
            self.header += &format!("<p class=\"verdict\">{}</p>", escape(verdict));
        }
        if headlines.is_empty() {
            return;
        }
        self.header += "<div class=\"headlines\">";
        for headline in headlines {
            let (class, mark) = match headline.good {
                Some(true) => ("good", "✓ "),
                Some(false) => ("bad", "✗ "),
                None => ("", ""),
            };
            self.header += &format!(
                "<div class=\"headline {class}\"><div class=\"what\">{}</div>\
                 <div class=\"value\">{}</div><div class=\"note\">{mark}{}</div></div>",
                escape(&headline.label),
                escape(&headline.value),
                escape(&headline.note)
            );
        }
        self.header += "</div>";
    }

    /// Adds a section, unless it is empty.
    pub fn section(&mut self, anchor: &'static str, title: &'static str, body: String) {
        if !body.is_empty() {
            self.sections.push(Section {
                anchor,
                title,
                body,
            });
        }
    }

    /// An element id nobody else has.
    pub fn unique_id(&mut self, stem: &str) -> String {
        self.ids += 1;
        format!("{stem}-{}", self.ids)
    }

    /// Whether these bytes still fit; if so they are counted.
    pub fn afford(&mut self, bytes: usize) -> bool {
        let fits = self.picture_bytes + bytes <= PICTURE_BUDGET;
        if fits {
            self.picture_bytes += bytes;
        }
        fits
    }

    /// Puts a map picture on the page once, however many figures show it, and returns the id to
    /// `use`. `None` when the picture is past the budget or its scale is broken.
    pub fn map_picture(&mut self, map: &MapPicture) -> Option<String> {
        let scale = map.metres_per_pixel;
        let sound =
            scale.is_finite() && scale > 0.0 && map.top_left_m.iter().all(|v| v.is_finite());
        if !sound {
            return None;
        }
        if let Some((_, id)) = self
            .maps
            .iter()
            .find(|(picture, _)| *picture == map.picture)
        {
            return Some(id.clone());
        }
        if !self.afford(map.picture.page_bytes()) {
            return None;
        }
        let id = self.unique_id("map");
        self.definitions += &format!(
            "<image id=\"{id}\" width=\"{}\" height=\"{}\" href=\"{}\"/>",
            map.picture.width_px(),
            map.picture.height_px(),
            map.picture.data_uri()
        );
        self.maps.push((map.picture.clone(), id.clone()));
        Some(id)
    }

    /// The whole document.
    pub fn finish(self) -> String {
        let mut navigation = String::new();
        let mut sections = String::new();
        for Section {
            anchor,
            title,
            body,
        } in &self.sections
        {
            navigation += &format!("<a href=\"#{anchor}\">{title}</a>");
            sections += &format!("<section id=\"{anchor}\"><h2>{title}</h2>{body}</section>\n");
        }
        if !navigation.is_empty() {
            navigation = format!("<nav aria-label=\"Sections\">{navigation}</nav>");
        }
        let definitions = if self.definitions.is_empty() {
            String::new()
        } else {
            format!(
                "<svg class=\"defs\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs>{}</defs></svg>",
                self.definitions
            )
        };
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body>{definitions}\
             <header><div class=\"brand\">Crossfix</div><h1>{title}</h1>{header}</header>\n\
             {navigation}\n<main>\n{sections}</main>\n<script>\n{SCRIPT}</script></body></html>\n",
            title = self.title,
            header = self.header,
        )
    }
}

/// A paragraph in the quiet voice under a heading, or nothing.
pub fn lead(text: &str) -> String {
    if text.trim().is_empty() {
        String::new()
    } else {
        format!("<p class=\"lead\">{}</p>", escape(text))
    }
}

/// A figure with its caption above.
pub fn figure(caption: &str, body: &str) -> String {
    let caption = if caption.trim().is_empty() {
        String::new()
    } else {
        format!("<figcaption>{}</figcaption>", escape(caption))
    };
    format!("<figure>{caption}{body}</figure>")
}
