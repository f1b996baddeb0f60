//! The trained network as one ONNX file that the daemon drives with.
//!
//! Pixel normalisation and the softmax temperature are inside the graph, and a card among its
//! metadata says what cannot be guessed from tensors. Begin with [`write_onnx`]; networks are
//! translated in `network` (CCVPE) and `ggcvt`, node by node with `graph`, and compared with
//! training in [`verify`].

mod card;
mod ggcvt;
mod graph;
mod instructions;
mod network;
pub mod verify;

pub use card::{agree, card_of, joint_licence, seen_by, student_card, with_camera, with_window};
pub use instructions::INSTRUCTIONS_KEY;
pub use verify::{Verification, verify_export, verify_window, write_parity};

use crate::calibrate::Calibration;
use crate::model::ggcvt::GgcvtCamera;
use crate::model::weights::{self, write_whole};
use crate::model::{
    Ccvpe, CrossViewModel, Ggcvt, GroundCamera, GroundProjection, Input, ModelError, ModelSpec,
};
use crate::recipe::HeatmapFit;
use crate::run::sha256_file;
use crate::storage::{Files, Paths, Role};
use anyhow::Context;
use crossfix_kernels::{Device, Pixels};
use crossfix_onboard::card::{CARD_KEY, CardError, LEFT_BIN_INPUT, StudentCard};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::any::Any;
use std::path::{Path, PathBuf};
use tract_onnx::pb::{ModelProto, OperatorSetIdProto, StringStringEntryProto};

/// File format of the ONNX standard that goes with [`OPSET`].
const IR_VERSION: i64 = 8;
/// Version of the ONNX operators.
const OPSET: i64 = 17;
/// An export that differs more from training is refused: in its heatmap, or in its orientation where
/// the heatmap's mode is.
const LARGEST_DIFFERENCE: f64 = 1e-3;

/// Why a network cannot be exported, or the export cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The network refused its input.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The card says something impossible.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The card describes another network.
    #[error(
        "the card's {what} is {card}, and the network's is {network}; make the card with student_card"
    )]
    Disagreement {
        /// Which field.
        what: &'static str,
        /// What the card says.
        card: f64,
        /// What is true.
        network: f64,
    },
    /// There is no translation of this kind of network.
    #[error("{preset} has no ONNX graph: {why}; --format pytorch writes its weights")]
    NoGraph {
        /// Its name.
        preset: String,
        /// What stands in the way.
        why: &'static str,
    },
    /// The file cannot be written or read.
    #[error("\"{}\": {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// tract cannot run the file.
    #[error("\"{}\" cannot be run: {what}", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        what: String,
    },
}

/// Writes `model` as ONNX, whole or not at all, and returns the card inside: `card` with the cut
/// points filled in.
///
/// # Shapes
/// One sample: inputs `ground` `[1, 3, rows, columns]` and `aerial` `[1, 3, side, side]`, RGB from
/// 0 to 255, and [`LEFT_BIN_INPUT`] for networks that see part of the turn; outputs `heatmap`
/// `[1, side, side]`, which sums to 1, and, where the network predicts an orientation, `orientation`
/// `[1, 2, side, side]`, unit vectors. A heading that a GGCVT finds is the same in all cells: cosine
/// and sine of how far it is clockwise from the aerial image's top.
///
/// # Errors
/// [`ExportError`] when the card describes another network, there is no graph for this one, or the
/// file cannot be written.
pub fn write_onnx(
    model: &dyn CrossViewModel,
    mut card: StudentCard,
    path: &Path,
) -> Result<StudentCard, ExportError> {
    agree(&card, model.describe())?;
    // Also the window: a graph is built for it.
    card.check_window()?;
    // The translation reads the numbers where they are.
    let mut host = None;
    if model.parameters().device() != Device::Cpu {
        let host = host.insert(model.boxed_clone()).parameters_mut();
        host.move_to(&Device::Cpu).map_err(ModelError::from)?;
    }
    let network = translate(host.as_deref().unwrap_or(model), &card)?;
    card.aerial_features = network.aerial_features;
    card.ground_descriptors = network.ground_descriptors;
    let words = instructions::instructions(&card);
    let proto = ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        producer_name: "crossfix".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(network.graph),
        doc_string: words.clone(),
        metadata_props: [(CARD_KEY, card.to_json()?), (INSTRUCTIONS_KEY, words)]
            .map(|(key, value)| StringStringEntryProto {
                key: key.into(),
                value,
            })
            .to_vec(),
        ..ModelProto::default()
    };
    write_whole(path, &proto.encode_to_vec()).map_err(|source| ExportError::File {
        path: path.into(),
        source,
    })?;
    Ok(card)
}

fn translate(
    model: &dyn CrossViewModel,
    card: &StudentCard,
) -> Result<network::Network, ExportError> {
    let no_graph = |why| ExportError::NoGraph {
        preset: model.describe().preset.clone(),
        why,
    };
    let any: &dyn Any = model;
    let pinhole = matches!(
        model.describe().camera,
        GroundCamera::CalibratedPinhole { .. }
    );
    if card.ground.camera.is_some() && !pinhole {
        return Err(no_graph(
            "it is given no camera matrix, and the card names one (--camera)",
        ));
    }
    if let Some(ccvpe) = any.downcast_ref::<Ccvpe>() {
        return Ok(network::network(ccvpe, card.temperature, card.window));
    }
    if card.window.is_some() {
        return Err(no_graph(
            "only the decoders of a CCVPE can run over a window (--window)",
        ));
    }
    let Some(model) = any.downcast_ref::<Ggcvt>() else {
        return Err(no_graph("this kind of network has no translation"));
    };
    if let GgcvtCamera::Panorama {
        top_deg, span_deg, ..
    } = model.spec().camera
    {
        // Where the graph looks for the ground is where the daemon's strip must show it.
        let strip = &card.ground;
        let height_deg = strip.fov_deg * strip.rows as f64 / strip.columns as f64;
        let top_deg = 90.0 - top_deg;
        for (what, card, network) in [
            ("ground.top_elevation_deg", strip.top_elevation_deg, top_deg),
            ("ground strip's height in degrees", height_deg, span_deg),
        ] {
            // Written so that NaN disagrees.
            if !((card - network).abs() <= 1e-6) {
                return Err(ExportError::Disagreement {
                    what,
                    card,
                    network,
                });
            }
        }
    }
    let network = ggcvt::network(model, card.temperature, card.ground.camera)?;
    network.ok_or_else(|| {
        no_graph(
            "where it looks depends on the camera matrix of the pictures; give one that they all \
             share (--camera FX,FY,CX,CY in pixels of the ground image)",
        )
    })
}

/// What `crossfix export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One ONNX file with a card, for `crossfixd`.
    Onnx,
    /// A `PyTorch` checkpoint (zip) that `torch.load(..., weights_only=True)` reads.
    Pytorch,
}

/// `crossfix export`: weights to an ONNX file with a card, or back to `PyTorch`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// Weights (.safetensors) that `train`, `adapt` or `import` wrote.
    #[arg(long)]
    pub weights: PathBuf,
    /// The file to write.
    #[arg(long)]
    pub out: PathBuf,
    /// What to write: a graph for vehicles, or a state dict under the published names.
    #[arg(long, value_enum, default_value_t = Format::Onnx)]
    pub format: Format,
    /// Licence of the weights, as an SPDX expression. Taken from the weights when they name one.
    #[arg(long)]
    pub licence: Option<String>,
    /// Softmax temperature of the heatmap. Taken from the weights when they name one; 1 otherwise.
    #[arg(long)]
    pub temperature: Option<f64>,
    /// File that `calibrate --out` wrote: temperature and share of heatmaps that mean nothing are taken from it.
    #[arg(long, value_name = "FILE", conflicts_with = "temperature")]
    pub calibration: Option<PathBuf>,
    /// Side of a part of the patch, in metres, over which a vehicle may run the decoders alone while it knows
    /// that it is inside: the same heatmap there, normalised, for less work. Of networks of the CCVPE family.
    #[arg(long, value_name = "METRES")]
    pub window: Option<f64>,
    /// For networks that see pinhole pictures with a camera matrix (ggcvt-kitti2, ggcvt-kitti3):
    /// focal lengths and centre of the camera in pixels of the ground image.
    #[arg(long, value_name = "FX,FY,CX,CY", value_parser = camera)]
    pub camera: Option<[f64; 4]>,
}

fn camera(text: &str) -> Result<[f64; 4], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let numbers = numbers.map_err(|error| format!("{error}; four numbers with commas"))?;
    let count = numbers.len();
    let camera = <[f64; 4]>::try_from(numbers).map_err(|_| format!("{count} numbers, not four"))?;
    if camera.iter().all(|value| value.is_finite()) && camera[0] > 0.0 && camera[1] > 0.0 {
        Ok(camera)
    } else {
        Err("numbers, of which the focal lengths are above 0".into())
    }
}

impl Files for ExportArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = vec![
            (Role::Input, &mut self.weights),
            (Role::File, &mut self.out),
        ];
        paths.extend(self.calibration.iter_mut().map(|path| (Role::Input, path)));
        paths
    }
}

/// Runs `crossfix export`: writes the file, then compares it with the training engine.
///
/// # Errors
/// When the weights cannot be read, no licence is known, the file cannot be written, or it gives
/// something else than the training engine.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let (model, header) = weights::load(&args.weights)?;
    if args.format == Format::Pytorch {
        let wrote = crate::import::write::write_state_dict(&args.out, model.as_ref());
        wrote.with_context(|| format!("cannot write \"{}\"", args.out.display()))?;
        crate::outln!("{}: a state dict for PyTorch", args.out.display());
        return Ok(());
    }
    let ccvpe = (model.as_ref() as &dyn Any).downcast_ref::<Ccvpe>();
    let driven =
        ccvpe.map(|ccvpe| -> Box<dyn CrossViewModel> { Box::new(ccvpe.clone().with_left_bin()) });
    let model = driven.unwrap_or(model);
    let mut card = card_of(
        model.describe(),
        &header.provenance,
        args.licence.as_deref(),
    )
    .with_context(|| format!("\"{}\"", args.weights.display()))?;
    if let Some(temperature) = args.temperature {
        card.temperature = temperature;
        card.calibration = Some(card::UNFITTED);
    }
    if let Some(path) = &args.calibration {
        let found = calibrated(path, &args.weights)?;
        card.temperature = found.temperature;
        card.calibration = Some(found.on_card());
    }
    if let Some(matrix) = args.camera {
        card = with_camera(card, matrix);
    }
    if let Some(side_m) = args.window {
        let patch_m = card.aerial.patch_spec().side_m();
        // Written so that NaN is outside.
        anyhow::ensure!(
            (0.1 * patch_m..0.9 * patch_m).contains(&side_m),
            "--window {side_m}: the patch is {patch_m:.0} m wide, and a window of it {:.0} to {:.0} m",
            0.1 * patch_m,
            0.9 * patch_m
        );
        card = with_window(card, side_m);
    }
    write_onnx(model.as_ref(), card, &args.out)?;
    let noise = noise_input(model.describe(), 2, 1)?;
    let found = verify_export(model.as_ref(), &args.out, &noise)?;
    let heatmap = found.max_relative_error_heatmap;
    let at_mode = found.max_error_orientation_at_mode;
    let vectors = found.max_relative_error_orientation_vectors;
    let worst = verify::largest(heatmap, at_mode);
    let mut worst = verify::largest(worst, vectors.unwrap_or(0.0));
    let orientation = vectors.map(|vectors| {
        format!(
            ", {at_mode:.1e} (orientation at its mode) and {vectors:.1e} (its vectors anywhere)"
        )
    });
    crate::outln!(
        "{}: differs from the training engine by {heatmap:.1e} (heatmap){}, relative",
        args.out.display(),
        orientation.unwrap_or_default()
    );
    if args.window.is_some() {
        let window = verify_window(&args.out, &noise)?;
        crate::outln!(
            "{}: its window differs from the whole heatmap by {window:.1e}, relative",
            args.out.display()
        );
        worst = verify::largest(worst, window);
    }
    anyhow::ensure!(
        worst <= LARGEST_DIFFERENCE,
        "\"{}\" differs from the training engine by {worst:.1e} relative, more than {LARGEST_DIFFERENCE:.0e}; don't drive with it",
        args.out.display()
    );
    Ok(())
}

/// What `calibrate --out` wrote of a network's heatmaps.
///
/// # Errors
/// When the file cannot be read, is of other weights, or says nothing of them.
pub(crate) fn calibrated(path: &Path, weights: &Path) -> anyhow::Result<HeatmapFit> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let found: Calibration = serde_json::from_str(&text)
        .with_context(|| format!("\"{}\" is not what calibrate writes", path.display()))?;
    let sha256 = sha256_file(weights).context("cannot read the weights")?;
    anyhow::ensure!(
        found.weights_sha256.as_ref() == Some(&sha256),
        "\"{}\" is of other weights than \"{}\"; run calibrate with these",
        path.display(),
        weights.display()
    );
    found.heatmaps.with_context(|| {
        format!(
            "\"{}\" says nothing of heatmaps: its drives did not tell; leave --calibration away",
            path.display()
        )
    })
}

/// Images of smooth noise, the same for the same seed, to try a network with.
///
/// # Errors
/// [`ModelError::Kernel`] for a table without images.
pub fn noise_input(spec: &ModelSpec, samples: usize, seed: u64) -> Result<Input, ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut image = |rows: usize, columns: usize| {
        let mut data = Vec::with_capacity(samples * 3 * rows * columns);
        for _ in 0..samples * 3 {
            let [row_waves, column_waves, phase] =
                [0.1, 0.1, 6.0].map(|most| rng.random_range(0.0..most));
            for at in 0..rows * columns {
                let angle = (at / columns) as f32 * row_waves
                    + (at % columns) as f32 * column_waves
                    + phase;
                let value = 127.0 + 90.0 * angle.sin() + rng.random_range(-37.0f32..37.0);
                data.push(value.round() as u8);
            }
        }
        Pixels::new(data, [samples, 3, rows, columns])
    };
    let (ground, aerial) = (
        image(spec.ground_rows, spec.ground_columns)?,
        image(spec.aerial_px, spec.aerial_px)?,
    );
    let projection = GroundProjection::Panorama {
        metres_per_pixel: spec.metres_per_pixel,
        turn_rad: 0.0,
    };
    let bins = if spec.ground_left_bin() { samples } else { 0 };
    Ok(Input {
        ground,
        aerial,
        augment: None,
        ground_left_bin: (0..bins)
            .map(|_| rng.random_range(0..spec.orientation_bins))
            .collect(),
        projections: vec![projection; samples],
    })
}
