//! GGCVT: lays the ground view on the aerial image and looks for the place where it fits.
//!
//! Features of both images from VGG16; the ground features are projected on the ground plane and
//! improved by attention along the ground columns that each overhead cell lies in; the result is
//! the template of a correlation with the aerial features, coarse to fine. Low distances are good.
//!
//! One implementation for every size and both cameras; [`GgcvtSpec`] holds them. Names of
//! parameters follow the published state dict.
//!
//! Source: Boosting 3-DoF Ground-to-Satellite `GgcvtCamera` Localization Accuracy via Geometry-Guided
//! Cross-GroundProjection Transformer (Shi et al. 2023).

pub mod adaptation;
pub(crate) mod attention;
pub(crate) mod cross_view;
mod descriptors;
pub mod loss;
pub(crate) mod projection;
mod recordable;
pub(crate) mod rotation;
pub mod spec;

pub(crate) use cross_view::turn_rad;
pub(crate) use recordable::FamilyInputs;
pub use spec::{GgcvtCamera, GgcvtSpec, PRESETS, preset};

use super::layers::{Conv, Pass, Watch};
use super::parameters::{Builder, ParameterId, Parameters};
use super::vgg::{Decoder, Vgg, conv3x3};
use super::{ModelError, ModelSpec, Share};
use attention::{CrossAttention, SelfAttention};
use crossfix_kernels::ops::{self, BatchNormMode, Correlation, Outside};
use crossfix_kernels::{Error, Result as KernelResult, Tape, Tensor};
use projection::{CameraGeometry, panorama, planes};
use rotation::{RotationOptimiser, Views};
use serde::{Deserialize, Serialize};

/// Guards divisions by the length of a feature map.
pub(crate) const LENGTH_EPSILON: f32 = 1e-12;
/// Guards the division of a correlation.
pub(crate) const DISTANCE_EPSILON: f32 = 1e-6;

/// A batch of image pairs, pixel values 0 to 1.
#[derive(Debug, Clone)]
pub struct GgcvtInput {
    /// `[N, 3, rows, columns]`.
    pub ground: Tensor,
    /// `[N, 3, side, side]`.
    pub aerial: Tensor,
    /// How each camera saw; as many as samples.
    pub projections: Vec<GroundProjection>,
}

/// How one ground image was taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum GroundProjection {
    /// A panorama.
    Panorama {
        /// Of the aerial image.
        metres_per_pixel: f64,
        /// How far the panorama was rolled to the right, as an angle.
        turn_rad: f64,
    },
    /// A pinhole image.
    Pinhole {
        /// Focal lengths and centre, pixels of the ground image: fx, fy, cx, cy.
        camera: [f64; 4],
        /// Its normalised heading, where that is known; else the optimiser's is used.
        heading: Option<f32>,
    },
}

/// What a pass takes besides the network's numbers, all on one device.
#[derive(Debug, Clone)]
pub(crate) struct PassInputs {
    /// `[N, 3, rows, columns]`, pixels 0 to 1.
    ground: Tensor,
    /// `[N, 3, side, side]`, as the ground images.
    aerial: Tensor,
    geometry: CameraGeometry,
}

/// The network's outputs for a batch.
#[derive(Debug, Clone)]
pub struct GgcvtPrediction {
    /// Distances `[N, n, n]`, coarsest first, low where the views agree. Row 0 is north (for a
    /// pinhole camera: left), column 0 west (behind).
    pub distances: Vec<Tensor>,
    /// Pose `[N, 3]` after each step of the rotation optimiser: normalised shift along the view,
    /// shift across it, heading.
    pub poses: Vec<Tensor>,
}

/// How a forward pass runs.
#[derive(Default)]
pub struct GgcvtOptions<'a> {
    /// Added to column coordinates before they are rounded down to pick the columns that an
    /// overhead cell attends to. 1e-4 makes the choice independent of the machine.
    pub column_nudge: f32,
    /// Levels whose distances are computed, coarsest first; all features are.
    pub levels: Option<usize>,
    /// Seeds the draws that replace shifts of the rotation optimiser that ran away.
    pub seed: u64,
    /// Sees intermediate values.
    pub watch: Option<Watch<'a>>,
}

/// The network: its table, where each layer's numbers are, and the numbers.
#[derive(Debug, Clone)]
pub struct Ggcvt {
    spec: GgcvtSpec,
    description: ModelSpec,
    pub(crate) aerial: Vgg,
    pub(crate) aerial_decoders: [Decoder; 2],
    pub(crate) ground: Vgg,
    pub(crate) ground_decoders: [Decoder; 2],
    pub(crate) attention: Vec<(SelfAttention, CrossAttention)>,
    pub(crate) overhead_decoders: [Decoder; 2],
    pub(crate) uncertainty: Vec<[Conv; 3]>,
    pub(crate) rotation: Option<RotationOptimiser>,
    /// Weights of place and rotation in the loss, as −log.
    balance: Option<[ParameterId; 2]>,
    parameters: Parameters,
}

impl Ggcvt {
    /// Builds the network of `spec` with starting values drawn from `seed`.
    ///
    /// # Errors
    /// [`ModelError::Spec`] with everything that is wrong with the table.
    pub fn new(spec: GgcvtSpec, seed: u64) -> Result<Self, ModelError> {
        let problems = spec.problems();
        if !problems.is_empty() {
            return Err(ModelError::Spec(problems.join("; ")));
        }
        let mut builder = Builder::new(seed);
        let [half, quarter, eighth] = spec.widths;
        let widths = [(eighth + quarter, quarter), (quarter + half, half)];
        let decoders = |builder: &mut Builder, names: [&str; 2]| {
            let mut names = names.iter().zip(widths);
            [(); 2].map(|()| match names.next() {
                Some((name, (inputs, outputs))) => Decoder::new(builder, name, inputs, outputs),
                None => unreachable!("two names for two decoders"),
            })
        };
        let aerial = Vgg::new(&mut builder, "SatFeatureNet", spec.widths);
        let names = ["SatFeatureNet.conv_dec1", "SatFeatureNet.conv_dec2"];
        let aerial_decoders = decoders(&mut builder, names);
        if spec.unused_layers {
            unused_layers(&mut builder, spec.widths);
        }
        let ground = Vgg::new(&mut builder, "GrdEnc", spec.widths);
        let names = ["GrdDec.conv_dec1", "GrdDec.conv_dec2"];
        let ground_decoders = decoders(&mut builder, names);
        let attention = (0..spec.repetitions).map(|r| {
            let name = |part: &str| format!("CVattn.{part}_attention_layers.{r}");
            (
                SelfAttention::new(&mut builder, &name("self"), &spec),
                CrossAttention::new(&mut builder, &name("cross"), &spec),
            )
        });
        let attention = attention.collect();
        let names = ["Dec4.conv_dec1", "Dec2.conv_dec2"];
        let overhead_decoders = decoders(&mut builder, names);
        let [wide, narrow] = spec.uncertainty;
        let uncertainty = (1..).zip(spec.channels()).map(|(branch, channels)| {
            let mut conv = |index: usize, shape| {
                let name = format!("uncertain_net.conv{branch}.{index}");
                conv3x3(&mut builder, &name, shape, true)
            };
            [
                conv(1, [channels, wide]),
                conv(3, [wide, narrow]),
                conv(5, [narrow, 1]),
            ]
        });
        let uncertainty = uncertainty.collect();
        let (mut rotation, mut balance) = (None, None);
        if let GgcvtCamera::Pinhole { learnt_balance, .. } = spec.camera {
            rotation = Some(RotationOptimiser::new(&mut builder, &spec));
            if learnt_balance {
                balance = Some([
                    builder.scalar("coe_T".into(), -3.0),
                    builder.scalar("coe_R".into(), -5.0),
                ]);
            }
        }
        Ok(Self {
            description: spec.describe(),
            spec,
            aerial,
            aerial_decoders,
            ground,
            ground_decoders,
            attention,
            overhead_decoders,
            uncertainty,
            rotation,
            balance,
            parameters: builder.finish(),
        })
    }

    /// The table this network was built from.
    pub fn spec(&self) -> &GgcvtSpec {
        &self.spec
    }

    /// Its numbers.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Its numbers, to change.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The learnt −log weights of place and rotation in the loss, where there are such.
    pub fn balance(&self) -> Option<[&Tensor; 2]> {
        self.balance
            .map(|ids| ids.map(|id| self.parameters.value(id)))
    }

    /// Runs a batch.
    ///
    /// # Errors
    /// [`ModelError::Input`] or [`ModelError::Kernel`] when images or projections don't fit.
    pub fn forward(
        &mut self,
        tape: &mut Tape,
        input: &GgcvtInput,
        options: GgcvtOptions,
    ) -> Result<GgcvtPrediction, ModelError> {
        let geometry = self.geometry(
            [input.ground.shape(), input.aerial.shape()],
            &input.projections,
            (options.seed, Share::default()),
        )?;
        let device = self.parameters.device();
        let pass_inputs = PassInputs {
            ground: input.ground.to(&device)?,
            aerial: input.aerial.to(&device)?,
            geometry: geometry.to(&device)?,
        };
        self.pass(tape, &pass_inputs, options)
    }

    /// A pass over what lies beside the parameters. Reads no value.
    fn pass(
        &mut self,
        tape: &mut Tape,
        pass_inputs: &PassInputs,
        mut options: GgcvtOptions,
    ) -> Result<GgcvtPrediction, ModelError> {
        // Taken out for the pass, so that layers and numbers can be borrowed side by side.
        let mut parameters = std::mem::take(&mut self.parameters);
        let mut pass = Pass {
            tape,
            parameters: &mut parameters,
            batch_norm: BatchNormMode::Frozen,
            drop_connect: None,
            // A shorter life, to go with the pass's.
            watch: options.watch.take().map(|watch| -> Watch { watch }),
        };
        let levels = options.levels.unwrap_or(3).clamp(1, 3);
        let result = self.run(&mut pass, pass_inputs, options.column_nudge, levels);
        self.parameters = parameters;
        Ok(result?)
    }

    /// The projections of a batch on the host, when they and the images fit the network.
    fn geometry(
        &self,
        [ground, aerial]: [&[usize]; 2],
        projections: &[GroundProjection],
        (seed, share): (u64, Share),
    ) -> Result<CameraGeometry, ModelError> {
        let (n, spec) = (projections.len(), &self.spec);
        let expected = [n, 3, spec.ground_rows, spec.ground_columns];
        expect("ground images", expected, ground)?;
        let expected = [n, 3, spec.aerial_px, spec.aerial_px];
        expect("aerial images", expected, aerial)?;
        CameraGeometry::of_share(spec, projections, seed, share)
    }

    fn run(
        &self,
        pass: &mut Pass,
        pass_inputs: &PassInputs,
        column_nudge: f32,
        levels: usize,
    ) -> KernelResult<GgcvtPrediction> {
        let aerial = self.aerial.forward(pass, &pass_inputs.aerial)?;
        let quarter = self.aerial_decoders[0].forward(pass, &aerial.eighth, &aerial.quarter)?;
        let half = self.aerial_decoders[1].forward(pass, &quarter, &aerial.half)?;
        let mut aerial_maps = Vec::with_capacity(3);
        let mut uncertainties = Vec::with_capacity(3);
        for (level, features) in [aerial.eighth, quarter, half].iter().enumerate() {
            let unit = ops::sample_normalise(pass.tape, features, LENGTH_EPSILON)?;
            tell(pass, format_args!("aerial.{level}.unit"), &unit);
            // The published uncertainty net rectifies its input in place, so that everything
            // after it sees the rectified features.
            let rectified = ops::relu(pass.tape, &unit)?;
            tell(pass, format_args!("aerial.{level}"), &rectified);
            let uncertainty = self.uncertainty(pass, level, &rectified)?;
            tell(pass, format_args!("uncertainty.{level}"), &uncertainty);
            aerial_maps.push(rectified);
            uncertainties.push(uncertainty);
        }

        let ground = self.ground.forward(pass, &pass_inputs.ground)?;
        let raw = [&ground.eighth, &ground.quarter, &ground.half];
        for (level, features) in raw.iter().enumerate() {
            tell(pass, format_args!("ground_encoder.{level}"), features);
        }
        let quarter = self.ground_decoders[0].forward(pass, &ground.eighth, &ground.quarter)?;
        let half = self.ground_decoders[1].forward(pass, &quarter, &ground.half)?;
        let mut ground_maps = Vec::with_capacity(3);
        for (level, features) in [&ground.eighth, &quarter, &half].into_iter().enumerate() {
            let unit = ops::sample_normalise(pass.tape, features, LENGTH_EPSILON)?;
            tell(pass, format_args!("ground.{level}"), &unit);
            ground_maps.push(unit);
        }

        let (grids, mask, poses) =
            self.grids(pass, &pass_inputs.geometry, &ground_maps, &aerial_maps)?;
        let columns = ops::grid_columns(&grids[0], column_nudge)?;
        if let Some(mask) = &mask {
            tell(pass, format_args!("in_front"), mask);
        }
        let mut overhead: Vec<Tensor> = Vec::with_capacity(3);
        for level in 0..3 {
            let (features, grid) = (&ground_maps[level], &grids[level]);
            let seen = ops::grid_sample(pass.tape, features, grid, Outside::Empty)?;
            tell(pass, format_args!("projected.{level}"), &seen);
            let map = match overhead.last() {
                None => {
                    tell(pass, format_args!("columns"), &columns);
                    let mut x = seen;
                    for (within, across) in &self.attention {
                        x = within.forward(pass, &x, mask.as_ref())?;
                        x = across.forward(pass, &x, &ground.eighth, &columns)?;
                    }
                    ops::sample_normalise(pass.tape, &x, LENGTH_EPSILON)?
                }
                Some(coarser) => {
                    let x = self.overhead_decoders[level - 1].forward(pass, coarser, &seen)?;
                    let x = ops::sample_normalise(pass.tape, &x, LENGTH_EPSILON)?;
                    tell(pass, format_args!("overhead.{level}.correction"), &x);
                    ops::add(pass.tape, &seen, &x)?
                }
            };
            tell(pass, format_args!("overhead.{level}"), &map);
            overhead.push(map);
        }

        let mut distances = Vec::with_capacity(levels);
        for level in 0..levels {
            let maps = [&overhead[level], &aerial_maps[level], &uncertainties[level]];
            distances.push(self.distance(pass, level, maps)?);
        }
        Ok(GgcvtPrediction { distances, poses })
    }

    fn uncertainty(&self, pass: &mut Pass, level: usize, input: &Tensor) -> KernelResult<Tensor> {
        let [first, second, last] = &self.uncertainty[level];
        let x = first.forward(pass, input)?;
        let x = ops::relu(pass.tape, &x)?;
        let x = second.forward(pass, &x)?;
        let x = ops::relu(pass.tape, &x)?;
        let x = last.forward(pass, &x)?;
        ops::sigmoid(pass.tape, &x)
    }

    /// Where each overhead cell of each level is seen; cells in front of the camera, for a pinhole
    /// camera; and the steps of the rotation optimiser.
    fn grids(
        &self,
        pass: &mut Pass,
        geometry: &CameraGeometry,
        ground: &[Tensor],
        aerial: &[Tensor],
    ) -> KernelResult<(Vec<Tensor>, Option<Tensor>, Vec<Tensor>)> {
        let spec = &self.spec;
        let pinholes = match geometry {
            CameraGeometry::Panoramas(views) => {
                let panoramas = (0..3).filter_map(|level| panorama(spec, level));
                let grids = panoramas.map(|panorama| ops::panorama_grid(views, &panorama));
                return Ok((grids.collect::<KernelResult<_>>()?, None, Vec::new()));
            }
            CameraGeometry::Pinholes(pinholes) => pinholes,
        };
        let planes = planes(spec);
        let views = Views {
            ground,
            aerial,
            planes: &planes,
            pinholes,
        };
        let poses = match &self.rotation {
            Some(rotation) => rotation.forward(pass, &views)?,
            None => Vec::new(),
        };
        let pose = pinholes.at_the_place(poses.last())?;
        let grids = planes
            .iter()
            .map(|plane| ops::plane_grid(pass.tape, &pose, &pinholes.cameras, plane));
        let grids = grids.collect::<KernelResult<_>>()?;
        let in_front = ops::plane_in_front(&pose, &planes[0])?;
        Ok((grids, Some(in_front), poses))
    }

    /// Distances of one level from the overhead, aerial and uncertainty maps.
    fn distance(
        &self,
        pass: &mut Pass,
        level: usize,
        [overhead, aerial, uncertainty]: [&Tensor; 3],
    ) -> KernelResult<Tensor> {
        let spec = &self.spec;
        let (side, places) = (spec.templates[level], spec.places()[level]);
        let corner = [spec.template_corners()[level]; 2];
        let template = ops::crop2d(pass.tape, overhead, corner, [side; 2])?;
        let template = ops::sample_normalise(pass.tape, &template, LENGTH_EPSILON)?;
        let method = Correlation::Fastest;
        let correlation = ops::spatial_correlation(pass.tape, &template, aerial, method)?;
        let energy = ops::window_energy(pass.tape, aerial, [side; 2])?;
        let corner = [spec.uncertainty_corners()[level]; 2];
        let confidence = ops::crop2d(pass.tape, uncertainty, corner, [places; 2])?;
        let confidence = ops::reshape(pass.tape, &confidence, correlation.shape())?;
        ops::correlation_distance(
            pass.tape,
            &correlation,
            &energy,
            &confidence,
            DISTANCE_EPSILON,
        )
    }
}

/// Layers that the published weights hold and that no output depends on.
fn unused_layers(builder: &mut Builder, [half, quarter, eighth]: [usize; 3]) {
    let channels = [2 * half, half / 2, half / 4];
    Decoder::with_hidden(builder, "SatFeatureNet.conv_dec3", channels);
    for (index, channels) in [eighth, quarter, half, half / 4].into_iter().enumerate() {
        let name = format!("SatFeatureNet.conf{index}.1");
        conv3x3(builder, &name, [channels, 1], false);
    }
}

/// Checks the shape of images.
fn expect(what: &'static str, expected: [usize; 4], got: &[usize]) -> KernelResult<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::shape("forward", what, expected, got))
}

fn tell(pass: &mut Pass, name: std::fmt::Arguments, value: &Tensor) {
    if let Some(watch) = &mut pass.watch {
        watch(&name.to_string(), value);
    }
}

#[cfg(test)]
pub(crate) mod tests;
