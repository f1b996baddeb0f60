//! Mean sea level against the ellipsoid, where nobody said.

use crossfix_calibration::Geodetic;

/// The geoid rises by less than 0.1 m over this distance nearly everywhere, degrees (1 km).
const SAME_PLACE_DEG: f64 = 0.01;

/// The geoid EGM96 (NASA and NIMA 1996, degree 360), with the place asked for last, since a place takes
/// 2 ms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Geoid {
    latest: Option<([f64; 2], f64)>,
}

impl Geoid {
    /// Mean sea level above the ellipsoid at `position`, metres; within some decimetres of it.
    pub fn separation_m(&mut self, position: Geodetic) -> f64 {
        let place = [position.latitude_deg, position.longitude_deg];
        if !place.iter().all(|angle| angle.is_finite()) {
            return 0.0;
        }
        match self.latest {
            Some((at, separation_m))
                if (0..2).all(|axis| (at[axis] - place[axis]).abs() < SAME_PLACE_DEG) =>
            {
                separation_m
            }
            _ => {
                let separation_m = egm96::egm96_altitude_offset(place[0], place[1]);
                self.latest = Some((place, separation_m));
                separation_m
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_places_have_their_separation() {
        let mut geoid = Geoid::default();
        // From the tables of the EGM96 calculator: Delft, the low south of India, Mount Everest.
        for (latitude_deg, longitude_deg, expected_m) in [
            (52.0116, 4.3571, 43.4),
            (4.71, 78.77, -106.9),
            (27.9881, 86.925, -28.7),
        ] {
            let place = Geodetic::new(latitude_deg, longitude_deg, 0.0).unwrap();
            let separation_m = geoid.separation_m(place);
            assert!((separation_m - expected_m).abs() < 0.6, "{separation_m}");
            assert_eq!(geoid.separation_m(place), separation_m);
        }
    }
}
