use super::*;
use crate::testing::{assert_close, check_gradient, noise};

const METHODS: [Correlation; 3] = [
    Correlation::Fastest,
    Correlation::Direct,
    Correlation::Fourier,
];

#[test]
fn a_template_worked_by_hand() {
    // Two channels; the second of the map is ten times the first.
    let template = Tensor::new(vec![1.0, 2.0, 0.0, 1.0], &[1, 2, 1, 2]).unwrap();
    let plane = [1., 2., 3., 4., 5., 6.];
    let map = plane.iter().copied().chain(plane.map(|x| 10.0 * x));
    let search = Tensor::new(map.collect(), &[1, 2, 2, 3]).unwrap();
    for method in METHODS {
        let y = spatial_correlation(&mut Tape::inference(), &template, &search, method).unwrap();
        assert_eq!(y.shape(), [1, 2, 2]);
        // 1·1 + 2·2 + 0·10 + 1·20, and so on
        assert_close(y.data(), &[25.0, 38.0, 64.0, 77.0], 1e-6);
    }
}

#[test]
fn both_ways_agree_at_any_size() {
    let cases = [
        ([2, 5, 3, 4], [8, 11]),
        ([1, 1, 7, 7], [7, 9]),
        ([2, 6, 10, 9], [23, 31]),
        ([1, 3, 1, 1], [1, 1]),
    ];
    for ([n, c, h, w], [height, width]) in cases {
        let template = noise(&[n, c, h, w], 1);
        let search = noise(&[n, c, height, width], 2);
        let [direct, fourier] = [Correlation::Direct, Correlation::Fourier].map(|method| {
            let inputs = [&template, &search].map(|x| x.clone().with_gradient());
            let mut tape = Tape::training();
            let y = spatial_correlation(&mut tape, &inputs[0], &inputs[1], method).unwrap();
            let gradient = noise(y.shape(), 3);
            let gradients = tape.backward_from(&y, gradient).unwrap();
            let [t, s] = [0, 1].map(|i| gradients.get(&inputs[i]).unwrap().data().to_vec());
            [y.data().to_vec(), t, s]
        });
        for (direct, fourier) in direct.iter().zip(&fourier) {
            assert_close(fourier, direct, 3e-6);
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let inputs = [noise(&[2, 3, 2, 3], 1), noise(&[2, 3, 4, 4], 2)];
    for method in [Correlation::Direct, Correlation::Fourier] {
        check_gradient(&inputs, 5e-3, |tape, x| {
            spatial_correlation(tape, &x[0], &x[1], method)
        });
    }
}

#[test]
fn the_finest_published_level_goes_through_spectra_and_tiny_maps_do_not() {
    let plan = |template, search| Plan {
        channels: 64,
        template: [template; 2],
        search: [search; 2],
    };
    assert!(plan(102, 256).fourier_is_faster());
    assert!(!plan(3, 8).fourier_is_faster());
    // The three published levels on a device.
    let levels = [(25, 64), (51, 128), (102, 256)];
    let spectra = levels.map(|(t, s)| spectra_on_cuda::is_faster(&plan(t, s)));
    assert_eq!(spectra, [false, true, true]);
    assert!(!spectra_on_cuda::is_faster(&plan(1000, 3000)));
}

#[test]
fn a_template_larger_than_the_map_is_refused() {
    let (large, small) = (noise(&[1, 2, 4, 4], 1), noise(&[1, 2, 3, 5], 2));
    let mut tape = Tape::inference();
    assert!(spatial_correlation(&mut tape, &large, &small, Correlation::Fastest).is_err());
}
