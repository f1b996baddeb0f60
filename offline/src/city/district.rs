//! A district: a square of city as a raster of cells, seen from the air on one day and driven
//! through on another.
//!
//! Local metres have x east and y north with the south-west corner as origin; raster rows grow
//! southward, so row 0 is the northern edge.

use super::aerial::{self, Profile, Sun};
use super::dice::Dice;
use super::layout::{self, Facade};
use super::painter::Painter;
use super::raster::{self, Point};
use super::streets::Streets;
use super::style::{Colour, Style};
use crossfix_calibration::RgbImage;

/// Side of a district, m.
pub const SIDE_M: f32 = 600.0;
/// Size of the coarsest raster's cells, m.
const COARSEST_CELL_M: f32 = 0.25;

/// The raster of a district.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Cells along each edge of a cell of the coarsest raster.
    pub fineness: usize,
    /// Size of a cell, m.
    pub cell_m: f32,
    /// Cells along a side.
    pub side: usize,
}

impl Grid {
    /// The raster whose cells are `fineness` times as small as 0.25 m.
    pub fn new(fineness: usize) -> Self {
        let cell_m = COARSEST_CELL_M / fineness as f32;
        Self {
            fineness,
            cell_m,
            side: (SIDE_M / cell_m).round() as usize,
        }
    }

    /// Local metres to (column, row).
    pub fn point(&self, local: [f32; 2]) -> Point {
        [local[0] / self.cell_m, (SIDE_M - local[1]) / self.cell_m]
    }
}
/// Cameras stay this far from the border, so that every aerial patch lies inside.
pub const BORDER_M: f32 = 58.0;

/// What a cell's base is part of: 0 is ground, then houses from 1, then these.
pub mod object {
    /// Ground.
    pub const GROUND: u16 = 0;
    /// A parked car.
    pub const CAR: u16 = u16::MAX;
    /// A trunk or a lamp post.
    pub const POLE: u16 = u16::MAX - 1;
    /// A hedge.
    pub const HEDGE: u16 = u16::MAX - 2;
}

/// One cell: ground or a solid on it, and perhaps a crown above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cell {
    /// Height of the solid, cm.
    pub base_cm: u16,
    /// Top of the crown, cm; 0 for none.
    pub crown_top_cm: u16,
    /// Underside of the crown, cm.
    pub crown_bottom_cm: u16,
    /// See [`object`].
    pub object: u16,
    /// Colour of the solid seen from above.
    pub colour: [u8; 3],
    /// Colour of the crown.
    pub crown: [u8; 3],
    /// Sunlight on the solid's top on the day of the drive, 0 to 255.
    pub light: u8,
}

/// A building's walls, as the ground renderer needs them.
#[derive(Clone, Debug)]
pub struct Walls {
    /// Footprint in local metres, in order around the building.
    pub corners: [[f32; 2]; 4],
    /// Height of the eaves, m.
    pub height_m: f32,
    /// Wall albedo.
    pub wall: Colour,
    /// Window albedo.
    pub window: Colour,
    /// Glazing.
    pub facade: Facade,
    /// Storey height, m.
    pub storey_m: f32,
    /// Distance between window axes, m.
    pub bay_m: f32,
    /// Share of a bay that is window.
    pub window_share: f32,
    /// Shop windows on the ground floor.
    pub shop: bool,
}

/// A generated district.
pub struct District {
    /// The style it was made in.
    pub style: Style,
    /// How its cells lie.
    pub grid: Grid,
    /// The street plan.
    pub streets: Streets,
    /// The ground epoch, row by row.
    pub cells: Vec<Cell>,
    /// Heights of the same cells.
    pub profiles: Vec<Profile>,
    /// Buildings, by [`Cell::object`] − 1.
    pub walls: Vec<Walls>,
    /// Sun on the day of the drive.
    pub sun: Sun,
    /// The aerial picture before the sensor, one pixel per cell.
    pub aerial: RgbImage,
}

impl District {
    /// Builds the district of a seed.
    pub fn new(style: &Style, seed: u64, grid: Grid) -> Self {
        let mut dice = Dice::new(seed, &[1]);
        let streets = Streets::new(SIDE_M, &style.geometry, &mut dice);
        let layout = layout::lay_out(&streets, style, &mut dice);
        let mut sun = || Sun::random(style.palette.sun_elevation_rad, &mut dice);
        let (aerial_sun, ground_sun) = (sun(), sun());
        let mut painter = Painter::new(&streets, grid, Dice::new(seed, &[2]));
        painter.ground(style, &layout);
        for house in &layout.houses {
            painter.house(house, &aerial_sun);
        }
        painter.furniture(&layout);
        painter.trees(&layout.trees);

        let mut under = painter.cars(layout.cars.iter().filter(|car| car.on_aerial));
        let aerial = aerial::render(&painter.cells, grid, &aerial_sun);
        while let Some((index, cell)) = under.pop() {
            painter.cells[index] = cell;
        }
        painter.cars(layout.cars.iter().filter(|car| car.on_ground));
        let profiles = aerial::profiles(&painter.cells);
        let light = aerial::sunlight(&profiles, grid, &ground_sun, aerial::Surface::Base);
        for (cell, light) in painter.cells.iter_mut().zip(light) {
            cell.light = light;
        }
        let Painter { cells, walls, .. } = painter;
        Self {
            style: style.clone(),
            grid,
            cells,
            profiles,
            walls,
            sun: ground_sun,
            aerial,
            streets,
        }
    }

    /// The cell at a point in local metres, if it is inside.
    pub fn cell(&self, x: f32, y: f32) -> Option<&Cell> {
        let [column, row] = self.grid.point([x, y]);
        let inside = column >= 0.0 && row >= 0.0;
        let (column, row) = (column as usize, row as usize);
        (inside && column < self.grid.side && row < self.grid.side)
            .then(|| &self.cells[row * self.grid.side + column])
    }

    /// True where a vehicle may stand: away from the border and from anything solid.
    pub fn is_free(&self, x: f32, y: f32) -> bool {
        let inside = BORDER_M..SIDE_M - BORDER_M;
        if !inside.contains(&x) || !inside.contains(&y) {
            return false;
        }
        let [column, row] = self.grid.point([x, y]).map(|c| c as usize);
        let reach = 3 * self.grid.fineness;
        (row - reach..=row + reach).all(|row| {
            let start = row * self.grid.side + column;
            self.cells[start - reach..=start + reach]
                .iter()
                .all(|cell| cell.base_cm < 30)
        })
    }

    /// Puts a block of one colour, seen alike from everywhere, at a place: for tests of geometry.
    pub fn put_marker(&mut self, at: [f32; 2], side_m: f32, height_m: f32, colour: [u8; 3]) {
        let half = 0.5 * side_m;
        let corners = [[-half, -half], [half, -half], [half, half], [-half, half]];
        let polygon = corners.map(|d| self.grid.point([at[0] + d[0], at[1] + d[1]]));
        let side = self.grid.side;
        let Self {
            cells,
            profiles,
            aerial,
            ..
        } = self;
        raster::fill(side, &polygon, |row, columns| {
            for index in columns.map(|column| row * side + column) {
                cells[index] = Cell {
                    base_cm: (height_m * 100.0) as u16,
                    object: object::POLE,
                    colour,
                    light: 255,
                    ..Cell::default()
                };
                profiles[index] = [cells[index].base_cm; 2];
                aerial.data[3 * index..3 * index + 3].copy_from_slice(&colour);
            }
        });
    }
}
