//! The whole state of a run in one file, so that it resumes to the same bits.

use super::TrainError;
use super::average::Average;
use crate::model::weights::{Arrays, arrays_from, fill, read_arrays, write_arrays};
use crate::model::{CrossViewModel, ModelError};
use crossfix_kernels::Tensor;
use crossfix_kernels::optim::{Adam, AdamState, Moments};
use serde_json::json;
use std::path::Path;

/// Where a run is, besides its network and optimiser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// Hash of the settings, the seed and the examples.
    pub run_sha256: String,
}

const FIRST: &str = "adam.first/";
const SECOND: &str = "adam.second/";
const AVERAGE: &str = "average/";

impl Checkpoint {
    /// Writes network, optimiser, averaged weights and place.
    ///
    /// # Errors
    /// [`ModelError::Weights`] when the file cannot be written.
    pub(super) fn save(
        &self,
        path: &Path,
        model: &dyn CrossViewModel,
        adam: &Adam,
        average: Option<&Average>,
    ) -> Result<(), ModelError> {
        let mut arrays = arrays_from(model)?;
        let mut steps = serde_json::Map::new();
        for (parameter, moments) in model.parameters().all().iter().zip(&adam.state.moments) {
            let Some(moments) = moments else { continue };
            let name = &parameter.name;
            let shape = parameter.value.shape().to_vec();
            for (prefix, moment) in [(FIRST, &moments.first), (SECOND, &moments.second)] {
                let values = moment.to_vec()?;
                arrays.insert(format!("{prefix}{name}"), (shape.clone(), values));
            }
            steps.insert(name.clone(), moments.step.into());
        }
        for (name, array) in average.iter().flat_map(|average| &average.arrays) {
            arrays.insert(format!("{AVERAGE}{name}"), array.clone());
        }
        let text = json!({
            "checkpoint": { "step": self.step, "run_sha256": self.run_sha256, "adam_steps": steps },
        });
        write_arrays(path, &arrays, &text)
    }

    /// Reads what [`Checkpoint::save`] wrote into `model`, `adam` and `average`.
    ///
    /// # Errors
    /// [`TrainError::Resume`] when it belongs to another run, [`ModelError::Weights`] when it is
    /// damaged.
    pub(super) fn load(
        path: &Path,
        run_sha256: &str,
        model: &mut dyn CrossViewModel,
        adam: &mut Adam,
        average: Option<&mut Average>,
    ) -> Result<Self, TrainError> {
        let refuse = |what: &str| TrainError::Resume {
            path: path.display().to_string(),
            what: what.into(),
        };
        let (arrays, text) = read_arrays(path)?;
        let place = &text["checkpoint"];
        let (Some(step), Some(run)) = (place["step"].as_u64(), place["run_sha256"].as_str()) else {
            return Err(refuse("it is a network, not a checkpoint of a run"));
        };
        if run != run_sha256 {
            return Err(refuse(
                "settings, seed or dataset changed since; give the same ones, or start anew in another --out",
            ));
        }
        let (averaged, arrays): (Arrays, Arrays) = arrays
            .into_iter()
            .partition(|(name, _)| name.starts_with(AVERAGE));
        let is_moment = |name: &String| name.starts_with(FIRST) || name.starts_with(SECOND);
        let (mut moments, weights): (Arrays, Arrays) =
            arrays.into_iter().partition(|(name, _)| is_moment(name));
        if let Some(average) = average {
            let plain = |(name, array): (String, _)| (name.replacen(AVERAGE, "", 1), array);
            average.arrays = averaged.into_iter().map(plain).collect();
            let fits = average.arrays.len() == weights.len()
                && weights.iter().all(|(name, (shape, _))| {
                    (average.arrays.get(name)).is_some_and(|(found, _)| found == shape)
                });
            if !fits && step > 0 {
                return Err(refuse("the averaged weights are damaged"));
            }
        }
        fill(model, weights, path)?;
        let mut state = Vec::new();
        for parameter in model.parameters().all() {
            let name = &parameter.name;
            let step = place["adam_steps"][name].as_u64();
            let first = moments.remove(&format!("{FIRST}{name}"));
            let second = moments.remove(&format!("{SECOND}{name}"));
            state.push(match (step, first, second) {
                (None, None, None) => None,
                (Some(step), Some((_, first)), Some((_, second)))
                    if first.len() == parameter.value.len() && second.len() == first.len() =>
                {
                    let device = parameter.value.device();
                    let moment = |values| {
                        let host = Tensor::new(values, parameter.value.shape())?;
                        host.to(&device)
                    };
                    Some(Moments {
                        step,
                        first: moment(first).map_err(ModelError::from)?,
                        second: moment(second).map_err(ModelError::from)?,
                    })
                }
                _ => return Err(refuse(&format!("the optimiser state of {name} is damaged"))),
            });
        }
        adam.state = AdamState { moments: state };
        Ok(Self {
            step,
            run_sha256: run_sha256.into(),
        })
    }
}
