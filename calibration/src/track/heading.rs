//! Which way a vehicle headed along a drive whose headings nobody knows: from what its coarse positions and
//! odometry, or directions that something else found, have in common.
//!
//! Odometry tells how a vehicle turned since the drive began, and coarse positions tell the way it went. Over a
//! stretch the angle between the two is the yaw at which the drive began, beside noise, and the drift of a gyro.
//! A line through those angles over time ([`line_of`]) is both.

use super::TrackModel;
use super::motion::{GYRO_BIAS_RAD_S, MOST_SPEED_MPS, TURN_STEP_RAD};
use crate::angle::Yaw;

/// Odometry is held against coarse positions over stretches of this length, metres: the noise of positions turns
/// them by a few degrees, and a gyro drifts by less meanwhile.
const STRETCH_M: f64 = 30.0;
/// Without odometry a course is that of a chord of at least this length, metres, ...
const CHORD_M: f64 = 12.0;
/// ... and at most this time: a vehicle that stood did not go straight on for sure.
const CHORD_S: f64 = 8.0;
/// Fewer directions than this have no line.
const LEAST_DIRECTIONS: usize = 3;
/// At least this share of the directions lie by the line, ...
const LEAST_INSIDE: f64 = 0.6;
/// ... within so many sigmas or this angle, radians, whichever is more.
const INSIDE: (f64, f64) = (3.0, 0.25);
/// Courses this far off, radians, are of another drive than odometry's. One in eight may be, by chance.
const FAR_RAD: f64 = 1.0;
const MOST_FAR: f64 = 0.125;
/// No yaw is found to better than this, radians.
const LEAST_SIGMA_RAD: f64 = 0.01;
/// What is not worth a direction, radians.
const MOST_SIGMA_RAD: f64 = 1.0;

/// What a vehicle without a heading knew at one picture, in the local metres of its drive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waypoint {
    /// When, seconds from any moment.
    pub time_s: f64,
    /// Coarse position.
    pub coarse_m: [f64; 2],
    /// Its stated standard deviation along each axis.
    pub coarse_sigma_m: f64,
    /// As [`super::Frame::odometry`].
    pub odometry: Option<[f64; 3]>,
}

/// A yaw and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundYaw {
    /// Radians counter-clockwise from east, in (−π, π].
    pub yaw_rad: f64,
    /// Its standard deviation, radians.
    pub sigma_rad: f64,
}

/// A measured angle at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Direction {
    /// Seconds.
    time_s: f64,
    /// Radians, any number of turns.
    angle_rad: f64,
    /// Its standard deviation, radians.
    sigma_rad: f64,
}

/// An angle that changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    /// Where it is known best, seconds.
    middle_s: f64,
    angle_rad: f64,
    rate_rad_s: f64,
    /// Variances of both; at the middle they do not depend on each other.
    variances: [f64; 2],
}

impl Line {
    fn at(&self, time_s: f64) -> FoundYaw {
        let dt = time_s - self.middle_s;
        FoundYaw {
            yaw_rad: self.angle_rad + self.rate_rad_s * dt,
            sigma_rad: (self.variances[0] + dt * dt * self.variances[1]).sqrt(),
        }
    }
}

/// The yaw at each point of a drive by odometry that is turned onto the coarse positions, and where there is no
/// odometry by the course between them; `None` where they don't tell: of vehicles that stand, of drives that
/// are too short for the positions' noise, and of odometry that turns otherwise than positions do. A vehicle
/// without odometry is taken to drive forward.
pub fn yaws_by_course(points: &[Waypoint], model: &TrackModel) -> Vec<Option<FoundYaw>> {
    let mut found = vec![None; points.len()];
    for part in parts(points) {
        let whole = &points[part.clone()];
        if whole.len() == 1 {
            continue;
        }
        let track = Track::of(whole);
        let directions = track.directions(whole, model);
        if let Some(line) = line_of(&directions, MOST_FAR) {
            for (slot, yaw) in found[part].iter_mut().zip(track.yaws(whole, &line)) {
                *slot = Some(yaw);
            }
        }
    }
    let joined = |index: usize| {
        points[index].odometry.is_some()
            || points.get(index + 1).is_some_and(|p| p.odometry.is_some())
    };
    for (index, slot) in found.iter_mut().enumerate() {
        if slot.is_none() && !joined(index) {
            *slot = course(points, index, model);
        }
    }
    found
}

/// The yaw at each point of a drive by directions in which something else found the vehicle to head, `None` where
/// it found none: what they have in common along odometry. Their sigma is one of each direction by itself, and
/// says that neighbours repeat each other's errors. Points without odometry keep their own.
pub fn yaws_by_directions(
    points: &[Waypoint],
    found: &[Option<FoundYaw>],
) -> Vec<Option<FoundYaw>> {
    let mut yaws = found.to_vec();
    for part in parts(points) {
        let whole = &points[part.clone()];
        if whole.len() == 1 {
            continue;
        }
        let track = Track::of(whole);
        let each = track.turned_rad.iter().zip(whole).zip(&found[part.clone()]);
        let directions: Vec<Direction> = each
            .filter_map(|((turned, point), found)| {
                let found = (*found)?;
                Some(Direction {
                    time_s: point.time_s,
                    angle_rad: found.yaw_rad - turned,
                    sigma_rad: found.sigma_rad,
                })
            })
            .collect();
        let line = line_of(&directions, 1.0);
        for (at, slot) in yaws[part].iter_mut().enumerate() {
            *slot = line.as_ref().map(|line| track.yaw(at, &whole[at], line));
        }
    }
    yaws
}

/// Runs of points that odometry joins.
fn parts(points: &[Waypoint]) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    let mut from = 0;
    for to in 1..=points.len() {
        if to == points.len() || points[to].odometry.is_none() {
            parts.push(from..to);
            from = to;
        }
    }
    parts
}

/// Standard deviation along each axis of the difference of two coarse positions.
fn step_sigma_m(from: &Waypoint, to: &Waypoint, model: &TrackModel) -> f64 {
    let both = f64::midpoint(from.coarse_sigma_m.powi(2), to.coarse_sigma_m.powi(2));
    let kept = (-(to.time_s - from.time_s).abs() / model.gnss_memory_s).exp();
    let bias = 2.0 * both * model.gnss_inflation.powi(2) * (1.0 - kept);
    (bias + 2.0 * model.gnss_noise_m.powi(2)).sqrt()
}

/// Odometry alone, from a vehicle that began in the origin and headed east.
struct Track {
    place_m: Vec<[f64; 2]>,
    turned_rad: Vec<f64>,
}

impl Track {
    fn of(points: &[Waypoint]) -> Self {
        let (mut place, mut turned) = ([0.0f64; 2], 0.0f64);
        let mut track = Self {
            place_m: vec![place],
            turned_rad: vec![turned],
        };
        for point in &points[1..] {
            let [forward, left, turn] = point.odometry.unwrap_or_default();
            let (sin, cos) = turned.sin_cos();
            place = [
                place[0] + forward * cos - left * sin,
                place[1] + forward * sin + left * cos,
            ];
            turned += turn;
            track.place_m.push(place);
            track.turned_rad.push(turned);
        }
        track
    }

    /// Angles from odometry's track to the coarse positions', stretch by stretch.
    fn directions(&self, points: &[Waypoint], model: &TrackModel) -> Vec<Direction> {
        let mut directions = Vec::new();
        let mut from = 0;
        for to in 1..points.len() {
            let went = [0, 1].map(|axis| self.place_m[to][axis] - self.place_m[from][axis]);
            let length_m = went[0].hypot(went[1]);
            if length_m < STRETCH_M {
                continue;
            }
            let (a, b) = (&points[from], &points[to]);
            from = to;
            let coarse = [0, 1].map(|axis| b.coarse_m[axis] - a.coarse_m[axis]);
            let sigma_rad = step_sigma_m(a, b, model) / length_m;
            if sigma_rad < MOST_SIGMA_RAD && sigma_rad.is_finite() {
                directions.push(Direction {
                    time_s: f64::midpoint(a.time_s, b.time_s),
                    angle_rad: coarse[1].atan2(coarse[0]) - went[1].atan2(went[0]),
                    sigma_rad,
                });
            }
        }
        directions
    }

    fn yaw(&self, at: usize, point: &Waypoint, line: &Line) -> FoundYaw {
        let began = line.at(point.time_s);
        // The noise of turns wanders about the line.
        let noise = TURN_STEP_RAD.powi(2) * self.turned_rad.len() as f64 / 6.0;
        FoundYaw {
            yaw_rad: Yaw::new(began.yaw_rad + self.turned_rad[at]).radians(),
            sigma_rad: began.sigma_rad.hypot(noise.sqrt()).max(LEAST_SIGMA_RAD),
        }
    }

    fn yaws(&self, points: &[Waypoint], line: &Line) -> Vec<FoundYaw> {
        let each = points.iter().enumerate();
        each.map(|(at, point)| self.yaw(at, point, line)).collect()
    }
}

/// The course at a point between the coarse positions around it.
fn course(points: &[Waypoint], at: usize, model: &TrackModel) -> Option<FoundYaw> {
    let (mut from, mut to) = (at, at);
    let between = |from: usize, to: usize| {
        [0, 1].map(|axis| points[to].coarse_m[axis] - points[from].coarse_m[axis])
    };
    let length = |step: [f64; 2]| step[0].hypot(step[1]);
    let chord = loop {
        let chord = between(from, to);
        if length(chord) >= CHORD_M {
            break chord;
        }
        let earlier = from
            .checked_sub(1)
            .filter(|next| points[at].time_s - points[*next].time_s <= CHORD_S);
        let later = (to + 1 < points.len()).then_some(to + 1);
        let later = later.filter(|next| points[*next].time_s - points[at].time_s <= CHORD_S);
        if earlier.is_none() && later.is_none() {
            return None;
        }
        from = earlier.unwrap_or(from);
        to = later.unwrap_or(to);
    };
    let dt = points[to].time_s - points[from].time_s;
    if !(length(chord) <= MOST_SPEED_MPS * dt) {
        return None;
    }
    let noise_rad = step_sigma_m(&points[from], &points[to], model) / length(chord);
    // How far it bends there, and so what the chord hides.
    let (before, after) = (between(from, at), between(at, to));
    let bend_rad = if length(before).min(length(after)) > CHORD_M / 4.0 {
        let bend = after[1].atan2(after[0]) - before[1].atan2(before[0]);
        Yaw::new(bend).radians().abs()
    } else {
        0.0
    };
    let sigma_rad = noise_rad.hypot(bend_rad / 4.0).max(LEAST_SIGMA_RAD);
    (sigma_rad < MOST_SIGMA_RAD).then(|| FoundYaw {
        yaw_rad: chord[1].atan2(chord[0]),
        sigma_rad,
    })
}

/// The line through angles over time, with a prior about no slope: iteratively reweighted least squares (Cauchy)
/// from the angle that most of them share. Its variances are at least those that the residuals speak of. `None`
/// where angles have no line in common, or more than a share of `most_far` is far from it.
fn line_of(directions: &[Direction], most_far: f64) -> Option<Line> {
    if directions.len() < LEAST_DIRECTIONS {
        return None;
    }
    let off =
        |direction: &Direction, from_rad: f64| Yaw::new(direction.angle_rad - from_rad).radians();
    let shared = |from: &&Direction| -> f64 {
        let weight = |direction: &Direction| {
            let width = direction.sigma_rad.hypot(INSIDE.1);
            (-0.5 * (off(direction, from.angle_rad) / width).powi(2)).exp() / direction.sigma_rad
        };
        directions.iter().map(weight).sum()
    };
    let start = directions
        .iter()
        .max_by(|a, b| shared(a).total_cmp(&shared(b)))?;
    let mut line = Line {
        middle_s: start.time_s,
        angle_rad: start.angle_rad,
        rate_rad_s: 0.0,
        variances: [0.0; 2],
    };
    let residual =
        |line: &Line, direction: &Direction| off(direction, line.at(direction.time_s).yaw_rad);
    for round in 0..10 {
        let weight = |direction: &Direction| {
            // Wide at first: the start is one angle with its own noise.
            let width = direction
                .sigma_rad
                .max(if round < 2 { INSIDE.1 } else { 0.0 });
            let robust = 1.0 + (residual(&line, direction) / width).powi(2) / 4.0;
            direction.sigma_rad.powi(-2) / robust
        };
        let rows: Vec<(f64, f64, f64)> = directions
            .iter()
            .map(|direction| {
                (
                    weight(direction),
                    direction.time_s,
                    residual(&line, direction),
                )
            })
            .collect();
        let all: f64 = rows.iter().map(|(weight, ..)| weight).sum();
        let middle_s = rows
            .iter()
            .map(|(weight, time, _)| weight * time)
            .sum::<f64>()
            / all;
        let mean = rows
            .iter()
            .map(|(weight, _, off)| weight * off)
            .sum::<f64>()
            / all;
        let spread: f64 = rows
            .iter()
            .map(|(w, t, _)| w * (t - middle_s).powi(2))
            .sum();
        let slope: f64 = rows
            .iter()
            .map(|(w, t, off)| w * (t - middle_s) * off)
            .sum();
        let prior = GYRO_BIAS_RAD_S.powi(-2);
        let angle_rad = line.at(middle_s).yaw_rad + mean;
        // The prior is about no slope at all.
        let change = (slope - prior * line.rate_rad_s) / (spread + prior);
        line = Line {
            middle_s,
            angle_rad,
            rate_rad_s: line.rate_rad_s + change,
            variances: [all.recip(), (spread + prior).recip()],
        };
    }
    let residuals: Vec<(f64, f64)> = directions
        .iter()
        .map(|direction| (residual(&line, direction).abs(), direction.sigma_rad))
        .collect();
    let share = |is: &dyn Fn(f64, f64) -> bool| {
        let count = residuals
            .iter()
            .filter(|(off, sigma)| is(*off, *sigma))
            .count();
        count as f64 / residuals.len() as f64
    };
    let inside = share(&|off, sigma| off < (INSIDE.0 * sigma).max(INSIDE.1));
    let far = share(&|off, sigma| off > FAR_RAD.max(INSIDE.0 * sigma));
    if inside < LEAST_INSIDE || far > most_far {
        return None;
    }
    // Residuals beyond what was stated widen it; two were spent on the line.
    let squares = |(off, sigma): &(f64, f64)| (off / sigma).powi(2).min(25.0);
    let freedom = (residuals.len() - 2) as f64;
    let scale = (residuals.iter().map(squares).sum::<f64>() / freedom).max(1.0);
    line.variances = line.variances.map(|variance| variance * scale);
    Some(line)
}

#[cfg(test)]
mod tests;
