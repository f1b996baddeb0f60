//! Cases of `activation`.

use super::prelude::*;

pub(super) fn cases() -> Vec<OpCase> {
    type Activate = fn(&mut Tape, &Tensor) -> Result<Tensor>;
    let operations: [(&str, Activate); 4] = [
        ("relu", relu),
        ("silu", silu),
        ("sigmoid", sigmoid),
        ("gelu", gelu),
    ];
    let mut cases = Vec::new();
    for (name, operation) in operations {
        for (name, shape) in [
            (name.to_string(), &[2, 3, 171][..]),
            (format!("{name} of three"), &[3][..]),
        ] {
            cases.push(OpCase::new(&name, &[shape], move |tape, x| {
                operation(tape, &x[0])
            }));
        }
    }
    cases
}
