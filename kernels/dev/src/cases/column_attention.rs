//! Cases of `column_attention`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, map: [usize; 4], image: [usize; 2], heads| {
        let [n, c, p, q] = map;
        // Over the image and beyond both of its edges; one is no number.
        let width = image[1] as f32;
        let mut columns: Vec<f32> = noise(&[n, p, q], 4).into_data();
        for column in &mut columns {
            *column = width * (0.5 + 0.7 * *column);
        }
        columns[1] = f32::NAN;
        columns[2] = 1e12;
        let columns = tensor(columns, &[n, p, q]);
        let image = [n, c, image[0], image[1]];
        OpCase::new(name, &[&map, &image, &image], move |tape, x| {
            let columns = columns.to(&x[0].device())?;
            column_attention(tape, [&x[0], &x[1], &x[2]], &columns, heads)
        })
        // Sums over pixels in another order, and another exponential.
        .tolerance(3e-6, 1e-5)
    };
    vec![
        case("column_attention", [2, 6, 5, 7], [3, 9], 2),
        case("column_attention of many pixels", [1, 4, 17, 19], [4, 5], 1),
        case(
            "column_attention of tall columns",
            [1, 37, 2, 3],
            [19, 3],
            1,
        ),
    ]
}
