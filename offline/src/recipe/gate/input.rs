//! Is the data what it claims? Looked at without a network: headings, odometry, times, camera.

use super::{Finding, Gate, Verdict};
use crate::data::pose::wrap_rad;
use crate::data::{Dataset, OdometryStep, Sample};
use crate::metrics::quantile;
use crate::model::{GroundCamera, ModelSpec};
use crossfix_calibration::{Camera, LocalFrame};
use std::f64::consts::{FRAC_PI_2, PI};

/// Stretches of at least this length have a course, metres.
const COURSE_M: f64 = 8.0;
/// And where coarse positions err independently, those that are this many times as long as they err.
pub(super) const STRETCH_SIGMAS: f64 = 5.0;
/// Frames that a stretch may have.
const MOST_FRAMES: usize = 30;
/// Fewer stretches than this are not judged.
const LEAST_STRETCHES: usize = 15;
/// Odometry and coarse positions are compared over stretches of this length, metres.
const LENGTH_M: f64 = 40.0;
/// Odometry may be this much longer or shorter than coarse positions.
const LENGTH_RATIO: f64 = 1.25;
/// Vehicles are slower than this, m/s.
const MOST_SPEED_MPS: f64 = 90.0;
/// Vehicles that move from frame to frame are faster than this, m/s.
const LEAST_SPEED_MPS: f64 = 0.05;
/// Seconds between two pictures of a drive.
const GAP_S: std::ops::RangeInclusive<f64> = 0.02..=600.0;

/// A stretch of a drive between two of its samples.
pub(super) struct Stretch<'a> {
    pub(super) middle: &'a Sample,
    pub(super) first: &'a Sample,
    pub(super) last: &'a Sample,
    /// By coarse positions.
    pub(super) step_m: [f64; 2],
    /// By odometry, where all of it is known.
    pub(super) odometry: Option<OdometryStep>,
    /// How far headings turn along it, radians; whole circles count.
    pub(super) turned_rad: f64,
    /// Sum of the steps' forward and leftward metres, of absolute values.
    along_left_m: [f64; 2],
    frames: usize,
}

/// Looks at the samples of a dataset before anything is read or trained.
pub fn input(pairs: &dyn Dataset, spec: &ModelSpec, gate: &Gate) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.extend(camera(pairs, spec));
    let stretches = |least_m: f64| -> Vec<Stretch> {
        let drives = pairs.drives();
        drives
            .iter()
            .flat_map(|drive| stretches_of(pairs, &drive.samples, least_m))
            .collect()
    };
    verdict.extend(pairs.found_headings().map(|found| Finding {
        check: "headings".into(),
        value: found.found as f64 / found.wide.max(1) as f64,
        limit: 0.0,
        refuses: false,
        what: found.describe(),
    }));
    verdict.extend(heading_sigma(pairs, spec));
    let mut short = stretches(COURSE_M);
    verdict.extend(speed(&short));
    // What leaps is no drive and has no course.
    short.retain(|stretch| !stretch.leaps());
    let steps = course(&short, gate);
    verdict.extend(if steps.as_ref().is_some_and(|steps| steps.refuses) {
        // The errors of both ends may have turned so short steps.
        let least_m = STRETCH_SIGMAS * coarse_sigma_m(pairs.samples());
        let mut longer = stretches(least_m.max(COURSE_M));
        longer.retain(|stretch| !stretch.leaps());
        course(&longer, gate).or(steps)
    } else {
        steps
    });
    let mut long = stretches(LENGTH_M);
    long.retain(|stretch| !stretch.leaps());
    verdict.extend(odometry(&long));
    verdict.extend(turns(&long));
    verdict
}

impl Stretch<'_> {
    fn seconds(&self) -> f64 {
        (self.last.time_ns - self.first.time_ns) as f64 * 1e-9
    }

    /// Whether no vehicle goes from one end to the other in the time.
    pub(super) fn leaps(&self) -> bool {
        self.step_m[0].hypot(self.step_m[1]) > MOST_SPEED_MPS * self.seconds()
    }

    /// Whether it has few bends, by its odometry: then coarse positions cut off less than a third of its length.
    pub(super) fn is_straight(&self) -> bool {
        let whole_m = self.along_left_m[0].hypot(self.along_left_m[1]);
        self.odometry
            .is_some_and(|step| step.forward_m.hypot(step.left_m) >= 0.7 * whole_m)
    }

    /// Distance between its ends by odometry over that by coarse positions; none where odometry has gaps.
    pub(super) fn distance_ratio(&self) -> Option<f64> {
        let step = self.odometry?;
        Some(step.forward_m.hypot(step.left_m) / self.step_m[0].hypot(self.step_m[1]))
    }

    /// Length of odometry over that of coarse positions; of each step, for odometry whose turns are wrong goes in
    /// circles.
    pub(super) fn length_ratio(&self) -> f64 {
        self.along_left_m[0].hypot(self.along_left_m[1]) / self.step_m[0].hypot(self.step_m[1])
    }
}

/// A network that takes the heading as known needs headings that are.
fn heading_sigma(pairs: &dyn Dataset, spec: &ModelSpec) -> Option<Finding> {
    if spec.finds_heading() || pairs.is_empty() {
        return None;
    }
    let searched = spec.orientation_prior? as f64 * spec.bin_rad();
    // Half a bin to each side is no search, but what a network bears.
    let limit = searched.max(spec.bin_rad()).to_degrees();
    let sigmas = pairs.samples().map(|sample| sample.yaw_sigma_rad);
    let value = median(sigmas.map(f64::to_degrees).collect());
    let refuses = value > limit;
    let mut what = format!(
        "headings are known to {value:.1}° in the median, and the network bears {limit:.0}°"
    );
    if refuses {
        what += "; take a network that searches all headings (compact-unknown-heading), or give better ones (heading_deg, heading_sigma_deg)";
    }
    Some(Finding {
        check: "heading_sigma".into(),
        value,
        limit,
        refuses,
        what,
    })
}

/// Stretches of a drive one after another, each at least `least_m` metres long by its coarse positions.
pub(super) fn stretches_of<'a>(
    pairs: &'a dyn Dataset,
    samples: &[usize],
    least_m: f64,
) -> Vec<Stretch<'a>> {
    let mut found = Vec::new();
    let Some(first) = samples.first() else {
        return found;
    };
    let frame = LocalFrame::new(pairs.sample(*first).centre);
    let places: Vec<[f64; 2]> = samples
        .iter()
        .map(|index| pairs.sample(*index).coarse_in(&frame))
        .collect();
    let mut from = 0;
    while from + 1 < samples.len() {
        let mut odometry = Some(OdometryStep {
            forward_m: 0.0,
            left_m: 0.0,
            yaw_rad: 0.0,
        });
        let mut along_left_m = [0.0; 2];
        let mut turned_rad = 0.0;
        let mut next = from + 1;
        for to in from + 1..samples.len().min(from + 1 + MOST_FRAMES) {
            let sample = pairs.sample(samples[to]);
            turned_rad += wrap_rad(sample.yaw_rad - pairs.sample(samples[to - 1]).yaw_rad);
            odometry = odometry.zip(sample.odometry).map(|(sum, step)| {
                along_left_m[0] += step.forward_m.abs();
                along_left_m[1] += step.left_m.abs();
                sum.then(step)
            });
            let step_m = [0, 1].map(|axis| places[to][axis] - places[from][axis]);
            if step_m[0].hypot(step_m[1]) >= least_m {
                found.push(Stretch {
                    middle: pairs.sample(samples[usize::midpoint(from, to)]),
                    first: pairs.sample(samples[from]),
                    last: sample,
                    step_m,
                    odometry,
                    turned_rad,
                    along_left_m,
                    frames: to - from,
                });
                next = to;
                break;
            }
        }
        from = next;
    }
    found
}

/// Standard deviation of coarse positions along one axis, in the median, metres.
pub(super) fn coarse_sigma_m<'a>(samples: impl Iterator<Item = &'a Sample>) -> f64 {
    let sigma = |sample: &Sample| {
        let [[ee, _], [_, nn]] = sample.coarse_covariance_m2;
        f64::midpoint(ee, nn).sqrt()
    };
    median(samples.map(sigma).collect())
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// A panorama network needs panoramas.
fn camera(pairs: &dyn Dataset, spec: &ModelSpec) -> Option<Finding> {
    let first = pairs.samples().next()?;
    let camera = first.camera.as_deref()?;
    let whole = matches!(spec.camera, GroundCamera::Panorama);
    let panorama = matches!(camera, Camera::Equirectangular(_));
    let refuses = whole && !panorama;
    Some(Finding {
        check: "camera".into(),
        value: f64::from(u8::from(panorama)),
        limit: f64::from(u8::from(whole)),
        refuses,
        what: if refuses {
            "the network was trained on panoramas and dataset.toml describes a camera that sees part of the circle; take a network for such cameras".into()
        } else {
            "the camera is of the network's kind".into()
        },
    })
}

/// Other readings of a yaw that came from a heading, by what they would be called.
pub const READINGS: [(&str, fn(f64) -> f64); 5] = [
    (
        "it fits as degrees counter-clockwise from east (ENU): write 90 minus it",
        |yaw| FRAC_PI_2 - yaw,
    ),
    (
        "it fits as degrees counter-clockwise from north: write minus it",
        |yaw| PI - yaw,
    ),
    (
        "it fits turned by half a circle: is it the way from which the vehicle came, or a camera that looks back?",
        |yaw| yaw + PI,
    ),
    (
        "it fits as radians clockwise from north: write degrees",
        |yaw| FRAC_PI_2 - (FRAC_PI_2 - yaw).to_degrees(),
    ),
    (
        "it fits as radians counter-clockwise from east: write 90 minus its degrees",
        |yaw| (FRAC_PI_2 - yaw).to_degrees(),
    ),
];

/// Median angle, in degrees, between stated yaws and what they should be, as `[stated, right]` in radians;
/// and if that is more than `most_deg`, the other reading of the headings under which it is not, with its
/// angle.
pub fn heading_reading(yaws: &[[f64; 2]], most_deg: f64) -> (f64, Option<(f64, &'static str)>) {
    let off = |reading: &dyn Fn(f64) -> f64| {
        let angle =
            |[stated, right]: &[f64; 2]| wrap_rad(right - reading(*stated)).abs().to_degrees();
        median(yaws.iter().map(angle).collect())
    };
    let value = off(&|yaw| yaw);
    if !(value > most_deg) {
        return (value, None);
    }
    let fits = READINGS
        .iter()
        .map(|(words, reading)| (off(reading), *words))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    (value, fits.filter(|(best, _)| *best < most_deg))
}

/// Median angle between heading and course: 3.5° where headings are right, 92° where ENU yaw is
/// written as heading.
fn course(stretches: &[Stretch], gate: &Gate) -> Option<Finding> {
    // Headings that nobody claims to know are not wrong.
    let known: Vec<&Stretch> = stretches
        .iter()
        .filter(|stretch| stretch.middle.yaw_sigma_rad < 1.0)
        .collect();
    if known.len() < LEAST_STRETCHES {
        return None;
    }
    let course = |stretch: &&Stretch| stretch.step_m[1].atan2(stretch.step_m[0]);
    let yaws: Vec<[f64; 2]> = known
        .iter()
        .map(|stretch| [stretch.middle.yaw_rad, course(stretch)])
        .collect();
    let (value, fits) = heading_reading(&yaws, gate.most_course_deg);
    let refuses = value > gate.most_course_deg;
    let mut what =
        format!("headings are {value:.1}° from the course of coarse positions in the median");
    if refuses {
        what += &match fits {
            Some((best, words)) => format!("; {words} ({best:.1}° then)"),
            None => {
                "; heading_deg must be the vehicle's, in degrees clockwise from true north".into()
            }
        };
    }
    Some(Finding {
        check: "course".into(),
        value,
        limit: gate.most_course_deg,
        refuses,
        what,
    })
}

/// Median speed between frames by coarse positions and times. Rows that leap at believable times are
/// pairs that stand alone, whatever drive they name; impossible times are of another unit.
fn speed(stretches: &[Stretch]) -> Option<Finding> {
    if stretches.len() < LEAST_STRETCHES {
        return None;
    }
    let speed = |stretch: &Stretch| {
        stretch.step_m[0].hypot(stretch.step_m[1]) / stretch.seconds().max(1e-9)
    };
    let gap = |stretch: &Stretch| stretch.seconds() / stretch.frames as f64;
    let value = median(stretches.iter().map(speed).collect());
    let gap_s = median(stretches.iter().map(gap).collect());
    let impossible = !(LEAST_SPEED_MPS..=MOST_SPEED_MPS).contains(&value);
    let joined = stretches.iter().any(|stretch| stretch.odometry.is_some());
    let refuses = impossible && (joined || !GAP_S.contains(&gap_s));
    let mut what = format!("the vehicles go {value:.3} m/s in the median");
    if refuses {
        what += &format!(
            ", {gap_s:.3e} s between pictures; time_ns must be nanoseconds and positions degrees"
        );
    } else if impossible {
        what += ": no drives, so rows are taken as pairs that stand alone";
    }
    Some(Finding {
        check: "speed".into(),
        value,
        limit: MOST_SPEED_MPS,
        refuses,
        what,
    })
}

/// Length of odometry over that of coarse positions, and its direction.
fn odometry(stretches: &[Stretch]) -> Option<Finding> {
    let with: Vec<(&Stretch, OdometryStep)> = stretches
        .iter()
        .filter_map(|stretch| Some((stretch, stretch.odometry?)))
        .collect();
    if with.len() < LEAST_STRETCHES {
        return None;
    }
    let value = median(
        with.iter()
            .map(|(stretch, _)| stretch.length_ratio())
            .collect(),
    );
    let sideways = median(
        with.iter()
            .map(|(stretch, _)| stretch.along_left_m[1] - stretch.along_left_m[0])
            .collect(),
    ) > 0.0;
    // Coarse positions cut corners, so odometry is a little longer.
    let wrong = !(1.0 / LENGTH_RATIO..=LENGTH_RATIO * 1.1).contains(&value);
    let refuses = wrong || sideways;
    let mut what = format!("odometry is {value:.3} times as long as coarse positions");
    if wrong {
        what += &match unit_of(value) {
            Some(unit) => format!("; it fits as {unit}: write metres"),
            None => "; forward_m and left_m must be metres since the frame before".into(),
        };
    }
    if sideways {
        what += "; it goes to the side more than forward: are forward_m and left_m exchanged?";
    }
    Some(Finding {
        check: "odometry".into(),
        value,
        limit: LENGTH_RATIO,
        refuses,
        what,
    })
}

/// The unit in which lengths are this much too large.
pub(super) fn unit_of(ratio: f64) -> Option<&'static str> {
    let units = [
        (3.2808, "feet"),
        (1000.0, "millimetres"),
        (100.0, "centimetres"),
        (39.37, "inches"),
        (1e-3, "kilometres"),
        (1.0 / 1609.344, "miles"),
        (3.6, "speeds in km/h"),
        (2.237, "speeds in miles an hour"),
        (1.944, "speeds in knots"),
    ];
    let off = |factor: f64| (ratio / factor).ln().abs();
    let nearest = units.iter().min_by(|a, b| off(a.0).total_cmp(&off(b.0)))?;
    (off(nearest.0) < 0.15).then_some(nearest.1)
}

/// Turns of odometry against turns of headings.
fn turns(stretches: &[Stretch]) -> Option<Finding> {
    let both: Vec<(f64, f64)> = stretches
        .iter()
        .filter(|stretch| stretch.middle.yaw_sigma_rad < 0.5 && stretch.frames > 1)
        .filter_map(|stretch| {
            let turned = wrap_rad(stretch.last.yaw_rad - stretch.first.yaw_rad);
            Some((stretch.odometry?.yaw_rad, turned))
        })
        .filter(|(_, turned)| turned.abs() > 0.5 && turned.abs() < 2.6)
        .collect();
    if both.len() < LEAST_STRETCHES / 2 {
        return None;
    }
    let value = median(
        both.iter()
            .map(|(odometry, turned)| odometry / turned)
            .collect(),
    );
    let refuses = !(0.6..=1.6).contains(&value);
    let mut what = format!("odometry turns {value:.2} times as far as headings");
    if refuses {
        what += if value < -0.6 {
            "; yaw_rad must be counter-clockwise"
        } else if value > 20.0 {
            "; it fits as degrees: write radians"
        } else {
            "; yaw_rad must be radians counter-clockwise since the frame before"
        };
    }
    Some(Finding {
        check: "turns".into(),
        value,
        limit: 1.6,
        refuses,
        what,
    })
}
