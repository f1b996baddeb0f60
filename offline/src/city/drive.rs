//! Drives along the streets: a route over the crossings, driven with a vehicle's kinematics, and
//! what the vehicle's own instruments make of it.
//!
//! Turn → route (plan) → path (metres) → speed along the path → truth and odometry at 10 Hz.

use super::dice::Dice;
use super::district::District;
use super::route::{self, PATH_STEP_M};
use crossfix_calibration::Yaw;

/// Rate of truth and odometry.
pub const ODOMETRY_HZ: usize = 10;
const STEP_S: f64 = 1.0 / ODOMETRY_HZ as f64;

/// Where the vehicle was, and how it moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// Since the start of the drive, s.
    pub time_s: f64,
    /// Local metres, east.
    pub x: f64,
    /// Local metres, north.
    pub y: f64,
    /// Counter-clockwise from east, rad.
    pub yaw_rad: f64,
    /// Along the vehicle, m/s.
    pub speed_mps: f64,
    /// Counter-clockwise, rad/s.
    pub yaw_rate_rps: f64,
    /// Along the path since the start, m.
    pub travelled_m: f64,
}

/// What the instruments said at the same moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odometry {
    /// Speed with a scale error, m/s.
    pub forward_speed_mps: f64,
    /// Yaw rate with a bias, rad/s.
    pub yaw_rate_rps: f64,
    /// Inertial heading as a yaw, with a slow error, rad.
    pub yaw_rad: f64,
}

/// How good the instruments are; each drive draws its own errors from these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instruments {
    /// Sigma of the speed's scale error.
    pub scale_sigma: f64,
    /// Sigma of the speed noise, m/s.
    pub speed_sigma_mps: f64,
    /// Sigma of the gyro's bias, rad/s.
    pub gyro_bias_sigma_rps: f64,
    /// Sigma of the yaw rate noise, rad/s.
    pub yaw_rate_sigma_rps: f64,
    /// Sigma of the heading error, rad.
    pub heading_sigma_rad: f64,
    /// Time in which the heading error forgets itself, s.
    pub heading_memory_s: f64,
}

impl Default for Instruments {
    fn default() -> Self {
        Self {
            scale_sigma: 0.015,
            speed_sigma_mps: 0.05,
            gyro_bias_sigma_rps: 0.15_f64.to_radians(),
            yaw_rate_sigma_rps: 0.1_f64.to_radians(),
            heading_sigma_rad: 1.7_f64.to_radians(),
            heading_memory_s: 60.0,
        }
    }
}

/// One drive: truth and odometry, sample by sample.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Where it really went.
    pub truth: Vec<Truth>,
    /// What the vehicle measured.
    pub odometry: Vec<Odometry>,
}

impl Drive {
    /// A drive of about `length_m` through the district.
    ///
    /// Routes that end too soon at the border are drawn again; after 120 tries the longest is taken,
    /// so that even an odd district has a drive.
    pub fn new(
        district: &District,
        length_m: f64,
        instruments: &Instruments,
        dice: &mut Dice,
    ) -> Self {
        let mut best: Vec<[f64; 2]> = Vec::new();
        for _ in 0..120 {
            let path = route::random(&district.streets, length_m, dice);
            let free = path
                .iter()
                .take_while(|p| district.is_free(p[0] as f32, p[1] as f32))
                .count();
            if free > best.len() {
                best = path;
                best.truncate(free);
            }
            if best.len() as f64 * PATH_STEP_M >= length_m {
                break;
            }
        }
        best.truncate((length_m / PATH_STEP_M).ceil() as usize + 2);
        let truth = follow(&best, dice);
        let odometry = measure(&truth, instruments, dice);
        Self { truth, odometry }
    }

    /// Indices of samples about `spacing_m` of travel apart, the first included.
    pub fn every(&self, spacing_m: f64) -> Vec<usize> {
        let mut due = 0.0;
        let mut indices = Vec::new();
        for (index, sample) in self.truth.iter().enumerate() {
            if sample.travelled_m >= due {
                indices.push(index);
                due = sample.travelled_m + spacing_m;
            }
        }
        indices
    }

    /// The motion between two samples by odometry alone, in the vehicle's frame at the first:
    /// forward and left, m, and the turn, rad.
    pub fn dead_reckoned(&self, from: usize, to: usize) -> [f64; 3] {
        let (mut forward, mut left, mut turn) = (0.0, 0.0, 0.0_f64);
        for sample in &self.odometry[from..to] {
            let middle = turn + 0.5 * sample.yaw_rate_rps * STEP_S;
            forward += sample.forward_speed_mps * STEP_S * middle.cos();
            left += sample.forward_speed_mps * STEP_S * middle.sin();
            turn += sample.yaw_rate_rps * STEP_S;
        }
        [forward, left, turn]
    }

    /// The motion between two samples in metres east and north, by measured speed and heading.
    pub fn displacement(&self, from: usize, to: usize) -> [f64; 2] {
        self.odometry[from..to]
            .iter()
            .fold([0.0, 0.0], |[east, north], sample| {
                let run = sample.forward_speed_mps * STEP_S;
                let yaw = sample.yaw_rad + 0.5 * sample.yaw_rate_rps * STEP_S;
                [east + run * yaw.cos(), north + run * yaw.sin()]
            })
    }
}

/// Drives the path: slower in bends, now and then a stop, gentle on both pedals.
fn follow(path: &[[f64; 2]], dice: &mut Dice) -> Vec<Truth> {
    const LATERAL_MPS2: f64 = 1.8;
    const ACCELERATE_MPS2: f64 = 1.4;
    const BRAKE_MPS2: f64 = 2.0;
    let count = path.len();
    if count < 20 {
        return Vec::new();
    }
    let yaw_at = |index: usize| {
        let (a, b) = (
            path[index.saturating_sub(2)],
            path[(index + 2).min(count - 1)],
        );
        (b[1] - a[1]).atan2(b[0] - a[0])
    };
    let yaws: Vec<f64> = (0..count).map(yaw_at).collect();
    let curvature = |index: usize| {
        let (a, b) = (
            yaws[index.saturating_sub(4)],
            yaws[(index + 4).min(count - 1)],
        );
        wrap(b - a).abs() / (8.0 * PATH_STEP_M)
    };
    let cruise = dice.uniform(8.0, 12.0);
    let mut limit: Vec<f64> = (0..count)
        .map(|index| cruise.min((LATERAL_MPS2 / curvature(index).max(1e-4)).sqrt()))
        .collect();
    // A stop every 250 m or so; the vehicle crawls to it and waits.
    let mut stops = Vec::new();
    let mut at_m = dice.uniform(60.0, 300.0);
    while ((at_m / PATH_STEP_M) as usize) < count {
        let index = (at_m / PATH_STEP_M) as usize;
        limit[index] = 0.3;
        stops.push((index, dice.uniform(2.0, 8.0)));
        at_m += dice.uniform(120.0, 400.0);
    }
    limit[0] = limit[0].min(2.0);
    for index in 1..count {
        let reach = (limit[index - 1].powi(2) + 2.0 * ACCELERATE_MPS2 * PATH_STEP_M).sqrt();
        limit[index] = limit[index].min(reach);
    }
    for index in (0..count - 1).rev() {
        let reach = (limit[index + 1].powi(2) + 2.0 * BRAKE_MPS2 * PATH_STEP_M).sqrt();
        limit[index] = limit[index].min(reach);
    }
    let mut truth: Vec<Truth> = Vec::new();
    let (mut along_m, mut time_s, mut waiting_s) = (0.0, 0.0, 0.0);
    let mut next_stop = stops.into_iter().peekable();
    while along_m < (count - 2) as f64 * PATH_STEP_M {
        let index = (along_m / PATH_STEP_M) as usize;
        let share = along_m / PATH_STEP_M - index as f64;
        if let Some((_, wait_s)) = next_stop.next_if(|(stop, _)| *stop <= index) {
            waiting_s = wait_s;
        }
        let speed_mps = if waiting_s > 0.0 {
            0.0
        } else {
            limit[index] + share * (limit[index + 1] - limit[index])
        };
        waiting_s -= STEP_S;
        let (a, b) = (path[index], path[index + 1]);
        let yaw_rad = yaws[index] + share * wrap(yaws[index + 1] - yaws[index]);
        truth.push(Truth {
            time_s,
            x: a[0] + share * (b[0] - a[0]),
            y: a[1] + share * (b[1] - a[1]),
            yaw_rad: wrap(yaw_rad),
            speed_mps,
            yaw_rate_rps: 0.0,
            travelled_m: along_m,
        });
        along_m += speed_mps * STEP_S;
        time_s += STEP_S;
    }
    for index in 1..truth.len() {
        let turn = wrap(truth[index].yaw_rad - truth[index - 1].yaw_rad);
        truth[index - 1].yaw_rate_rps = turn / STEP_S;
    }
    truth
}

fn measure(truth: &[Truth], instruments: &Instruments, dice: &mut Dice) -> Vec<Odometry> {
    let scale = 1.0 + dice.normal(instruments.scale_sigma);
    let bias = dice.normal(instruments.gyro_bias_sigma_rps);
    let mut heading_error = GaussMarkov::new(
        instruments.heading_sigma_rad,
        instruments.heading_memory_s,
        dice,
    );
    truth
        .iter()
        .map(|sample| {
            let rolling = sample.speed_mps > 0.0;
            // A wheel that stands still measures exactly that.
            let noise = if rolling {
                dice.normal(instruments.speed_sigma_mps)
            } else {
                0.0
            };
            Odometry {
                forward_speed_mps: sample.speed_mps * scale + noise,
                yaw_rate_rps: sample.yaw_rate_rps
                    + bias
                    + dice.normal(instruments.yaw_rate_sigma_rps),
                yaw_rad: wrap(sample.yaw_rad + heading_error.step(STEP_S, dice)),
            }
        })
        .collect()
}

/// An error that wanders about zero and forgets itself: a first-order Gauss–Markov process.
pub struct GaussMarkov {
    sigma: f64,
    memory_s: f64,
    value: f64,
}

impl GaussMarkov {
    /// In its stationary state.
    pub fn new(sigma: f64, memory_s: f64, dice: &mut Dice) -> Self {
        Self {
            sigma,
            memory_s,
            value: dice.normal(sigma),
        }
    }

    /// The present value; then time goes on by `step_s`.
    pub fn step(&mut self, step_s: f64, dice: &mut Dice) -> f64 {
        let present = self.value;
        let kept = (-step_s / self.memory_s).exp();
        self.value = kept * present + dice.normal(self.sigma * (1.0 - kept * kept).sqrt());
        present
    }
}

/// The same angle in (−π, π].
pub fn wrap(angle_rad: f64) -> f64 {
    Yaw::new(angle_rad).radians()
}

#[cfg(test)]
mod tests {
    use super::super::district::Grid;
    use super::super::style::Style;
    use super::*;

    #[test]
    fn a_gauss_markov_error_keeps_its_sigma_and_forgets_slowly() {
        let mut dice = Dice::new(4, &[]);
        let mut error = GaussMarkov::new(7.0, 45.0, &mut dice);
        let values: Vec<f64> = (0..40_000).map(|_| error.step(1.0, &mut dice)).collect();
        let variance = values.iter().map(|v| v * v).sum::<f64>() / 40_000.0;
        let lagged = values.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / 40_000.0;
        assert!(
            (variance.sqrt() - 7.0).abs() < 1.0,
            "sigma {}",
            variance.sqrt()
        );
        assert!((lagged / variance - (-1.0_f64 / 45.0).exp()).abs() < 0.02);
    }

    #[test]
    fn a_drive_is_drivable_and_its_odometry_drifts_within_range() {
        let district = District::new(&Style::source(), 21, Grid::new(1));
        let mut lengths = Vec::new();
        for seed in 0..4 {
            let mut dice = Dice::new(seed, &[]);
            let drive = Drive::new(&district, 450.0, &Instruments::default(), &mut dice);
            let last = drive.truth.len() - 1;
            lengths.push(drive.truth[last].travelled_m);
            for pair in drive.truth.windows(2) {
                let cell = district.cell(pair[0].x as f32, pair[0].y as f32).unwrap();
                assert!(
                    cell.base_cm < 30,
                    "drives into something {} cm high",
                    cell.base_cm
                );
                let moved = (pair[1].x - pair[0].x).hypot(pair[1].y - pair[0].y);
                assert!(
                    (moved - pair[0].speed_mps * STEP_S).abs() < 0.1,
                    "a jump of {moved} m"
                );
                assert!(pair[0].speed_mps < 12.1 && pair[0].yaw_rate_rps.abs() < 1.2);
                assert!((pair[1].speed_mps - pair[0].speed_mps).abs() < 0.45);
            }
            let [forward, left, turn] = drive.dead_reckoned(0, last);
            let (start, end) = (drive.truth[0], drive.truth[last]);
            let turned = wrap(end.yaw_rad - start.yaw_rad);
            assert!(wrap(turn - turned).abs() < 0.5, "heading drift");
            let (east, north) = (end.x - start.x, end.y - start.y);
            let (sin, cos) = start.yaw_rad.sin_cos();
            let (error_forward, error_left) = (
                forward - (east * cos + north * sin),
                left - (north * cos - east * sin),
            );
            let drift = error_forward.hypot(error_left) / drive.truth[last].travelled_m;
            assert!(
                (0.0005..0.15).contains(&drift),
                "drift {drift} of the distance"
            );
        }
        assert!(lengths.iter().all(|length| *length > 300.0), "{lengths:?}");
    }
}
