//! Routes over the crossings: which streets, which lane, and the smooth line through them.

use super::dice::Dice;
use super::district::BORDER_M;
use super::layout::PARKING_OFFSET_M;
use super::streets::{Family, Street, Streets};

/// Where a turn leaves its lane, before the corner, m.
const TURN_M: f32 = 8.0;
/// A route is smoothed over this many points to each side.
const REACH: usize = 6;
/// Distance between the points of a route, m.
pub const PATH_STEP_M: f64 = 0.25;

/// How far right of the middle a vehicle keeps, clear of parked cars, m.
pub fn lane_offset_m(width_m: f32) -> f32 {
    // Wide streets have two lanes each way; the inner one never meets a parked car.
    let lane_middle = width_m * if width_m > 11.0 { 0.125 } else { 0.25 };
    lane_middle
        .min(0.5 * width_m - PARKING_OFFSET_M - 0.9 - 1.2)
        .max(0.0)
}

/// A crossing: the indices of its two streets.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Node {
    column: usize,
    row: usize,
}

struct Plan<'a> {
    streets: &'a Streets,
    columns: &'a [Street],
    rows: &'a [Street],
}

impl Plan<'_> {
    fn at(&self, node: Node) -> [f32; 2] {
        [self.columns[node.column].at, self.rows[node.row].at]
    }

    fn neighbours(&self, node: Node) -> Vec<Node> {
        let Node { column, row } = node;
        let mut near = Vec::with_capacity(4);
        if column > 0 {
            near.push(Node {
                column: column - 1,
                row,
            });
        }
        if column + 1 < self.columns.len() {
            near.push(Node {
                column: column + 1,
                row,
            });
        }
        if row > 0 {
            near.push(Node {
                column,
                row: row - 1,
            });
        }
        if row + 1 < self.rows.len() {
            near.push(Node {
                column,
                row: row + 1,
            });
        }
        near.retain(|node| {
            let [u, v] = self.at(*node);
            self.streets.is_near(u, v, -(BORDER_M + 12.0))
        });
        near
    }

    /// Direction of travel and lane offset between neighbouring crossings.
    fn leg(&self, from: Node, to: Node) -> ([f32; 2], f32) {
        let sign = |a: usize, b: usize| if b > a { 1.0 } else { -1.0 };
        if from.row == to.row {
            (
                [sign(from.column, to.column), 0.0],
                lane_offset_m(self.rows[from.row].width_m),
            )
        } else {
            (
                [0.0, sign(from.row, to.row)],
                lane_offset_m(self.columns[from.column].width_m),
            )
        }
    }

    /// Where the lanes of two legs meet, from the crossing `b` between them.
    fn corner(&self, a: Node, b: Node, c: Node) -> [f32; 2] {
        let ((first, before), (second, after)) = (self.leg(a, b), self.leg(b, c));
        [
            before * first[1] + after * second[1],
            -before * first[0] - after * second[0],
        ]
    }

    /// Whether the way from `a` over `b` to `c` leaves its street.
    fn turns(a: Node, b: Node, c: Node) -> bool {
        let along_row = a.row == b.row && b.row == c.row;
        let along_column = a.column == b.column && b.column == c.column;
        !along_row && !along_column
    }
}

/// A random route, as points [`PATH_STEP_M`] apart in local metres.
///
/// It ends early where the streets leave the district.
pub fn random(streets: &Streets, length_m: f64, dice: &mut Dice) -> Vec<[f64; 2]> {
    let plan = Plan {
        streets,
        columns: streets.family(Family::AlongV),
        rows: streets.family(Family::AlongU),
    };
    let mut inside = Vec::new();
    for column in 0..plan.columns.len() {
        for row in 0..plan.rows.len() {
            let node = Node { column, row };
            let [u, v] = plan.at(node);
            if streets.is_near(u, v, -(BORDER_M + 12.0)) && !plan.neighbours(node).is_empty() {
                inside.push(node);
            }
        }
    }
    if inside.is_empty() {
        return Vec::new();
    }
    let start = dice.pick(&inside);
    let mut nodes = vec![start, dice.pick(&plan.neighbours(start))];
    let mut planned_m = 0.0;
    while planned_m < length_m + 90.0 {
        let (before, here) = (nodes[nodes.len() - 2], nodes[nodes.len() - 1]);
        let onward: Vec<Node> = plan
            .neighbours(here)
            .into_iter()
            .filter(|node| *node != before)
            .collect();
        if onward.is_empty() {
            break;
        }
        let straight: Vec<Node> = onward
            .iter()
            .copied()
            .filter(|node| !Plan::turns(before, here, *node))
            .collect();
        // Most drivers go straight on at most crossings.
        let choices = if !straight.is_empty() && dice.chance(0.4) {
            &straight
        } else {
            &onward
        };
        let next = dice.pick(choices);
        let (a, b) = (plan.at(here), plan.at(next));
        planned_m += f64::from((a[0] - b[0]).hypot(a[1] - b[1]));
        nodes.push(next);
    }
    let local: Vec<[f64; 2]> = lane_points(&plan, &nodes)
        .into_iter()
        .map(|[u, v]| streets.point(u, v).map(f64::from))
        .collect();
    evenly_spaced(&local)
}

/// The lane through the crossings in the plan, its corners rounded.
fn lane_points(plan: &Plan<'_>, nodes: &[Node]) -> Vec<[f32; 2]> {
    let mut points = Vec::new();
    for (index, leg) in nodes.windows(2).enumerate() {
        let (direction, offset) = plan.leg(leg[0], leg[1]);
        let right = [direction[1], -direction[0]];
        // The corner of a turn lies before or beyond the middle of the crossing.
        let corner_at = |a: Node, b: Node, c: Node| {
            let corner = plan.corner(a, b, c);
            corner[0] * direction[0] + corner[1] * direction[1]
        };
        let from = match index.checked_sub(1).map(|before| nodes[before]) {
            Some(before) if Plan::turns(before, leg[0], leg[1]) => {
                corner_at(before, leg[0], leg[1]) + TURN_M
            }
            _ => 0.0,
        };
        let turn = nodes
            .get(index + 2)
            .filter(|next| Plan::turns(leg[0], leg[1], **next));
        let to = turn.map_or(0.0, |next| corner_at(leg[0], leg[1], *next) - TURN_M);
        let lane = |node: Node, along: f32| -> [f32; 2] {
            let at = plan.at(node);
            std::array::from_fn(|i| at[i] + offset * right[i] + along * direction[i])
        };
        let (start, end) = (lane(leg[0], from), lane(leg[1], to));
        let length = (end[0] - start[0]).hypot(end[1] - start[1]);
        let steps = (length / 0.5).ceil() as usize;
        for step in 0..steps {
            let t = step as f32 / steps as f32;
            points.push(std::array::from_fn(|i| start[i] + t * (end[i] - start[i])));
        }
        if let Some(next) = turn {
            let (onward, _) = plan.leg(leg[1], *next);
            let (at, shift) = (plan.at(leg[1]), plan.corner(leg[0], leg[1], *next));
            for step in 0..24 {
                let t = step as f32 / 24.0;
                // A Bézier curve with the corner as its control point.
                points.push(std::array::from_fn(|i| {
                    let corner = at[i] + shift[i];
                    let away = corner + TURN_M * onward[i];
                    (1.0 - t) * (1.0 - t) * end[i] + 2.0 * t * (1.0 - t) * corner + t * t * away
                }));
            }
        }
    }
    points
}

/// The same line with points every [`PATH_STEP_M`], smoothed so that its curvature is drivable.
fn evenly_spaced(line: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let mut points: Vec<[f64; 2]> = Vec::new();
    let mut carry = 0.0;
    for pair in line.windows(2) {
        let length = (pair[1][0] - pair[0][0]).hypot(pair[1][1] - pair[0][1]);
        let mut at = carry;
        while at < length {
            let t = at / length;
            points.push(std::array::from_fn(|i| {
                pair[0][i] + t * (pair[1][i] - pair[0][i])
            }));
            at += PATH_STEP_M;
        }
        carry = at - length;
    }
    (0..points.len())
        .map(|index| {
            let reach = REACH.min(index).min(points.len() - 1 - index);
            let near = &points[index - reach..=index + reach];
            let count = near.len() as f64;
            std::array::from_fn(|i| near.iter().map(|p| p[i]).sum::<f64>() / count)
        })
        .collect()
}
