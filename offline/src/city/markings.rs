//! Road paint: centre and lane lines, edge lines, crossings and stop lines.

use super::dice::Dice;
use super::streets::{Family, Street, Streets};
use super::style::{CentreLine, Colour, Crossing, Style};

/// A painted strip: a plan quadrilateral (u, v from low to high) and its colour.
#[derive(Clone, Copy, Debug)]
pub struct Stroke {
    /// Low u and v.
    pub low: [f32; 2],
    /// High u and v.
    pub high: [f32; 2],
    /// Paint.
    pub colour: Colour,
}

/// The markings of every street near the district.
pub fn mark(streets: &Streets, style: &Style, dice: &mut Dice) -> Vec<Stroke> {
    let mut strokes = Vec::new();
    for family in Family::BOTH {
        for &street in streets.family(family) {
            for ends in streets.family(family.crossing()).windows(2) {
                let start = ends[0].at + 0.5 * ends[0].width_m;
                let end = ends[1].at - 0.5 * ends[1].width_m;
                let [u, v] = Streets::on_street(family, street, 0.5 * (start + end), 0.0);
                if streets.is_near(u, v, 50.0) {
                    let mut pen = Pen {
                        family,
                        street,
                        strokes: &mut strokes,
                    };
                    pen.lanes(style, [start, end], dice);
                    pen.ends(style, [start, end], dice);
                }
            }
        }
    }
    strokes
}

struct Pen<'a> {
    family: Family,
    street: Street,
    strokes: &'a mut Vec<Stroke>,
}

impl Pen<'_> {
    /// A strip from `along[0]` to `along[1]` and `across[0]` to `across[1]` from the middle.
    fn strip(&mut self, along: [f32; 2], across: [f32; 2], colour: Colour) {
        let a = Streets::on_street(self.family, self.street, along[0], across[0]);
        let b = Streets::on_street(self.family, self.street, along[1], across[1]);
        self.strokes.push(Stroke {
            low: [a[0].min(b[0]), a[1].min(b[1])],
            high: [a[0].max(b[0]), a[1].max(b[1])],
            colour,
        });
    }

    /// Strips of `length_m` every `pitch_m`.
    fn dashes(&mut self, [start, end]: [f32; 2], pitch_m: f32, length_m: f32, line: Line) {
        let mut at = start;
        while at < end {
            let across = [
                line.across - 0.5 * line.width_m,
                line.across + 0.5 * line.width_m,
            ];
            self.strip([at, (at + length_m).min(end)], across, line.colour);
            at += pitch_m;
        }
    }

    fn lanes(&mut self, style: &Style, [start, end]: [f32; 2], dice: &mut Dice) {
        let (marking, paint) = (&style.marking, style.palette.paint);
        let width = self.street.width_m;
        let between = [start + 6.0, end - 6.0];
        if width > 6.6 {
            let colour = marking.centre_colour;
            match marking.centre {
                CentreLine::Dashes => {
                    self.dashes(
                        between,
                        7.0,
                        3.0,
                        Line {
                            across: 0.0,
                            width_m: 0.25,
                            colour,
                        },
                    );
                }
                CentreLine::Double => {
                    for across in [-0.28, 0.28] {
                        self.dashes(
                            between,
                            8.0,
                            8.0,
                            Line {
                                across,
                                width_m: 0.25,
                                colour,
                            },
                        );
                    }
                }
            }
            if width > 11.0 {
                for across in [-0.25 * width, 0.25 * width] {
                    let line = Line {
                        across,
                        width_m: 0.2,
                        colour: paint,
                    };
                    self.dashes(between, 9.0, 3.0, line);
                }
            }
        }
        if dice.chance(marking.edge_share) {
            for across in [0.4 - 0.5 * width, 0.5 * width - 0.4] {
                let line = Line {
                    across,
                    width_m: 0.2,
                    colour: paint,
                };
                self.dashes([start + 4.0, end - 4.0], 6.0, 6.0, line);
            }
        }
    }

    fn ends(&mut self, style: &Style, [start, end]: [f32; 2], dice: &mut Dice) {
        let (marking, paint) = (&style.marking, style.palette.paint);
        let half = 0.5 * self.street.width_m;
        for (from, inward) in [(start, 1.0), (end, -1.0)] {
            if !dice.chance(marking.crossing_share) {
                continue;
            }
            let reach = |a: f32, b: f32| {
                let (a, b) = (from + inward * a, from + inward * b);
                [a.min(b), a.max(b)]
            };
            match marking.crossing {
                Crossing::Zebra => {
                    let mut across = 0.5 - half;
                    while across + 0.5 < half {
                        self.strip(reach(0.8, 3.6), [across, across + 0.5], paint);
                        across += 1.0;
                    }
                }
                Crossing::Lines => {
                    for along in [reach(0.8, 1.15), reach(3.25, 3.6)] {
                        self.strip(along, [0.2 - half, half - 0.2], paint);
                    }
                }
            }
            if dice.chance(0.8) {
                // The stop line spans the lane that arrives here (traffic keeps right).
                let arriving_right = match self.family {
                    Family::AlongV => inward < 0.0,
                    Family::AlongU => inward > 0.0,
                };
                let across = if arriving_right {
                    [0.15, half]
                } else {
                    [-half, -0.15]
                };
                self.strip(reach(4.8, 5.3), across, paint);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Line {
    across: f32,
    width_m: f32,
    colour: Colour,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strokes_stay_on_their_street() {
        let style = Style::target();
        let mut dice = Dice::new(2, &[]);
        let streets = Streets::new(600.0, &style.geometry, &mut dice);
        let strokes = mark(&streets, &style, &mut dice);
        assert!(strokes.len() > 500);
        for stroke in &strokes {
            let on_street = Family::BOTH.into_iter().any(|family| {
                let axis = usize::from(family == Family::AlongU);
                streets.family(family).iter().any(|street| {
                    let half = 0.5 * street.width_m + 1e-3;
                    stroke.low[axis] >= street.at - half && stroke.high[axis] <= street.at + half
                })
            });
            assert!(on_street, "{stroke:?}");
        }
    }
}
