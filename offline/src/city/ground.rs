//! The view from the street: a ray march over the raster, one image column at a time.
//!
//! Every column of a panorama or of an upright pinhole picture is a vertical plane, so one walk
//! along the ground fills it from the bottom up ("voxel space"): cells nearer than the current one
//! hide what lies behind, crowns fill the rows between their underside and their top, and the sky
//! takes what is left.

use super::district::{Cell, District, Walls, object};
use super::layout::Facade;
use super::panorama::COARSEST_RAY_RAD;
use super::style::Colour;
use std::f32::consts::TAU;

/// Height of the camera above the road, m.
pub const EYE_M: f32 = 1.9;
const RANGE_M: f32 = 95.0;
const FIRST_STEP_M: f32 = 0.35;

/// Where the camera stands, in a district's local metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// East.
    pub x: f64,
    /// North.
    pub y: f64,
    /// Counter-clockwise from east, rad.
    pub yaw_rad: f64,
}

/// One image column to fill: a direction and the tangents of its rows' elevations, from the top.
pub struct ColumnView<'a> {
    /// Unit vector on the ground, east and north.
    pub direction: [f32; 2],
    /// Falling from row to row.
    pub tangents: &'a [f32],
    /// Angle between neighbouring rays, rad: the walk's steps are about half as long.
    pub ray_rad: f32,
}

/// Fills columns for one camera position.
pub struct Walker<'a> {
    district: &'a District,
    eye: [f32; 2],
    eye_m: f32,
    sky_seed: u32,
    filled: Vec<bool>,
}

impl<'a> Walker<'a> {
    /// A camera at a place; `sky_seed` chooses the clouds.
    pub fn new(district: &'a District, pose: &Pose, sky_seed: u32) -> Self {
        let (x, y) = (pose.x as f32, pose.y as f32);
        let base = district.cell(x, y).map_or(0, |cell| cell.base_cm);
        let eye_m = EYE_M
            + if base < 30 {
                0.01 * f32::from(base)
            } else {
                0.0
            };
        Self {
            district,
            eye: [x, y],
            eye_m,
            sky_seed,
            filled: Vec::new(),
        }
    }

    /// Fills one column, top row first.
    pub fn fill(&mut self, view: &ColumnView<'_>, column: &mut [Colour]) {
        let rows = view.tangents.len();
        self.filled.clear();
        self.filled.resize(rows, false);
        let style = &self.district.style.palette;
        let [dx, dy] = view.direction;
        let grid = self.district.grid;
        let start = grid.point(self.eye);
        let pace = 0.0055 * (view.ray_rad / COARSEST_RAY_RAD).min(1.0);
        let shortest_m = 0.11 / grid.fineness as f32;
        let fine = grid.fineness > 1;
        // Cells, and so grains, a metre.
        let per_m = 1.0 / grid.cell_m;
        // Columns grow eastward, rows southward.
        let step_cells = [dx / grid.cell_m, -dy / grid.cell_m];
        // Rows from `unseen` down are done.
        let mut unseen = rows;
        // The cell before, whose light falls on the foot of a wall.
        let inside = 1.0..(grid.side - 1) as f32;
        let cell_of = |at: [f32; 2]| at[1] as usize * grid.side + at[0] as usize;
        let mut front = if start.iter().all(|c| inside.contains(c)) {
            cell_of(start)
        } else {
            0
        };
        let mut t = FIRST_STEP_M;
        while t < RANGE_M && unseen > 0 {
            let at = [start[0] + step_cells[0] * t, start[1] + step_cells[1] * t];
            if !inside.contains(&at[0]) || !inside.contains(&at[1]) {
                break;
            }
            let (grid_column, grid_row) = (at[0] as usize, at[1] as usize);
            let index = grid_row * grid.side + grid_column;
            let [base_cm, top_cm] = self.district.profiles[index];
            let step = (pace * t).max(shortest_m);
            let lowest = view.tangents[unseen - 1];
            let rise_m = 0.01 * f32::from(base_cm) - self.eye_m;
            if lowest * t <= rise_m {
                let haze = 1.0 - (-t * style.haze_per_m).exp();
                let here = [self.eye[0] + dx * t, self.eye[1] + dy * t];
                let hit = Hit::new(self.district, index, front, here, step);
                while unseen > 0 && view.tangents[unseen - 1] * t <= rise_m {
                    unseen -= 1;
                    if !self.filled[unseen] {
                        let z = self.eye_m + t * view.tangents[unseen];
                        let colour = if fine && hit.is_ground() {
                            // Where this row's own ray meets the ground, not the end of the step.
                            let along = (rise_m / view.tangents[unseen]).clamp(0.0, t);
                            let at = [0, 1].map(|axis| start[axis] + step_cells[axis] * along);
                            hit.ground_colour(self.district, at)
                        } else {
                            hit.colour(z)
                        };
                        column[unseen] = mix(colour, style.sky_low, haze);
                        self.filled[unseen] = true;
                    }
                }
            }
            // A crown above the solid, reaching into the picture and not hidden by what is painted.
            if top_cm > base_cm && 0.01 * f32::from(top_cm) - self.eye_m > t * lowest {
                let haze = 1.0 - (-t * style.haze_per_m).exp();
                let crown = Crown::new(&self.district.cells[index], [grid_column, grid_row], per_m);
                let above = (crown.top_m - self.eye_m) / t;
                let below = (crown.bottom_m - self.eye_m) / t;
                let first = view.tangents[..unseen].partition_point(|&tangent| tangent > above);
                let end = view.tangents[..unseen].partition_point(|&tangent| tangent >= below);
                let rows = first..end.max(first);
                let pixels = column[rows.clone()]
                    .iter_mut()
                    .zip(&mut self.filled[rows.clone()]);
                for ((pixel, filled), tangent) in pixels.zip(&view.tangents[rows]) {
                    if !*filled {
                        let colour = crown.colour(self.eye_m + t * tangent, t);
                        if let Some(colour) = colour {
                            *pixel = mix(colour, style.sky_low, haze);
                            *filled = true;
                        }
                    }
                }
            }
            front = index;
            t += step;
        }
        self.sky(view, column);
    }

    fn sky(&self, view: &ColumnView<'_>, column: &mut [Colour]) {
        let style = &self.district.style.palette;
        let azimuth = view.direction[0].atan2(view.direction[1]);
        let seed = self.sky_seed;
        let phase = (seed % 97) as f32;
        for (row, pixel) in column.iter_mut().enumerate() {
            if self.filled[row] {
                continue;
            }
            let elevation = view.tangents[row].atan();
            let clear = mix(
                style.sky_low,
                style.sky_high,
                (elevation / 0.6).clamp(0.0, 1.0),
            );
            // Whole numbers of waves around the horizon, so that clouds join up at the back.
            let waves = 0.25 * (5.0 * azimuth + 19.0 * elevation + phase).sin()
                + 0.25 * (9.0 * azimuth - 33.0 * elevation + 1.3 * phase).sin()
                + 0.15 * (17.0 * azimuth + 51.0 * elevation + 2.1 * phase).sin();
            let cloud = (style.cloud * (waves + 0.15).max(0.0) * 1.5).min(1.0);
            *pixel = mix(clear, [236.0; 3], cloud);
        }
    }
}

/// What a ray meets at a solid cell.
struct Hit<'a> {
    cell: &'a Cell,
    top_m: f32,
    kind: HitKind<'a>,
    per_m: f32,
}

enum HitKind<'a> {
    /// Ground, roofs, tops of cars: the colour from above.
    Top { shade: f32 },
    /// The side of something that is no building.
    Side { shade: f32 },
    /// A building's wall.
    Wall {
        walls: &'a Walls,
        number: u32,
        along_m: f32,
        length_m: f32,
        shade: f32,
    },
}

impl<'a> Hit<'a> {
    fn new(district: &'a District, cell: usize, front: usize, here: [f32; 2], step: f32) -> Self {
        let (cell, front) = (&district.cells[cell], &district.cells[front]);
        let top_m = 0.01 * f32::from(cell.base_cm);
        let rise_m = top_m - 0.01 * f32::from(front.base_cm);
        let light = f32::from(cell.light) / 255.0;
        // A roof rises by less than its run; a wall by more.
        let upright = rise_m > step + 0.3;
        let house = (1..=district.walls.len()).contains(&usize::from(cell.object));
        let kind = if upright && house {
            let number = u32::from(cell.object);
            let walls = &district.walls[usize::from(cell.object) - 1];
            let (along_m, length_m, outward) = walls.nearest_side(here);
            let facing =
                outward[0] * district.sun.towards[0] + outward[1] * district.sun.towards[1];
            // A wall whose foot is in shadow is partly in shadow.
            let foot = 0.4 + 0.6 * f32::from(front.light) / 255.0;
            let ambient = district.style.palette.ambient;
            let shade = ambient + (1.0 - ambient) * 1.2 * facing.max(0.0) * foot;
            HitKind::Wall {
                walls,
                number,
                along_m,
                length_m,
                shade,
            }
        } else if upright {
            HitKind::Side {
                shade: 0.5 + 0.25 * light,
            }
        } else {
            HitKind::Top {
                shade: 0.6 + 0.4 * light,
            }
        };
        Self {
            cell,
            top_m,
            kind,
            per_m: 1.0 / district.grid.cell_m,
        }
    }

    fn is_ground(&self) -> bool {
        self.cell.object == object::GROUND && matches!(self.kind, HitKind::Top { .. })
    }

    /// The ground's lit colour at a (column, row) of the raster, between the cells around it that
    /// lie as high as this one.
    fn ground_colour(&self, district: &District, at: [f32; 2]) -> Colour {
        let side = district.grid.side;
        let [x, y] = at.map(|at| (at - 0.5).clamp(0.0, (side - 2) as f32));
        let (column, row) = (x as usize, y as usize);
        let (right, down) = (x.fract(), y.fract());
        let mut sum = [0.0; 3];
        for (index, weight) in [
            (row * side + column, (1.0 - right) * (1.0 - down)),
            (row * side + column + 1, right * (1.0 - down)),
            ((row + 1) * side + column, (1.0 - right) * down),
            ((row + 1) * side + column + 1, right * down),
        ] {
            let near = &district.cells[index];
            let level =
                near.object == object::GROUND && near.base_cm.abs_diff(self.cell.base_cm) < 3;
            let cell = if level { near } else { self.cell };
            let shade = weight * (0.6 + 0.4 * f32::from(cell.light) / 255.0);
            for (sum, channel) in sum.iter_mut().zip(cell.colour) {
                *sum += shade * f32::from(channel);
            }
        }
        sum
    }

    fn colour(&self, z: f32) -> Colour {
        let own = self.cell.colour.map(f32::from);
        match &self.kind {
            HitKind::Top { shade } => own.map(|c| c * shade),
            HitKind::Side { shade } => {
                let car = self.cell.object == object::CAR;
                if car && (0.88..1.35).contains(&z) {
                    [46.0, 50.0, 56.0] // windows
                } else if car && z < 0.35 {
                    [26.0; 3] // tyres and the dark below
                } else if self.cell.object == object::HEDGE {
                    let leaf =
                        0.7 + 0.5 * noise(self.cell.light.into(), (z * 2.0 * self.per_m) as u32, 5);
                    own.map(|c| c * shade * leaf)
                } else {
                    own.map(|c| c * shade)
                }
            }
            HitKind::Wall {
                walls,
                number,
                along_m,
                length_m,
                shade,
            } => {
                let top_m = if self.top_m > walls.height_m + 0.6 {
                    self.top_m
                } else {
                    walls.height_m
                };
                let colour = walls.colour(*number, [*along_m, *length_m], z, top_m, self.per_m);
                colour.map(|c| c * shade)
            }
        }
    }
}

impl Walls {
    /// The side nearest to a point: metres along it, its length, and its outward normal.
    fn nearest_side(&self, [x, y]: [f32; 2]) -> (f32, f32, [f32; 2]) {
        let mut best = (f32::INFINITY, 0.0, 1.0, [0.0, 0.0]);
        for side in 0..4 {
            let (a, b) = (self.corners[side], self.corners[(side + 1) % 4]);
            let edge = [b[0] - a[0], b[1] - a[1]];
            let length = edge[0].hypot(edge[1]).max(1e-3);
            let unit = [edge[0] / length, edge[1] / length];
            let off = [x - a[0], y - a[1]];
            // Corners run counter-clockwise, so the right-hand side is outside.
            let outward = [unit[1], -unit[0]];
            let distance = (off[0] * outward[0] + off[1] * outward[1]).abs();
            if distance < best.0 {
                best = (
                    distance,
                    off[0] * unit[0] + off[1] * unit[1],
                    length,
                    outward,
                );
            }
        }
        (best.1, best.2, best.3)
    }

    /// The wall's colour at a height, before light.
    fn colour(
        &self,
        number: u32,
        [along_m, length_m]: [f32; 2],
        z: f32,
        top_m: f32,
        per_m: f32,
    ) -> Colour {
        let place = [along_m * per_m + 4096.0, z * per_m].map(|grains| grains as u32);
        let grain = 0.95 + 0.1 * noise(place[0], place[1], number);
        let cornice = z > top_m - 0.45;
        let corner = along_m < 0.4 || along_m > length_m - 0.4;
        let gable = z > self.height_m;
        if cornice || gable {
            return self
                .wall
                .map(|c| c * grain * if cornice { 0.78 } else { 1.0 });
        }
        let bays = (length_m / self.bay_m).round().max(1.0);
        let across = along_m / length_m * bays;
        let (bay, in_bay) = (across.floor(), across - across.floor());
        let storey = (z / self.storey_m).floor();
        let in_storey = z / self.storey_m - storey;
        let half = 0.5 * self.window_share;
        let centred = (in_bay - 0.5).abs();
        let ground_floor = storey < 0.5;
        let bay_number = (bay + 1000.0).max(0.0) as u32;
        if ground_floor && !corner && noise(bay_number, 77, number) < 0.16 {
            // A door.
            if centred < 0.5_f32.min(0.55 / self.bay_m) && z < 2.2 {
                let tone = noise(bay_number, 78, number);
                return [
                    60.0 + 80.0 * tone,
                    48.0 + 40.0 * tone,
                    40.0 + 50.0 * (1.0 - tone),
                ];
            }
        }
        let (window, frame) = if ground_floor && self.shop && self.facade != Facade::Curtain {
            (
                centred < 0.38 && (0.12..0.75).contains(&in_storey),
                centred < 0.43,
            )
        } else {
            match self.facade {
                Facade::Punched => (
                    centred < half && (0.3..0.8).contains(&in_storey),
                    centred < half + 0.06 && (0.25..0.84).contains(&in_storey),
                ),
                Facade::Ribbon => (
                    (0.4..0.4 + 0.8 * self.window_share).contains(&in_storey),
                    false,
                ),
                Facade::Curtain => (in_bay > 0.12 && in_storey > 0.1, false),
            }
        };
        if window && !corner {
            let reflection = 0.75 + 0.5 * noise(bay_number, storey as u32, number);
            self.window.map(|c| c * reflection)
        } else if frame && !corner && self.facade == Facade::Punched {
            mix(self.wall, [226.0; 3], 0.6)
        } else {
            self.wall.map(|c| c * grain)
        }
    }
}

struct Crown {
    top_m: f32,
    bottom_m: f32,
    place: [u32; 2],
    colour: Colour,
    light: f32,
    leaves_per_m: f32,
}

impl Crown {
    fn new(cell: &Cell, [column, row]: [usize; 2], per_m: f32) -> Self {
        Self {
            top_m: 0.01 * f32::from(cell.crown_top_cm),
            bottom_m: 0.01 * f32::from(cell.crown_bottom_cm),
            place: [column as u32 / 2, row as u32 / 2],
            colour: cell.crown.map(f32::from),
            light: 0.62,
            leaves_per_m: 0.5 * per_m,
        }
    }

    /// None where one sees through the leaves.
    fn colour(&self, z: f32, distance_m: f32) -> Option<Colour> {
        let leaf = noise(
            self.place[0],
            self.place[1],
            (z * self.leaves_per_m) as u32 + 99,
        );
        if leaf < 0.06 && distance_m < 30.0 {
            return None;
        }
        let height = (z - self.bottom_m) / (self.top_m - self.bottom_m + 0.1);
        let tone = (0.6 + 0.5 * leaf) * (self.light + (1.0 - self.light) * height);
        Some(self.colour.map(|c| c * tone))
    }
}

fn mix(a: Colour, b: Colour, w: f32) -> Colour {
    std::array::from_fn(|i| a[i] + w * (b[i] - a[i]))
}

/// A value in [0, 1) that depends on nothing but its arguments.
fn noise(a: u32, b: u32, c: u32) -> f32 {
    let mut hash = a
        .wrapping_mul(374_761_393)
        .wrapping_add(b.wrapping_mul(668_265_263))
        .wrapping_add(c.wrapping_mul(2_246_822_519));
    hash = (hash ^ (hash >> 13)).wrapping_mul(1_274_126_177);
    hash ^= hash >> 16;
    (hash & 0x00ff_ffff) as f32 / 16_777_216.0
}

/// The unit vector on the ground at an azimuth clockwise from north, rad.
pub fn direction(azimuth_rad: f64) -> [f32; 2] {
    let azimuth = azimuth_rad.rem_euclid(f64::from(TAU)) as f32;
    [azimuth.sin(), azimuth.cos()]
}
