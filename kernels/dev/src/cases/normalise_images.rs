//! Cases of `normalise_images`.

use super::prelude::*;

/// Three samples, all numbers different, the last roll wider than the image; some colours end at 0 or
/// 255.
const SAMPLES: [[f32; Augment::LEN]; 3] = [
    [2.0, 0.4, 1.3, 0.9, 0.7, 15.0],
    [-3.5, 1.7, 0.8, 1.1, 1.6, -40.0],
    [9.0, 0.8, 1.2, 1.4, 0.6, 7.5],
];

pub(super) fn cases() -> Vec<OpCase> {
    const SHAPE: [usize; 4] = [3, 3, 5, 7];
    let case = |name: &str, seed: u64, wraps: Option<bool>, bf16: bool| {
        let values = noise(&SHAPE, seed);
        let bytes = values.data().iter().map(|x| (127.5 + 127.5 * x) as u8);
        let how = Normalisation {
            mean: [0.485, 0.456, 0.406],
            sigma: [0.229, 0.224, 0.225],
            bf16,
        };
        let images = Pixels::new(bytes.collect(), SHAPE).expect("as many bytes as the shape has");
        let samples = tensor(SAMPLES.concat(), &[3, Augment::LEN]);
        let case = OpCase::new(name, &[&[3, Augment::LEN]], move |_, x| {
            let images = images.to(&x[0].device())?;
            let samples = &x[0];
            let augment = wraps.map(|wraps| Augmented { samples, wraps });
            normalise_images(&images, &how, augment)
        });
        case.input(0, samples).without_gradient(&[0])
    };
    vec![
        case("normalise_images", 1, None, false),
        case("normalise_images to bf16", 2, None, true),
        case("normalise_images, augmented", 3, Some(true), false),
        case("normalise_images, augmented again", 4, Some(true), false),
        case("normalise_images, black rolled in", 5, Some(false), false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_kernels::Device;

    /// The cases are what a device is held to: a kernel that took one number for another would be
    /// off by more than they allow.
    #[test]
    fn two_numbers_of_a_sample_in_each_others_place_are_seen_in_the_cases() {
        for case in cases().iter().filter(|case| case.name.contains(", ")) {
            let (right, _) = case.run(&Device::Cpu).unwrap();
            for (a, b) in (0..Augment::LEN).flat_map(|a| (0..a).map(move |b| (a, b))) {
                let mut samples = SAMPLES;
                for sample in &mut samples {
                    sample.swap(a, b);
                }
                let mut swapped = case_named(&case.name);
                let samples = Tensor::new(samples.concat(), &[3, Augment::LEN]).unwrap();
                swapped = swapped.input(0, samples);
                let (wrong, _) = swapped.run(&Device::Cpu).unwrap();
                let off = right.data().iter().zip(wrong.data());
                let off = off.fold(0.0f32, |most, (r, w)| most.max((r - w).abs()));
                assert!(off > 0.05, "{}: {a} and {b}: {off}", case.name);
            }
        }
    }

    fn case_named(name: &str) -> OpCase {
        let mut cases = cases().into_iter();
        cases.find(|case| case.name == name).expect("a case")
    }
}
