//! Cases of `correlation_distance`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    // Some below epsilon, some below zero, the others around 1.
    let lengths = |seed| {
        let around = noise(&[2, 5, 7], seed).into_data();
        let data = around
            .iter()
            .map(|x| if *x > 0.9 { -x } else { 0.3 * x + 1.0 });
        tensor(data.collect(), &[2, 5, 7])
    };
    let case = |name, epsilon| {
        OpCase::new(
            name,
            &[&[2, 5, 7], &[2, 5, 7], &[2, 5, 7]],
            move |tape, x| correlation_distance(tape, &x[0], &x[1], &x[2], epsilon),
        )
        .input(1, lengths(2))
        .input(2, lengths(3))
    };
    vec![
        case("correlation_distance", 0.5),
        case("correlation_distance of short ones", 5.0),
    ]
}
