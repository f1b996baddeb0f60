//! What the page shows: the latest of everything, and the way so far.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossfix_calibration::{Enu, Geodetic, LocalFrame};
use serde_json::{Value, json};

use crate::event::{Arrival, Estimate, EstimateKind, Event, Match, State};
use crate::health::Health;
use crate::peer::covariance::P95_RADIUS_SIGMAS;
use crate::peer::ellipse::Ellipse;
use crate::peer::jsonl::estimate_json;
use crate::port::Outbound;

/// Points of the track that are kept: 4 km where it crawls, some 13 km on a motorway.
const MOST_TRACK_POINTS: usize = 4000;
/// Fixes that are kept.
const MOST_FIXES: usize = 1000;
/// Points nearer to the one before are left out, metres.
const TRACK_SPACING_M: f64 = 1.0;
const FIX_SPACING_M: f64 = 0.3;

/// Something with the number under which the page asks for it, and when it came.
#[derive(Debug, Clone)]
pub struct Numbered<T> {
    pub value: Arc<T>,
    pub number: u64,
    came: Instant,
}

/// The latest of everything, and the way so far.
#[derive(Debug, Default)]
pub struct History {
    /// Counts whatever came.
    last_number: u64,
    estimate: Option<Numbered<Estimate>>,
    health: Option<Numbered<Health>>,
    pub frame: Option<Numbered<Arrival>>,
    pub heatmap: Option<Numbered<Match>>,
    track: VecDeque<Point>,
    fixes: VecDeque<Point>,
}

/// A point of the map.
#[derive(Debug)]
struct Point {
    number: u64,
    place: Geodetic,
    /// Of a track: the state, and whether the line to the point before is interrupted. Of a fix: none.
    state: Option<State>,
    reset_count: u32,
    interrupted: bool,
}

impl History {
    /// Notes what came at `now`.
    pub fn note(&mut self, outbound: &Outbound, now: Instant) {
        self.last_number += 1;
        match outbound {
            Outbound::Health(health) => self.health = Some(self.numbered(health, now)),
            Outbound::Match(found) => self.heatmap = Some(self.numbered(found, now)),
            Outbound::Estimate(estimate) if estimate.kind == EstimateKind::Fused => {
                self.note_track(estimate);
                self.estimate = Some(self.numbered(estimate, now));
            }
            Outbound::Estimate(_) | Outbound::Shadow(_) => {}
            Outbound::Event(arrival) => match &arrival.event {
                Event::Frame(_) => self.frame = Some(self.numbered(arrival, now)),
                Event::Gnss(fix) => {
                    let point = self.point(fix.position, None, 0);
                    add(&mut self.fixes, point, MOST_FIXES, FIX_SPACING_M);
                }
                Event::Odometry(_) | Event::SourceState { .. } => {}
            },
        }
    }

    fn note_track(&mut self, estimate: &Estimate) {
        if estimate.state == State::Lost {
            // The next point does not join up with the last one.
            let before = self.estimate.as_ref().map(|before| before.value.state);
            if before != Some(State::Lost)
                && let Some(last) = self.track.back()
            {
                let mut gap = self.point(last.place, Some(State::Lost), estimate.reset_count);
                gap.interrupted = true;
                push(&mut self.track, gap, MOST_TRACK_POINTS);
            }
            return;
        }
        let (state, reset_count) = (estimate.state, estimate.reset_count);
        let point = self.point(estimate.position, Some(state), reset_count);
        add(&mut self.track, point, MOST_TRACK_POINTS, TRACK_SPACING_M);
    }

    fn point(&self, place: Geodetic, state: Option<State>, reset_count: u32) -> Point {
        Point {
            number: self.last_number,
            place,
            state,
            reset_count,
            interrupted: false,
        }
    }

    fn numbered<T>(&self, value: &Arc<T>, came: Instant) -> Numbered<T> {
        Numbered {
            value: value.clone(),
            number: self.last_number,
            came,
        }
    }

    /// Everything for the page; of track and fixes what came after the number `after`. Nothing of the
    /// text in it is escaped for HTML: the page must put it in as text.
    pub fn json(&self, after: u64, now: Instant) -> Value {
        let age_s = |came: Instant| now.saturating_duration_since(came).as_secs_f64();
        let new = |points: &VecDeque<Point>| -> Vec<Value> {
            let first = points.partition_point(|point| point.number <= after);
            points.range(first..).map(Point::json).collect()
        };
        json!({
            "number": self.last_number,
            "estimate": self.estimate.as_ref().map(|found| {
                let mut estimate = estimate_json(&found.value);
                estimate["age_s"] = json!(age_s(found.came));
                if found.value.state != State::Lost {
                    let ellipse = Ellipse::new(found.value.covariance_m2);
                    estimate["ellipse_95"] = json!({
                        "major_m": P95_RADIUS_SIGMAS * ellipse.major_m,
                        "minor_m": P95_RADIUS_SIGMAS * ellipse.minor_m,
                        "orientation_deg": ellipse.orientation.degrees(),
                        "radius_m": ellipse.p95_radius_m(),
                    });
                }
                estimate
            }),
            "health": self.health.as_ref().map(|found| &*found.value),
            "frame": self.frame.as_ref().map(|found| json!({
                "number": found.number,
                "age_s": age_s(found.came),
                "source": &*found.value.source,
            })),
            "heatmap": self.heatmap.as_ref().map(|found| heatmap(found, age_s(found.came))),
            "track": new(&self.track),
            "fixes": new(&self.fixes),
        })
    }
}

impl Point {
    /// `[latitude_deg, longitude_deg, state, joined to the point before]`.
    fn json(&self) -> Value {
        // A centimetre is enough to draw.
        let short = |degrees: f64| (degrees * 1e7).round() / 1e7;
        let Geodetic {
            latitude_deg,
            longitude_deg,
            ..
        } = self.place;
        match self.state {
            None => json!([short(latitude_deg), short(longitude_deg)]),
            Some(state) => json!([
                short(latitude_deg),
                short(longitude_deg),
                state,
                !self.interrupted
            ]),
        }
    }
}

/// Adds a point unless it is the one before once more.
fn add(points: &mut VecDeque<Point>, mut point: Point, most: usize, spacing_m: f64) {
    if let Some(last) = points.back() {
        let frame = LocalFrame::new(last.place);
        let [east, north] = frame.enu_from_geodetic(point.place).horizontal();
        point.interrupted =
            last.reset_count != point.reset_count || last.state == Some(State::Lost);
        if east.hypot(north) < spacing_m && last.state == point.state && !point.interrupted {
            return;
        }
    }
    push(points, point, most);
}

fn push(points: &mut VecDeque<Point>, point: Point, most: usize) {
    if points.len() >= most {
        points.pop_front();
    }
    points.push_back(point);
}

/// Where the heatmap lies: north up about the middle of its patch, and flat at this size.
fn heatmap(found: &Numbered<Match>, age_s: f64) -> Value {
    let (georeference, map) = (&found.value.georeference, &found.value.fix.heatmap);
    let half_m = map.side() as f64 * map.metres_per_cell() / 2.0;
    let place = |[east, north]: [f64; 2]| {
        let enu = Enu::new(east, north, 0.0);
        georeference.frame().geodetic_from_enu(enu)
    };
    let (north_west, south_east) = (place([-half_m, half_m]), place([half_m, -half_m]));
    let mode = place(map.mode().offset_m);
    json!({
        "number": found.number,
        "age_s": age_s,
        "camera": found.value.camera,
        "north_deg": north_west.latitude_deg,
        "west_deg": north_west.longitude_deg,
        "south_deg": south_east.latitude_deg,
        "east_deg": south_east.longitude_deg,
        "mode": [mode.latitude_deg, mode.longitude_deg],
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::GnssFix;
    use crate::peer::testing;

    /// An estimate so far east of the first one.
    pub fn estimate(east_m: f64, state: State, reset_count: u32) -> Outbound {
        let mut estimate = testing::estimate(state);
        estimate.position.longitude_deg += east_m / 92_000.0;
        estimate.reset_count = reset_count;
        Outbound::Estimate(Arc::new(estimate))
    }

    fn fix(east_m: f64) -> Outbound {
        let mut fix: GnssFix = testing::fix(1);
        fix.position.longitude_deg += east_m / 92_000.0;
        Outbound::Event(Arc::new(Arrival::at_once("roof", Event::Gnss(fix))))
    }

    #[test]
    fn only_what_is_new_is_sent_again_and_nothing_grows_without_end() {
        let (mut history, now) = (History::default(), Instant::now());
        for step in 0..2 * MOST_TRACK_POINTS {
            history.note(&estimate(2.0 * step as f64, State::Ok, 0), now);
            history.note(&fix(2.0 * step as f64), now);
        }
        let all = history.json(0, now);
        assert_eq!(all["track"].as_array().unwrap().len(), MOST_TRACK_POINTS);
        assert_eq!(all["fixes"].as_array().unwrap().len(), MOST_FIXES);
        let number = all["number"].as_u64().unwrap();
        assert_eq!(history.json(number, now)["track"], json!([]));
        history.note(&estimate(0.0, State::Ok, 0), now);
        history.note(&estimate(0.5, State::Ok, 0), now);
        let news = history.json(number, now);
        assert_eq!(
            news["track"].as_array().unwrap().len(),
            1,
            "it hardly moved"
        );
        assert_eq!(history.json(u64::MAX, now)["track"], json!([]));
    }

    #[test]
    fn a_line_is_interrupted_where_the_output_jumps_or_was_lost() {
        let (mut history, now) = (History::default(), Instant::now());
        for outbound in [
            estimate(0.0, State::Ok, 0),
            estimate(5.0, State::Degraded, 0),
            estimate(50.0, State::Ok, 1),
            estimate(0.0, State::Lost, 1),
            estimate(0.0, State::Lost, 1),
            estimate(51.0, State::Ok, 1),
        ] {
            history.note(&outbound, now);
        }
        let track = history.json(0, now)["track"].clone();
        let ends: Vec<_> = track
            .as_array()
            .unwrap()
            .iter()
            .map(|point| (point[2].clone(), point[3].clone()))
            .collect();
        let expected = [
            (json!("ok"), json!(true)),
            (json!("degraded"), json!(true)),
            (json!("ok"), json!(false)),
            (json!("lost"), json!(false)),
            (json!("ok"), json!(false)),
        ];
        assert_eq!(ends, expected);
    }

    #[test]
    fn ages_grow_and_a_lost_estimate_has_no_ellipse() {
        let (mut history, now) = (History::default(), Instant::now());
        history.note(&estimate(0.0, State::Ok, 0), now);
        let later = history.json(0, now + Duration::from_secs(3));
        assert_eq!(later["estimate"]["age_s"], 3.0);
        let ellipse = &later["estimate"]["ellipse_95"];
        assert!((ellipse["major_m"].as_f64().unwrap() - 4.895).abs() < 1e-3);
        assert_eq!(ellipse["orientation_deg"], 90.0);
        history.note(&estimate(0.0, State::Lost, 0), now);
        let lost = history.json(0, now);
        assert!(lost["estimate"].get("ellipse_95").is_none());
        assert!(lost["estimate"].get("latitude_deg").is_none());
    }
}
