//! Faults, applied to the arrivals of a drive.

use crate::drive::{Arrival, Drive, moved};
use crate::picture;
use crate::scenario::{Act, Fault, Field, Scenario, Source, Timescale};
use crossfix_calibration::{Enu, Geodetic, LocalFrame, Yaw};
use crossfix_onboard::event::{CameraFrame, Event, GnssFix, OdometrySample};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// How long the simulated machine has been up when a drive begins, seconds.
const UPTIME_S: f64 = 5_000.0;

/// The drive as a scenario has it.
pub fn apply(drive: &Drive, scenario: &Scenario) -> Drive {
    let mut drive = drive.clone();
    for (number, fault) in scenario.fault.iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
        apply_one(&mut drive, fault, &mut rng);
    }
    // Arrivals of one moment keep the order in which they were recorded.
    drive.arrivals.sort_by_key(|arrival| arrival.at_ns);
    drive
}

fn is_from(arrival: &Arrival, on: Source) -> bool {
    match on {
        Source::Gnss => matches!(arrival.event, Event::Gnss(_)),
        Source::Odometry => matches!(arrival.event, Event::Odometry(_)),
        Source::Camera => matches!(arrival.event, Event::Frame(_)),
        Source::All => true,
    }
}

fn apply_one(drive: &mut Drive, fault: &Fault, rng: &mut ChaCha8Rng) {
    let start_ns = drive.truth.start_ns();
    let from_ns = seconds(fault.from_s);
    let until_ns = seconds(fault.until_s);
    let lasts = |at_ns: i64| at_ns >= from_ns && at_ns < until_ns;
    match &fault.act {
        Act::Set { on, field, value } => {
            change(drive, *on, lasts, |event, _| {
                write(event, *field, |_| *value);
            });
        }
        Act::Scale { on, field, by } => {
            change(drive, *on, lasts, |event, _| {
                write(event, *field, |v| v * by);
            });
        }
        Act::Add { on, field, value } => {
            change(drive, *on, lasts, |event, _| {
                write(event, *field, |v| v + value);
            });
        }
        Act::Ramp { on, field, per_s } => change(drive, *on, lasts, |event, since_s| {
            write(event, *field, |v| v + per_s * (since_s - fault.from_s));
        }),
        Act::Noise { on, field, sigma } => change(drive, *on, lasts, |event, _| {
            let noise: f64 = StandardNormal.sample(rng);
            write(event, *field, |v| v + sigma * noise);
        }),
        Act::Stick { on, field } => {
            let mut first: Option<Event> = None;
            change(drive, *on, lasts, |event, _| {
                let first = first.get_or_insert_with(|| event.clone());
                stick(event, first, *field);
            });
        }
        Act::Omit { on, field } => change(drive, *on, lasts, |event, _| omit(event, *field)),
        Act::Drop { on, share } => drive.arrivals.retain(|arrival| {
            !(is_from(arrival, *on) && lasts(arrival.at_ns) && rng.random::<f64>() < *share)
        }),
        Act::Intermittent {
            on,
            period_s,
            off_s,
        } => drive.arrivals.retain(|arrival| {
            let phase_s = ((arrival.at_ns - from_ns) as f64 * 1e-9).rem_euclid(*period_s);
            !(is_from(arrival, *on) && lasts(arrival.at_ns) && phase_s < *off_s)
        }),
        Act::Every { on, n } => {
            let mut count = 0;
            drive.arrivals.retain(|arrival| {
                if !(is_from(arrival, *on) && lasts(arrival.at_ns)) {
                    return true;
                }
                count += 1;
                count % n == 0
            });
        }
        Act::Delay {
            on,
            seconds: late_s,
        }
        | Act::Lag {
            on,
            seconds: late_s,
        } => {
            let is_stamped_late = matches!(fault.act, Act::Lag { .. });
            for arrival in &mut drive.arrivals {
                if is_from(arrival, *on) && lasts(arrival.at_ns) {
                    arrival.at_ns += seconds(*late_s);
                    if is_stamped_late {
                        *stamp_mut(&mut arrival.event) += seconds(*late_s);
                    }
                }
            }
        }
        Act::Burst { on } => {
            for arrival in &mut drive.arrivals {
                if is_from(arrival, *on) && lasts(arrival.at_ns) {
                    arrival.at_ns = until_ns;
                }
            }
        }
        Act::Repeat { on, times } => {
            let repeated = std::mem::take(&mut drive.arrivals).into_iter();
            let repeated = repeated.flat_map(|arrival| {
                let hit = is_from(&arrival, *on) && lasts(arrival.at_ns);
                std::iter::repeat_n(arrival, if hit { *times } else { 1 })
            });
            drive.arrivals = repeated.collect();
        }
        Act::Timescale { on, scale } => change(drive, *on, lasts, |event, _| {
            let time_ns = stamp_mut(event);
            *time_ns = match scale {
                Timescale::Boot => *time_ns - start_ns + seconds(UPTIME_S),
                Timescale::Gps => *time_ns + seconds(18.0),
                Timescale::Tai => *time_ns + seconds(37.0),
                Timescale::Microseconds => *time_ns / 1_000,
                Timescale::Seconds => *time_ns / 1_000_000_000,
            };
        }),
        Act::Garbage { on } => change(drive, *on, lasts, |event, _| garbage(event, rng)),
        Act::Place {
            latitude_deg,
            longitude_deg,
        } => change(drive, Source::Gnss, lasts, |event, _| {
            if let Event::Gnss(fix) = event {
                fix.position.latitude_deg = *latitude_deg;
                fix.position.longitude_deg = *longitude_deg;
            }
        }),
        Act::SecondReceiver { east_m, north_m } => {
            let second = drive.arrivals.iter().filter_map(|arrival| {
                let Event::Gnss(fix) = &arrival.event else {
                    return None;
                };
                let fix = GnssFix {
                    position: moved(fix.position, *east_m, *north_m),
                    ..fix.clone()
                };
                lasts(arrival.at_ns).then(|| Arrival {
                    source: "second receiver",
                    // Half a second after the first one's.
                    at_ns: arrival.at_ns + seconds(0.02),
                    event: Event::Gnss(fix),
                })
            });
            let second: Vec<_> = second.collect();
            drive.arrivals.extend(second);
        }
        Act::Picture { what } => {
            let frames = drive.arrivals.iter_mut().filter_map(|arrival| {
                let at_ns = arrival.at_ns;
                match &mut arrival.event {
                    Event::Frame(frame) => Some((at_ns, frame)),
                    _ => None,
                }
            });
            let mut frames: Vec<(i64, &mut CameraFrame)> = frames.collect();
            picture::spoil(&mut frames, *what, lasts, rng);
        }
        Act::Teleport { east_m, north_m } => {
            let step = |place| moved(place, *east_m, *north_m);
            change(drive, Source::Gnss, lasts, |event, _| {
                if let Event::Gnss(fix) = event {
                    fix.position = step(fix.position);
                }
            });
            drive.truth.map(start_ns + from_ns, step);
        }
        Act::Elsewhere {
            latitude_deg,
            longitude_deg,
        } => elsewhere(drive, *latitude_deg, *longitude_deg),
        Act::Suspend => drive.arrivals.retain(|arrival| !lasts(arrival.at_ns)),
        // The student and the tiles are spoilt where they are used.
        Act::Heatmap { .. } | Act::Aerial { .. } => {}
    }
}

fn change(
    drive: &mut Drive,
    on: Source,
    lasts: impl Fn(i64) -> bool,
    mut change: impl FnMut(&mut Event, f64),
) {
    for arrival in &mut drive.arrivals {
        if is_from(arrival, on) && lasts(arrival.at_ns) {
            change(&mut arrival.event, arrival.at_ns as f64 * 1e-9);
        }
    }
}

fn stamp_mut(event: &mut Event) -> &mut i64 {
    match event {
        Event::Gnss(fix) => &mut fix.time_ns,
        Event::Odometry(sample) => &mut sample.time_ns,
        Event::Frame(frame) => &mut frame.time_ns,
        Event::SourceState { time_ns, .. } => time_ns,
    }
}

fn write(event: &mut Event, field: Field, value: impl Fn(f64) -> f64) {
    if field == Field::Stamp {
        // As a difference, because a second of UTC is no number to be exact with.
        let time_ns = stamp_mut(event);
        *time_ns = time_ns.saturating_add(seconds(value(0.0)));
        return;
    }
    match (event, field) {
        (Event::Gnss(fix), Field::East) => fix.position = moved(fix.position, value(0.0), 0.0),
        (Event::Gnss(fix), Field::North) => fix.position = moved(fix.position, 0.0, value(0.0)),
        (Event::Gnss(fix), Field::Sigma) => {
            let variance = value(fix.covariance_m2[0][0].sqrt()).powi(2);
            fix.covariance_m2 = [[variance, 0.0], [0.0, variance]];
        }
        (Event::Gnss(fix), Field::Speed) => fix.speed_mps = fix.speed_mps.map(value),
        (Event::Gnss(fix), Field::Course) => {
            fix.track_deg = fix.track_deg.map(|course| value(course).rem_euclid(360.0));
        }
        (Event::Odometry(sample), Field::Speed) => {
            sample.forward_speed_mps = sample.forward_speed_mps.map(&value);
        }
        (Event::Odometry(sample), Field::YawRate) => {
            sample.yaw_rate_rps = sample.yaw_rate_rps.map(&value);
        }
        (Event::Odometry(sample), Field::Heading) => {
            if let Some(yaw) = &mut sample.yaw {
                let degrees = value(yaw.yaw.heading().degrees());
                yaw.yaw = crossfix_calibration::Heading::from_degrees(degrees).yaw();
            }
        }
        (Event::Odometry(sample), Field::Everything) => {
            sample.forward_speed_mps = sample.forward_speed_mps.map(&value);
            sample.yaw_rate_rps = sample.yaw_rate_rps.map(&value);
        }
        _ => {}
    }
}

fn stick(event: &mut Event, first: &Event, field: Field) {
    match (event, first) {
        (Event::Gnss(fix), Event::Gnss(first)) => match field {
            Field::Speed => fix.speed_mps = first.speed_mps,
            Field::Course => fix.track_deg = first.track_deg,
            Field::Everything => {
                *fix = GnssFix {
                    time_ns: fix.time_ns,
                    ..first.clone()
                };
            }
            Field::Stamp => fix.time_ns = first.time_ns,
            _ => fix.position = first.position,
        },
        (Event::Odometry(sample), Event::Odometry(first)) => match field {
            Field::Speed => sample.forward_speed_mps = first.forward_speed_mps,
            Field::YawRate => sample.yaw_rate_rps = first.yaw_rate_rps,
            Field::Heading => sample.yaw = first.yaw,
            Field::Stamp => sample.time_ns = first.time_ns,
            _ => {
                *sample = OdometrySample {
                    time_ns: sample.time_ns,
                    ..*first
                };
            }
        },
        (Event::Frame(frame), Event::Frame(first)) => match field {
            Field::Stamp => frame.time_ns = first.time_ns,
            _ => frame.image = first.image.clone(),
        },
        _ => {}
    }
}

fn omit(event: &mut Event, field: Field) {
    match (event, field) {
        (Event::Gnss(fix), Field::Speed) => fix.speed_mps = None,
        (Event::Gnss(fix), Field::Course) => fix.track_deg = None,
        (Event::Gnss(fix), _) => (fix.speed_mps, fix.track_deg) = (None, None),
        (Event::Odometry(sample), _) => sample.yaw = None,
        _ => {}
    }
}

/// Numbers that cannot be, each kind in turn by chance.
fn garbage(event: &mut Event, rng: &mut ChaCha8Rng) {
    let mut number = |good: f64| match rng.random_range(0..6) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -1e300,
        3 => good * 1e6,
        4 => -good,
        _ => good,
    };
    match event {
        Event::Gnss(fix) => {
            fix.position.latitude_deg = number(fix.position.latitude_deg);
            fix.position.longitude_deg = number(fix.position.longitude_deg);
            fix.covariance_m2[0][0] = number(fix.covariance_m2[0][0]);
            fix.covariance_m2[1][1] = number(fix.covariance_m2[1][1]);
            fix.speed_mps = fix.speed_mps.map(&mut number);
            fix.track_deg = fix.track_deg.map(&mut number);
        }
        Event::Odometry(sample) => {
            sample.forward_speed_mps = sample.forward_speed_mps.map(&mut number);
            sample.yaw_rate_rps = sample.yaw_rate_rps.map(&mut number);
            sample.speed_sigma_mps = number(sample.speed_sigma_mps);
            if let Some(yaw) = &mut sample.yaw {
                yaw.yaw = Yaw::new(number(yaw.yaw.radians()));
            }
        }
        Event::Frame(frame) => {
            let mut bytes = frame.image.to_vec();
            for _ in 0..bytes.len() / 20 {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            frame.image = bytes.into();
        }
        Event::SourceState { .. } => {}
    }
}

/// Carries the drive to another place of the earth, metre by metre the same.
fn elsewhere(drive: &mut Drive, latitude_deg: f64, longitude_deg: f64) {
    let first = drive
        .arrivals
        .iter()
        .find_map(|arrival| match &arrival.event {
            Event::Gnss(fix) => Some(fix.position),
            _ => None,
        });
    let Some(first) = first else { return };
    let ground = |place: Geodetic| Geodetic {
        height_m: 0.0,
        ..place
    };
    let from = LocalFrame::new(ground(first));
    let to = LocalFrame::new(Geodetic {
        latitude_deg,
        longitude_deg,
        height_m: 0.0,
    });
    let carried = |place: Geodetic| {
        let enu = from.enu_from_geodetic(ground(place));
        let carried = to.geodetic_from_enu(Enu::new(enu.east(), enu.north(), 0.0));
        Geodetic {
            height_m: place.height_m,
            ..carried
        }
    };
    for arrival in &mut drive.arrivals {
        if let Event::Gnss(fix) = &mut arrival.event {
            fix.position = carried(fix.position);
        }
    }
    drive.truth.map(i64::MIN, carried);
}

/// Seconds as nanoseconds, as far as they go.
pub fn seconds(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}
