//! Is a student better than its teacher? On drives that it did not learn, against the places that
//! their frames agreed on.

use super::{Finding, Gate};
use crate::data::{Dataset, Drive, Subset};
use crate::model::CrossViewModel;
use crate::predict::PredictError;
use crate::recipe::headings::predict_near;
use crate::recipe::{AdaptError, Evidence, Found, PseudoLabel};
use crate::run::RunContext;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Errors beyond this count as this, metres: one lost frame shall not decide.
const MOST_M: f64 = 25.0;

/// Drives of fewer frames judge no student.
pub const LEAST_FRAMES: usize = 10;

/// Samples of the drives that a student is judged on: a seeded share of the drives, at least one, each of
/// [`LEAST_FRAMES`] or more. None where frames stand alone or too few drives would be left.
pub fn held_out(pairs: &dyn Dataset, found: &Found, gate: &Gate, seed: u64) -> Vec<usize> {
    let alone = found.evidence.as_ref().is_none_or(Evidence::stands_alone);
    let mut drives: Vec<Drive> = pairs.drives();
    drives.retain(|drive| drive.samples.len() >= LEAST_FRAMES);
    if gate.held_out <= 0.0 || alone || drives.len() < 3 {
        return Vec::new();
    }
    let count = (gate.held_out * drives.len() as f64).round().max(1.0) as usize;
    drives.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    drives.truncate(count);
    drives.into_iter().flat_map(|drive| drive.samples).collect()
}

/// How far a student's modes are from the labels of held-out samples, as a share of how far its
/// teacher's are; by support. The labels lean towards the teacher that made them, so the student has
/// to be better than this says.
///
/// # Errors
/// [`AdaptError`] when a pair cannot be read, or on request.
pub fn student(
    student: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    labels: &[PseudoLabel],
    held_out: &[usize],
    gate: &Gate,
    run: &RunContext,
) -> Result<Finding, AdaptError> {
    let subset = Subset {
        dataset: pairs,
        samples: held_out,
    };
    let keep = |_: &_, prediction, _: &[f32]| Ok(prediction);
    let predictions = predict_near(student, &subset, run.interrupt, keep);
    let predictions = predictions.map_err(|error: PredictError| AdaptError::from(error))?;
    let (mut mine, mut teachers, mut weight) = (0.0, 0.0, 0.0);
    for (index, prediction) in held_out.iter().zip(&predictions) {
        let label = &labels[*index];
        let off = |[east, north]: [f64; 2]| {
            let off = (east - label.offset_m[0]).hypot(north - label.offset_m[1]);
            label.support * off.min(MOST_M)
        };
        mine += off(prediction.peak_m);
        teachers += off(label.peak_m);
        weight += label.support;
    }
    let (mine, teachers) = (mine / weight.max(1e-9), teachers / weight.max(1e-9));
    let value = mine / teachers.max(1e-9);
    let refuses = !(value <= gate.most_of_teacher);
    let remedy = if refuses {
        "; the student is not better than its teacher: drive on with the teacher"
    } else {
        ""
    };
    Ok(Finding {
        check: "student".into(),
        value,
        limit: gate.most_of_teacher,
        refuses,
        what: format!(
            "on {} held-out frames the student is {mine:.2} m from what their drives agree on, its teacher {teachers:.2} m{remedy}",
            held_out.len()
        ),
    })
}
