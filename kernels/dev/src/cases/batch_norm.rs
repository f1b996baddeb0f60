//! Cases of `batch_norm`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    let case = |name, shape: [usize; 4], activation, training: bool| {
        let c = shape[1];
        OpCase::new(name, &[&shape, &[c], &[c]], move |tape, x| {
            let mut running = RunningStatistics::new(c).to(&x[0].device())?;
            let mut norm = |tape: &mut Tape, x: &[Tensor], mode| {
                batch_norm(
                    tape,
                    &x[0],
                    &x[1],
                    &x[2],
                    &mut running,
                    mode,
                    1e-3,
                    activation,
                )
            };
            if training {
                let normal = norm(tape, x, BatchNormMode::Train { momentum: 0.3 })?;
                let again = [normal, x[1].clone(), x[2].clone()];
                return norm(tape, &again, BatchNormMode::Frozen);
            }
            norm(tape, x, BatchNormMode::Frozen)
        })
        // Sums over a channel in another order.
        .tolerance(5e-6, 2e-5)
    };
    vec![
        case("batch_norm, frozen", [2, 3, 5, 7], Activation::Silu, false),
        case("batch_norm with SiLU", [2, 3, 5, 7], Activation::Silu, true),
        case("batch_norm with ReLU", [3, 2, 4, 6], Activation::Relu, true),
        // In one block each: 3000 packs of four elements, 6100 of one, 4800 of four.
        case(
            "batch_norm of one block",
            [2, 2, 60, 100],
            Activation::Silu,
            true,
        ),
        case(
            "batch_norm of one long block",
            [2, 2, 50, 61],
            Activation::None,
            true,
        ),
        case(
            "batch_norm of one long block, by fours",
            [2, 1, 96, 100],
            Activation::Relu,
            true,
        ),
        // Longer than a block keeps: one element at a time, and four.
        case(
            "batch_norm of several blocks",
            [2, 2, 59, 101],
            Activation::None,
            true,
        ),
        case(
            "batch_norm of several blocks, by fours",
            [3, 2, 118, 102],
            Activation::Silu,
            true,
        ),
    ]
}
