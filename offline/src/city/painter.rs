//! Draws a layout onto the raster: ground and road paint, buildings, trees, parked cars.

use super::aerial::Sun;
use super::dice::Dice;
use super::district::{Cell, Grid, SIDE_M, Walls, object};
use super::layout::{self, CarPlace, House, Layout, Plot, Roof, Surface, Tree};
use super::markings;
use super::raster::{self, Point};
use super::streets::Streets;
use super::style::{Colour, Style};

fn bytes(colour: Colour) -> [u8; 3] {
    colour.map(|c| c.clamp(0.0, 255.0) as u8)
}

/// A raster in the making.
pub(super) struct Painter<'a> {
    streets: &'a Streets,
    grid: Grid,
    dice: Dice,
    /// Row by row.
    pub cells: Vec<Cell>,
    /// Walls of the houses drawn so far.
    pub walls: Vec<Walls>,
}

impl<'a> Painter<'a> {
    /// Bare cells.
    pub fn new(streets: &'a Streets, grid: Grid, dice: Dice) -> Self {
        let cells = vec![Cell::default(); grid.side * grid.side];
        Self {
            streets,
            grid,
            dice,
            cells,
            walls: Vec::new(),
        }
    }

    fn local(&self, u: f32, v: f32) -> [f32; 2] {
        self.streets.point(u, v)
    }

    /// The outline of a plot on the raster, its long edges following the bends of the streets.
    fn outline(&self, plot: Plot, steps: usize) -> Vec<Point> {
        let ([u0, v0], [u1, v1]) = (plot.low, plot.high);
        let corners = [[u0, v0], [u1, v0], [u1, v1], [u0, v1]];
        let mut points = Vec::with_capacity(4 * steps);
        for (index, a) in corners.iter().enumerate() {
            let b = corners[(index + 1) % 4];
            for step in 0..steps {
                let t = step as f32 / steps as f32;
                let local = self.local(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]));
                points.push(self.grid.point(local));
            }
        }
        points
    }

    /// Roads, blocks and what is painted on them.
    pub fn ground(&mut self, style: &Style, layout: &Layout) {
        let base = self.dice.pick(&style.palette.asphalt);
        let asphalt = bytes(layout::jitter(base, 3.0, &mut self.dice));
        self.cells.fill(Cell {
            colour: asphalt,
            ..Cell::default()
        });
        for surface in &layout.surfaces {
            self.surface(surface);
        }
        let mut dice = Dice::new(u64::from(self.dice.bits()), &[3]);
        for stroke in markings::mark(self.streets, style, &mut dice) {
            let outline = self.outline(
                Plot {
                    low: stroke.low,
                    high: stroke.high,
                },
                2,
            );
            // Paint wears off by a different amount on every stroke.
            let wear = dice.within([0.75, 1.0]);
            let (side, cells) = (self.grid.side, &mut self.cells);
            raster::fill_shares(side, &outline, |index, share| {
                let colour = &mut cells[index].colour;
                for (channel, paint) in colour.iter_mut().zip(stroke.colour) {
                    let old = f32::from(*channel);
                    *channel = (old + share * wear * (paint - old)) as u8;
                }
            });
        }
        self.texture();
    }

    fn surface(&mut self, surface: &Surface) {
        let outline = self.outline(surface.plot, 10);
        let (colour, base_cm) = (bytes(surface.colour), (surface.height_m * 100.0) as u16);
        let (side, cells) = (self.grid.side, &mut self.cells);
        raster::fill(side, &outline, |row, columns| {
            for cell in &mut cells[row * side..][columns] {
                *cell = Cell {
                    base_cm,
                    colour,
                    ..Cell::default()
                };
            }
        });
    }

    /// Blotches of several sizes on the ground.
    fn texture(&mut self) {
        let Grid { fineness, side, .. } = self.grid;
        let mut layers =
            Vec::from([(2, 3.0), (12, 4.0), (60, 5.0)].map(|(cells, sigma)| {
                Blotches::new(cells * fineness, sigma, side, &mut self.dice)
            }));
        if fineness > 1 {
            // The grain that coarser cells average away.
            layers.push(Blotches::new(2, 3.0, side, &mut self.dice));
        }
        let mut shade = vec![0.0_f32; side];
        for (row, cells) in self.cells.chunks_exact_mut(side).enumerate() {
            shade.fill(0.0);
            for layer in &layers {
                layer.add_row(row, &mut shade);
            }
            for (cell, shade) in cells.iter_mut().zip(&shade) {
                cell.colour = cell.colour.map(|c| (f32::from(c) + shade) as u8);
            }
        }
    }

    /// A building, its roof lit by the sun of the flight.
    pub fn house(&mut self, house: &House, sun: &Sun) {
        let [u, v] = house.plot.middle();
        if !self.streets.is_near(u, v, 30.0) {
            return;
        }
        let ([u0, v0], [u1, v1]) = (house.plot.low, house.plot.high);
        let corners = [[u0, v0], [u1, v0], [u1, v1], [u0, v1]].map(|[u, v]| self.local(u, v));
        self.walls.push(Walls {
            corners,
            height_m: house.height_m,
            wall: house.wall,
            window: house.window,
            facade: house.facade,
            storey_m: house.storey_m,
            bay_m: house.bay_m,
            window_share: house.window_share,
            shop: house.shop,
        });
        let object = self.walls.len() as u16;
        let [width, depth] = house.plot.size();
        match house.roof {
            Roof::Flat => self.flat_roof(house, object, corners),
            Roof::Gable if width > depth => {
                self.gable_roof(house, object, corners, sun);
            }
            Roof::Gable => {
                let [a, b, c, d] = corners;
                self.gable_roof(house, object, [b, c, d, a], sun);
            }
        }
    }

    fn solid(&mut self, polygon: &[Point], object: u16, base_cm: u16, colour: Colour) {
        let colour = bytes(colour);
        let (side, cells) = (self.grid.side, &mut self.cells);
        raster::fill(side, polygon, |row, columns| {
            for cell in &mut cells[row * side..][columns] {
                *cell = Cell {
                    base_cm,
                    object,
                    colour,
                    ..Cell::default()
                };
            }
        });
    }

    fn flat_roof(&mut self, house: &House, object: u16, corners: [[f32; 2]; 4]) {
        let top_cm = (house.height_m * 100.0) as u16;
        let parapet = house.roof_colour.map(|c| c * 1.1);
        self.solid(
            &corners.map(|corner| self.grid.point(corner)),
            object,
            top_cm,
            parapet,
        );
        let [width, depth] = house.plot.size();
        if width.min(depth) > 3.0 {
            let inner = self.outline(house.plot.inset(0.6), 1);
            self.solid(
                &inner,
                object,
                top_cm - 40,
                house.roof_colour.map(|c| c * 0.9),
            );
        }
        for &(plot, tone) in &house.clutter {
            let outline = self.outline(plot, 1);
            let colour = house.roof_colour.map(|c| c * tone);
            self.solid(&outline, object, top_cm + 110, colour);
        }
    }

    /// Two slopes that rise from the edges a–b and c–d to a ridge between them.
    fn gable_roof(&mut self, house: &House, object: u16, corners: [[f32; 2]; 4], sun: &Sun) {
        let [a, b, c, d] = corners;
        let middle = |p: [f32; 2], q: [f32; 2]| [0.5 * (p[0] + q[0]), 0.5 * (p[1] + q[1])];
        let (start, end) = (middle(a, d), middle(b, c));
        let cell_m = self.grid.cell_m;
        let pitch = self.dice.within([0.55, 0.85]);
        for [eave_a, eave_b, ridge_b, ridge_a] in [[a, b, end, start], [c, d, start, end]] {
            let along = [eave_b[0] - eave_a[0], eave_b[1] - eave_a[1]];
            let length = along[0].hypot(along[1]).max(1e-3);
            // Into the building, from the eave to the ridge.
            let inward = [-along[1] / length, along[0] / length];
            let facing = -(inward[0] * sun.towards[0] + inward[1] * sun.towards[1]);
            let tone = (1.0 + 0.22 * facing).clamp(0.7, 1.2);
            let polygon = [eave_a, eave_b, ridge_b, ridge_a].map(|p| self.grid.point(p));
            let colours = [1.0, 0.93].map(|row| bytes(house.roof_colour.map(|c| c * tone * row)));
            let (side, cells) = (self.grid.side, &mut self.cells);
            raster::fill(side, &polygon, |row, columns| {
                for column in columns {
                    let x = (column as f32 + 0.5) * cell_m - eave_a[0];
                    let y = SIDE_M - (row as f32 + 0.5) * cell_m - eave_a[1];
                    let rise = (x * inward[0] + y * inward[1]).max(0.0);
                    let height_m = house.height_m + pitch * rise;
                    cells[row * side + column] = Cell {
                        base_cm: (height_m * 100.0) as u16,
                        object,
                        // Courses of tiles run along the ridge.
                        colour: colours[usize::from((rise * 1.25).fract() > 0.7)],
                        ..Cell::default()
                    };
                }
            });
        }
    }

    /// Hedges and lamps.
    pub fn furniture(&mut self, layout: &Layout) {
        let hedge = layout
            .trees
            .first()
            .map_or([60.0, 86.0, 44.0], |tree| tree.colour);
        for &plot in &layout.hedges {
            let outline = self.outline(plot, 2);
            self.solid(&outline, object::HEDGE, 90, hedge);
        }
        for lamp in &layout.lamps {
            let [column, row] = self.grid.point(self.local(lamp[0], lamp[1]));
            if let Some(cell) = self.clear_cell(column, row) {
                let post = Cell {
                    base_cm: 550,
                    object: object::POLE,
                    colour: [96, 98, 100],
                    ..Cell::default()
                };
                let Grid { fineness, side, .. } = self.grid;
                for row in 0..fineness {
                    self.cells[cell + row * side..][..fineness].fill(post);
                }
            }
        }
    }

    /// The index of a cell inside the raster with nothing on it.
    fn clear_cell(&self, column: f32, row: f32) -> Option<usize> {
        let inside = 12.0..self.grid.side as f32 - 12.0;
        let index = row.max(0.0) as usize * self.grid.side + column.max(0.0) as usize;
        (inside.contains(&column) && inside.contains(&row) && self.cells[index].base_cm < 30)
            .then_some(index)
    }

    /// Trees, where there is room.
    pub fn trees(&mut self, trees: &[Tree]) {
        for tree in trees {
            let [column, row] = self.grid.point(self.local(tree.at[0], tree.at[1]));
            let reach = (tree.radius_m / self.grid.cell_m).ceil() as usize + 1;
            let inside = reach as f32 + 2.0..self.grid.side as f32 - reach as f32 - 2.0;
            if !inside.contains(&column) || !inside.contains(&row) {
                continue;
            }
            if self.clear_cell(column, row).is_none() {
                continue;
            }
            let (column, row) = (column as usize, row as usize);
            let bottom_cm = (tree.height_m * 35.0).max(240.0) as u16;
            for r in row - reach..=row + reach {
                for c in column - reach..=column + reach {
                    let (dx, dy) = (c as f32 - column as f32, r as f32 - row as f32);
                    let ragged = 1.0 + self.dice.within([-0.2, 0.2]);
                    let distance = dx.hypot(dy) * self.grid.cell_m / tree.radius_m * ragged;
                    let top_cm = (tree.height_m * (1.0 - 0.35 * distance * distance)) * 100.0;
                    let cell = &mut self.cells[r * self.grid.side + c];
                    if distance < 1.0 && top_cm as u16 > cell.crown_top_cm {
                        // Lit from above: the middle of a crown is brighter than its rim.
                        let leaf = self.dice.within([-15.0, 15.0]) + 14.0 * (0.5 - distance);
                        cell.crown_top_cm = top_cm as u16;
                        cell.crown_bottom_cm = bottom_cm + (60.0 * distance * distance) as u16;
                        cell.crown = bytes(tree.colour.map(|c| c + leaf));
                    }
                }
            }
            // Half a metre of trunk.
            let (side, trunk) = (self.grid.side, self.grid.fineness);
            for r in row - trunk..row + trunk {
                for cell in &mut self.cells[r * side + column - trunk..r * side + column + trunk] {
                    cell.base_cm = bottom_cm + 20;
                    cell.object = object::POLE;
                    cell.colour = [70, 58, 46];
                }
            }
        }
    }

    /// Parks cars; returns the cells underneath in the order in which they were covered.
    pub fn cars<'c>(&mut self, places: impl Iterator<Item = &'c CarPlace>) -> Vec<(usize, Cell)> {
        let mut under = Vec::new();
        for place in places {
            let [u, v] = place.at;
            if !self.streets.is_near(u, v, -5.0) {
                continue;
            }
            let half = 0.5 * place.length_m;
            // Bonnet and boot, then the cabin set back by a quarter metre.
            let parts = [
                (half, 0.9, 0.0, 85, 1.0),
                (0.27 * place.length_m, 0.75, -0.25, 145, 0.9),
            ];
            for (long, wide, shift, top_cm, tone) in parts {
                let plot = if place.along_u {
                    Plot {
                        low: [u - long + shift, v - wide],
                        high: [u + long + shift, v + wide],
                    }
                } else {
                    Plot {
                        low: [u - wide, v - long + shift],
                        high: [u + wide, v + long + shift],
                    }
                };
                let outline = self.outline(plot, 1);
                let colour = bytes(place.colour.map(|c| c * tone));
                let (side, cells) = (self.grid.side, &mut self.cells);
                raster::fill(side, &outline, |row, columns| {
                    for index in columns.map(|column| row * side + column) {
                        let cell = &mut cells[index];
                        under.push((index, *cell));
                        cell.base_cm = top_cm;
                        cell.object = object::CAR;
                        cell.colour = colour;
                    }
                });
            }
        }
        under
    }
}

/// Noise on a coarse grid, interpolated between its points.
struct Blotches {
    pitch: usize,
    side: usize,
    values: Vec<f32>,
}

impl Blotches {
    fn new(pitch: usize, sigma: f32, cells: usize, dice: &mut Dice) -> Self {
        let side = cells / pitch + 2;
        // Uniform noise of this sigma; the eye cannot tell it from Gaussian after interpolation.
        let reach = sigma * 3.0_f32.sqrt();
        let values = (0..side * side)
            .map(|_| reach * (dice.bits() as f32 / u32::MAX as f32 * 2.0 - 1.0))
            .collect();
        Self {
            pitch,
            side,
            values,
        }
    }

    fn add_row(&self, row: usize, shade: &mut [f32]) {
        let pitch = self.pitch as f32;
        let down = (row % self.pitch) as f32 / pitch;
        let upper = &self.values[row / self.pitch * self.side..][..self.side];
        let lower = &self.values[(row / self.pitch + 1) * self.side..][..self.side];
        for (block, cells) in shade.chunks_mut(self.pitch).enumerate() {
            let left = upper[block] + down * (lower[block] - upper[block]);
            let right = upper[block + 1] + down * (lower[block + 1] - upper[block + 1]);
            let slope = (right - left) / pitch;
            for (offset, cell) in cells.iter_mut().enumerate() {
                *cell += left + slope * offset as f32;
            }
        }
    }
}
