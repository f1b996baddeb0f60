//! GGCVT as training and adaptation see it: scores are minus the distances, the heatmap is the
//! softmax of the finest ones.

use super::adaptation::label_losses_to;
use super::loss::{balanced, pose_error, sum, triplets_at};
use super::recordable::Targets;
use super::spec::{GgcvtCamera, GgcvtSpec};
use super::{Ggcvt, GgcvtOptions, GgcvtPrediction, GroundProjection, PassInputs};
use crate::model::loss::{Loss, LossConfig, LossTerms, PoseTarget, check_weights};
use crate::model::{
    CrossViewModel, Extent, ForwardOptions, Input, ModelError, ModelSpec, NetworkSpec, Parameters,
    Prediction, Recordable, ViewDescriptors,
};
use crossfix_calibration::Yaw;
use crossfix_kernels::ops::{self, Normalisation};
use crossfix_kernels::{Device, Result as KernelResult, Tape, Tensor};
use std::f64::consts::FRAC_PI_2;

/// Softmax temperature that turns scores into a heatmap; the slope of the published triplet loss.
pub(crate) const TEMPERATURE: f32 = 0.1;
/// Breaks ties of panorama columns that are whole numbers when a panorama is not turned.
pub(crate) const COLUMN_NUDGE: f32 = 1e-4;

impl CrossViewModel for Ggcvt {
    fn describe(&self) -> &ModelSpec {
        &self.description
    }

    fn table(&self) -> NetworkSpec {
        NetworkSpec::Ggcvt(self.spec.clone())
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
        let seed = Self::seed(options.drop_connect);
        let shapes = [input.ground.shape(), input.aerial.shape()];
        let drawn = (seed, options.share);
        let geometry = self.geometry([&shapes[0], &shapes[1]], &input.projections, drawn)?;
        let device = self.parameters.device();
        let wraps = !self.description.ground_left_bin();
        let [ground, aerial] = input.normalised(&device, &UNIT, wraps)?;
        let pass_inputs = PassInputs {
            ground,
            aerial,
            geometry: geometry.to(&device)?,
        };
        let levels = match options.extent {
            Extent::Levels(levels) => Some(levels),
            Extent::Location | Extent::Everything => None,
        };
        let mut prediction = self.scores(tape, &pass_inputs, levels)?;
        if let (Extent::Everything, Some(pose)) = (options.extent, prediction.poses.last()) {
            let field = heading_field(&self.spec, &self.description, pose)?;
            prediction.orientation = Some(field);
        }
        Ok(prediction)
    }

    fn loss(
        &self,
        tape: &mut Tape,
        prediction: &Prediction,
        targets: &[PoseTarget],
        config: &LossConfig,
    ) -> Result<Loss, ModelError> {
        check_weights(targets, config)?;
        let device = prediction.levels.first().map(Tensor::device);
        let targets = self.targets(targets, config, &device.unwrap_or(Device::Cpu))?;
        let terms = self.loss_terms(tape, prediction, &targets, config)?;
        Ok(terms.read()?)
    }

    fn boxed_clone(&self) -> Box<dyn CrossViewModel> {
        Box::new(self.clone())
    }

    fn view_descriptors(
        &mut self,
        input: &Input,
        places_m: &[[f64; 2]],
    ) -> Result<Option<Vec<ViewDescriptors>>, ModelError> {
        self.first_level(input, places_m)
    }

    #[expect(private_interfaces, reason = "for the training loop alone")]
    fn recordable(&mut self) -> Option<&mut dyn Recordable> {
        Some(self)
    }
}

impl Ggcvt {
    /// The scores of `levels` levels, or of all and the heatmap's logits. Reads no value.
    pub(super) fn scores(
        &mut self,
        tape: &mut Tape,
        pass_inputs: &PassInputs,
        levels: Option<usize>,
    ) -> Result<Prediction, ModelError> {
        let panorama = matches!(self.spec.camera, GgcvtCamera::Panorama { .. });
        let options = GgcvtOptions {
            column_nudge: if panorama { COLUMN_NUDGE } else { 0.0 },
            levels,
            ..GgcvtOptions::default()
        };
        let prediction = self.pass(tape, pass_inputs, options)?;
        let n = pass_inputs.ground.shape()[0];
        let mut scores = Vec::with_capacity(prediction.distances.len());
        for distances in &prediction.distances {
            let side = distances.shape()[1];
            let score = ops::scale(tape, distances, -1.0)?;
            scores.push(ops::reshape(tape, &score, &[n, 1, side, side])?);
        }
        let mut logits = None;
        if let (None, Some(finest)) = (levels, scores.last()) {
            let cells = finest.len() / n.max(1);
            let scaled = ops::scale(tape, finest, 1.0 / TEMPERATURE)?;
            logits = Some(ops::reshape(tape, &scaled, &[n, cells])?);
        }
        Ok(Prediction {
            levels: scores,
            logits,
            orientation: None,
            orientation_vectors: None,
            poses: prediction.poses,
        })
    }

    /// The loss against targets that lie beside the prediction. Reads no value.
    pub(super) fn loss_terms(
        &self,
        tape: &mut Tape,
        prediction: &Prediction,
        targets: &Targets,
        config: &LossConfig,
    ) -> Result<LossTerms, ModelError> {
        let found = distances(tape, prediction)?;
        let mut terms = Vec::new();
        let mut info_nce = Vec::new();
        if config.info_nce > 0.0 {
            let labels = self.label_loss(config);
            info_nce = label_losses_to(tape, &found, &targets.labels, &labels)?;
            let total = sum(tape, &info_nce)?;
            let share = config.info_nce / info_nce.len() as f32;
            terms.push(ops::scale(tape, &total, share)?);
        }
        let mut place = None;
        if config.triplet > 0.0 {
            let levels = triplets_at(tape, &found, &targets.places)?;
            let mut total = sum(tape, &levels)?;
            place = Some(total.clone());
            let truth = targets.poses.as_ref().filter(|_| !found.poses.is_empty());
            if let (Some([t, r]), Some(truth)) = (self.balance(), truth) {
                let error = pose_error(tape, &found.poses, truth)?;
                total = balanced(tape, [&total, &error], [t, r])?;
            }
            terms.push(ops::scale(tape, &total, config.triplet)?);
        }
        if config.entropy > 0.0 {
            let logits = prediction.logits.as_ref();
            let ended = || ModelError::Input("the pass ended before the heatmap".into());
            let entropy = ops::heatmap_entropy(tape, logits.ok_or_else(ended)?)?;
            terms.push(ops::scale(tape, &entropy, config.entropy)?);
        }
        if terms.is_empty() {
            let what = "a loss without any term; weigh info_nce, triplet or entropy";
            return Err(ModelError::Input(what.into()));
        }
        Ok(LossTerms {
            total: sum(tape, &terms)?,
            info_nce,
            triplet: place,
            heatmap: None,
            orientation: None,
        })
    }
}

/// Pixels 0 to 255 as 0 to 1.
pub(super) const UNIT: Normalisation = Normalisation {
    mean: [0.0; 3],
    sigma: [1.0; 3],
    bf16: false,
};

/// The distances that scores were made of.
fn distances(tape: &mut Tape, prediction: &Prediction) -> Result<GgcvtPrediction, ModelError> {
    let mut distances = Vec::with_capacity(prediction.levels.len());
    for scores in &prediction.levels {
        let [n, _, rows, columns] = scores.dims4("distances", "scores")?;
        let scores = ops::reshape(tape, scores, &[n, rows, columns])?;
        distances.push(ops::scale(tape, &scores, -1.0)?);
    }
    Ok(GgcvtPrediction {
        distances,
        poses: prediction.poses.clone(),
    })
}

/// Normalised poses (shift along the view, shift across it, heading) of cameras `offsets_px`
/// [down, right] of the aerial image's centre.
pub(super) fn true_poses(
    spec: &GgcvtSpec,
    offsets_px: &[[f64; 2]],
    targets: &[PoseTarget],
) -> KernelResult<Tensor> {
    let GgcvtCamera::Pinhole {
        metres_per_pixel,
        shift_range_m,
        heading_range_deg,
        ..
    } = spec.camera
    else {
        return Ok(Tensor::zeros(&[targets.len(), 3]));
    };
    let mut poses = Vec::with_capacity(3 * targets.len());
    for ([down, right], target) in offsets_px.iter().zip(targets) {
        let turn = turn_rad(target.residual_rad);
        let (sin, cos) = turn.sin_cos();
        let scale = metres_per_pixel / shift_range_m;
        let heading = if heading_range_deg > 0.0 {
            turn / heading_range_deg.to_radians()
        } else {
            0.0
        };
        let along = right * cos - down * sin;
        let across = -(right * sin + down * cos);
        poses.extend([along * scale, across * scale, heading].map(|value| value as f32));
    }
    Tensor::new(poses, &[targets.len(), 3])
}

/// How far an image's view is turned from the aerial image's right edge, counter-clockwise, for a
/// heading clockwise from its top.
pub(crate) fn turn_rad(heading_rad: f64) -> f64 {
    Yaw::new(FRAC_PI_2 - heading_rad).radians()
}

/// The found headings as a field of cosine and sine that is the same everywhere: clockwise from
/// the aerial image's top.
fn heading_field(
    spec: &GgcvtSpec,
    description: &ModelSpec,
    poses: &Tensor,
) -> KernelResult<Tensor> {
    let GgcvtCamera::Pinhole {
        heading_range_deg, ..
    } = spec.camera
    else {
        return Ok(Tensor::zeros(&[0]));
    };
    let side = description.heatmap.side;
    let values = poses.to_vec()?;
    let mut field = Vec::with_capacity(values.len() / 3 * 2 * side * side);
    for pose in values.chunks_exact(3) {
        let heading = FRAC_PI_2 - f64::from(pose[2]) * heading_range_deg.to_radians();
        for value in [heading.cos(), heading.sin()] {
            field.extend(std::iter::repeat_n(value as f32, side * side));
        }
    }
    Tensor::new(field, &[values.len() / 3, 2, side, side])
}

impl GroundProjection {
    /// The same without its heading, for networks that find it themselves.
    pub fn without_heading(self) -> Self {
        match self {
            Self::Panorama { .. } => self,
            Self::Pinhole { camera, .. } => Self::Pinhole {
                camera,
                heading: None,
            },
        }
    }
}
