use super::*;

/// About a normal distribution, the same for the same seed.
struct Noise(u64);

impl Noise {
    fn normal(&mut self, sigma: f64) -> f64 {
        let mut unit = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f64 / f64::from(1u32 << 24) - 0.5
        };
        (0..12).map(|_| unit()).sum::<f64>() * sigma
    }
}

fn within(estimate: Estimate, truth: f64, sigmas: f64) -> bool {
    (estimate.value - truth).abs() <= sigmas * estimate.sigma
}

#[test]
fn a_planted_bias_and_its_memory_come_back_within_their_uncertainty() {
    for (seed, bias, memory, noise) in [
        (1, 5.0, 30.0, 0.7),
        (2, 2.0, 15.0, 1.5),
        (3, 8.0, 60.0, 0.3),
    ] {
        let mut dice = Noise(seed);
        let keep = f64::exp(-1.0 / memory);
        let drives: Vec<Vec<(f64, [f64; 2])>> = (0..40)
            .map(|_| {
                let mut slow = [dice.normal(bias), dice.normal(bias)];
                (0..180)
                    .map(|second| {
                        let error = slow.map(|slow| slow + dice.normal(noise));
                        slow = slow.map(|slow| {
                            keep * slow + dice.normal(bias * (1.0 - keep * keep).sqrt())
                        });
                        (f64::from(second), error)
                    })
                    .collect()
            })
            .collect();
        let model = gnss_model(&drives).unwrap();
        assert!(within(model.bias_sigma_m, bias, 3.0), "{model:?}");
        assert!(within(model.memory_s, memory, 3.0), "{model:?}");
        // Classes of lags are two seconds wide, in which a bias moves more than a small noise.
        assert!(
            (model.noise_sigma_m.value - noise).abs() < 0.2 + 0.03 * bias,
            "{model:?}"
        );
        assert!(model.bias_sigma_m.sigma < 0.3 * bias && model.memory_s.sigma < 0.5 * memory);
    }
    assert!(gnss_model(&[]).is_none());
}

#[test]
fn a_planted_latency_comes_back_within_its_uncertainty() {
    for late in [0.0, 0.25, -0.4, 1.0] {
        let mut dice = Noise(7);
        let drives: Vec<Vec<Moment>> = (0..12)
            .map(|_| {
                let mut bias = dice.normal(5.0);
                let phase = dice.normal(3.0);
                (0..100)
                    .map(|index| {
                        let time_s = 0.5 * f64::from(index);
                        bias += dice.normal(0.3);
                        let speed_mps = 8.0 + 5.0 * (0.25 * time_s + phase).sin();
                        // A false place every now and then.
                        let jump = if index % 33 == 7 { 30.0 } else { 0.0 };
                        Moment {
                            time_s,
                            ahead_m: bias - late * speed_mps + dice.normal(0.4) + jump,
                            speed_mps,
                        }
                    })
                    .collect()
            })
            .collect();
        let found = latency(&drives).unwrap();
        assert!(within(found, late, 3.0), "{late}: {found:?}");
        assert!(found.sigma < 0.15, "{found:?}");
    }
    // A vehicle that never changes its speed does not tell.
    let steady = vec![
        Moment {
            time_s: 0.0,
            ahead_m: 1.0,
            speed_mps: 9.0
        };
        50
    ];
    assert!(latency(&vec![steady; 5]).is_none());
}

#[test]
fn a_mean_is_as_sure_as_drives_agree() {
    let mut dice = Noise(3);
    let drives: Vec<(f64, f64)> = (0..50).map(|_| (0.02 + dice.normal(0.01), 1.0)).collect();
    let found = mean(&drives).unwrap();
    assert!(within(found, 0.02, 3.0), "{found:?}");
    // 0.01 over the root of 50 is 0.0014.
    assert!((0.0009..0.002).contains(&found.sigma), "{found:?}");
    assert!(mean(&drives[..2]).is_none());
}
