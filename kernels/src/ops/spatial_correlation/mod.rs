//! Cross-correlation of a template with a map at each offset: GGCVT compares the ground view with the
//! aerial map.

mod direct;
mod fourier;
pub(crate) mod on_cuda;
pub(crate) mod spectra_on_cuda;
#[cfg(test)]
mod tests;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "spatial_correlation";

/// How a correlation is computed; the numbers agree to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Correlation {
    /// Whichever is estimated to be faster for the sizes at hand.
    Fastest,
    /// The sum as defined.
    Direct,
    /// By FFT; on a GPU for maps of up to 1024 × 1024, and directly for larger ones.
    Fourier,
}

/// `output[n, a, b] = Σ over c, i, j of template[n, c, i, j] · search[n, c, a + i, b + j]` for each
/// place at which the template lies within the map.
///
/// # Shapes
/// `template` `[N, C, h, w]`, `search` `[N, C, H, W]` with h ≤ H and w ≤ W; returns
/// `[N, H - h + 1, W - w + 1]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, [`Error::Device`] when the inputs lie on different devices.
pub fn spatial_correlation(
    tape: &mut Tape,
    template: &Tensor,
    search: &Tensor,
    method: Correlation,
) -> Result<Tensor> {
    let [n, c, h, w] = template.dims4(OP, "template")?;
    let [samples, channels, height, width] = search.dims4(OP, "search map")?;
    if samples != n || channels != c || height < h || width < w {
        let expected = format!("[{n}, {c}, {h} or more, {w} or more]");
        return Err(Error::shape(OP, "search map", expected, search.shape()));
    }
    let plan = Plan {
        channels: c,
        template: [h, w],
        search: [height, width],
    };
    if let Device::Cuda(cuda) = Device::common(OP, &[template, search])? {
        let spectra = match method {
            Correlation::Fastest => spectra_on_cuda::is_faster(&plan),
            Correlation::Direct => false,
            Correlation::Fourier => spectra_on_cuda::fits(&plan),
        };
        let inputs = [template, search];
        return if spectra {
            spectra_on_cuda::correlation(tape, &cuda, inputs, plan)
        } else {
            on_cuda::correlation(tape, &cuda, inputs, plan)
        };
    }
    let fourier = match method {
        Correlation::Fastest => plan.fourier_is_faster(),
        Correlation::Direct => false,
        Correlation::Fourier => true,
    };
    let shape = [n, plan.places()[0], plan.places()[1]];
    if fourier {
        let (data, spectra) = fourier::forward(
            &plan,
            template.data(),
            search.data(),
            tape.needs_gradient(&[template, search]),
        );
        let mut output = Tensor::from_parts(data, &shape);
        let shapes = [template.shape().to_vec(), search.shape().to_vec()];
        tape.record(&mut output, &[template, search], move |gradient| {
            let [to_template, to_search] = fourier::backward(&plan, spectra, gradient.data());
            Ok(vec![
                Some(Tensor::from_parts(to_template, &shapes[0])),
                Some(Tensor::from_parts(to_search, &shapes[1])),
            ])
        });
        return Ok(output);
    }
    let data = direct::forward(&plan, template.data(), search.data());
    let mut output = Tensor::from_parts(data, &shape);
    let inputs = [template, search];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (template.clone(), search.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (template, search) = saved.expect("saved whenever recorded");
        let given = [template.data(), search.data(), gradient.data()];
        let [to_template, to_search] = direct::backward(&plan, given);
        Ok(vec![
            Some(Tensor::from_parts(to_template, template.shape())),
            Some(Tensor::from_parts(to_search, search.shape())),
        ])
    });
    Ok(output)
}

/// Sizes of one sample, as [rows, columns].
#[derive(Clone, Copy)]
struct Plan {
    channels: usize,
    template: [usize; 2],
    search: [usize; 2],
}

impl Plan {
    /// Places at which the template lies within the map.
    fn places(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.search[axis] - self.template[axis] + 1)
    }

    fn template_len(&self) -> usize {
        self.channels * self.template[0] * self.template[1]
    }

    fn search_len(&self) -> usize {
        self.channels * self.search[0] * self.search[1]
    }

    fn places_len(&self) -> usize {
        self.places()[0] * self.places()[1]
    }

    /// Compares the multiplications of the sum with the operations of the transforms, each weighed
    /// with an estimate of its speed; `examples/correlation.rs` measures it, not yet done.
    fn fourier_is_faster(&self) -> bool {
        /// Multiplications of the sum in the time of one n log₂ n unit of a transform.
        const UNIT: f64 = 12.0;
        let product = |[rows, columns]: [usize; 2]| rows as f64 * columns as f64;
        let sum = product(self.template) * product(self.places());
        let area = product(self.search);
        sum > UNIT * area * area.log2()
    }
}
