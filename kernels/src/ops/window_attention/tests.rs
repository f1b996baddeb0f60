use super::*;
use crate::testing::{assert_close, check_gradient, noise};

#[test]
fn two_by_two_window_worked_by_hand() {
    // Queries of zero: only the bias decides. Row 4 (no offset) gets ln 3, all others 0, so
    // each pixel takes half of itself and a sixth of each other.
    let zero = Tensor::zeros(&[1, 1, 2, 2]);
    let value = Tensor::new(vec![6.0, 12.0, 18.0, 24.0], &[1, 1, 2, 2]).unwrap();
    let mut table = vec![0.0; 9];
    table[4] = 3.0f32.ln();
    let table = Tensor::new(table, &[9, 1]).unwrap();
    let mut tape = Tape::inference();
    let y = window_attention(&mut tape, [&zero, &zero, &value], &table, None, 2).unwrap();
    assert_close(y.data(), &[12.0, 14.0, 16.0, 18.0], 1e-6);
    // With the last pixel hidden as a key: 3/5 of itself and 1/5 of the other two.
    let mask = Tensor::new(vec![1.0, 1.0, 1.0, 0.0], &[1, 2, 2]).unwrap();
    let inputs = [&zero, &zero, &value];
    let y = window_attention(&mut tape, inputs, &table, Some(&mask), 2).unwrap();
    assert_close(y.data(), &[9.6, 12.0, 14.4, 12.0], 1e-6);
}

#[test]
fn a_bias_belongs_to_query_minus_key() {
    // Window 2: row 1 of the table is dy = -1, dx = 0: queries above read the key below.
    let zero = Tensor::zeros(&[1, 1, 2, 2]);
    let value = Tensor::new(vec![1.0, 2.0, 3.0, 4.0], &[1, 1, 2, 2]).unwrap();
    let mut table = vec![0.0; 9];
    table[1] = 50.0;
    let table = Tensor::new(table, &[9, 1]).unwrap();
    let inputs = [&zero, &zero, &value];
    let y = window_attention(&mut Tape::inference(), inputs, &table, None, 2).unwrap();
    assert_close(y.data(), &[3.0, 4.0, 2.5, 2.5], 1e-6);
}

#[test]
fn windows_do_not_see_each_other() {
    let [q, k, v] = [1, 2, 3].map(|seed| noise(&[1, 2, 2, 4], seed));
    let table = noise(&[9, 2], 4);
    let mut tape = Tape::inference();
    let before = window_attention(&mut tape, [&q, &k, &v], &table, None, 2).unwrap();
    let mut changed = v.data().to_vec();
    changed[3] += 1.0;
    let changed = Tensor::new(changed, v.shape()).unwrap();
    let after = window_attention(&mut tape, [&q, &k, &changed], &table, None, 2).unwrap();
    let moved = |i: usize| before.data()[i] != after.data()[i];
    assert!(!moved(0) && !moved(1) && moved(2) && moved(3) && moved(6) && !moved(8));
}

#[test]
fn gradient_matches_finite_differences() {
    let [q, k, v] = [1, 2, 3].map(|seed| noise(&[2, 4, 2, 4], seed));
    let mask = Tensor::new((0..16).map(|i| (i % 3) as f32).collect(), &[2, 2, 4]).unwrap();
    for mask in [None, Some(&mask)] {
        let inputs = [q.clone(), k.clone(), v.clone(), noise(&[9, 2], 4)];
        check_gradient(&inputs, 3e-3, |tape, x| {
            window_attention(tape, [&x[0], &x[1], &x[2]], &x[3], mask, 2)
        });
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let x = noise(&[1, 4, 4, 4], 1);
    let table = noise(&[9, 2], 2);
    let mut tape = Tape::inference();
    let mut run = |table: &Tensor, side| {
        window_attention(&mut tape, [&x, &x, &x], table, None, side).is_err()
    };
    assert!(run(&table, 3));
    assert!(run(&table, 4));
    assert!(run(&noise(&[9, 3], 2), 2));
    assert!(!run(&table, 2));
}
