use super::*;
use crate::track::tests::Noise;

/// A drive of three straights and two bends at 9 m/s, with the GNSS of `TrackModel`, a gyro that drifts and the
/// yaw at each point.
fn drive(seed: u64, points: usize, with_odometry: bool) -> (Vec<Waypoint>, Vec<f64>) {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    let keep = (-0.5f64 / 40.0).exp();
    let mut bias = [noise.normal(7.5), noise.normal(7.5)];
    let gyro = noise.normal(0.0026);
    let (mut place, mut yaw) = ([0.0f64; 2], 3.0 * noise.unit());
    let (mut waypoints, mut yaws) = (Vec::new(), Vec::new());
    for index in 0..points {
        let turn = match index % 50 {
            20..30 => 0.15,
            40..45 => -0.25,
            _ => 0.0,
        };
        let odometry = (index > 0).then(|| {
            place = [place[0] + 4.5 * yaw.cos(), place[1] + 4.5 * yaw.sin()];
            yaw += turn;
            [
                4.5 + noise.normal(0.05),
                0.0,
                turn + 0.5 * gyro + noise.normal(0.001),
            ]
        });
        bias = bias.map(|bias| keep * bias + noise.normal(7.5 * (1.0 - keep * keep).sqrt()));
        waypoints.push(Waypoint {
            time_s: 0.5 * index as f64,
            coarse_m: [0, 1].map(|axis| place[axis] + bias[axis] + noise.normal(0.6)),
            coarse_sigma_m: 5.0,
            odometry: odometry.filter(|_| with_odometry),
        });
        yaws.push(yaw);
    }
    (waypoints, yaws)
}

fn off(found: &FoundYaw, yaw: f64) -> f64 {
    Yaw::new(found.yaw_rad - yaw).radians().abs()
}

fn found(points: &[Waypoint]) -> Vec<Option<FoundYaw>> {
    yaws_by_course(points, &TrackModel::default())
}

/// Root mean square of error over sigma, largest sigma and share found over many drives.
fn judged(with_odometry: bool) -> (f64, f64, f64) {
    let (mut squares, mut largest, mut count, mut all) = (0.0, 0.0f64, 0.0, 0.0);
    for seed in 0..40 {
        let (points, yaws) = drive(seed, 100, with_odometry);
        for (found, yaw) in found(&points).iter().zip(yaws) {
            all += 1.0;
            let Some(found) = found else { continue };
            squares += (off(found, yaw) / found.sigma_rad).powi(2);
            largest = largest.max(found.sigma_rad);
            count += 1.0;
        }
    }
    (
        (squares / f64::max(count, 1.0)).sqrt(),
        largest,
        count / all,
    )
}

#[test]
fn headings_are_found_from_odometry_and_positions_to_what_is_stated() {
    let (sigmas, largest, share) = judged(true);
    assert!((0.4..1.3).contains(&sigmas), "{sigmas}");
    assert!(largest < 0.2 && share > 0.97, "{largest}, {share}");
}

#[test]
fn without_odometry_the_course_tells_less() {
    let (sigmas, largest, share) = judged(false);
    assert!((0.3..1.4).contains(&sigmas), "{sigmas}");
    assert!(largest < 0.6 && share > 0.9, "{largest}, {share}");
}

#[test]
fn standing_short_and_mirrored_drives_tell_nothing() {
    let (points, _) = drive(3, 100, true);
    let standing: Vec<Waypoint> = points
        .iter()
        .map(|point| Waypoint {
            coarse_m: [0, 1].map(|axis| point.coarse_m[axis] * 1e-3),
            odometry: point.odometry.map(|_| [0.0; 3]),
            ..*point
        })
        .collect();
    let short = &points[..12];
    let mirrored: Vec<Waypoint> = points
        .iter()
        .map(|point| Waypoint {
            odometry: point
                .odometry
                .map(|[forward, left, turn]| [forward, -left, -turn]),
            ..*point
        })
        .collect();
    for (name, points) in [
        ("standing", &standing[..]),
        ("short", short),
        ("mirrored", &mirrored),
    ] {
        assert!(found(points).iter().all(Option::is_none), "{name}");
    }
    let still: Vec<Waypoint> = standing
        .iter()
        .map(|point| Waypoint {
            odometry: None,
            ..*point
        })
        .collect();
    assert!(found(&still).iter().all(Option::is_none));
    assert!(found(&[]).is_empty() && found(&points[..1]) == [None]);
}

#[test]
fn a_gap_in_odometry_begins_anew() {
    let (mut points, yaws) = drive(5, 160, true);
    points[80].odometry = None;
    let found = found(&points);
    for at in [10, 70, 90, 150] {
        let found = found[at].unwrap();
        assert!(
            off(&found, yaws[at]) < 3.5 * found.sigma_rad,
            "{at}: {found:?}"
        );
    }
}

#[test]
fn directions_of_a_network_agree_along_odometry_although_some_are_turned() {
    let (points, yaws) = drive(8, 60, true);
    let mut noise = Noise(2);
    let directions: Vec<Option<FoundYaw>> = yaws
        .iter()
        .enumerate()
        .map(|(index, yaw)| {
            // One in five looks back along the street, some say nothing.
            let turned = if index % 9 == 4 {
                std::f64::consts::PI
            } else {
                0.0
            };
            (index % 4 != 3).then(|| FoundYaw {
                yaw_rad: yaw + turned + noise.normal(0.1),
                sigma_rad: 0.3,
            })
        })
        .collect();
    let found = yaws_by_directions(&points, &directions);
    for (found, yaw) in found.iter().zip(&yaws) {
        let found = found.unwrap();
        assert!(
            off(&found, *yaw) < 0.12 && found.sigma_rad < 0.2,
            "{found:?}"
        );
    }
    // Half of them turned is nothing in common.
    let torn: Vec<Option<FoundYaw>> = (0..60)
        .map(|index| {
            let turned = [0.0, 1.7, 3.1, 4.5][index % 4];
            Some(FoundYaw {
                yaw_rad: yaws[index] + turned,
                sigma_rad: 0.1,
            })
        })
        .collect();
    assert!(
        yaws_by_directions(&points, &torn)
            .iter()
            .all(Option::is_none)
    );
    // Alone, each keeps its own.
    let alone: Vec<Waypoint> = points
        .iter()
        .map(|point| Waypoint {
            odometry: None,
            ..*point
        })
        .collect();
    assert_eq!(yaws_by_directions(&alone, &directions), directions);
}
