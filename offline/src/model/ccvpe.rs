//! CCVPE: matching of a rolled ground descriptor with aerial descriptors, coarse to fine.
//!
//! One implementation for every size; [`CcvpeSpec`] holds the sizes.
//!
//! Source: Convolutional Cross-View Pose Estimation (Xia, Booij, Kooij 2023).

use super::layers::{Border, Conv, Encoder, Pass, Step, Watch};
use super::parameters::{Builder, ParameterId, Parameters};
use super::spec::CcvpeSpec;
use super::{
    CrossViewModel, Extent, ForwardOptions, Input, ModelError, ModelSpec, NORMALISATION,
    NetworkSpec, PassInputs, Prediction, Recordable, Share, ViewDescriptors, check_left_bins,
};
use crate::model::loss::{Loss, LossConfig, PoseTarget, loss};
use crossfix_kernels::ops::{self, BatchNormMode, Conv2d, Pad};
use crossfix_kernels::{Result as KernelResult, Tape, Tensor};
use rand_chacha::ChaCha8Rng;

/// Guards a division by a zero norm in the decoder's inputs.
pub(crate) const L2_EPSILON: f32 = 1e-12;

/// One ground head: a 1×1 convolution, then a weighted sum over feature rows.
#[derive(Debug, Clone)]
pub(crate) struct GroundHead {
    pub conv: Conv,
    pub rows: [ParameterId; 2],
}

/// The network: its table, where each layer's numbers are, and the numbers.
#[derive(Debug, Clone)]
pub struct Ccvpe {
    spec: CcvpeSpec,
    description: ModelSpec,
    pub(crate) ground_encoder: Encoder,
    pub(crate) aerial_encoder: Encoder,
    pub(crate) ground_heads: Vec<GroundHead>,
    pub(crate) aerial_head: [ParameterId; 2],
    pub(crate) location: Vec<Step>,
    pub(crate) orientation: Vec<Step>,
    parameters: Parameters,
}

impl Ccvpe {
    /// Builds the network of `spec` with starting values drawn from `seed`.
    ///
    /// # Errors
    /// [`ModelError::Spec`] with everything that is wrong with the table.
    pub fn new(spec: CcvpeSpec, seed: u64) -> Result<Self, ModelError> {
        let problems = spec.problems();
        if !problems.is_empty() {
            return Err(ModelError::Spec(problems.join("; ")));
        }
        let mut builder = Builder::new(seed);
        let ground_border = Border::new(super::spec::Padding::Zero, spec.ground_wraps);
        let aerial_border = Border::new(spec.padding, false);
        let ground_encoder = builder.encoder("grd_efficientnet", &spec.encoder, ground_border);
        let aerial_encoder = builder.encoder("sat_efficientnet", &spec.encoder, aerial_border);
        let features = spec.encoder.channels();
        let rows = spec.ground_feature_rows();
        let ground_heads = (1..)
            .zip(&spec.levels)
            .map(|(k, level)| {
                let name = format!("grd_feature_to_descriptor{k}");
                let width = level.ground_channels;
                GroundHead {
                    conv: Conv {
                        weight: builder.weight(
                            format!("{name}.0.weight"),
                            &[width, features, 1, 1],
                            2 * features,
                        ),
                        bias: Some(builder.constant(format!("{name}.0.bias"), width, 0.0)),
                        options: pointwise(),
                    },
                    rows: [
                        builder.weight(format!("{name}.2.weight"), &[rows], rows),
                        builder.constant(format!("{name}.2.bias"), 1, 0.0),
                    ],
                }
            })
            .collect();
        let inputs = features * spec.descriptor_cell * spec.descriptor_cell;
        let width = spec.levels[0].aerial_channels;
        let aerial_head = [
            builder.weight(
                "sat_feature_to_descriptors.1.weight".into(),
                &[width, inputs],
                2 * inputs,
            ),
            builder.constant("sat_feature_to_descriptors.1.bias".into(), width, 0.0),
        ];
        let skip_channels =
            |skip: Option<usize>| skip.map_or(0, |block| spec.encoder.blocks[block].channels);
        let names = |k: usize| spec.levels.len() - k;
        let mut location = Vec::new();
        for (k, step) in spec.location.iter().enumerate() {
            let inputs = 1 + spec.levels[k].aerial_channels;
            let (up, conv) = (format!("deconv{}", names(k)), format!("conv{}", names(k)));
            let skip = skip_channels(step.skip);
            location.push(builder.step([&up, &conv], inputs, step, skip, aerial_border));
        }
        let mut orientation = Vec::new();
        let mut inputs = spec.orientation_bins + width;
        for (k, step) in spec.orientation.iter().enumerate() {
            let up = format!("deconv{}_ori", names(k));
            let conv = format!("conv{}_ori", names(k));
            let skip = skip_channels(step.skip);
            orientation.push(builder.step([&up, &conv], inputs, step, skip, aerial_border));
            inputs = step.out;
        }
        Ok(Self {
            description: spec.describe(),
            spec,
            ground_encoder,
            aerial_encoder,
            ground_heads,
            aerial_head,
            location,
            orientation,
            parameters: builder.finish(),
        })
    }

    /// The table this network was built from.
    pub fn spec(&self) -> &CcvpeSpec {
        &self.spec
    }

    /// The same network for ground images whose left edge lies on any bin, if they show less than the
    /// whole turn: a vehicle heads wherever it likes. With a left bin of 0 it answers as before.
    ///
    /// Networks whose bins run with the angle (Oxford) stay as they are: which way their bins turn
    /// with the left edge is not known from anything published.
    pub fn with_left_bin(mut self) -> Self {
        let level = &self.spec.levels[0];
        let window = self.spec.ground_feature_columns() * level.ground_channels;
        if window < level.aerial_channels && !self.spec.bins_run_with_angle {
            self.spec.ground_left_bin = true;
            self.description = self.spec.describe();
        }
        self
    }

    fn descriptors(&self, pass: &mut Pass, features: &Tensor, k: usize) -> KernelResult<Tensor> {
        let head = &self.ground_heads[k];
        let x = head.conv.forward(pass, features)?;
        let [rows, bias] = head.rows.map(|id| pass.parameters.value(id));
        let x = ops::collapse_rows(pass.tape, &x, rows, bias)?;
        pass.show(head.rows[0], 1, &x);
        Ok(x)
    }

    /// Descriptor map of the first level, `[N, C_1, grid, grid]`.
    fn descriptor_map(&self, pass: &mut Pass, features: &Tensor) -> KernelResult<Tensor> {
        let cell = self.spec.descriptor_cell;
        let [weight, bias] = self.aerial_head.map(|id| pass.parameters.value(id));
        let shape = [weight.shape()[0], features.shape()[1], cell, cell];
        let weight = ops::reshape(pass.tape, weight, &shape)?;
        let options = Conv2d {
            stride: cell,
            ..pointwise()
        };
        let x = ops::conv2d(pass.tape, features, &weight, Some(bias), &options)?;
        pass.show(self.aerial_head[0], 1, &x);
        Ok(x)
    }

    /// Scores of level `k` for the bins of [`CcvpeSpec::stack_bins`].
    fn stack(
        &self,
        tape: &mut Tape,
        aerial: &Tensor,
        ground: &Tensor,
        k: usize,
        lists: Option<&Tensor>,
    ) -> KernelResult<Tensor> {
        let shift = self.spec.levels[k].shift as isize;
        let bins = self.spec.stack_bins(k);
        let offset = self.spec.window_offset(k);
        let Some(lists) = lists else {
            let shifts: Vec<isize> = bins.iter().map(|bin| bin * shift).collect();
            return ops::rolled_matching(tape, aerial, ground, &shifts, offset);
        };
        // Each sample's window starts at a bin of its own, so all bins are scored and each sample
        // reads the ones that are north-aligned for it.
        let all = self.spec.orientation_bins as isize;
        let shifts: Vec<isize> = (0..all).map(|bin| bin * shift).collect();
        let scores = ops::rolled_matching(tape, aerial, ground, &shifts, offset)?;
        ops::gather_channels_by(tape, &scores, lists)
    }

    /// For each level, the channels of all scored bins that each sample reads.
    fn channel_lists(&self, left_bins: &[usize]) -> KernelResult<Vec<Tensor>> {
        if !self.spec.ground_left_bin || left_bins.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.spec.orientation_bins;
        let channel = |bin: isize, left: usize| (bin + left as isize).rem_euclid(all as isize);
        let of_level = |k: usize| {
            let bins = self.spec.stack_bins(k);
            let list = |left: &usize| {
                let channels = bins.iter().map(|bin| channel(*bin, *left) as usize);
                channels.collect::<Vec<usize>>()
            };
            let lists: Vec<Vec<usize>> = left_bins.iter().map(list).collect();
            ops::channel_lists(&lists, all)
        };
        (0..self.spec.levels.len()).map(of_level).collect()
    }
}

pub(super) fn pointwise() -> Conv2d {
    Conv2d {
        stride: 1,
        padding: [0; 4],
        rows: Pad::Zero,
        columns: Pad::Zero,
        groups: 1,
    }
}

impl CrossViewModel for Ccvpe {
    fn describe(&self) -> &ModelSpec {
        &self.description
    }

    fn table(&self) -> NetworkSpec {
        NetworkSpec::Ccvpe(self.spec.clone())
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn forward(
        &mut self,
        tape: &mut Tape,
        input: &Input,
        options: ForwardOptions,
    ) -> Result<Prediction, ModelError> {
        input.check(&self.spec)?;
        let device = self.parameters.device();
        let bins = &input.ground_left_bin;
        let pass_inputs =
            self.pass_inputs(input.len(), bins, options.drop_connect, options.share)?;
        let pass_inputs = pass_inputs.to(&device)?;
        let images = input.normalised(&device, &NORMALISATION, !self.spec.ground_left_bin)?;
        let (batch_norm, extent) = (options.batch_norm, options.extent);
        self.pass(tape, &images, &pass_inputs, batch_norm, extent, None)
    }

    fn loss(
        &self,
        tape: &mut Tape,
        prediction: &Prediction,
        targets: &[PoseTarget],
        config: &LossConfig,
    ) -> Result<Loss, ModelError> {
        loss(tape, &self.spec, prediction, targets, config)
    }

    fn boxed_clone(&self) -> Box<dyn CrossViewModel> {
        Box::new(self.clone())
    }

    fn view_descriptors(
        &mut self,
        input: &Input,
        places_m: &[[f64; 2]],
    ) -> Result<Option<Vec<ViewDescriptors>>, ModelError> {
        self.first_level(input, places_m).map(Some)
    }

    fn searching_near(&self, bins: usize) -> Option<Box<dyn CrossViewModel>> {
        let mut near = self.clone();
        near.spec.orientation_prior = Some(bins.min(self.spec.orientation_bins / 2));
        near.description = near.spec.describe();
        Some(Box::new(near))
    }

    #[expect(private_interfaces, reason = "for the training loop alone")]
    fn recordable(&mut self) -> Option<&mut dyn Recordable> {
        Some(self)
    }
}

/// A batch of image pairs whose pixels are normalised already.
#[derive(Debug, Clone)]
pub struct NormalisedInput {
    /// `[N, 3, rows, columns]`.
    pub ground: Tensor,
    /// `[N, 3, side, side]`, north up.
    pub aerial: Tensor,
    /// As [`Input::ground_left_bin`].
    pub ground_left_bin: Vec<usize>,
}

impl Ccvpe {
    /// As [`CrossViewModel::forward`] on images whose pixels are normalised already; `watch` sees
    /// the layers' outputs as they are made. For comparisons with other implementations.
    ///
    /// # Errors
    /// [`ModelError::Input`] or [`ModelError::Kernel`] when the images don't fit.
    pub fn forward_normalised(
        &mut self,
        tape: &mut Tape,
        input: &NormalisedInput,
        options: ForwardOptions,
        watch: Option<Watch>,
    ) -> Result<Prediction, ModelError> {
        let spec = &self.spec;
        let [samples, ..] = input.ground.dims4("forward", "ground images")?;
        let ground = [samples, 3, spec.ground_rows, spec.ground_columns];
        let aerial = [samples, 3, spec.aerial_px, spec.aerial_px];
        let (op, what) = ("forward", ["ground images", "aerial images"]);
        input.ground.expect_shape(op, what[0], &ground)?;
        input.aerial.expect_shape(op, what[1], &aerial)?;
        check_left_bins(spec, &input.ground_left_bin, samples)?;
        let device = self.parameters.device();
        let pass_inputs = self.pass_inputs(
            samples,
            &input.ground_left_bin,
            options.drop_connect,
            options.share,
        )?;
        let pass_inputs = pass_inputs.to(&device)?;
        let images = [input.ground.to(&device)?, input.aerial.to(&device)?];
        let (batch_norm, extent) = (options.batch_norm, options.extent);
        self.pass(tape, &images, &pass_inputs, batch_norm, extent, watch)
    }

    /// What a pass over so many samples takes besides their images: on the host.
    pub(super) fn pass_inputs(
        &self,
        samples: usize,
        ground_left_bin: &[usize],
        drop_connect: Option<&mut ChaCha8Rng>,
        share: Share,
    ) -> Result<PassInputs, ModelError> {
        let draw = |rng: &mut ChaCha8Rng| {
            let encoders = [&self.ground_encoder, &self.aerial_encoder];
            let factors = encoders.map(|encoder| encoder.draw_drop_connect(rng, samples, share));
            let [ground, aerial] = factors;
            Ok::<_, ModelError>([ground?, aerial?].concat())
        };
        Ok(PassInputs {
            drop_connect: drop_connect.map(draw).transpose()?,
            channel_lists: self.channel_lists(ground_left_bin)?,
        })
    }

    /// A pass over normalised ground and aerial images and what [`Ccvpe::given`] made, all moved to
    /// where the parameters are.
    pub(super) fn pass(
        &mut self,
        tape: &mut Tape,
        images: &[Tensor; 2],
        pass_inputs: &PassInputs,
        batch_norm: BatchNormMode,
        extent: Extent,
        watch: Option<Watch>,
    ) -> Result<Prediction, ModelError> {
        // Taken out for the pass, so that layers and numbers can be borrowed side by side.
        let mut parameters = std::mem::take(&mut self.parameters);
        let mut pass = Pass {
            tape,
            parameters: &mut parameters,
            batch_norm,
            drop_connect: pass_inputs
                .drop_connect
                .as_ref()
                .map(|factors| factors.iter()),
            // A shorter life, to go with the pass's.
            watch: watch.map(|watch| -> Watch { watch }),
        };
        let result = self.run(&mut pass, images, pass_inputs, extent);
        self.parameters = parameters;
        Ok(result?)
    }

    fn run(
        &self,
        pass: &mut Pass,
        [ground, aerial]: &[Tensor; 2],
        pass_inputs: &PassInputs,
        extent: Extent,
    ) -> KernelResult<Prediction> {
        let (ground, _) = self.ground_encoder.forward(pass, ground)?;
        let (aerial, skips) = self.aerial_encoder.forward(pass, aerial)?;
        let first = self.descriptor_map(pass, &aerial)?;
        let searched = self.spec.searched_channels();
        let wanted = match extent {
            Extent::Levels(levels) => levels.clamp(1, self.spec.levels.len()),
            Extent::Location | Extent::Everything => self.spec.levels.len(),
        };
        let mut levels = Vec::with_capacity(wanted);
        let mut x = first.clone();
        for k in 0..wanted {
            let descriptor = self.descriptors(pass, &ground, k)?;
            let stack = self.stack(
                pass.tape,
                &x,
                &descriptor,
                k,
                pass_inputs.channel_lists.get(k),
            )?;
            levels.push(stack.clone());
            if k + 1 == wanted && matches!(extent, Extent::Levels(_)) {
                break;
            }
            let allowed = if k == 0 && self.spec.orientation_prior.is_some() {
                ops::select_channels(pass.tape, &stack, &searched)?
            } else {
                stack
            };
            let matching = ops::max_channels(pass.tape, &allowed)?;
            let unit = ops::l2_normalise(pass.tape, &x, L2_EPSILON)?;
            let joined = ops::concat_channels(pass.tape, &[&matching, &unit])?;
            x = self.location[k].forward(pass, &joined, &skips)?;
        }
        let mut logits = None;
        let mut orientation = None;
        let mut orientation_vectors = None;
        if !matches!(extent, Extent::Levels(_)) {
            let side = self.spec.heatmap_side();
            logits = Some(ops::reshape(pass.tape, &x, &[x.shape()[0], side * side])?);
        }
        if matches!(extent, Extent::Everything) {
            let unit = ops::l2_normalise(pass.tape, &first, L2_EPSILON)?;
            let mut y = ops::concat_channels(pass.tape, &[&levels[0], &unit])?;
            for step in &self.orientation {
                y = step.forward(pass, &y, &skips)?;
            }
            orientation = Some(ops::l2_normalise(pass.tape, &y, L2_EPSILON)?);
            orientation_vectors = Some(y);
        }
        Ok(Prediction {
            levels,
            logits,
            orientation,
            orientation_vectors,
            poses: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::presets::preset;
    use super::*;

    /// The numbers of the state dict less the two unused classifiers.
    #[test]
    fn published_networks_have_the_published_number_of_parameters() {
        for (name, count) in [
            ("ccvpe-vigor", 54_834_803),
            ("ccvpe-vigor-prior72", 54_834_803),
            ("ccvpe-vigor-fov180-reflect", 54_834_803),
            ("ccvpe-kitti", 57_854_657),
            ("ccvpe-oxford", 54_754_064),
        ] {
            let model = Ccvpe::new(preset(name).unwrap(), 0).unwrap();
            assert_eq!(model.parameters.count(), count, "{name}");
            // 524 trainable tensors less four of the classifiers, 98 batch norms.
            assert_eq!(model.parameters.all().len(), 520, "{name}");
            assert_eq!(model.parameters.all_statistics().len(), 98, "{name}");
        }
    }

    #[test]
    fn compact_networks_are_small() {
        for name in ["compact", "compact-front"] {
            let model = Ccvpe::new(preset(name).unwrap(), 0).unwrap();
            assert!(
                (300_000..500_000).contains(&model.parameters.count()),
                "{name}: {}",
                model.parameters.count()
            );
        }
    }
}
