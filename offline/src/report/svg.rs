//! Axes, lines and legends as inline SVG, with colours left to the style sheet.

use super::input::Role;

/// Text made safe inside HTML and SVG, in element content and in quoted attributes.
///
/// Control characters and bidirectional overrides become U+FFFD, because an id that reorders the
/// text around it lies to the reader without any markup.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            _ if character.is_control() => safe.push('\u{fffd}'),
            _ => safe.push(character),
        }
    }
    safe
}

/// A number for a person: about three figures, a real minus sign, a dash when there is none.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    let digits = match magnitude {
        _ if !value.is_finite() => return "–".to_owned(),
        m if m >= 1e6 || (m > 0.0 && m < 1e-3) => return format!("{value:.1e}").replace('-', "−"),
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.0995 || m == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}").replace('-', "−")
}

/// A percentage of a share.
pub fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{:.1} %", 100.0 * share).replace('-', "−")
    } else {
        "–".to_owned()
    }
}

/// A coordinate for SVG: one decimal, never anything but digits.
pub fn at(value: f64) -> String {
    if value.is_finite() {
        let text = format!("{:.1}", value.clamp(-1e6, 1e6));
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    } else {
        "0".to_owned()
    }
}

/// The style-sheet class of a role.
pub fn role_class(role: Role) -> &'static str {
    match role {
        Role::Teacher => "r-teacher",
        Role::Auxiliary => "r-auxiliary",
        Role::Student => "r-student",
        Role::UpperBound => "r-upper",
        Role::Gnss => "r-gnss",
        Role::Fused => "r-fused",
        Role::VisualOnly => "r-visual",
        Role::Truth => "r-truth",
        Role::Other => "r-other",
    }
}

/// `x,y` pairs of a path, skipping what is not finite (which breaks the line there).
pub fn path(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut text = String::new();
    let mut pen_down = false;
    for (x, y) in points {
        if !(x.is_finite() && y.is_finite()) {
            pen_down = false;
            continue;
        }
        text.push_str(if pen_down { "L" } else { "M" });
        text.push_str(&format!("{} {}", at(x), at(y)));
        pen_down = true;
    }
    text
}

/// One legend entry: a swatch, a name, and a detail in a quieter voice.
pub struct LegendEntry {
    /// Class of the swatch: a [`role_class`] or a state's class.
    pub class: String,
    /// The name, not yet escaped.
    pub name: String,
    /// The detail, not yet escaped.
    pub detail: String,
}

/// A legend as an HTML list, so that it wraps on narrow screens.
pub fn legend(entries: &[LegendEntry]) -> String {
    let mut html = "<ul class=\"legend\">".to_owned();
    for entry in entries {
        html.push_str(&format!(
            "<li class=\"{}\"><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\">\
             <path class=\"line\" d=\"M1 5L25 5\"/></svg><b>{}</b> <span>{}</span></li>",
            entry.class,
            escape(&entry.name),
            escape(&entry.detail)
        ));
    }
    html + "</ul>"
}

/// A figure with one x and one y axis, linear both.
pub struct Plot {
    x: (f64, f64),
    y: (f64, f64),
    width: f64,
    height: f64,
    labels: (String, String),
    percent_y: bool,
    body: String,
    after: String,
}

/// Width of a plot in its own units unless [`Plot::size`] says otherwise; the page scales it.
const WIDTH: f64 = 640.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

impl Plot {
    /// A plot over these ranges; an empty or broken range becomes one unit wide.
    pub fn new(x: (f64, f64), y: (f64, f64), labels: (&str, &str)) -> Self {
        let sound = |(low, high): (f64, f64)| {
            let low = if low.is_finite() { low } else { 0.0 };
            let wide = high.is_finite() && high - low > 1e-9 * low.abs().max(1e-9);
            (low, if wide { high } else { low + 1.0 })
        };
        Self {
            x: sound(x),
            y: sound(y),
            width: WIDTH,
            height: 330.0,
            labels: (labels.0.to_owned(), labels.1.to_owned()),
            percent_y: false,
            body: String::new(),
            after: String::new(),
        }
    }

    /// Another size, in the plot's units.
    pub fn size(mut self, width: f64, height: f64) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    /// Writes the y ticks as percentages of a share.
    pub fn percent_y(mut self) -> Self {
        self.percent_y = true;
        self
    }

    /// Where `x` lies.
    pub fn place_x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (self.width - LEFT - RIGHT)
    }

    /// Where `y` lies.
    pub fn place_y(&self, y: f64) -> f64 {
        let share = (y - self.y.0) / (self.y.1 - self.y.0);
        TOP + (1.0 - share) * (self.height - TOP - BOTTOM)
    }

    /// A line through `points`.
    pub fn line(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let places: Vec<_> = points
            .into_iter()
            .map(|(x, y)| (self.place_x(x), self.place_y(y)))
            .collect();
        let path = path(places);
        if !path.is_empty() {
            self.body.push_str(&format!(
                "<g class=\"{class}\"><path class=\"line\" d=\"{path}\"/></g>"
            ));
        }
    }

    /// The area between the x axis and `points`.
    pub fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        let sound: Vec<_> = points
            .iter()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .map(|&(x, y)| (self.place_x(x), self.place_y(y)))
            .collect();
        let (Some(first), Some(last)) = (sound.first(), sound.last()) else {
            return;
        };
        let floor = self.place_y(self.y.0);
        let outline = std::iter::once((first.0, floor))
            .chain(sound.iter().copied())
            .chain(std::iter::once((last.0, floor)));
        let path = path(outline);
        self.body.push_str(&format!(
            "<g class=\"{class}\"><path class=\"area\" d=\"{path}Z\"/></g>"
        ));
    }

    /// A box from the x axis up to `y`.
    pub fn bar(&mut self, class: &str, x: (f64, f64), y: f64) {
        let (left, right) = (self.place_x(x.0), self.place_x(x.1));
        let (top, floor) = (self.place_y(y), self.place_y(self.y.0));
        self.body.push_str(&format!(
            "<g class=\"{class}\"><rect class=\"bar\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></g>",
            at(left),
            at(top),
            at((right - left).max(0.0)),
            at((floor - top).max(0.0))
        ));
    }

    /// A dot with a white rim, and a tooltip.
    pub fn dot(&mut self, class: &str, x: f64, y: f64, tooltip: &str) {
        if x.is_finite() && y.is_finite() {
            self.body.push_str(&format!(
                "<g class=\"{class}\"><circle class=\"dot\" cx=\"{}\" cy=\"{}\" r=\"4\"><title>{}</title></circle></g>",
                at(self.place_x(x)),
                at(self.place_y(y)),
                escape(tooltip)
            ));
        }
    }

    /// A vertical line from the axis to `y`.
    pub fn drop(&mut self, class: &str, x: f64, y: f64) {
        if x.is_finite() && x >= self.x.0 && x <= self.x.1 {
            self.body.push_str(&format!(
                "<g class=\"{class}\"><path class=\"drop\" d=\"{}\"/></g>",
                path([
                    (self.place_x(x), self.place_y(self.y.0)),
                    (self.place_x(x), self.place_y(y))
                ])
            ));
        }
    }

    /// SVG put on top, unclipped.
    pub fn raw(&mut self, svg: &str) {
        self.after.push_str(svg);
    }

    /// The finished `<svg>`. `clip` must be unique on the page.
    pub fn finish(self, clip: &str, description: &str) -> String {
        let bottom = self.height - BOTTOM;
        let mut axes = String::new();
        for tick in ticks(self.y, 5) {
            let y = at(self.place_y(tick));
            let text = if self.percent_y {
                format!("{} %", round_number(100.0 * tick))
            } else {
                round_number(tick)
            };
            axes.push_str(&format!(
                "<path class=\"grid\" d=\"M{LEFT} {y}H{}\"/><text class=\"tick\" x=\"{}\" y=\"{y}\" dy=\".35em\" text-anchor=\"end\">{text}</text>",
                self.width - RIGHT,
                LEFT - 7.0,
            ));
        }
        for tick in ticks(self.x, (self.width / 80.0) as usize) {
            let x = at(self.place_x(tick));
            axes.push_str(&format!(
                "<path class=\"notch\" d=\"M{x} {bottom}v5\"/><text class=\"tick\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                round_number(tick)
            ));
        }
        axes.push_str(&format!(
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{}\"/>\
             <text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(13 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.width - RIGHT,
            at(0.5 * (LEFT + self.width - RIGHT)),
            self.height - 8.0,
            escape(&self.labels.0),
            at(0.5 * (TOP + bottom)),
            escape(&self.labels.1)
        ));
        format!(
            "<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\
             <clipPath id=\"{clip}\"><rect x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\
             {axes}<g clip-path=\"url(#{clip})\">{}</g>{}</svg>",
            self.width,
            self.height,
            escape(description),
            TOP - 5.0,
            self.width - LEFT - RIGHT + 5.0,
            bottom - TOP + 10.0,
            self.body,
            self.after
        )
    }
}

/// Round numbers covering a range, at most about `count` of them.
pub fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let first = (low / step - 1e-6).ceil();
    (0..=count as i64 + 1)
        .map(|index| (first + index as f64) * step)
        .take_while(|tick| *tick <= high + 1e-6 * step)
        .collect()
}

/// A number that is round already, such as a tick, without zeros behind the decimal point.
pub fn round_number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    format!("{}", rounded + 0.0).replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_direction_tricks_are_neutralised() {
        assert_eq!(
            escape("<script>'\"&\u{202e}\u{0}"),
            "&lt;script&gt;&#39;&quot;&amp;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn numbers_keep_three_figures_and_never_print_nan() {
        let cases = [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (-0.5, "−0.50"),
            (0.0123, "0.012"),
            (3.2e-6, "3.2e−6"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn coordinates_are_always_digits() {
        for value in [f64::NAN, f64::INFINITY, 1e300, -1e300, 3.0, 2.25] {
            let text = at(value);
            assert!(
                text.chars().all(|c| c.is_ascii_digit() || ".-".contains(c)),
                "{text}"
            );
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 20.0), 8), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(ticks((0.0, 1.0), 5), [0.0, 0.2, 0.4, 3.0 * 0.2, 0.8, 1.0]);
        assert!(ticks((0.0, f64::NAN), 5).is_empty());
        assert!(ticks((1.0, 1.0), 5).is_empty());
    }

    #[test]
    fn a_broken_range_still_makes_a_plot() {
        let mut plot = Plot::new((f64::NAN, f64::NAN), (3.0, 3.0), ("x", "y"));
        plot.line("r-other", [(0.0, 3.0), (f64::NAN, 1.0), (1.0, 4.0)]);
        plot.dot("r-other", f64::INFINITY, 0.0, "never");
        let svg = plot.finish("clip", "test");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
