//! Self-attention inside square windows, with a learned bias for each relative position.

mod cpu;
pub(crate) mod on_cuda;
#[cfg(test)]
mod tests;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "window_attention";

/// Added to the score of a masked key: far below any real one, and finite, so that a window of
/// masked keys alone still has a softmax.
const MASKED: f32 = -100.0;

/// Multi-head attention within windows that tile the image:
/// `softmax(q · k / √d + bias[relative position]) · v` for each head, window and pixel.
///
/// Channels are grouped by head. The bias of query (y, x) and key (y', x') in a window of side s
/// is row `(y - y' + s - 1)(2s - 1) + (x - x' + s - 1)` of `table`. Where `mask` is 0, the pixel as a
/// key gets −100. No gradient flows to `mask`.
///
/// # Shapes
/// `query`, `key`, `value` `[N, heads · d, H, W]`; `table` `[(2s - 1)², heads]`; `mask` `[N, H, W]`;
/// returns `[N, heads · d, H, W]`. `side` (s) divides H and W.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, [`Error::Device`] when the inputs lie on different devices.
///
/// # Source
/// Swin Transformer (Liu et al. 2021), equation 4, without shifting.
pub fn window_attention(
    tape: &mut Tape,
    [query, key, value]: [&Tensor; 3],
    table: &Tensor,
    mask: Option<&Tensor>,
    side: usize,
) -> Result<Tensor> {
    let [n, c, h, w] = query.dims4(OP, "query")?;
    key.expect_shape(OP, "key", query.shape())?;
    value.expect_shape(OP, "value", query.shape())?;
    let [rows, heads] = table.dims2(OP, "bias table")?;
    if side == 0 || !h.is_multiple_of(side) || !w.is_multiple_of(side) {
        let expected = format!("multiples of the window side {side}");
        return Err(Error::shape(OP, "image sides", expected, [h, w]));
    }
    if rows != (2 * side - 1).pow(2) || !c.is_multiple_of(heads) {
        let expected = format!("[{}, a divisor of {c}]", (2 * side - 1).pow(2));
        return Err(Error::shape(OP, "bias table", expected, table.shape()));
    }
    if let Some(mask) = mask {
        mask.expect_shape(OP, "mask", &[n, h, w])?;
    }
    let plan = Plan {
        heads,
        depth: c / heads,
        height: h,
        width: w,
        side,
    };
    let inputs = [query, key, value, table];
    if let Device::Cuda(cuda) = Device::common(OP, &inputs)? {
        if let Some(mask) = mask {
            Device::common(OP, &[query, mask])?;
        }
        return on_cuda::window_attention(tape, &cuda, inputs, mask, &plan);
    }
    let shared = mask.map(|mask| mask.host(OP)).transpose()?;
    let (data, shares) = cpu::forward(
        &plan,
        [query.data(), key.data(), value.data()],
        table.data(),
        shared,
    );
    let mut output = Tensor::from_parts(data, query.shape());
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (query.clone(), key.clone(), value.clone(), shares));
    tape.record(&mut output, &inputs, move |gradient| {
        let (query, key, value, shares) = saved.expect("saved whenever recorded");
        let given = [query.data(), key.data(), value.data(), gradient.data()];
        let ([q, k, v], table) = cpu::backward(&plan, given, &shares);
        Ok(vec![
            Some(Tensor::from_parts(q, query.shape())),
            Some(Tensor::from_parts(k, query.shape())),
            Some(Tensor::from_parts(v, query.shape())),
            Some(Tensor::from_parts(table, &[rows, heads])),
        ])
    });
    Ok(output)
}

struct Plan {
    heads: usize,
    /// Channels of one head.
    depth: usize,
    height: usize,
    width: usize,
    /// Pixels along a window.
    side: usize,
}

impl Plan {
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of one window.
    fn tokens(&self) -> usize {
        self.side * self.side
    }

    /// Values of one head of one sample.
    fn head_len(&self) -> usize {
        self.depth * self.pixels()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.depth as f32).sqrt()
    }

    /// First pixel of each window, row-major.
    fn corners(&self) -> impl Iterator<Item = usize> {
        let (side, width) = (self.side, self.width);
        (0..self.height)
            .step_by(side)
            .flat_map(move |top| (0..width).step_by(side).map(move |left| top * width + left))
    }

    /// Row of the bias table for each query and key of a window, `[tokens, tokens]`.
    fn relative(&self) -> Vec<usize> {
        let s = self.side;
        let places = move || (0..s * s).map(move |token| (token / s, token % s));
        let row = |(y, x): (usize, usize), (ky, kx): (usize, usize)| {
            (y + s - 1 - ky) * (2 * s - 1) + (x + s - 1 - kx)
        };
        places()
            .flat_map(|query| places().map(move |key| row(query, key)))
            .collect()
    }
}
