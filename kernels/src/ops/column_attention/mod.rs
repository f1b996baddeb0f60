//! Every pixel of a map attends to two neighbouring columns of an image: the overhead pixel and
//! the strip of the ground image in the direction of which it lies.

mod cpu;
pub(crate) mod on_cuda;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "column_attention";

/// Multi-head attention of each pixel of `query` to all rows of two columns of `key` and `value`:
/// column `⌊columns⌋` and the next, both moved inside the image. Channels are grouped by head;
/// scores are divided by √d. No gradient flows to `columns`.
///
/// # Shapes
/// `query` `[N, heads · d, P, Q]`; `key`, `value` `[N, heads · d, H, W]`; `columns` `[N, P, Q]` in
/// pixels; returns `[N, heads · d, P, Q]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, [`Error::Argument`] when the heads do not divide the
/// channels, [`Error::Device`] when the inputs lie on different devices.
///
/// # Source
/// Boosting 3-DoF Ground-to-Satellite Camera Localization Accuracy via Geometry-Guided
/// Cross-View Transformer (Shi et al. 2023), the cross-view attention.
pub fn column_attention(
    tape: &mut Tape,
    [query, key, value]: [&Tensor; 3],
    columns: &Tensor,
    heads: usize,
) -> Result<Tensor> {
    let [n, c, p, q] = query.dims4(OP, "query")?;
    let [_, _, h, w] = key.dims4(OP, "key")?;
    key.expect_shape(OP, "key", &[n, c, h, w])?;
    value.expect_shape(OP, "value", &[n, c, h, w])?;
    columns.expect_shape(OP, "columns", &[n, p, q])?;
    if heads == 0 || !c.is_multiple_of(heads) {
        return Err(Error::argument(
            OP,
            format!("{heads} heads do not divide {c} channels"),
        ));
    }
    let plan = Plan {
        heads,
        depth: c / heads,
        rows: h,
        columns: w,
        pixels: p * q,
    };
    let inputs = [query, key, value];
    if let Device::Cuda(cuda) = Device::common(OP, &[query, key, value, columns])? {
        return on_cuda::column_attention(tape, &cuda, inputs, columns, &plan);
    }
    let data = cpu::forward(
        &plan,
        [query.data(), key.data(), value.data()],
        columns.data(),
    );
    let mut output = Tensor::from_parts(data, query.shape());
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (query.clone(), key.clone(), value.clone(), columns.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (query, key, value, columns) = saved.expect("saved whenever recorded");
        let given = [query.data(), key.data(), value.data(), gradient.data()];
        let [to_query, to_key, to_value] = cpu::backward(&plan, given, columns.data());
        Ok(vec![
            Some(Tensor::from_parts(to_query, query.shape())),
            Some(Tensor::from_parts(to_key, key.shape())),
            Some(Tensor::from_parts(to_value, key.shape())),
        ])
    });
    Ok(output)
}

struct Plan {
    heads: usize,
    /// Channels of one head.
    depth: usize,
    /// Of the image.
    rows: usize,
    columns: usize,
    /// Of the map.
    pixels: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_columns_worked_by_hand() {
        // One channel, one row, columns 0, 1, 2; keys are logarithms, so shares are ratios.
        let key = Tensor::new(vec![0.0, 3.0f32.ln(), 1.0f32.ln()], &[1, 1, 1, 3]).unwrap();
        let value = Tensor::new(vec![4.0, 8.0, 100.0], &[1, 1, 1, 3]).unwrap();
        let query = Tensor::full(&[1, 1, 1, 4], 1.0);
        // Between columns 0 and 1: 1/4 and 3/4. Beyond either edge: that edge twice.
        let columns = Tensor::new(vec![0.7, 1.0, -5.5, 1e12], &[1, 1, 4]).unwrap();
        let inputs = [&query, &key, &value];
        let y = column_attention(&mut Tape::inference(), inputs, &columns, 1).unwrap();
        assert_close(y.data(), &[7.0, 31.0, 4.0, 100.0], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let columns = Tensor::new((0..12).map(|i| i as f32 * 0.6 - 1.0).collect(), &[2, 2, 3]);
        let columns = columns.unwrap();
        let inputs = [
            noise(&[2, 4, 2, 3], 1),
            noise(&[2, 4, 3, 4], 2),
            noise(&[2, 4, 3, 4], 3),
        ];
        check_gradient(&inputs, 3e-3, |tape, x| {
            column_attention(tape, [&x[0], &x[1], &x[2]], &columns, 2)
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let (query, image) = (noise(&[1, 4, 2, 3], 1), noise(&[1, 4, 3, 5], 2));
        let columns = Tensor::zeros(&[1, 2, 3]);
        let mut tape = Tape::inference();
        let inputs = [&query, &image, &image];
        assert!(column_attention(&mut tape, inputs, &columns, 3).is_err());
        assert!(column_attention(&mut tape, inputs, &Tensor::zeros(&[1, 3, 2]), 2).is_err());
        assert!(column_attention(&mut tape, [&query, &image, &query], &columns, 2).is_err());
    }
}
