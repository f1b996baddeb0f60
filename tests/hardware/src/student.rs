//! A student that can be made to lie.

use crate::scenario::{Aerial, Heatmap as Lie};
use crossfix_calibration::{Heatmap, PatchKey, RgbImage};
use crossfix_onboard::card::StudentCard;
use crossfix_onboard::matcher::{
    GroundStrip, Inside, MatchError, MatchResult, Matcher, TractMatcher,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What students have answered, by all that the answer depends on: most scenarios look at the same pictures in the
/// same places.
static ANSWERS: LazyLock<Mutex<HashMap<u64, MatchResult>>> = LazyLock::new(Mutex::default);
/// More answers than this are not remembered: some 16 KB each.
const MOST_ANSWERS: usize = 30_000;

/// What the student and the tiles do now; shared with who drives the core.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lies {
    /// Of the student.
    pub heatmap: Option<Lie>,
    /// Of the tiles.
    pub aerial: Option<Aerial>,
}

/// Students that no run uses now, by their file: loading one takes as long as half a drive.
static LOADED: LazyLock<Mutex<HashMap<PathBuf, Vec<TractMatcher>>>> = LazyLock::new(Mutex::default);

/// The exported student and its lies.
pub struct LyingStudent {
    path: PathBuf,
    honest: Option<TractMatcher>,
    /// The same student for other tiles: it remembers patches by their place.
    deceived: Option<TractMatcher>,
    card: StudentCard,
    lies: Arc<Mutex<Lies>>,
    rng: ChaCha8Rng,
}

impl LyingStudent {
    /// Loads the student.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn load(path: &Path, lies: Arc<Mutex<Lies>>) -> Result<Self, MatchError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = loaded.get_mut(path).and_then(Vec::pop);
        drop(loaded);
        let honest = kept.map_or_else(|| TractMatcher::load(path), Ok)?;
        Ok(Self {
            path: path.to_owned(),
            card: honest.card().clone(),
            honest: Some(honest),
            deceived: None,
            lies,
            rng: ChaCha8Rng::seed_from_u64(7),
        })
    }

    /// The student, for the tiles as they are or for others.
    fn student(&mut self, is_deceived: bool) -> Result<&mut TractMatcher, MatchError> {
        let student = if is_deceived {
            &mut self.deceived
        } else {
            &mut self.honest
        };
        if student.is_none() {
            *student = Some(TractMatcher::load(&self.path)?);
        }
        student
            .as_mut()
            .ok_or_else(|| MatchError::Run("no student".into()))
    }
}

impl Drop for LyingStudent {
    fn drop(&mut self) {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = loaded.entry(self.path.clone()).or_default();
        kept.extend(self.honest.take());
    }
}

impl Matcher for LyingStudent {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn match_frame(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
    ) -> Result<MatchResult, MatchError> {
        self.answer(strip, key, patch, None)
    }

    fn match_inside(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
        inside: Inside,
    ) -> Result<MatchResult, MatchError> {
        self.answer(strip, key, patch, Some(inside))
    }
}

impl LyingStudent {
    fn answer(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
        inside: Option<Inside>,
    ) -> Result<MatchResult, MatchError> {
        let lies = *self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        let columns = (10.0 / self.card().aerial.metres_per_pixel) as usize;
        let mut hasher = DefaultHasher::new();
        (&strip.image.data, strip.left_azimuth_rad.to_bits()).hash(&mut hasher);
        (key, &patch.data, lies.aerial, &self.path).hash(&mut hasher);
        let circle = inside.map(|inside| {
            let [east, north] = inside.offset_m;
            [east, north, inside.radius_m].map(f64::to_bits)
        });
        circle.hash(&mut hasher);
        let question = hasher.finish();
        let answers = || ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers().get(&question).cloned();
        let ask = |student: &mut TractMatcher, patch: &RgbImage| match inside {
            Some(inside) => student.match_inside(strip, key, patch, inside),
            None => student.match_frame(strip, key, patch),
        };
        let mut result = match (known, lies.aerial) {
            (Some(result), _) => result,
            (None, None) => ask(self.student(false)?, patch)?,
            (None, Some(aerial)) => {
                let other = match aerial {
                    Aerial::Black => RgbImage::black(patch.width, patch.height),
                    Aerial::Shifted => shifted(patch, columns),
                };
                ask(self.student(true)?, &other)?
            }
        };
        if answers().len() < MOST_ANSWERS {
            answers().insert(question, result.clone());
        }
        let heatmap = &result.heatmap;
        let (side, cell_m) = (heatmap.side(), heatmap.metres_per_cell());
        let reach_m = 0.4 * side as f64 * cell_m;
        let sure_of = |place: [f64; 2]| Heatmap::gaussian(side, cell_m, place, 1.5);
        let lie = match lies.heatmap {
            None => return Ok(result),
            Some(Lie::Error) => return Err(MatchError::Run("made to fail".into())),
            Some(Lie::Shifted) => {
                let [east, north] = heatmap.mode().offset_m;
                sure_of([(east + 15.0).min(reach_m), north])
            }
            Some(Lie::FixedPlace) => sure_of([12.0, -9.0]),
            Some(Lie::Random) => {
                let mut axis = || self.rng.random_range(-reach_m..reach_m);
                sure_of([axis(), axis()])
            }
            Some(Lie::Flat) => Heatmap::new(side, cell_m, vec![1.0; side * side]),
        };
        let mut lie = lie.map_err(|error| MatchError::Run(error.to_string()))?;
        if let Some(part) = result.part {
            // It knows nothing of what it does not look at; all inside is alike where all is unlikely.
            let cells = part
                .rows(side)
                .flat_map(|row| lie.probabilities()[row].to_vec());
            let cells: Vec<f32> = cells.map(|p| p + 1e-12).collect();
            let sum: f32 = cells.iter().sum();
            let cells: Vec<f32> = cells.iter().map(|p| p / sum).collect();
            lie = Heatmap::of_part(side, cell_m, part, &cells)
                .map_err(|error| MatchError::Run(error.to_string()))?;
        }
        result.heatmap = lie;
        Ok(result)
    }
}

/// The ground `columns` further east; its western edge repeats.
fn shifted(patch: &RgbImage, columns: usize) -> RgbImage {
    let mut moved = patch.clone();
    for row in 0..patch.height {
        for column in 0..patch.width {
            let from = (row * patch.width + column.saturating_sub(columns)) * 3;
            let to = (row * patch.width + column) * 3;
            moved.data[to..to + 3].copy_from_slice(&patch.data[from..from + 3]);
        }
    }
    moved
}
