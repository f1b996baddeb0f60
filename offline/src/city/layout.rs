//! What stands where: blocks with pavements, lots with buildings, trees, lamps and parked cars, all
//! in plan coordinates. Nothing is drawn here.

use super::dice::Dice;
use super::streets::Streets;
use super::style::{Colour, Geometry, Style};

/// A rectangle in the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plot {
    /// Low u and v.
    pub low: [f32; 2],
    /// High u and v.
    pub high: [f32; 2],
}

impl Plot {
    fn new(u0: f32, v0: f32, u1: f32, v1: f32) -> Self {
        Self {
            low: [u0, v0],
            high: [u1, v1],
        }
    }

    /// Smaller by `by` on every side.
    pub fn inset(self, by: f32) -> Self {
        let ([u0, v0], [u1, v1]) = (self.low, self.high);
        Self::new(u0 + by, v0 + by, u1 - by, v1 - by)
    }

    /// Size along u and v.
    pub fn size(self) -> [f32; 2] {
        [self.high[0] - self.low[0], self.high[1] - self.low[1]]
    }

    /// Its middle.
    pub fn middle(self) -> [f32; 2] {
        [
            0.5 * (self.low[0] + self.high[0]),
            0.5 * (self.low[1] + self.high[1]),
        ]
    }
}

/// A patch of ground of one colour.
#[derive(Clone, Copy, Debug)]
pub struct Surface {
    /// Where.
    pub plot: Plot,
    /// Albedo.
    pub colour: Colour,
    /// Height above the road, m.
    pub height_m: f32,
}

/// How a wall is glazed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facade {
    /// Single windows.
    Punched,
    /// A band of glass per storey.
    Ribbon,
    /// Glass all over.
    Curtain,
}

/// How a building ends at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roof {
    /// A ridge along the longer side.
    Gable,
    /// Flat, with a parapet and some clutter.
    Flat,
}

/// A building on its lot.
#[derive(Clone, Debug)]
pub struct House {
    /// Footprint.
    pub plot: Plot,
    /// Eaves or parapet above the road, m.
    pub height_m: f32,
    /// The roof's form.
    pub roof: Roof,
    /// Roof albedo.
    pub roof_colour: Colour,
    /// Wall albedo.
    pub wall: Colour,
    /// Window albedo.
    pub window: Colour,
    /// How walls are glazed.
    pub facade: Facade,
    /// Storey height, m.
    pub storey_m: f32,
    /// Distance between window axes, m.
    pub bay_m: f32,
    /// Share of a bay that is window.
    pub window_share: f32,
    /// Shop windows on the ground floor.
    pub shop: bool,
    /// Boxes on a flat roof.
    pub clutter: Vec<(Plot, f32)>,
}

/// A tree.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Plan position.
    pub at: [f32; 2],
    /// Radius of the crown, m.
    pub radius_m: f32,
    /// Top, m.
    pub height_m: f32,
    /// Leaves.
    pub colour: Colour,
}

/// A place where a car may stand.
#[derive(Clone, Copy, Debug)]
pub struct CarPlace {
    /// Plan position of its middle.
    pub at: [f32; 2],
    /// Whether it stands along u.
    pub along_u: bool,
    /// Paint.
    pub colour: Colour,
    /// Length, m.
    pub length_m: f32,
    /// There on the day of the flight.
    pub on_aerial: bool,
    /// There on the day of the drive.
    pub on_ground: bool,
}

/// Everything that stands on a district's ground.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Painted in this order.
    pub surfaces: Vec<Surface>,
    /// Buildings.
    pub houses: Vec<House>,
    /// Hedges, 0.9 m high.
    pub hedges: Vec<Plot>,
    /// Trees.
    pub trees: Vec<Tree>,
    /// Street lamps.
    pub lamps: Vec<[f32; 2]>,
    /// Parked cars.
    pub cars: Vec<CarPlace>,
}

/// How far the middle of a parked car stands from the kerb, on the road's side.
pub const PARKING_OFFSET_M: f32 = 1.1;
const KERB_HEIGHT_M: f32 = 0.12;
const KERB_WIDTH_M: f32 = 0.3;
/// Objects further than this outside the district are not made.
const MARGIN_M: f32 = 30.0;

/// One side of a block: 0 and 1 run along u at low and high v, 2 and 3 along v at low and high u.
#[derive(Clone, Copy)]
struct Side(usize);

impl Side {
    fn runs_along_u(self) -> bool {
        self.0 < 2
    }

    /// The plan point `along` this side of `plot`, `inward` from its edge.
    fn point(self, plot: Plot, along: f32, inward: f32) -> [f32; 2] {
        match self.0 {
            0 => [along, plot.low[1] + inward],
            1 => [along, plot.high[1] - inward],
            2 => [plot.low[0] + inward, along],
            _ => [plot.high[0] - inward, along],
        }
    }

    fn extent(self, plot: Plot) -> [f32; 2] {
        let axis = usize::from(!self.runs_along_u());
        [plot.low[axis], plot.high[axis]]
    }

    /// The rectangle from `start` to `end` along this side and from `near` to `far` inward.
    fn plot(self, plot: Plot, [start, end]: [f32; 2], [near, far]: [f32; 2]) -> Plot {
        let (a, b) = (self.point(plot, start, near), self.point(plot, end, far));
        Plot::new(
            a[0].min(b[0]),
            a[1].min(b[1]),
            a[0].max(b[0]),
            a[1].max(b[1]),
        )
    }
}

/// Fills the blocks between the streets.
pub fn lay_out(streets: &Streets, style: &Style, dice: &mut Dice) -> Layout {
    use super::streets::Family::{AlongU, AlongV};
    let mut layout = Layout::default();
    for column in streets.family(AlongV).windows(2) {
        for row in streets.family(AlongU).windows(2) {
            let block = Plot::new(
                column[0].at + 0.5 * column[0].width_m,
                row[0].at + 0.5 * row[0].width_m,
                column[1].at - 0.5 * column[1].width_m,
                row[1].at - 0.5 * row[1].width_m,
            );
            let corners = [
                block.low,
                [block.low[0], block.high[1]],
                block.high,
                [block.high[0], block.low[1]],
            ];
            if corners
                .iter()
                .any(|corner| streets.is_near(corner[0], corner[1], MARGIN_M))
            {
                let widths = [
                    row[0].width_m,
                    row[1].width_m,
                    column[0].width_m,
                    column[1].width_m,
                ];
                Block {
                    style,
                    dice,
                    layout: &mut layout,
                    plot: block,
                    widths,
                }
                .fill();
            }
        }
    }
    layout
}

struct Block<'a> {
    style: &'a Style,
    dice: &'a mut Dice,
    layout: &'a mut Layout,
    plot: Plot,
    /// Widths of the streets at the four sides.
    widths: [f32; 4],
}

impl Block<'_> {
    fn geometry(&self) -> &Geometry {
        &self.style.geometry
    }

    fn jittered(&mut self, palette: &[Colour], sigma: f64) -> Colour {
        let base = self.dice.pick(palette);
        jitter(base, sigma, self.dice)
    }

    fn surface(&mut self, plot: Plot, colour: Colour, height_m: f32) {
        self.layout.surfaces.push(Surface {
            plot,
            colour,
            height_m,
        });
    }

    fn fill(mut self) {
        let style = self.style;
        let pavement_m = self.dice.within(style.geometry.pavement_m);
        let pavement = self.jittered(&style.palette.pavement, 5.0);
        let kerb = pavement.map(|c| (c * 1.12).min(225.0));
        self.surface(self.plot, kerb, KERB_HEIGHT_M);
        self.surface(self.plot.inset(KERB_WIDTH_M), pavement, KERB_HEIGHT_M);
        let inner = self.plot.inset(pavement_m);
        let grass = self.jittered(&style.palette.grass, 8.0);
        let plaza = self.jittered(&style.palette.plaza, 8.0);
        let kind = self.dice.unit();
        if kind < 0.09 {
            self.park(inner, grass, plaza);
        } else if kind < 0.15 {
            self.square(inner, plaza);
        } else {
            let lawn = self.dice.chance(style.geometry.lawn_share);
            self.surface(inner, if lawn { grass } else { plaza }, KERB_HEIGHT_M);
            self.built(inner, !lawn);
        }
        self.kerbside(pavement_m);
    }

    fn park(&mut self, inner: Plot, grass: Colour, path: Colour) {
        self.surface(inner, grass, KERB_HEIGHT_M);
        let ([u, v], [width, depth]) = (inner.middle(), inner.size());
        self.surface(
            Plot::new(u - 1.2, inner.low[1], u + 1.2, inner.high[1]),
            path,
            KERB_HEIGHT_M,
        );
        if self.dice.chance(0.5) {
            self.surface(
                Plot::new(inner.low[0], v - 1.0, inner.high[0], v + 1.0),
                path,
                KERB_HEIGHT_M,
            );
        }
        let count = (width * depth / 90.0 * (0.4 + self.geometry().tree_share)) as usize;
        for _ in 0..count {
            let at = [
                self.dice.within([inner.low[0] + 2.0, inner.high[0] - 2.0]),
                self.dice.within([inner.low[1] + 2.0, inner.high[1] - 2.0]),
            ];
            self.tree(at);
        }
    }

    fn square(&mut self, inner: Plot, plaza: Colour) {
        self.surface(inner, plaza, KERB_HEIGHT_M);
        let tone = plaza.map(|c| c * 0.88);
        // Bands of darker stone give a square a pattern that both views show.
        let pitch = self.dice.within([8.0, 14.0]);
        let mut u = inner.low[0] + 0.5 * pitch;
        while u + 1.0 < inner.high[0] {
            self.surface(
                Plot::new(u, inner.low[1], u + 1.0, inner.high[1]),
                tone,
                KERB_HEIGHT_M,
            );
            u += pitch;
        }
    }

    fn built(&mut self, inner: Plot, car_park: bool) {
        let repeats = self.dice.chance(0.4).then(|| self.house_kind());
        let [width, depth] = inner.size();
        for side in (0..4).map(Side) {
            let geometry = &self.style.geometry;
            let reach = 0.5 * if side.runs_along_u() { depth } else { width } - 2.0;
            let [mut at, mut end] = side.extent(inner);
            if !side.runs_along_u() {
                // The other two sides already stand in the corners.
                at += self.dice.within(geometry.depth_m) + 3.0;
                end -= self.dice.within(geometry.depth_m) + 3.0;
            }
            let hedged = self.dice.chance(0.35);
            while at < end - 6.0 {
                let kind = match &repeats {
                    Some(kind) => kind.clone(),
                    None => self.house_kind(),
                };
                let lot_m = kind.lot_m.min(end - at);
                if lot_m < 6.0 {
                    break;
                }
                let free = self.dice.chance(geometry.gap_share);
                let gap = if free {
                    self.dice.within([0.6, 4.0])
                } else {
                    0.0
                };
                let setback = self.dice.within(geometry.setback_m);
                let depth = self.dice.within(geometry.depth_m).min(reach - setback);
                if depth > 4.0 && self.dice.chance(0.93) {
                    let span = [at + 0.5 * gap, at + lot_m - 0.5 * gap];
                    let plot = side.plot(inner, span, [setback, setback + depth]);
                    self.house(plot, &kind);
                    if hedged && setback > 2.0 {
                        self.layout.hedges.push(side.plot(inner, span, [0.2, 0.9]));
                    }
                }
                at += lot_m;
            }
        }
        if car_park && width > 44.0 && depth > 44.0 {
            let v = inner.middle()[1];
            let mut u = inner.low[0] + 22.0;
            let line = self.style.palette.paint;
            while u < inner.high[0] - 22.0 {
                let bay = Plot::new(u - 1.4, v - 2.6, u - 1.28, v + 2.6);
                self.surface(bay, line, KERB_HEIGHT_M);
                self.car_place([u, v], false, 0.5);
                u += 2.8;
            }
        }
    }

    fn house_kind(&mut self) -> HouseKind {
        let (geometry, palette) = (&self.style.geometry, &self.style.palette);
        let facade = [Facade::Punched, Facade::Ribbon, Facade::Curtain]
            [self.dice.weighted(geometry.facade_weights.into_iter())];
        HouseKind {
            lot_m: self.dice.within(geometry.lot_width_m),
            height_m: self.dice.within(geometry.building_height_m),
            roof: if self.dice.chance(geometry.gable_share) {
                Roof::Gable
            } else {
                Roof::Flat
            },
            roof_colour: self.jittered(&palette.roofs, 8.0),
            wall: self.jittered(&palette.walls, 8.0),
            window: self.dice.pick(&palette.windows),
            facade,
            storey_m: geometry.storey_m * self.dice.within([0.9, 1.1]),
            bay_m: self.dice.within([1.8, 3.4]),
            window_share: self.dice.within([0.35, 0.65]),
            shop: self.dice.chance(0.35),
        }
    }

    fn house(&mut self, plot: Plot, kind: &HouseKind) {
        let [width, depth] = plot.size();
        let mut clutter = Vec::new();
        if kind.roof == Roof::Flat && width.min(depth) > 6.0 {
            for _ in 0..self.dice.index(5) {
                let u = self.dice.within([plot.low[0] + 1.5, plot.high[0] - 3.5]);
                let v = self.dice.within([plot.low[1] + 1.5, plot.high[1] - 3.5]);
                let size = [self.dice.within([1.0, 3.0]), self.dice.within([1.0, 3.0])];
                let tone = self.dice.within([0.6, 1.3]);
                clutter.push((Plot::new(u, v, u + size[0], v + size[1]), tone));
            }
        }
        self.layout.houses.push(House {
            plot,
            height_m: kind.height_m,
            roof: kind.roof,
            roof_colour: kind.roof_colour,
            wall: kind.wall,
            window: kind.window,
            facade: kind.facade,
            storey_m: kind.storey_m,
            bay_m: kind.bay_m,
            window_share: kind.window_share,
            shop: kind.shop,
            clutter,
        });
    }

    /// Trees, lamps and parked cars along the four sides.
    fn kerbside(&mut self, pavement_m: f32) {
        for (side, width_m) in self.widths.into_iter().enumerate() {
            let geometry = &self.style.geometry;
            let side = Side(side);
            let [start, end] = side.extent(self.plot);
            if self.dice.chance(geometry.tree_share * 1.3) {
                let spacing = geometry.tree_spacing_m * self.dice.within([0.8, 1.4]);
                let mut along = start + 6.0;
                while along < end - 6.0 {
                    if self.dice.chance(0.8) {
                        let shift = self.dice.normal(0.4) as f32;
                        self.tree(side.point(self.plot, along + shift, 0.4 * pavement_m));
                    }
                    along += spacing;
                }
            }
            let spacing = self.dice.within([22.0, 34.0]);
            let mut along = start + self.dice.within([3.0, 10.0]);
            while along < end - 3.0 {
                self.layout.lamps.push(side.point(self.plot, along, 0.55));
                along += spacing;
            }
            // A narrow street leaves room for parked cars along one side only.
            let parking = width_m > 8.0 || side.0.is_multiple_of(2);
            if parking && self.dice.chance(0.8) {
                let mut along = start + 11.0;
                while along < end - 11.0 {
                    let at = side.point(self.plot, along, -PARKING_OFFSET_M);
                    self.car_place(at, side.runs_along_u(), geometry.parked_share);
                    along += 5.9;
                }
            }
        }
    }

    fn car_place(&mut self, at: [f32; 2], along_u: bool, share: f32) {
        if !self.dice.chance(share) {
            return;
        }
        // About half of the cars seen from the air are still there on the day of the drive.
        let stays = self.dice.chance(0.5);
        let place = CarPlace {
            at,
            along_u,
            colour: self.jittered(&self.style.palette.cars, 10.0),
            length_m: self.dice.within([3.9, 4.9]),
            on_aerial: stays || self.dice.chance(0.4),
            on_ground: stays || self.dice.chance(0.4),
        };
        self.layout.cars.push(place);
    }

    fn tree(&mut self, at: [f32; 2]) {
        let tree = Tree {
            at,
            radius_m: self.dice.within(self.style.geometry.tree_radius_m),
            height_m: self.dice.within(self.style.geometry.tree_height_m),
            colour: self.jittered(&self.style.palette.trees, 8.0),
        };
        self.layout.trees.push(tree);
    }
}

/// What repeated houses share.
#[derive(Clone)]
struct HouseKind {
    lot_m: f32,
    height_m: f32,
    roof: Roof,
    roof_colour: Colour,
    wall: Colour,
    window: Colour,
    facade: Facade,
    storey_m: f32,
    bay_m: f32,
    window_share: f32,
    shop: bool,
}

/// Shifts a colour's brightness by `sigma`, and its hue by less.
pub fn jitter(colour: Colour, sigma: f64, dice: &mut Dice) -> Colour {
    let brightness = dice.normal(sigma);
    colour.map(|c| (c + (brightness + dice.normal(0.4 * sigma)) as f32).clamp(0.0, 255.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn houses_stand_inside_their_blocks_and_repeat_in_some() {
        let style = Style::source();
        let mut dice = Dice::new(11, &[]);
        let streets = Streets::new(600.0, &style.geometry, &mut dice);
        let layout = lay_out(&streets, &style, &mut dice);
        assert!(layout.houses.len() > 300, "{} houses", layout.houses.len());
        assert!(
            layout
                .cars
                .iter()
                .any(|car| car.on_ground && !car.on_aerial)
        );
        let columns = streets.family(super::super::streets::Family::AlongV);
        for house in &layout.houses {
            let u = house.plot.middle()[0];
            let clear = columns
                .iter()
                .all(|street| (street.at - u).abs() > 0.5 * street.width_m);
            assert!(clear, "a house stands on a street: {:?}", house.plot);
        }
    }
}
