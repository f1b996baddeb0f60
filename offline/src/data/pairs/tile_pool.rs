//! Tile sets for many readers: a [`TileStore`] serves one at a time.

use crossfix_onboard::tiles::{TileError, TileStore};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// As many stores of one tile set as there are readers at once, opened when they are needed.
pub(crate) struct TilePool {
    path: PathBuf,
    /// Stores that nobody uses, each with the sample that it was last used for.
    idle: Mutex<Vec<(usize, TileStore)>>,
}

impl TilePool {
    /// Opens the first store.
    ///
    /// # Errors
    /// [`TileError`] when the tile set or its manifest cannot be used.
    pub fn open(path: PathBuf) -> Result<Self, TileError> {
        let first = TileStore::open(&path)?;
        Ok(Self {
            path,
            idle: Mutex::new(vec![(0, first)]),
        })
    }

    /// Lends the store that was last used for the sample nearest to `index`: neighbours of a drive
    /// share its decoded tiles.
    ///
    /// # Errors
    /// As `work`, or when another store cannot be opened.
    pub fn with<R>(
        &self,
        index: usize,
        work: impl FnOnce(&mut TileStore) -> Result<R, TileError>,
    ) -> Result<R, TileError> {
        let lent = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let places = idle.iter().enumerate();
            let nearest = places.min_by_key(|(_, (last, _))| last.abs_diff(index));
            nearest
                .map(|(place, _)| place)
                .map(|place| idle.swap_remove(place).1)
        };
        let mut store = match lent {
            Some(store) => store,
            None => TileStore::open(&self.path)?,
        };
        let result = work(&mut store);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((index, store));
        result
    }
}
