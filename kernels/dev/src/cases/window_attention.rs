//! Cases of `window_attention`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: [usize; 4], side: usize, heads, masked: bool| {
        let [n, _, h, w] = shape;
        // One whole window is masked, and every third pixel.
        let mask = (0..n * h * w).map(|i| {
            let (y, x) = (i / w % h, i % w);
            f32::from(u8::from((y >= side || x >= side) && i % 3 > 0))
        });
        let mask = tensor(mask.collect(), &[n, h, w]);
        let table = [(2 * side - 1).pow(2), heads];
        OpCase::new(name, &[&shape, &shape, &shape, &table], move |tape, x| {
            let mask = masked.then(|| mask.to(&x[0].device())).transpose()?;
            let tokens = [&x[0], &x[1], &x[2]];
            window_attention(tape, tokens, &x[3], mask.as_ref(), side)
        })
        // Sums over windows in another order, and another exponential.
        .tolerance(3e-6, 1e-5)
    };
    vec![
        case("window_attention", [2, 6, 6, 9], 3, 2, false),
        case("window_attention, masked", [2, 6, 6, 9], 3, 2, true),
        case("window_attention of 36 tokens", [1, 4, 6, 12], 6, 1, true),
        case(
            "window_attention of single pixels",
            [1, 3, 2, 3],
            1,
            3,
            false,
        ),
    ]
}
