//! A piece of ground in SVG units: which metres are shown, and where they land.

use super::html::Page;
use super::input::MapPicture;
use super::svg::{at, round_number};

/// Width of every map in SVG units.
const WIDTH: f64 = 1000.0;

/// The shown ground, north up.
pub struct Viewport {
    west_m: f64,
    north_m: f64,
    units_per_metre: f64,
    height: f64,
}

impl Viewport {
    /// The ground around `points` with some room, between 1.5 and 2.4 times as wide as tall. `None` without a single finite point.
    pub fn around(points: impl Iterator<Item = [f64; 2]>) -> Option<Self> {
        let mut low = [f64::INFINITY; 2];
        let mut high = [f64::NEG_INFINITY; 2];
        for point in points.filter(|p| p.iter().all(|v| v.is_finite() && v.abs() < 1e8)) {
            for axis in 0..2 {
                low[axis] = low[axis].min(point[axis]);
                high[axis] = high[axis].max(point[axis]);
            }
        }
        if !low[0].is_finite() {
            return None;
        }
        let room = 12.0 + 0.04 * (high[0] - low[0]).max(high[1] - low[1]);
        let mut width = high[0] - low[0] + 2.0 * room;
        let mut height = high[1] - low[1] + 2.0 * room;
        width = width.max(height * 1.5);
        height = height.max(width / 2.4);
        Some(Self {
            west_m: 0.5 * (low[0] + high[0] - width),
            north_m: 0.5 * (low[1] + high[1] + height),
            units_per_metre: WIDTH / width,
            height: WIDTH * height / width,
        })
    }

    /// Where `[east, north]` lands.
    pub fn place(&self, [east_m, north_m]: [f64; 2]) -> (f64, f64) {
        (
            (east_m - self.west_m) * self.units_per_metre,
            (self.north_m - north_m) * self.units_per_metre,
        )
    }

    /// SVG units per metre.
    pub fn scale(&self) -> f64 {
        self.units_per_metre
    }

    /// `viewBox` attribute value.
    pub fn view_box(&self) -> String {
        format!("0 0 {WIDTH} {}", at(self.height))
    }

    /// The aerial picture under everything else, or plain ground.
    pub fn background(&self, page: &mut Page, map: Option<&MapPicture>) -> String {
        let plain = format!(
            "<rect class=\"ground\" width=\"{WIDTH}\" height=\"{}\"/>",
            at(self.height)
        );
        let Some(map) = map else { return plain };
        let Some(id) = page.map_picture(map) else {
            return plain;
        };
        let (x, y) = self.place(map.top_left_m);
        let zoom = map.metres_per_pixel * self.units_per_metre;
        format!(
            "{plain}<use href=\"#{id}\" transform=\"translate({x:.2} {y:.2}) scale({zoom:.5})\"/>"
        )
    }

    /// A round number of metres, bottom left, and where north is.
    pub fn scale_bar(&self) -> String {
        let span = WIDTH / self.units_per_metre;
        let length = super::svg::ticks((0.0, span), 8)
            .get(1)
            .copied()
            .unwrap_or(span);
        let units = length * self.units_per_metre;
        let y = self.height - 22.0;
        format!(
            "<g class=\"scalebar\"><path class=\"halo\" d=\"M20 {y:.1}h{units:.1}\"/><path d=\"M20 {y:.1}h{units:.1}\"/>\
             <text x=\"20\" y=\"{:.1}\">{} m, north up</text></g>",
            y - 9.0,
            round_number(length),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn north_is_up_and_east_is_right() {
        let view = Viewport::around([[0.0, 0.0], [100.0, 50.0]].into_iter()).unwrap();
        let (x0, y0) = view.place([0.0, 0.0]);
        let (x1, y1) = view.place([100.0, 50.0]);
        assert!(x1 > x0 && y1 < y0);
        assert!(x0 > 0.0 && x1 < WIDTH && y1 > 0.0 && y0 < view.height);
    }

    #[test]
    fn the_scale_bar_says_the_metres_that_it_is_long() {
        for (span, label) in [
            (8.0, ">5 m,"),
            (80.0, ">20 m,"),
            (400.0, ">100 m,"),
            (4e3, ">1000 m,"),
        ] {
            let view = Viewport::around([[0.0, 0.0], [span, 0.0]].into_iter()).unwrap();
            let bar = view.scale_bar();
            assert!(bar.contains(label), "{span}: {bar}");
        }
    }

    #[test]
    fn one_point_has_ground_around_it_and_none_has_nothing() {
        let view = Viewport::around([[5.0, 5.0], [f64::NAN, 0.0]].into_iter()).unwrap();
        assert!(view.scale().is_finite() && view.height.is_finite());
        assert!(Viewport::around([[f64::NAN, 0.0]].into_iter()).is_none());
    }
}
