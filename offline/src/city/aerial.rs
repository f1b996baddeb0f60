//! The view from above: sunlight with cast shadows, and the aerial picture of a district.

use super::dice::Dice;
use super::district::{Cell, Grid};
use crossfix_calibration::RgbImage;
use std::f32::consts::TAU;

/// The sun of one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Sun {
    /// Horizontal unit vector towards the sun, east and north.
    pub towards: [f32; 2],
    /// Tangent of its elevation.
    pub slope: f32,
}

impl Sun {
    /// Any azimuth, an elevation within the range.
    pub fn random(elevation_rad: [f32; 2], dice: &mut Dice) -> Self {
        let azimuth = dice.within([0.0, TAU]);
        let elevation = dice.within(elevation_rad);
        Self {
            towards: [azimuth.sin(), azimuth.cos()],
            slope: elevation.tan(),
        }
    }
}

/// Which surface of a cell is lit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Crowns where there are any: what an aircraft sees.
    Top,
    /// The ground and the solids on it, under the crowns: what a driver sees.
    Base,
}

/// Heights of a cell: its solid, and the higher of its solid and its crown; cm.
pub type Profile = [u16; 2];

/// The heights of every cell, apart from the rest because walks over the raster read little else.
pub fn profiles(cells: &[Cell]) -> Vec<Profile> {
    let tops = |cell: &Cell| [cell.base_cm, cell.base_cm.max(cell.crown_top_cm)];
    cells.iter().map(tops).collect()
}

/// Sunlight on every cell, 0 in shadow to 255.
///
/// The upper edge of the shadow is swept across the raster away from the sun, one row (or column)
/// at a time: it falls by the sun's slope and is lifted by whatever stands higher. One pass, however
/// long the shadows.
pub fn sunlight(profiles: &[Profile], grid: Grid, sun: &Sun, surface: Surface) -> Vec<u8> {
    // East and south per step, towards the sun; rows grow southward.
    let (east, south) = (sun.towards[0], -sun.towards[1]);
    if south.abs() >= east.abs() {
        sweep(profiles, grid, [south, east], sun.slope, surface)
    } else {
        let across = transposed(profiles, grid.side);
        let turned = sweep(&across, grid, [east, south], sun.slope, surface);
        transposed(&turned, grid.side)
    }
}

/// Sweeps from the line nearest to the sun; `towards` is along the lines' order and along a line.
fn sweep(
    profiles: &[Profile],
    grid: Grid,
    towards: [f32; 2],
    slope: f32,
    surface: Surface,
) -> Vec<u8> {
    let side = grid.side;
    let drift = towards[1] / towards[0].abs();
    let fall_m = slope * grid.cell_m * (1.0 + drift * drift).sqrt();
    // The neighbour nearer to the sun lies between two cells of the line before, which is padded.
    let left = usize::from(drift >= 0.0);
    let share = if drift >= 0.0 { drift } else { drift + 1.0 };
    let mut light = vec![255_u8; side * side];
    let mut previous = vec![0.0_f32; side + 3];
    let mut current = vec![0.0_f32; side + 3];
    for step in 0..side {
        let line = if towards[0] > 0.0 {
            side - 1 - step
        } else {
            step
        };
        let cells = &profiles[line * side..][..side];
        let (a, b) = (&previous[left..][..side], &previous[left + 1..][..side]);
        let lights = &mut light[line * side..][..side];
        for (at, (edge_m, [solid_cm, top_cm])) in
            current[1..=side].iter_mut().zip(cells).enumerate()
        {
            let top_m = 0.01 * f32::from(*top_cm);
            let edge = a[at] + share * (b[at] - a[at]) - fall_m;
            let lit_m = match surface {
                Surface::Top => top_m,
                Surface::Base => 0.01 * f32::from(*solid_cm),
            };
            let lit = 1.0 - ((edge - lit_m - 0.15) / 0.5).clamp(0.0, 1.0);
            lights[at] = (255.0 * lit) as u8;
            *edge_m = edge.max(top_m);
        }
        std::mem::swap(&mut previous, &mut current);
    }
    light
}

/// The raster with rows and columns exchanged, in blocks that fit the cache.
fn transposed<T: Copy + Default>(raster: &[T], side: usize) -> Vec<T> {
    const BLOCK: usize = 48;
    let mut turned = vec![T::default(); raster.len()];
    for block_row in (0..side).step_by(BLOCK) {
        for block_column in (0..side).step_by(BLOCK) {
            for row in block_row..(block_row + BLOCK).min(side) {
                for column in block_column..(block_column + BLOCK).min(side) {
                    turned[column * side + row] = raster[row * side + column];
                }
            }
        }
    }
    turned
}

/// The district from above, one pixel per cell, before the sensor.
pub fn render(cells: &[Cell], grid: Grid, sun: &Sun) -> RgbImage {
    let light = sunlight(&profiles(cells), grid, sun, Surface::Top);
    let mut data = Vec::with_capacity(3 * cells.len());
    for (cell, light) in cells.iter().zip(light) {
        let crown = cell.crown_top_cm > cell.base_cm;
        let colour = if crown { cell.crown } else { cell.colour };
        let shade = 0.48 + 0.52 / 255.0 * f32::from(light);
        data.extend(colour.map(|c| (f32::from(c) * shade) as u8));
    }
    RgbImage {
        width: grid.side,
        height: grid.side,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadows_fall_away_from_the_sun_with_the_right_length() {
        let grid = Grid::new(1);
        let mut cells = vec![Cell::default(); grid.side * grid.side];
        for row in 1000..1010 {
            for column in 1000..1010 {
                cells[row * grid.side + column].base_cm = 1000;
            }
        }
        // A 10 m block under a sun 45° up throws 10 m (40 cells) of shadow, whatever the azimuth.
        for azimuth_deg in [10.0_f32, 80.0, 130.0, 225.0, 250.0, 350.0] {
            let (east, north) = azimuth_deg.to_radians().sin_cos();
            let sun = Sun {
                towards: [east, north],
                slope: 1.0,
            };
            let light = sunlight(&profiles(&cells), grid, &sun, Surface::Base);
            let at = |cells_away: f32| {
                let column = 1005.0 - cells_away * east;
                let row = 1005.0 + cells_away * north;
                light[row as usize * grid.side + column as usize]
            };
            assert_eq!(at(15.0), 0, "azimuth {azimuth_deg}");
            assert_eq!(at(34.0), 0, "azimuth {azimuth_deg}");
            assert_eq!(at(55.0), 255, "azimuth {azimuth_deg}");
            assert_eq!(at(-20.0), 255, "towards the sun at {azimuth_deg}");
        }
    }
}
