//! How long labels that drives agree on take, and how much memory, beside the network's own passes.
//!
//! ```text
//! cargo bench -p crossfix-offline --bench consensus -- [FRAMES [FRAMES_A_DRIVE]]
//! ```
//!
//! A fleet of FRAMES frames (default 100,000) at the sizes of `compact`, every FRAMES_A_DRIVE (default
//! 200) a drive, goes through a network that answers at once: first through `predict` alone, which is
//! reading and what every labeller does, then through the labels of the recipe `consensus`. Prints the
//! seconds of both, their difference, and the peak memory of the process (`VmHWM`).

use anyhow::{Context, ensure};
use crossfix_calibration::{Enu, LocalFrame, RgbImage};
use crossfix_kernels::{Tape, Tensor};
use crossfix_offline::data::{Dataset, DatasetError, OdometryStep, Pair, Sample};
use crossfix_offline::model::loss::{Loss, LossConfig, PoseTarget};
use crossfix_offline::model::{
    CrossViewModel, ForwardOptions, GroundProjection, Input, ModelError, ModelSpec, NetworkSpec,
    Parameters, Prediction, named,
};
use crossfix_offline::predict::predict_with;
use crossfix_offline::recipe::Consensus;
use crossfix_offline::run::Interrupt;
use std::sync::Arc;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let mut number = |otherwise: usize| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (frames, in_drive) = (number(100_000)?, number(200)?);
    let table = named("compact").context("no preset compact")?;
    let fleet = Fleet::new(frames, in_drive, &table.describe())?;
    let never = Interrupt::default();
    println!("{:>5} MB at most before", peak_mb()?);
    let begun = Instant::now();
    let modes = predict_with(
        &mut AheadNetwork::new(&table)?,
        &fleet,
        &never,
        |_, one, _| Ok(one.peak_m),
    )?;
    let passes_s = begun.elapsed().as_secs_f64();
    println!(
        "{:>5} MB at most after predicting {} frames in {passes_s:.1} s",
        peak_mb()?,
        modes.len()
    );
    let begun = Instant::now();
    let found = Consensus::default().label(&mut AheadNetwork::new(&table)?, &fleet, &never)?;
    let labels_s = begun.elapsed().as_secs_f64();
    let evidence = found.evidence.context("drives leave evidence")?;
    ensure!(evidence.by_odometry > frames / 2, "{evidence:?}");
    println!("{}", evidence.describe());
    println!(
        "{:>5} MB at most after labelling in {labels_s:.1} s: {:.1} s beside the passes, {:.2} ms a frame",
        peak_mb()?,
        labels_s - passes_s,
        (labels_s - passes_s) * 1e3 / frames as f64
    );
    Ok(())
}

/// The largest resident size of this process so far.
fn peak_mb() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("VmHWM is read on Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024 / 1_000_000)
}

/// Drives northward, all pictures black.
struct Fleet {
    samples: Vec<Sample>,
    ground: RgbImage,
    aerial: RgbImage,
}

impl Fleet {
    fn new(frames: usize, in_drive: usize, spec: &ModelSpec) -> anyhow::Result<Self> {
        let projection = GroundProjection::Panorama {
            metres_per_pixel: spec.metres_per_pixel,
            turn_rad: 0.0,
        };
        let origin = crossfix_calibration::Geodetic::new(52.0, 4.0, 0.0)?;
        let origin = LocalFrame::new(origin);
        let sample = |index: usize| {
            let place = (index % in_drive) as f64 * 4.5;
            Sample {
                drive: format!("drive-{}", index / in_drive),
                time_ns: index as i64 * 500_000_000,
                centre: origin.geodetic_from_enu(Enu::new(0.0, place, 0.0)),
                coarse_covariance_m2: [[25.0, 0.0], [0.0, 25.0]],
                yaw_sigma_rad: 0.03,
                odometry: (!index.is_multiple_of(in_drive)).then_some(OdometryStep {
                    forward_m: 4.5,
                    left_m: 0.0,
                    yaw_rad: 0.0,
                }),
                ..Sample::unplaced(format!("{index}"), projection)
            }
        };
        Ok(Self {
            samples: (0..frames).map(sample).collect(),
            ground: RgbImage::black(spec.ground_columns, spec.ground_rows),
            aerial: RgbImage::black(spec.aerial_px, spec.aerial_px),
        })
    }
}

impl Dataset for Fleet {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        &self.samples[index]
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        Ok(Arc::new(Pair {
            sample: self.samples[index].clone(),
            ground: self.ground.clone(),
            aerial: self.aerial.clone(),
        }))
    }
}

/// A network that answers at once: a blob in the middle of the patch, as wide as a good network's.
struct AheadNetwork {
    table: NetworkSpec,
    spec: ModelSpec,
    parameters: Parameters,
    logits: Vec<f32>,
}

impl AheadNetwork {
    fn new(table: &NetworkSpec) -> anyhow::Result<Self> {
        let spec = table.describe();
        let side = spec.heatmap_side();
        let off = |at: usize| at as f32 + 0.5 - side as f32 / 2.0;
        let logit = |cell: usize| {
            let squared = off(cell % side).powi(2) + off(cell / side).powi(2);
            -0.5 * squared.min(60.0)
        };
        Ok(Self {
            table: table.clone(),
            parameters: table.build(1)?.parameters().clone(),
            logits: (0..side * side).map(logit).collect(),
            spec,
        })
    }
}

impl CrossViewModel for AheadNetwork {
    fn describe(&self) -> &ModelSpec {
        &self.spec
    }

    fn table(&self) -> NetworkSpec {
        self.table.clone()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn forward(
        &mut self,
        _: &mut Tape,
        input: &Input,
        _: ForwardOptions,
    ) -> Result<Prediction, ModelError> {
        let shape = [input.len(), self.logits.len()];
        Ok(Prediction {
            levels: Vec::new(),
            logits: Some(Tensor::new(self.logits.repeat(input.len()), &shape)?),
            orientation: None,
            orientation_vectors: None,
            poses: Vec::new(),
        })
    }

    fn loss(
        &self,
        _: &mut Tape,
        _: &Prediction,
        _: &[PoseTarget],
        _: &LossConfig,
    ) -> Result<Loss, ModelError> {
        Err(ModelError::Input("it does not learn".into()))
    }

    fn boxed_clone(&self) -> Box<dyn CrossViewModel> {
        Box::new(Self {
            table: self.table.clone(),
            spec: self.spec.clone(),
            parameters: self.parameters.clone(),
            logits: self.logits.clone(),
        })
    }
}
