//! A satellite receiver between houses: a bias that wanders slowly, reflections that come and go at
//! once, noise, outages, and a covariance that believes too much of itself.

use super::dice::Dice;
use super::drive::{Drive, GaussMarkov, ODOMETRY_HZ};
use std::f64::consts::TAU;

/// How bad reception is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reception {
    /// Sigma of the slow bias per axis, m.
    pub bias_sigma_m: f64,
    /// Time in which the bias forgets itself, s.
    pub bias_memory_s: f64,
    /// Sigma of the noise per axis, m.
    pub noise_sigma_m: f64,
    /// Reflections per second.
    pub multipath_rate_hz: f64,
    /// Largest shift by a reflection, m.
    pub multipath_max_m: f64,
    /// Outages per second.
    pub outage_rate_hz: f64,
    /// The total error per axis stays below this, m.
    pub limit_m: f64,
}

impl Default for Reception {
    fn default() -> Self {
        Self {
            bias_sigma_m: 7.5,
            bias_memory_s: 45.0,
            noise_sigma_m: 0.6,
            multipath_rate_hz: 1.0 / 60.0,
            multipath_max_m: 20.0,
            outage_rate_hz: 1.0 / 90.0,
            limit_m: MAX_OFFSET_M,
        }
    }
}

/// A camera stays within 0.35 of a 64 m patch of its coarse position, per axis.
pub const MAX_OFFSET_M: f64 = 0.35 * 64.0;

/// One fix, once per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fix {
    /// The odometry sample of the same moment.
    pub sample: usize,
    /// Local metres, east and north.
    pub position: [f64; 2],
    /// What the receiver says of its error, per axis, m.
    pub sigma_m: f64,
    /// Speed over ground, m/s.
    pub speed_mps: f64,
    /// Course over ground as a yaw, rad; none when standing.
    pub course_rad: Option<f64>,
}

/// The fixes of a drive; the first is always there.
pub fn receive(drive: &Drive, reception: &Reception, dice: &mut Dice) -> Vec<Fix> {
    let axis =
        |dice: &mut Dice| GaussMarkov::new(reception.bias_sigma_m, reception.bias_memory_s, dice);
    let mut bias = [axis(dice), axis(dice)];
    let (mut reflection, mut reflection_s) = ([0.0, 0.0], 0.0);
    let mut outage_s = 0.0;
    let mut fixes = Vec::new();
    for (sample, truth) in drive.truth.iter().enumerate().step_by(ODOMETRY_HZ) {
        let slow: [f64; 2] = std::array::from_fn(|i| bias[i].step(1.0, dice));
        reflection_s -= 1.0;
        if reflection_s <= 0.0 {
            reflection = [0.0, 0.0];
            if dice.unit() < reception.multipath_rate_hz {
                reflection_s = dice.uniform(5.0, 20.0);
                let (size, angle) = (
                    dice.uniform(5.0, reception.multipath_max_m),
                    dice.uniform(0.0, TAU),
                );
                reflection = [size * angle.cos(), size * angle.sin()];
            }
        }
        outage_s -= 1.0;
        if outage_s <= 0.0 && dice.unit() < reception.outage_rate_hz {
            outage_s = dice.uniform(3.0, 12.0);
        }
        let noise = [
            dice.normal(reception.noise_sigma_m),
            dice.normal(reception.noise_sigma_m),
        ];
        let error: [f64; 2] = std::array::from_fn(|i| {
            (slow[i] + reflection[i] + noise[i]).clamp(-reception.limit_m, reception.limit_m)
        });
        // Receivers see their noise and a part of their bias, hardly their reflections.
        let sigma_m = 0.65 * reception.bias_sigma_m * dice.normal(0.15).exp()
            + 0.15 * reflection[0].hypot(reflection[1]);
        if outage_s > 0.0 && sample > 0 {
            continue;
        }
        fixes.push(Fix {
            sample,
            position: [truth.x + error[0], truth.y + error[1]],
            sigma_m,
            speed_mps: (truth.speed_mps + dice.normal(0.1)).abs(),
            course_rad: (truth.speed_mps > 1.0).then(|| truth.yaw_rad + dice.normal(0.02)),
        });
    }
    fixes
}

/// Where the vehicle believes it is at a sample: the latest fix carried on by odometry, with the
/// sigma per axis, m.
pub fn coarse_position(drive: &Drive, fixes: &[Fix], sample: usize) -> ([f64; 2], f64) {
    let latest = fixes
        .partition_point(|fix| fix.sample <= sample)
        .saturating_sub(1);
    let fix = &fixes[latest];
    let moved = drive.displacement(fix.sample, sample);
    let truth = &drive.truth[sample];
    let believed = [fix.position[0] + moved[0], fix.position[1] + moved[1]];
    let kept = [
        truth.x + (believed[0] - truth.x).clamp(-MAX_OFFSET_M, MAX_OFFSET_M),
        truth.y + (believed[1] - truth.y).clamp(-MAX_OFFSET_M, MAX_OFFSET_M),
    ];
    (kept, fix.sigma_m.hypot(0.03 * moved[0].hypot(moved[1])))
}

/// Where a recording says the vehicle was at a sample when nobody knows its heading: on the line between the
/// fixes before and after it, with the sigma per axis, m.
pub fn between_fixes(drive: &Drive, fixes: &[Fix], sample: usize) -> ([f64; 2], f64) {
    let after = fixes.partition_point(|fix| fix.sample <= sample);
    let before = &fixes[after.saturating_sub(1)];
    let next = fixes.get(after).unwrap_or(before);
    let span = next.sample.saturating_sub(before.sample).max(1) as f64;
    let share = (sample.saturating_sub(before.sample) as f64 / span).min(1.0);
    let truth = &drive.truth[sample];
    let kept = [truth.x, truth.y];
    let kept = std::array::from_fn(|axis| {
        let believed =
            before.position[axis] + share * (next.position[axis] - before.position[axis]);
        kept[axis] + (believed - kept[axis]).clamp(-MAX_OFFSET_M, MAX_OFFSET_M)
    });
    (kept, before.sigma_m.max(next.sigma_m))
}

#[cfg(test)]
mod tests {
    use super::super::district::{District, Grid};
    use super::super::drive::Instruments;
    use super::super::style::Style;
    use super::*;

    #[test]
    fn without_a_heading_positions_lie_between_fixes() {
        let district = District::new(&Style::source(), 22, Grid::new(1));
        let mut dice = Dice::new(3, &[]);
        let drive = Drive::new(&district, 450.0, &Instruments::default(), &mut dice);
        let fixes = receive(&drive, &Reception::default(), &mut dice);
        let two = fixes.windows(2).nth(8).unwrap();
        let middle = usize::midpoint(two[0].sample, two[1].sample);
        let ([x, y], _) = between_fixes(&drive, &fixes, middle);
        let [a, b] = [&two[0], &two[1]].map(|fix| fix.position);
        let share = (middle - two[0].sample) as f64 / (two[1].sample - two[0].sample) as f64;
        let expected = [0, 1].map(|axis| a[axis] + share * (b[axis] - a[axis]));
        assert!((x - expected[0]).abs() < 1e-9 && (y - expected[1]).abs() < 1e-9);
        let (at_fix, _) = between_fixes(&drive, &fixes, two[0].sample);
        assert!((at_fix[0] - a[0]).abs() < 1e-9 && (at_fix[1] - a[1]).abs() < 1e-9);
        let last = drive.truth.len() - 1;
        let (end, _) = between_fixes(&drive, &fixes, last);
        let truth = drive.truth[last];
        assert!((end[0] - truth.x).abs() <= MAX_OFFSET_M + 1e-9);
    }

    #[test]
    fn coarse_offsets_are_bounded_and_hang_together_along_a_drive() {
        let district = District::new(&Style::source(), 22, Grid::new(1));
        let (mut products, mut squares, mut sum, mut outages) = (0.0, 0.0, 0.0, 0);
        for seed in 0..30 {
            let mut dice = Dice::new(seed, &[]);
            let drive = Drive::new(&district, 450.0, &Instruments::default(), &mut dice);
            let fixes = receive(&drive, &Reception::default(), &mut dice);
            outages += fixes
                .windows(2)
                .filter(|w| w[1].sample - w[0].sample > ODOMETRY_HZ)
                .count();
            let offsets: Vec<[f64; 2]> = drive
                .every(4.5)
                .into_iter()
                .map(|sample| {
                    let ([x, y], sigma_m) = coarse_position(&drive, &fixes, sample);
                    let truth = drive.truth[sample];
                    assert!((2.0..15.0).contains(&sigma_m), "sigma {sigma_m}");
                    [x - truth.x, y - truth.y]
                })
                .collect();
            for offset in &offsets {
                assert!(offset.iter().all(|o| o.abs() <= MAX_OFFSET_M + 1e-9));
                sum += 1.0;
                squares += offset[0].powi(2) + offset[1].powi(2);
            }
            for pair in offsets.windows(2) {
                products += pair[0][0] * pair[1][0] + pair[0][1] * pair[1][1];
            }
        }
        let correlation = products / squares;
        assert!(correlation > 0.8, "lag correlation {correlation}");
        let per_axis = (squares / sum / 2.0_f64).sqrt();
        assert!((4.0..12.0).contains(&per_axis), "sigma per axis {per_axis}");
        assert!(outages > 3, "{outages} outages");
    }
}
