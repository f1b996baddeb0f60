//! Copies the tiles around the pairs from a tile set.

use anyhow::bail;
use crossfix_calibration::{Geodetic, PatchGeoreference, PatchSpec, TileId};
use crossfix_onboard::tiles::{TileManifest, TileStore};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Ground around a coarse position that every network's patch fits into, with the grid of patches and some
/// metres for estimating the tiles' offset.
const AROUND: PatchSpec = PatchSpec {
    size_px: 112,
    metres_per_pixel: 1.0,
};

/// The tile set that tiles are copied from.
pub struct Source {
    store: TileStore,
    /// Tiles asked for, and whether they are there.
    known: BTreeMap<TileId, bool>,
    wanted: BTreeSet<TileId>,
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            store: TileStore::open(path)?,
            known: BTreeMap::new(),
            wanted: BTreeSet::new(),
        })
    }

    /// Its description, which the copy has too.
    pub fn manifest(&self) -> &TileManifest {
        self.store.manifest()
    }

    /// Asks for the tiles around a place; whether that under it is there.
    pub fn need(&mut self, place: Geodetic) -> bool {
        let (zoom, tile_px) = (self.manifest().zoom, self.manifest().tile_px);
        let Ok(patch) = PatchGeoreference::exactly_at(place, AROUND) else {
            return false;
        };
        let Ok(ids) = patch.tiles(zoom, tile_px) else {
            return false;
        };
        let mut there = |id: TileId| *self.known.entry(id).or_insert_with(|| self.store.has(id));
        let middle = TileId::containing(place.latitude_deg, place.longitude_deg, zoom);
        if !middle.is_some_and(&mut there) {
            return false;
        }
        let found: Vec<TileId> = ids.into_iter().filter(|id| there(*id)).collect();
        self.wanted.extend(found);
        true
    }

    /// The bytes of all tiles that were asked for.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn copied(&mut self) -> anyhow::Result<Vec<(TileId, Vec<u8>)>> {
        let mut tiles = Vec::with_capacity(self.wanted.len());
        for id in &self.wanted {
            match self.store.bytes(*id)? {
                Some(bytes) => tiles.push((*id, bytes)),
                None => bail!("tile {}/{}/{} was there and is not", id.zoom, id.x, id.y),
            }
        }
        Ok(tiles)
    }
}
