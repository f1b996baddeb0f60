//! What GGCVT compares at one place: the template made of the ground view, and the aerial window under it.

use super::cross_view::{COLUMN_NUDGE, UNIT};
use super::loss::true_cell;
use super::{Ggcvt, GgcvtCamera, GgcvtOptions, PassInputs};
use crate::model::descriptors::{ViewDescriptors, unit};
use crate::model::{Input, ModelError, Share};
use crossfix_kernels::{Device, Tape, Tensor};

impl Ggcvt {
    /// The first level's template and the aerial window at a place of each pair, metres east and north of the
    /// middle. `None` for pinhole cameras, whose template turns with the vehicle and lies before it.
    pub(super) fn first_level(
        &mut self,
        input: &Input,
        places_m: &[[f64; 2]],
    ) -> Result<Option<Vec<ViewDescriptors>>, ModelError> {
        if !matches!(self.spec.camera, GgcvtCamera::Panorama { .. }) {
            return Ok(None);
        }
        let shapes = [input.ground.shape(), input.aerial.shape()];
        let drawn = (0, Share::default());
        let geometry = self.geometry([&shapes[0], &shapes[1]], &input.projections, drawn)?;
        let device = self.parameters.device();
        let [ground, aerial] = input.normalised(&device, &UNIT, true)?;
        let pass_inputs = PassInputs {
            ground,
            aerial,
            geometry: geometry.to(&device)?,
        };
        let mut seen: [Option<Tensor>; 2] = [None, None];
        let mut watch = |name: &str, value: &Tensor| {
            let maps = ["overhead.0", "aerial.0"];
            if let Some(index) = maps.iter().position(|map| *map == name) {
                seen[index] = Some(value.clone());
            }
        };
        let options = GgcvtOptions {
            column_nudge: COLUMN_NUDGE,
            levels: Some(1),
            watch: Some(&mut watch),
            ..GgcvtOptions::default()
        };
        self.pass(&mut Tape::inference(), &pass_inputs, options)?;
        let [Some(overhead), Some(aerial)] = seen else {
            return Err(ModelError::Input(
                "the pass showed no feature maps; this is a bug".into(),
            ));
        };
        let (overhead, aerial) = (overhead.to(&Device::Cpu)?, aerial.to(&Device::Cpu)?);
        let spec = &self.spec;
        let (side, places) = (spec.templates[0], spec.places()[0]);
        let cell_m = spec.metres_per_pixel() * spec.aerial_px as f64 / spec.sides()[0] as f64;
        let corner = spec.template_corners()[0];
        let of_sample = |(sample, [east_m, north_m]): (usize, &[f64; 2])| {
            let window = true_cell(places, [-north_m / cell_m, east_m / cell_m]);
            Ok(ViewDescriptors {
                ground: unit(cut(&overhead, sample, [corner; 2], side)?),
                aerial: cut(&aerial, sample, window, side)?,
                first: 0,
            })
        };
        let samples = 0..input.len();
        let found = samples.zip(places_m).map(of_sample);
        Ok(Some(found.collect::<Result<_, ModelError>>()?))
    }
}

/// The square of one sample's map that begins at a row and column, all channels, row-major.
fn cut(
    map: &Tensor,
    sample: usize,
    [row, column]: [usize; 2],
    side: usize,
) -> Result<Vec<f32>, ModelError> {
    let [_, channels, rows, columns] = map.dims4("first_level", "a feature map")?;
    let line = |channel: usize, below: usize| {
        let from = ((sample * channels + channel) * rows + row + below) * columns + column;
        &map.data()[from..from + side]
    };
    let lines = (0..channels).flat_map(|channel| (0..side).map(move |below| (channel, below)));
    Ok(lines
        .flat_map(|(channel, below)| line(channel, below).to_vec())
        .collect())
}
