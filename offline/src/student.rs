//! A network from a file, run over pairs: weights through the training engine, an exported student
//! through the daemon's matcher.

use crate::data::loader::{Workers, ahead};
use crate::data::{Dataset, Pair, Sample};
use crate::export::{self, ExportError};
use crate::model::weights::{self, Header};
use crate::model::{CrossViewModel, ModelError, ModelSpec, named};
use crate::predict::{PairPrediction, PredictError, from_heatmap, predict_with};
use crate::run::Interrupt;
use crossfix_calibration::{Heatmap, PatchGeoreference, PatchSpec};
use crossfix_onboard::card::StudentCard;
use crossfix_onboard::matcher::{GroundStrip, MatchError, Matcher, TractMatcher};
use std::f64::consts::PI;
use std::fmt::Display;
use std::path::Path;

/// A network that was read from a file.
pub enum Student {
    /// Weights (`.safetensors`).
    Weights {
        /// The network.
        model: Box<dyn CrossViewModel>,
        /// What its file says of it.
        header: Header,
    },
    /// An exported student (`.onnx`), which runs as on the vehicle.
    Exported {
        /// The daemon's own matcher.
        matcher: Box<TractMatcher>,
        /// What the card amounts to.
        spec: ModelSpec,
    },
}

/// Why a file is no student that runs here.
#[derive(Debug, thiserror::Error)]
pub enum StudentError {
    /// Weights that cannot be used.
    #[error(transparent)]
    Weights(#[from] ModelError),
    /// An exported student that cannot be used.
    #[error(transparent)]
    Exported(#[from] MatchError),
    /// An exported student whose card does not describe the preset that it names.
    #[error("\"{path}\": {source}")]
    Card {
        /// The file.
        path: String,
        /// The field that differs.
        source: ExportError,
    },
    /// An exported student of a network that this program does not have.
    #[error(
        "\"{path}\" is of a network {preset:?}, and this program has none of that name; update it"
    )]
    Preset {
        /// The file.
        path: String,
        /// The name on the card.
        preset: String,
    },
    /// An exported student whose pictures no dataset of pairs holds.
    #[error(
        "\"{path}\" sees pinhole pictures, and pairs are prepared as strips; drive with it (crossfixd replay)"
    )]
    Pinhole {
        /// The file.
        path: String,
    },
}

impl Student {
    /// Reads a student: `.onnx` as exported, anything else as weights.
    ///
    /// # Errors
    /// [`StudentError`] with the file and what to do.
    pub fn load(path: &Path) -> Result<Self, StudentError> {
        if path.extension().is_none_or(|name| name != "onnx") {
            let (model, header) = weights::load(path)?;
            return Ok(Self::Weights { model, header });
        }
        let matcher = Box::new(TractMatcher::load(path)?);
        let path = path.display().to_string();
        if matcher.card().ground.camera.is_some() {
            return Err(StudentError::Pinhole { path });
        }
        let preset = matcher.card().preset.clone();
        let Some(network) = named(&preset) else {
            return Err(StudentError::Preset { path, preset });
        };
        let spec = network.describe();
        match export::agree(matcher.card(), &spec) {
            Ok(()) => Ok(Self::Exported { matcher, spec }),
            Err(source) => Err(StudentError::Card { path, source }),
        }
    }

    /// What its inputs and outputs are.
    pub fn spec(&self) -> &ModelSpec {
        match self {
            Self::Weights { model, .. } => model.describe(),
            Self::Exported { spec, .. } => spec,
        }
    }

    /// The network of weights; an exported student has none.
    pub fn weights(&self) -> Option<&dyn CrossViewModel> {
        match self {
            Self::Weights { model, .. } => Some(model.as_ref()),
            Self::Exported { .. } => None,
        }
    }

    /// The card of an exported student; weights have none.
    pub fn card(&self) -> Option<&StudentCard> {
        match self {
            Self::Weights { .. } => None,
            Self::Exported { matcher, .. } => Some(matcher.card()),
        }
    }

    /// Runs it over the samples of a dataset that was opened for [`Self::spec`]. Pictures are read on
    /// the other cores meanwhile.
    ///
    /// # Errors
    /// [`PredictError`] when a sample cannot be read or does not fit the network, or on request.
    pub fn predict(
        &mut self,
        dataset: &dyn Dataset,
        interrupt: &Interrupt,
    ) -> Result<Vec<PairPrediction>, PredictError> {
        self.predict_with(dataset, interrupt, |_, prediction, _| Ok(prediction))
    }

    /// As [`Self::predict`], keeping of each prediction and its heatmap (row-major, row 0 north) what
    /// `keep` makes of them.
    ///
    /// # Errors
    /// As [`Self::predict`], and what `keep` returns.
    pub fn predict_with<T: Send>(
        &mut self,
        dataset: &dyn Dataset,
        interrupt: &Interrupt,
        keep: impl Fn(&Sample, PairPrediction, &[f32]) -> Result<T, PredictError> + Sync,
    ) -> Result<Vec<T>, PredictError> {
        match self {
            Self::Weights { model, .. } => predict_with(model.as_mut(), dataset, interrupt, keep),
            Self::Exported { matcher, spec } => {
                let read = |index: u64| dataset.pair(index as usize);
                let numbers = 0..dataset.len() as u64;
                let kept = ahead(numbers, Workers::default(), interrupt, read, |pairs| {
                    let kept = pairs.map(|pair| {
                        let pair = pair?;
                        let (prediction, heatmap) = match_pair(matcher, spec, &pair)?;
                        keep(&pair.sample, prediction, heatmap.probabilities())
                    });
                    kept.collect::<Result<Vec<T>, _>>()
                })?;
                if interrupt.asked() {
                    return Err(PredictError::Interrupted);
                }
                Ok(kept)
            }
        }
    }
}

/// One pair through the daemon's matcher.
fn match_pair(
    matcher: &mut TractMatcher,
    spec: &ModelSpec,
    pair: &Pair,
) -> Result<(PairPrediction, Heatmap), PredictError> {
    let failed = |error: &dyn Display| {
        let what = format!("pair {}: {error}", pair.sample.id);
        PredictError::Model(ModelError::Input(what))
    };
    let patch = PatchSpec {
        size_px: spec.aerial_px,
        metres_per_pixel: spec.metres_per_pixel,
    };
    let key = PatchGeoreference::exactly_at(pair.sample.centre, patch)
        .map_err(|error| failed(&error))?
        .key();
    let strip = GroundStrip {
        image: &pair.ground,
        left_azimuth_rad: pair.sample.left_bin as f64 * spec.bin_rad() - PI,
    };
    // Pairs have pictures of their own, and two of one place need not show the same.
    matcher.forget_patches();
    let found = matcher.match_frame(strip, key, &pair.aerial);
    let found = found.map_err(|error| failed(&error))?;
    let heatmap = found.heatmap.probabilities();
    let residual = |_| found.yaw_residual_rad;
    let prediction = from_heatmap(heatmap, residual, &pair.sample, spec, false);
    Ok((prediction, found.heatmap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ccvpe, preset};
    use crate::train::tests::noise_pairs;
    use serde_json::Value;

    #[test]
    fn weights_and_their_export_find_the_same_places_and_end_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
        let paths = ["student.safetensors", "student.onnx"].map(|name| folder.path().join(name));
        weights::save(&paths[0], &model, Value::Null).unwrap();
        let card = export::student_card(model.describe(), 1.0, "MIT");
        export::write_onnx(&model, card, &paths[1]).unwrap();
        let pairs = noise_pairs(3, "compact").into_iter();
        // An exported student takes strips that begin at south.
        let pairs = pairs.map(|(mut pair, _)| {
            pair.sample.left_bin = 0;
            pair
        });
        let pairs: Vec<_> = pairs.collect();
        let [weights, exported] = paths.map(|path| {
            let mut student = Student::load(&path).unwrap();
            assert_eq!(student.spec().preset, "compact");
            assert_eq!(
                student.card().is_some(),
                path.extension().unwrap() == "onnx"
            );
            student
                .predict_with(&pairs, &Interrupt::default(), |_, prediction, heatmap| {
                    Ok((prediction, heatmap.to_vec()))
                })
                .unwrap()
        });
        assert_eq!([weights.len(), exported.len()], [3, 3]);
        // All pairs are of one place, and each has an aerial picture of its own.
        for ((weights, heatmap), (exported, exported_heatmap)) in weights.iter().zip(&exported) {
            assert_eq!(heatmap.len(), 64 * 64);
            assert_eq!(weights.mode_cell, exported.mode_cell);
            let cells = heatmap.iter().zip(exported_heatmap);
            let worst = cells.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(f64::from(worst) < 1e-4 * weights.peak, "{worst}");
        }
        let mut student = Student::load(&folder.path().join("student.onnx")).unwrap();
        let stop = Interrupt::default();
        stop.ask();
        let stopped = student.predict(&pairs, &stop);
        assert!(matches!(stopped, Err(PredictError::Interrupted)));
    }

    #[test]
    fn a_file_that_is_no_student_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.onnx", "a.safetensors"] {
            let path = folder.path().join(name);
            let missing = Student::load(&path).err().unwrap().to_string();
            assert!(missing.contains(name), "{missing}");
            std::fs::write(&path, b"nothing of the kind").unwrap();
            let wrong = Student::load(&path).err().unwrap().to_string();
            assert!(wrong.contains(name), "{wrong}");
        }
    }
}
