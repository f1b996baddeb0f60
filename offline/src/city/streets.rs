//! The street plan: two families of streets, bent by low sines so that curves, odd crossings and
//! blocks of every shape appear.
//!
//! Plan coordinates (u, v) are straight: streets of the first family run along v at constant u.
//! [`Streets::point`] bends and turns them into local metres, x east and y north.

use super::dice::Dice;
use super::style::Geometry;
use std::f32::consts::{FRAC_PI_2, TAU};

/// One street of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Street {
    /// Its plan coordinate.
    pub at: f32,
    /// Kerb to kerb, m.
    pub width_m: f32,
}

/// The direction of a family of streets in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Constant u, running along v.
    AlongV,
    /// Constant v, running along u.
    AlongU,
}

/// A district's street plan.
#[derive(Clone, Debug)]
pub struct Streets {
    side_m: f32,
    turn: [f32; 2],
    bend_m: f32,
    wavelengths_m: [f32; 4],
    phases: [f32; 4],
    along_v: Vec<Street>,
    along_u: Vec<Street>,
}

impl Streets {
    /// A plan that covers a square of `side_m`, whose south-west corner is the local origin.
    pub fn new(side_m: f32, geometry: &Geometry, dice: &mut Dice) -> Self {
        let angle = dice.within([0.0, FRAC_PI_2]);
        let phases = std::array::from_fn(|_| dice.within([0.0, TAU]));
        let wavelengths_m = std::array::from_fn(|_| dice.within([160.0, 320.0]));
        let mut family = || {
            let mut streets = Vec::new();
            let mut at = -0.75 * side_m + dice.within([-40.0, 0.0]);
            while at < 0.75 * side_m {
                let choice = dice.weighted(geometry.road_widths_m.iter().map(|road| road[1]));
                streets.push(Street {
                    at,
                    width_m: geometry.road_widths_m[choice][0],
                });
                at += dice.within(geometry.block_m);
            }
            streets
        };
        Self {
            side_m,
            turn: [angle.cos(), angle.sin()],
            bend_m: geometry.bend_m,
            wavelengths_m,
            phases,
            along_v: family(),
            along_u: family(),
        }
    }

    /// Plan to local metres, x east and y north.
    pub fn point(&self, u: f32, v: f32) -> [f32; 2] {
        let wave = |at: f32, which: usize| {
            (at * TAU / self.wavelengths_m[which] + self.phases[which]).sin()
        };
        let bent_u = u + self.bend_m * (wave(v, 0) + 0.3 * wave(2.0 * v, 1));
        let bent_v = v + self.bend_m * (wave(u, 2) + 0.3 * wave(2.0 * u, 3));
        let [cos, sin] = self.turn;
        let middle = 0.5 * self.side_m;
        [
            middle + cos * bent_u - sin * bent_v,
            middle + sin * bent_u + cos * bent_v,
        ]
    }

    /// The streets of a family, in order of their coordinate.
    pub fn family(&self, family: Family) -> &[Street] {
        match family {
            Family::AlongV => &self.along_v,
            Family::AlongU => &self.along_u,
        }
    }

    /// The plan point `along` a street of the family, `across` it (to +u or +v).
    pub fn on_street(family: Family, street: Street, along: f32, across: f32) -> [f32; 2] {
        match family {
            Family::AlongV => [street.at + across, along],
            Family::AlongU => [along, street.at + across],
        }
    }

    /// True within `margin_m` of the district (negative: well inside it).
    pub fn is_near(&self, u: f32, v: f32, margin_m: f32) -> bool {
        let inside = -margin_m..self.side_m + margin_m;
        let [x, y] = self.point(u, v);
        inside.contains(&x) && inside.contains(&y)
    }
}

impl Family {
    /// Both, in a fixed order.
    pub const BOTH: [Self; 2] = [Self::AlongV, Self::AlongU];

    /// The family that crosses this one.
    pub fn crossing(self) -> Self {
        match self {
            Self::AlongV => Self::AlongU,
            Self::AlongU => Self::AlongV,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::*;

    #[test]
    fn streets_cover_the_district_and_bend_gently() {
        let streets = Streets::new(600.0, &Style::source().geometry, &mut Dice::new(5, &[]));
        let near = |family| {
            let list: &[Street] = streets.family(family);
            list.iter().filter(|street| street.at.abs() < 300.0).count()
        };
        assert!(near(Family::AlongU) >= 6 && near(Family::AlongV) >= 6);
        for step in 0..500 {
            let v = step as f32 - 250.0;
            let (a, b) = (streets.point(10.0, v), streets.point(10.0, v + 1.0));
            let length = (a[0] - b[0]).hypot(a[1] - b[1]);
            assert!(
                (0.7..1.6).contains(&length),
                "a metre of plan is {length} m of street"
            );
        }
    }
}
