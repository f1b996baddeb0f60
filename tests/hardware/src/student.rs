//! A student that can be made to lie.

use crate::scenario::{Aerial, Heatmap as Lie};
use crossfix_calibration::{Heatmap, PatchKey, RgbImage};
use crossfix_onboard::card::StudentCard;
use crossfix_onboard::matcher::{GroundStrip, MatchError, MatchResult, Matcher, TractMatcher};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What the student and the tiles do now; shared with who drives the core.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lies {
    /// Of the student.
    pub heatmap: Option<Lie>,
    /// Of the tiles.
    pub aerial: Option<Aerial>,
}

/// The exported student and its lies.
pub struct LyingStudent {
    honest: TractMatcher,
    /// The same student for other tiles: it remembers patches by their place.
    deceived: TractMatcher,
    lies: Arc<Mutex<Lies>>,
    rng: ChaCha8Rng,
}

impl LyingStudent {
    /// Loads the student.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn load(path: &Path, lies: Arc<Mutex<Lies>>) -> Result<Self, MatchError> {
        Ok(Self {
            honest: TractMatcher::load(path)?,
            deceived: TractMatcher::load(path)?,
            lies,
            rng: ChaCha8Rng::seed_from_u64(7),
        })
    }
}

impl Matcher for LyingStudent {
    fn card(&self) -> &StudentCard {
        self.honest.card()
    }

    fn match_frame(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
    ) -> Result<MatchResult, MatchError> {
        let lies = *self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        let columns = (10.0 / self.card().aerial.metres_per_pixel) as usize;
        let mut result = match lies.aerial {
            None => self.honest.match_frame(strip, key, patch)?,
            Some(aerial) => {
                let other = match aerial {
                    Aerial::Black => RgbImage::black(patch.width, patch.height),
                    Aerial::Shifted => shifted(patch, columns),
                };
                self.deceived.match_frame(strip, key, &other)?
            }
        };
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
        result.heatmap = lie.map_err(|error| MatchError::Run(error.to_string()))?;
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
