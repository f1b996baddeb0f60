//! What a recording must not hold: frames of certain places, and positions finer than a grid.

use crossfix_calibration::{Geodetic, LocalFrame};
use serde::{Deserialize, Serialize};

/// Metres along a meridian of one degree of latitude, about; only the step of the grid depends on it.
const METRES_PER_DEGREE: f64 = 111_320.0;
/// A zone is at most this large, so that a flat map of it does, metres.
const LARGEST_ZONE_M: f64 = 100_000.0;

/// A place of which no frames are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a zone is { latitude_deg, longitude_deg, radius_m } or { polygon = [[latitude_deg, longitude_deg], ...] }"
)]
pub enum Zone {
    /// Everything within a radius.
    Circle {
        /// Of the centre, WGS 84.
        latitude_deg: f64,
        /// Of the centre, WGS 84.
        longitude_deg: f64,
        /// Metres.
        radius_m: f64,
    },
    /// Everything within a line around it.
    Polygon {
        /// The corners in order, `[latitude_deg, longitude_deg]`, WGS 84.
        polygon: Vec<[f64; 2]>,
    },
}

impl Zone {
    /// What is wrong with it.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn check(&self) -> Result<(), String> {
        let corners = match self {
            Self::Circle {
                latitude_deg,
                longitude_deg,
                radius_m,
            } => {
                if !(*radius_m > 0.0 && *radius_m <= LARGEST_ZONE_M) {
                    return Err(format!(
                        "radius_m is {radius_m}; set it between 0 and {LARGEST_ZONE_M}"
                    ));
                }
                vec![[*latitude_deg, *longitude_deg]]
            }
            Self::Polygon { polygon } => {
                if polygon.len() < 3 {
                    return Err(format!(
                        "polygon has {} corners; give at least 3, each [latitude_deg, longitude_deg]",
                        polygon.len()
                    ));
                }
                polygon.clone()
            }
        };
        let mut places = Vec::new();
        for [latitude_deg, longitude_deg] in corners {
            let place = Geodetic::new(latitude_deg, longitude_deg, 0.0);
            places.push(place.map_err(|error| format!("{error}; latitude comes first"))?);
        }
        let frame = LocalFrame::new(places[0]);
        let farthest_m = places.iter().map(|place| {
            let [east, north] = frame.enu_from_geodetic(*place).horizontal();
            east.hypot(north)
        });
        if farthest_m.fold(0.0, f64::max) > LARGEST_ZONE_M {
            return Err(format!(
                "polygon is wider than {LARGEST_ZONE_M} m; divide it"
            ));
        }
        Ok(())
    }

    /// Whether it reaches into a circle, metres. A zone that cannot be right reaches everywhere.
    pub fn reaches(&self, place: Geodetic, within_m: f64) -> bool {
        if self.check().is_err() || !within_m.is_finite() {
            return true;
        }
        let frame = LocalFrame::new(place);
        let offset = |latitude_deg, longitude_deg| {
            let corner = Geodetic::new(latitude_deg, longitude_deg, place.height_m);
            corner.map(|corner| frame.enu_from_geodetic(corner).horizontal())
        };
        match self {
            Self::Circle {
                latitude_deg,
                longitude_deg,
                radius_m,
            } => offset(*latitude_deg, *longitude_deg).map_or(true, |[east, north]| {
                east.hypot(north) <= radius_m + within_m
            }),
            Self::Polygon { polygon } => {
                let corners: Result<Vec<[f64; 2]>, _> = polygon
                    .iter()
                    .map(|[lat, lon]| offset(*lat, *lon))
                    .collect();
                corners.map_or(true, |corners| {
                    holds_origin(&corners) || distance_m(&corners) <= within_m
                })
            }
        }
    }
}

/// Whether the origin lies within the polygon: a ray from it crosses the border an odd number of times.
fn holds_origin(corners: &[[f64; 2]]) -> bool {
    borders(corners).fold(false, |inside, ([ax, ay], [bx, by])| {
        let crosses = (ay > 0.0) != (by > 0.0) && ax + (bx - ax) * ay / (ay - by) > 0.0;
        inside ^ crosses
    })
}

/// From the origin to the border.
fn distance_m(corners: &[[f64; 2]]) -> f64 {
    let distances = borders(corners).map(|([ax, ay], [bx, by])| {
        let (dx, dy) = (bx - ax, by - ay);
        let length2 = dx * dx + dy * dy;
        let along = if length2 > 0.0 {
            (-(ax * dx + ay * dy) / length2).clamp(0.0, 1.0)
        } else {
            0.0
        };
        (ax + along * dx).hypot(ay + along * dy)
    });
    distances.fold(f64::INFINITY, f64::min)
}

fn borders(corners: &[[f64; 2]]) -> impl Iterator<Item = ([f64; 2], [f64; 2])> {
    let next = corners.iter().cycle().skip(1);
    corners.iter().copied().zip(next.copied())
}

/// A position on a grid that is the same on every drive; `step_m` 0 leaves it as it is.
pub fn rounded(place: Geodetic, step_m: f64) -> Geodetic {
    if step_m <= 0.0 {
        return place;
    }
    let step_deg = step_m / METRES_PER_DEGREE;
    let on_grid = |degrees: f64, step: f64| (degrees / step).round() * step;
    let latitude_deg = on_grid(place.latitude_deg, step_deg).clamp(-90.0, 90.0);
    let shrink = latitude_deg.to_radians().cos().max(1e-3);
    let longitude_deg = on_grid(place.longitude_deg, step_deg / shrink).clamp(-180.0, 180.0);
    Geodetic::new(latitude_deg, longitude_deg, place.height_m).unwrap_or(place)
}

/// A covariance with the error of the rounding, that of a uniform distribution, in it.
pub fn rounded_covariance([[ee, en], [ne, nn]]: [[f64; 2]; 2], step_m: f64) -> [[f64; 2]; 2] {
    let more = step_m.max(0.0).powi(2) / 12.0;
    [[ee + more, en], [ne, nn + more]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(latitude_deg: f64, longitude_deg: f64) -> Geodetic {
        Geodetic::new(latitude_deg, longitude_deg, 40.0).unwrap()
    }

    #[test]
    fn a_circle_reaches_as_far_as_its_radius_and_the_error_of_the_position() {
        let zone = Zone::Circle {
            latitude_deg: 52.0,
            longitude_deg: 4.0,
            radius_m: 100.0,
        };
        let north_m = |metres: f64| place(52.0 + metres / 111_267.0, 4.0);
        assert!(zone.reaches(north_m(0.0), 0.0) && zone.reaches(north_m(99.0), 0.0));
        assert!(!zone.reaches(north_m(102.0), 0.0) && zone.reaches(north_m(102.0), 5.0));
        assert!(zone.reaches(north_m(5e4), f64::INFINITY));
    }

    #[test]
    fn a_polygon_holds_its_inside_also_where_it_is_bent_and_over_the_antimeridian() {
        // An L of 0.01 degrees: the upper right quarter is not of it.
        let bent = |west: f64| Zone::Polygon {
            polygon: [
                [0.0, 0.0],
                [0.0, 0.01],
                [0.005, 0.01],
                [0.005, 0.005],
                [0.01, 0.005],
                [0.01, 0.0],
            ]
            .map(|[north, east]| {
                let longitude = west + east;
                [
                    52.0 + north,
                    if longitude > 180.0 {
                        longitude - 360.0
                    } else {
                        longitude
                    },
                ]
            })
            .to_vec(),
        };
        for west in [4.0, 179.994] {
            let zone = bent(west);
            zone.check().unwrap();
            let inside = |north, east| {
                let longitude: f64 = west + east;
                let wrapped = if longitude > 180.0 {
                    longitude - 360.0
                } else {
                    longitude
                };
                zone.reaches(place(52.0 + north, wrapped), 0.0)
            };
            assert!(inside(0.0025, 0.0075) && inside(0.0075, 0.0025) && inside(0.0025, 0.0025));
            assert!(!inside(0.0075, 0.0075) && !inside(-0.001, 0.005) && !inside(0.002, 0.011));
            let corner = place(52.0052, west + 0.0052);
            assert!(!zone.reaches(corner, 5.0) && zone.reaches(corner, 30.0));
        }
    }

    #[test]
    fn zones_that_cannot_be_right_say_so_and_keep_no_frame() {
        let swapped = Zone::Polygon {
            polygon: vec![[100.0, 52.0], [101.0, 52.0], [101.0, 53.0]],
        };
        assert!(
            swapped
                .check()
                .unwrap_err()
                .contains("latitude comes first")
        );
        let line = Zone::Polygon {
            polygon: vec![[52.0, 4.0], [52.0, 5.0]],
        };
        assert!(line.check().is_err());
        let point = Zone::Circle {
            latitude_deg: 52.0,
            longitude_deg: 4.0,
            radius_m: 0.0,
        };
        for zone in [swapped, line, point] {
            assert!(zone.check().is_err() && zone.reaches(place(0.0, 0.0), 1.0));
        }
    }

    proptest! {
        #[test]
        fn rounding_moves_a_position_by_half_a_step_at_most_and_twice_is_once(
            latitude in -85.0..85.0, longitude in -179.9..179.9, step_m in 0.5..1000.0,
        ) {
            let exact = place(latitude, longitude);
            let once = rounded(exact, step_m);
            let [east, north] = LocalFrame::new(exact).enu_from_geodetic(once).horizontal();
            prop_assert!(east.abs() < 0.51 * step_m && north.abs() < 0.51 * step_m, "{east} {north}");
            let twice = LocalFrame::new(once).enu_from_geodetic(rounded(once, step_m)).horizontal();
            prop_assert!(twice[0].abs() < 1e-6 && twice[1].abs() < 1e-6);
            prop_assert_eq!(rounded(exact, 0.0), exact);
        }
    }
}
