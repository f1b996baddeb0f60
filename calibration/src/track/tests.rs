use super::*;
use crate::Heatmap;

const SIDE: usize = 64;

/// Numbers in [-1, 1) that repeat with the seed.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    }

    /// About a normal distribution.
    pub(super) fn normal(&mut self, sigma: f64) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() / 2.0 * sigma
    }
}

/// A drive of two straights and a bend, its truth, and how odometry and coarse positions err.
struct Simulated {
    frames: Vec<Frame>,
    truth_m: Vec<[f64; 2]>,
}

fn simulated(seed: u64, scale: f64, yaw_offset: f64, offset_m: [f64; 2]) -> Simulated {
    let mut noise = Noise(seed);
    let mut bias = [noise.normal(5.0), noise.normal(5.0)];
    let (mut place, mut yaw) = ([0.0f64, 0.0], 0.3f64);
    let (mut frames, mut truth_m) = (Vec::new(), Vec::new());
    for index in 0..80 {
        let turn = if (35..45).contains(&index) { 0.15 } else { 0.0 };
        let odometry = (index > 0).then(|| {
            place = [place[0] + 4.5 * yaw.cos(), place[1] + 4.5 * yaw.sin()];
            yaw += turn;
            [4.5 / (1.0 + scale) + noise.normal(0.05), 0.0, turn]
        });
        let keep = (-0.5f64 / 40.0).exp();
        bias = bias.map(|bias| keep * bias + noise.normal(5.0 * (1.0 - keep * keep).sqrt()));
        let coarse_m = [0, 1].map(|axis| place[axis] + bias[axis] + offset_m[axis]);
        let patch_m = coarse_m.map(f64::round);
        // One answer in four is a blob anywhere, the others err by a metre.
        let answer_m = if noise.unit() < -0.5 {
            [noise.unit() * 20.0, noise.unit() * 20.0]
        } else {
            [0, 1].map(|axis| place[axis] - patch_m[axis] + noise.normal(0.8))
        };
        let answer = Heatmap::gaussian(SIDE, 1.0, answer_m, 1.0).unwrap();
        frames.push(Frame {
            time_s: 0.5 * f64::from(index),
            patch_m,
            answer: LogMap::new(SIDE, 1.0, answer.probabilities(), 72).unwrap(),
            coarse_m,
            coarse_covariance_m2: [[25.0, 0.0], [0.0, 25.0]],
            yaw_rad: yaw + yaw_offset,
            yaw_sigma_rad: 0.04,
            odometry,
        });
        truth_m.push(place);
    }
    Simulated { frames, truth_m }
}

fn mean_error(places: &[Place], truth_m: &[[f64; 2]]) -> f64 {
    let off = |(place, truth): (&Place, &[f64; 2])| {
        (place.mode_m[0] - truth[0]).hypot(place.mode_m[1] - truth[1])
    };
    places.iter().zip(truth_m).map(off).sum::<f64>() / places.len() as f64
}

fn places_of(frames: &[Frame], drift: &Drift) -> Vec<Place> {
    places(frames, &TrackModel::default(), drift, |_, _| Ok(())).unwrap()
}

#[test]
fn a_drive_is_placed_better_than_its_answers_with_odometry_and_without() {
    for seed in 1..4 {
        let Simulated {
            mut frames,
            truth_m,
        } = simulated(seed, 0.02, 0.02, [0.0; 2]);
        let found = places_of(&frames, &Drift::default());
        let with = mean_error(&found, &truth_m);
        assert!(with < 0.5, "seed {seed}: {with}");
        assert!(found.iter().all(|place| place.support > 0.5));
        for frame in &mut frames {
            frame.odometry = None;
        }
        let without = mean_error(&places_of(&frames, &Drift::default()), &truth_m);
        // A quarter of the answers is some 15 m off.
        assert!(without < 1.5, "seed {seed}: {without}");
        assert!(with < without);
    }
}

#[test]
fn odometrys_scale_and_the_headings_offset_come_back() {
    let Simulated { frames, .. } = simulated(5, 0.03, 0.05, [0.0; 2]);
    let found = drift(&frames, &places_of(&frames, &Drift::default()), 0.03, 0.05);
    let again = places(&frames, &TrackModel::default(), &found, |_, _| Ok(())).unwrap();
    let found = drift(&frames, &again, 0.03, 0.05);
    assert!((found.scale - 0.03).abs() < 0.01, "{found:?}");
    assert!((found.yaw_rad + 0.05).abs() < 0.01, "{found:?}");
    assert!(found.scale_share < 1.0 && found.yaw_share < 1.0);
}

#[test]
fn a_tile_sets_offset_is_what_drives_have_in_common() {
    let model = TrackModel::default();
    let biases: Vec<Offset> = (0..24)
        .map(|seed| {
            let drive = simulated(100 + seed, 0.0, 0.0, [4.0, -3.0]);
            let found = places_of(&drive.frames, &Drift::default());
            drive_bias(&drive.frames, &found, &model).unwrap()
        })
        .collect();
    let found = tile_offset(&biases);
    for (got, expected) in found.mean_m.iter().zip([4.0, -3.0]) {
        assert!((got - expected).abs() < 3.0 * found.sigma_m, "{found:?}");
    }
    assert!(found.sigma_m < 1.5, "{found:?}");
    assert_eq!(tile_offset(&[]).mean_m, [0.0; 2]);
}

#[test]
fn a_vehicle_that_stands_is_one_picture() {
    let Simulated { frames, .. } = simulated(9, 0.0, 0.0, [0.0; 2]);
    // The same wrong answer a hundred times, then a drive that contradicts it.
    let mut standing: Vec<Frame> = Vec::new();
    let wrong = Heatmap::gaussian(SIDE, 1.0, [15.0, 12.0], 1.0).unwrap();
    for index in 0..100 {
        standing.push(Frame {
            time_s: -100.0 + f64::from(index),
            answer: LogMap::new(SIDE, 1.0, wrong.probabilities(), 72).unwrap(),
            odometry: (index > 0).then_some([0.0; 3]),
            ..frames[0].clone()
        });
    }
    let truth_m = [0.0, 0.0];
    let moving = frames.into_iter().take(20).map(|frame| Frame {
        odometry: Some(frame.odometry.unwrap_or([0.0; 3])),
        ..frame
    });
    standing.extend(moving);
    let found = places_of(&standing, &Drift::default());
    let [east, north] = found[50].mode_m;
    assert!(
        (east - truth_m[0]).hypot(north - truth_m[1]) < 3.0,
        "{:?}",
        found[50]
    );
}

#[test]
fn a_lasting_bias_enters_once_and_lone_fixes_count_in_full() {
    let Simulated { frames, .. } = simulated(3, 0.0, 0.0, [0.0; 2]);
    let model = TrackModel::default();
    let weights = gnss_weights(&frames, &model);
    // 40 s with a memory of 40 s are worth one fix, and half of another.
    let sum: f64 = weights.unary.iter().sum();
    assert!((sum - 1.5).abs() < 0.1, "{sum}");
    let apart = TrackModel {
        gnss_memory_s: 1e-3,
        ..model
    };
    let weights = gnss_weights(&frames, &apart);
    assert!(weights.unary.iter().all(|weight| *weight == 1.0));
    assert!(weights.step_sigma_m.iter().all(|sigma| sigma.is_infinite()));
}

#[test]
fn errors_drawn_anew_for_each_frame_are_told_from_a_lasting_bias() {
    let drive = simulated(4, 0.0, 0.0, [0.0; 2]);
    let lasting = roughness([drive.frames.as_slice()]).unwrap();
    assert!(lasting < INDEPENDENT_ROUGHNESS, "{lasting}");
    let mut noise = Noise(1);
    let anew: Vec<Frame> = drive
        .frames
        .iter()
        .zip(&drive.truth_m)
        .map(|(frame, truth)| Frame {
            coarse_m: truth.map(|value| value + noise.normal(5.0)),
            ..frame.clone()
        })
        .collect();
    let anew = roughness([anew.as_slice()]).unwrap();
    assert!(anew > INDEPENDENT_ROUGHNESS, "{anew}");
    assert!(roughness([&drive.frames[..5]]).is_none());
}

#[test]
fn long_drives_are_placed_as_short_ones() {
    let one = simulated(6, 0.0, 0.0, [0.0; 2]);
    // Six rounds of the same drive, each beginning anew.
    let frames: Vec<Frame> = (0..6).flat_map(|_| one.frames.clone()).collect();
    let found = places_of(&frames, &Drift::default());
    assert_eq!(found.len(), frames.len());
    let alone = places_of(&one.frames, &Drift::default());
    // The first round differs by its neighbours alone.
    for (a, b) in alone.iter().zip(&found).take(60) {
        let off = (a.mode_m[0] - b.mode_m[0]).hypot(a.mode_m[1] - b.mode_m[1]);
        assert!(off < 0.3, "{a:?} {b:?}");
    }
}

#[test]
fn rows_that_leap_across_a_town_are_no_drive() {
    let Simulated { mut frames, .. } = simulated(8, 0.0, 0.0, [0.0; 2]);
    for (index, frame) in frames.iter_mut().enumerate() {
        frame.odometry = None;
        frame.coarse_m[0] += 300.0 * (index % 2) as f64;
        frame.patch_m[0] += 300.0 * (index % 2) as f64;
    }
    let weights = gnss_weights(&frames, &TrackModel::default());
    assert!(weights.step_sigma_m.iter().all(|sigma| sigma.is_infinite()));
    assert!(weights.unary.iter().all(|weight| *weight == 1.0));
}

#[test]
fn a_silent_frame_is_placed_by_its_neighbours_whatever_its_own_heatmap_says() {
    let Simulated { frames, truth_m } = simulated(2, 0.0, 0.0, [0.0; 2]);
    let model = TrackModel::default();
    let mut lied = frames.clone();
    let wrong = Heatmap::gaussian(SIDE, 1.0, [20.0, -20.0], 0.7).unwrap();
    lied[40].answer = LogMap::new(SIDE, 1.0, wrong.probabilities(), 72).unwrap();
    let found = |frames: &[Frame]| {
        let mut found = Vec::new();
        beliefs_without(
            frames,
            &model,
            &Drift::default(),
            |index| (38..43).contains(&index),
            |index, belief| {
                found.push((index, belief.moments()));
            },
        )
        .unwrap();
        found
    };
    let (honest, lied) = (found(&frames), found(&lied));
    assert_eq!(honest, lied);
    let mut indices: Vec<usize> = honest.iter().map(|(index, _)| *index).collect();
    indices.sort_unstable();
    assert_eq!(indices, [38, 39, 40, 41, 42]);
    for (index, (mean_m, _)) in &honest {
        let off = [0, 1].map(|axis| mean_m[axis] - truth_m[*index][axis]);
        assert!(off[0].hypot(off[1]) < 1.0, "{index}: {off:?}");
    }
    let travel = travel_m(&frames);
    assert!((travel[79] - 79.0 * 4.5).abs() < 5.0, "{}", travel[79]);
}
