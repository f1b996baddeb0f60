//! The view from above: sunlight with cast shadows, and the aerial picture of a district.

use super::dice::Dice;
use super::district::{CELL_M, Cell, SIDE_CELLS};
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

/// Sunlight on every cell, 0 in shadow to 255.
///
/// The upper edge of the shadow is swept across the raster away from the sun, one row (or column)
/// at a time: it falls by the sun's slope and is lifted by whatever stands higher. One pass, however
/// long the shadows.
pub fn sunlight(cells: &[Cell], sun: &Sun, surface: Surface) -> Vec<u8> {
    let side = SIDE_CELLS;
    // East and south per step, towards the sun; rows grow southward.
    let (east, south) = (sun.towards[0], -sun.towards[1]);
    let by_rows = south.abs() >= east.abs();
    let (major, minor) = if by_rows {
        (south, east)
    } else {
        (east, south)
    };
    let drift = minor / major.abs();
    let fall_m = sun.slope * CELL_M * (1.0 + drift * drift).sqrt();
    let index = |line: usize, at: usize| {
        if by_rows {
            line * side + at
        } else {
            at * side + line
        }
    };
    let mut light = vec![255_u8; side * side];
    let mut previous = vec![0.0_f32; side];
    let mut current = vec![0.0_f32; side];
    for step in 0..side {
        let line = if major > 0.0 { side - 1 - step } else { step };
        for at in 0..side {
            let cell = &cells[index(line, at)];
            let top_m = 0.01 * f32::from(cell.base_cm.max(cell.crown_top_cm));
            let solid_m = 0.01 * f32::from(cell.base_cm);
            // The shadow's edge over this cell, from the neighbour line nearer to the sun.
            let from = (at as f32 + drift).clamp(0.0, side as f32 - 1.001);
            let (left, share) = (from as usize, from.fract());
            let edge = previous[left] + share * (previous[left + 1] - previous[left]) - fall_m;
            let depth = edge
                - if surface == Surface::Top {
                    top_m
                } else {
                    solid_m
                };
            let lit = 1.0 - ((depth - 0.15) / 0.5).clamp(0.0, 1.0);
            light[index(line, at)] = (255.0 * lit) as u8;
            current[at] = edge.max(top_m);
        }
        std::mem::swap(&mut previous, &mut current);
    }
    light
}

/// The district from above, one pixel per cell, before the sensor.
pub fn render(cells: &[Cell], sun: &Sun) -> RgbImage {
    let light = sunlight(cells, sun, Surface::Top);
    let mut data = Vec::with_capacity(3 * cells.len());
    for (cell, light) in cells.iter().zip(light) {
        let crown = cell.crown_top_cm > cell.base_cm;
        let colour = if crown { cell.crown } else { cell.colour };
        let shade = 0.48 + 0.52 / 255.0 * f32::from(light);
        data.extend(colour.map(|c| (f32::from(c) * shade) as u8));
    }
    RgbImage {
        width: SIDE_CELLS,
        height: SIDE_CELLS,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadows_fall_away_from_the_sun_with_the_right_length() {
        let mut cells = vec![Cell::default(); SIDE_CELLS * SIDE_CELLS];
        for row in 1000..1010 {
            for column in 1000..1010 {
                cells[row * SIDE_CELLS + column].base_cm = 1000;
            }
        }
        // Sun in the south-west, 45° up: a 10 m block throws 10 m (40 cells) to the north-east.
        let half = 0.5_f32.sqrt();
        let sun = Sun {
            towards: [-half, -half],
            slope: 1.0,
        };
        let light = sunlight(&cells, &sun, Surface::Base);
        let at = |cells_away: f32| {
            let shift = (cells_away * half) as usize;
            light[(1005 - shift) * SIDE_CELLS + 1005 + shift]
        };
        assert_eq!(at(15.0), 0);
        assert_eq!(at(34.0), 0);
        assert_eq!(at(55.0), 255);
        assert_eq!(light[1030 * SIDE_CELLS + 980], 255, "towards the sun");
    }
}
