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
    /// As [`Self::around`], but no wider and no taller than the picture, as long as that holds every point: what
    /// would be bare ground is cut off.
    pub fn over(points: impl Iterator<Item = [f64; 2]>, map: Option<&MapPicture>) -> Option<Self> {
        let points: Vec<[f64; 2]> = points.collect();
        let view = Self::around(points.iter().copied())?;
        let Some(map) = map else { return Some(view) };
        let scale = map.metres_per_pixel;
        let sizes = [map.picture.width_px(), map.picture.height_px()].map(|px| px as f64 * scale);
        let [west, north] = map.top_left_m;
        let sound = scale > 0.0
            && [west, north, sizes[0], sizes[1]]
                .iter()
                .all(|v| v.is_finite());
        if !sound {
            return Some(view);
        }
        let (width, height) = (
            WIDTH / view.units_per_metre,
            view.height / view.units_per_metre,
        );
        // The part of one axis that both show, where it holds what lies there.
        let common = |axis: usize, low: f64, size: f64, map_low: f64, map_size: f64| {
            let (from, to) = (low.max(map_low), (low + size).min(map_low + map_size));
            let shown = points.iter().map(|point| point[axis]);
            let mut shown = shown.filter(|value| (low..low + size).contains(value));
            let holds = from < to && shown.all(|value| (from..to).contains(&value));
            if holds {
                (from, to - from)
            } else {
                (low, size)
            }
        };
        let (west_m, width) = common(0, view.west_m, width, west, sizes[0]);
        let (south_m, height) =
            common(1, view.north_m - height, height, north - sizes[1], sizes[1]);
        Some(Self {
            west_m,
            north_m: south_m + height,
            units_per_metre: WIDTH / width,
            height: WIDTH * height / width,
        })
    }

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
            y - 13.0,
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
    fn a_view_over_a_picture_shows_no_bare_ground() {
        use crossfix_calibration::RgbImage;
        let image = RgbImage {
            width: 100,
            height: 100,
            data: vec![9; 30_000],
        };
        let map = MapPicture {
            picture: super::super::Picture::jpeg(&image, 100).unwrap(),
            top_left_m: [-100.0, 100.0],
            metres_per_pixel: 2.0,
        };
        // A drive from south to north: around it the view is wider than the picture.
        let drive = || [[0.0, -80.0], [10.0, 80.0]].into_iter();
        assert!(WIDTH / Viewport::around(drive()).unwrap().scale() > 250.0);
        let view = Viewport::over(drive(), Some(&map)).unwrap();
        assert!((WIDTH / view.scale() - 200.0).abs() < 1e-9);
        for point in drive() {
            let (x, y) = view.place(point);
            assert!((0.0..WIDTH).contains(&x) && (0.0..view.height).contains(&y));
        }
        let beside = [[500.0, 0.0], [600.0, 0.0]].into_iter();
        assert!(
            Viewport::over(beside, Some(&map))
                .unwrap()
                .place([550.0, 0.0])
                .0
                > 0.0
        );
    }

    #[test]
    fn one_point_has_ground_around_it_and_none_has_nothing() {
        let view = Viewport::around([[5.0, 5.0], [f64::NAN, 0.0]].into_iter()).unwrap();
        assert!(view.scale().is_finite() && view.height.is_finite());
        assert!(Viewport::around([[f64::NAN, 0.0]].into_iter()).is_none());
    }
}
