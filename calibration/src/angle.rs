//! Directions in the horizontal plane: [`Yaw`] inside, [`Heading`] where data enters or leaves.
//!
//! The only place that wraps a direction or converts between the two conventions.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

/// A direction in radians counter-clockwise from east, always in (−π, π].
///
/// ```
/// use std::f64::consts::PI;
/// use crossfix_calibration::{Heading, Yaw};
///
/// let south = Heading::from_degrees(180.0);
/// assert!((south.yaw().radians() + PI / 2.0).abs() < 1e-15);
/// assert_eq!(Yaw::new(-PI), Yaw::new(PI));
/// assert_eq!(Yaw::new(0.0).heading().degrees(), 90.0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Yaw(f64);

/// A direction in degrees clockwise from true north, always in [0, 360).
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Heading(f64);

/// The direction of a line, which has no front: degrees clockwise from true north in [0, 180).
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct LineHeading(f64);

impl Yaw {
    /// The direction at this angle, radians counter-clockwise from east, any number of turns. NaN
    /// stays NaN.
    pub fn new(angle_rad: f64) -> Self {
        let wrapped = (angle_rad + PI).rem_euclid(TAU) - PI;
        Self(if wrapped <= -PI { PI } else { wrapped })
    }

    /// Radians counter-clockwise from east, in (−π, π].
    pub fn radians(self) -> f64 {
        self.0
    }

    /// The same direction in degrees clockwise from true north.
    pub fn heading(self) -> Heading {
        Heading::from_degrees(90.0 - self.0.to_degrees())
    }

    /// This direction turned counter-clockwise by `angle_rad`.
    #[must_use]
    pub fn turned(self, angle_rad: f64) -> Self {
        Self::new(self.0 + angle_rad)
    }

    /// The shortest rotation from `earlier` to this direction, radians counter-clockwise in (−π, π].
    pub fn difference_rad(self, earlier: Self) -> f64 {
        Self::new(self.0 - earlier.0).0
    }

    /// Whether it is a number.
    pub fn is_finite(self) -> bool {
        self.0.is_finite()
    }
}

impl Heading {
    /// The direction at this angle, degrees clockwise from true north, any number of turns. NaN stays
    /// NaN.
    pub fn from_degrees(angle_deg: f64) -> Self {
        Self(wrap_degrees(angle_deg, 360.0))
    }

    /// The direction at this azimuth, radians clockwise from true north, any number of turns.
    pub fn from_azimuth_rad(azimuth_rad: f64) -> Self {
        Self::from_degrees(azimuth_rad.to_degrees())
    }

    /// Degrees clockwise from true north, in [0, 360).
    pub fn degrees(self) -> f64 {
        self.0
    }

    /// The same direction in radians counter-clockwise from east.
    pub fn yaw(self) -> Yaw {
        Yaw::new(azimuth_rad_from_yaw_rad(self.0.to_radians()))
    }

    /// The opposite direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self::from_degrees(self.0 + 180.0)
    }

    /// Degrees rounded to this many decimals, still in [0, 360): 359.996 to two decimals is 0.
    pub fn rounded_degrees(self, decimals: u8) -> f64 {
        round_degrees(self.0, 360.0, decimals)
    }

    /// [`Self::rounded_degrees`] as text with exactly this many decimals.
    pub fn format(self, decimals: u8) -> String {
        format!("{:.*}", decimals.into(), self.rounded_degrees(decimals))
    }
}

impl LineHeading {
    /// The line through this direction, degrees clockwise from true north, any number of turns.
    pub fn from_degrees(angle_deg: f64) -> Self {
        Self(wrap_degrees(angle_deg, 180.0))
    }

    /// Degrees clockwise from true north, in [0, 180).
    pub fn degrees(self) -> f64 {
        self.0
    }

    /// Degrees rounded to this many decimals, still in [0, 180).
    pub fn rounded_degrees(self, decimals: u8) -> f64 {
        round_degrees(self.0, 180.0, decimals)
    }

    /// [`Self::rounded_degrees`] as text with exactly this many decimals.
    pub fn format(self, decimals: u8) -> String {
        format!("{:.*}", decimals.into(), self.rounded_degrees(decimals))
    }
}

/// Azimuth, radians clockwise from north, of a yaw in radians counter-clockwise from east, without
/// wrapping. The same subtraction leads back.
pub fn azimuth_rad_from_yaw_rad(yaw_rad: f64) -> f64 {
    FRAC_PI_2 - yaw_rad
}

/// `angle_deg` in [0, `period_deg`). `rem_euclid` alone returns the period for −1e-20.
fn wrap_degrees(angle_deg: f64, period_deg: f64) -> f64 {
    let wrapped = angle_deg.rem_euclid(period_deg);
    if wrapped >= period_deg { 0.0 } else { wrapped }
}

fn round_degrees(angle_deg: f64, period_deg: f64, decimals: u8) -> f64 {
    let scale = 10f64.powi(decimals.into());
    (angle_deg * scale).round() % (period_deg * scale) / scale
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headings_and_yaws_are_the_same_direction() {
        for (heading_deg, yaw_deg) in [(0.0, 90.0), (90.0, 0.0), (180.0, -90.0), (270.0, 180.0)] {
            let yaw = Heading::from_degrees(heading_deg).yaw();
            assert!(
                (yaw.radians().to_degrees() - yaw_deg).abs() < 1e-9,
                "{heading_deg}"
            );
            assert!((yaw.heading().degrees() - heading_deg).abs() < 1e-9);
        }
    }

    #[test]
    fn the_ends_of_each_range_are_one_direction() {
        assert_eq!(Yaw::new(-PI).radians(), PI);
        assert_eq!(Yaw::new(PI).radians(), PI);
        assert_eq!(Yaw::new(3.0 * PI).radians(), PI);
        assert_eq!(Yaw::new(-1e-20 - PI).radians(), PI);
        for angle_deg in [0.0, 360.0, -360.0, -1e-20, 720.0] {
            assert_eq!(Heading::from_degrees(angle_deg).degrees(), 0.0);
            assert_eq!(LineHeading::from_degrees(angle_deg / 2.0).degrees(), 0.0);
        }
    }

    #[test]
    fn a_full_turn_is_never_printed() {
        assert_eq!(Heading::from_degrees(359.996).format(2), "0.00");
        assert_eq!(Heading::from_degrees(359.994).format(2), "359.99");
        assert_eq!(Heading::from_degrees(359.5).format(0), "0");
        assert_eq!(Heading::from_degrees(7.25).format(3), "7.250");
        assert_eq!(LineHeading::from_degrees(179.96).format(1), "0.0");
        assert_eq!(LineHeading::from_degrees(179.94).format(1), "179.9");
    }

    #[test]
    fn what_is_no_number_stays_none() {
        assert!(!Yaw::new(f64::NAN).is_finite());
        assert!(Heading::from_degrees(f64::INFINITY).degrees().is_nan());
        assert!(Yaw::new(f64::NAN).heading().rounded_degrees(3).is_nan());
    }

    proptest! {
        #[test]
        fn a_yaw_is_in_its_range_and_its_own_wrap(angle in -1e4..1e4f64) {
            let yaw = Yaw::new(angle).radians();
            prop_assert!(-PI < yaw && yaw <= PI, "{yaw}");
            prop_assert_eq!(Yaw::new(yaw).radians(), yaw);
            let turns = (angle - yaw) / TAU;
            prop_assert!((turns - turns.round()).abs() < 1e-9);
        }

        #[test]
        fn a_heading_is_in_its_range_and_its_own_wrap(angle in -1e5..1e5f64) {
            let heading = Heading::from_degrees(angle).degrees();
            prop_assert!((0.0..360.0).contains(&heading), "{heading}");
            prop_assert_eq!(Heading::from_degrees(heading).degrees(), heading);
        }

        #[test]
        fn yaw_to_heading_and_back(angle in -1e3..1e3f64) {
            let yaw = Yaw::new(angle);
            prop_assert!(yaw.heading().yaw().difference_rad(yaw).abs() < 1e-14);
        }

        #[test]
        fn heading_to_yaw_and_back(angle in -1e4..1e4f64) {
            let heading = Heading::from_degrees(angle);
            let off = (heading.yaw().heading().degrees() - heading.degrees()).abs();
            prop_assert!(off.min(360.0 - off) < 1e-12, "{off}");
        }

        #[test]
        fn azimuth_and_yaw_are_one_direction(yaw in -10.0..10.0f64) {
            let heading = Heading::from_azimuth_rad(azimuth_rad_from_yaw_rad(yaw));
            prop_assert!(heading.yaw().difference_rad(Yaw::new(yaw)).abs() < 1e-13);
        }

        #[test]
        fn a_printed_heading_reads_back_in_range(turns in -3i32..3, near in -0.02..0.02f64, decimals in 0u8..=6) {
            let heading = Heading::from_degrees(360.0 * f64::from(turns) + near);
            let printed: f64 = heading.format(decimals).parse().unwrap();
            prop_assert!((0.0..360.0).contains(&printed), "{printed}");
            let off = (printed - heading.degrees()).abs();
            prop_assert!(off.min(360.0 - off) <= 0.5 * 0.1f64.powi(decimals.into()) + 1e-9);
        }

        #[test]
        fn turning_by_a_difference_arrives(from in -4.0..4.0f64, to in -4.0..4.0f64) {
            let (from, to) = (Yaw::new(from), Yaw::new(to));
            prop_assert!(from.turned(to.difference_rad(from)).difference_rad(to).abs() < 1e-14);
        }
    }
}
