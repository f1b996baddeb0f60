//! Finds, decodes and caches the aerial tiles around a prior, and renders patches from them.

mod manifest;
mod pmtiles_archive;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossfix_calibration::mercator::TileId;
use crossfix_calibration::{Error, Geodetic, PatchGeoreference, PatchKey, PatchSpec, RgbImage};

pub use manifest::TileManifest;
use pmtiles_archive::PmTilesArchive;

use crate::image_decode;
use crate::lru::Lru;

/// Largest encoded tile in an XYZ folder, in bytes.
const LARGEST_TILE_FILE: u64 = 16 << 20;
/// Decoded tiles kept, in bytes of pixels.
const DECODED_TILE_BYTES: usize = 16 << 20;
/// Rendered patches kept, in bytes of pixels.
const PATCH_BYTES: usize = 8 << 20;
/// Share of a patch that may be transparent: a few pixels along a seam, not ground that is not there.
const MOST_TRANSPARENT: f64 = 0.01;
/// Alpha from which a pixel shows ground.
const OPAQUE: u8 = 128;

/// Why there is no aerial picture.
#[derive(Debug, thiserror::Error)]
pub enum TileError {
    /// Nothing at the path, or something that is no tile set.
    #[error("\"{}\" {problem}; tiles come as a PMTiles archive or a folder zoom/x/y.jpg", path.display())]
    Open {
        /// What was opened.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The manifest is missing or wrong.
    #[error("tile manifest \"{}\" {problem}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The tile set does not reach here.
    #[error(
        "no aerial tile covers {latitude_deg:.5},{longitude_deg:.5} at zoom {zoom} \
         (looked for {zoom}/{x}/{y} in \"{}\"); add it there or use a tile set of this area",
        path.display()
    )]
    NotCovered {
        /// Centre of the patch that was wanted.
        latitude_deg: f64,
        /// Centre of the patch that was wanted.
        longitude_deg: f64,
        /// Zoom of the tile set.
        zoom: u8,
        /// Column of the missing tile.
        x: u32,
        /// Row of the missing tile.
        y: u32,
        /// The tile set.
        path: PathBuf,
    },
    /// The place or the patch size cannot work.
    #[error(transparent)]
    Patch(#[from] Error),
    /// A tile is there and cannot be used.
    #[error("aerial tile {zoom}/{x}/{y} in \"{}\" {problem}; write the tile set again", path.display())]
    Damaged {
        /// Zoom of the tile.
        zoom: u8,
        /// Column of the tile.
        x: u32,
        /// Row of the tile.
        y: u32,
        /// The tile set.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A tile set on disk, opened for reading.
#[derive(Debug)]
pub struct TileStore {
    path: PathBuf,
    manifest: TileManifest,
    container: Container,
    /// Nothing for a tile that is there and wholly transparent.
    decoded: Lru<TileId, Option<Tile>>,
    patches: Lru<PatchKey, (PatchGeoreference, Arc<RgbImage>)>,
}

/// A decoded tile of which something is opaque.
#[derive(Debug, Clone)]
struct Tile {
    image: Arc<RgbImage>,
    /// White where it is opaque, black where it is transparent; nothing when all of it is opaque.
    cover: Option<Arc<RgbImage>>,
}

#[derive(Debug)]
enum Container {
    Archive(Box<PmTilesArchive>),
    Folder,
}

impl TileStore {
    /// Opens a `PMTiles` archive or an XYZ folder (`zoom/x/y.jpg`, `.jpeg`, `.png` or `.webp`, y growing
    /// southward) together with its manifest.
    ///
    /// # Errors
    /// [`TileError::Open`] or [`TileError::Manifest`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TileError> {
        let path = path.as_ref();
        let fail = |problem: String| TileError::Open {
            path: path.to_owned(),
            problem,
        };
        let kind = std::fs::metadata(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
        let container = if kind.is_dir() {
            Container::Folder
        } else {
            Container::Archive(Box::new(PmTilesArchive::open(path).map_err(fail)?))
        };
        let manifest = TileManifest::of(path)?;
        match &container {
            Container::Archive(archive) => {
                let [lowest, highest] = archive.zooms();
                if !(lowest..=highest).contains(&manifest.zoom) {
                    return Err(fail(format!(
                        "holds zooms {lowest} to {highest}, and its manifest says {}",
                        manifest.zoom
                    )));
                }
            }
            Container::Folder if !path.join(manifest.zoom.to_string()).is_dir() => {
                return Err(fail(format!(
                    "has no folder \"{0}\", and its manifest says zoom {0}",
                    manifest.zoom
                )));
            }
            Container::Folder => {}
        }
        Ok(Self {
            path: path.to_owned(),
            manifest,
            container,
            decoded: Lru::new(DECODED_TILE_BYTES),
            patches: Lru::new(PATCH_BYTES),
        })
    }

    /// The description of the tile set.
    pub fn manifest(&self) -> &TileManifest {
        &self.manifest
    }

    /// The tile set on disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The north-up patch of `spec` around `centre`, whose middle is rounded to a grid of `grid_m`
    /// so that neighbouring frames share it.
    ///
    /// # Errors
    /// [`TileError::NotCovered`], [`TileError::Damaged`] or, near the poles, [`TileError::Patch`].
    pub fn patch(
        &mut self,
        centre: Geodetic,
        spec: PatchSpec,
        grid_m: f64,
    ) -> Result<(PatchGeoreference, Arc<RgbImage>), TileError> {
        let georeference = PatchGeoreference::centred_on(centre, spec, grid_m)?;
        let key = georeference.key();
        if let Some(patch) = self.patches.get(&key) {
            return Ok(patch);
        }
        let image = self.render(&georeference)?;
        let patch = (georeference, Arc::new(image));
        let weight = patch.1.data.len();
        self.patches.insert(key, patch.clone(), weight);
        Ok(patch)
    }

    /// The picture of a patch, north up or turned.
    ///
    /// # Errors
    /// [`TileError::NotCovered`], [`TileError::Damaged`] or, near the poles, [`TileError::Patch`].
    pub fn render(&mut self, georeference: &PatchGeoreference) -> Result<RgbImage, TileError> {
        let (zoom, tile_px) = (self.manifest.zoom, self.manifest.tile_px);
        let mut tiles = Vec::new();
        for id in georeference.tiles(zoom, tile_px)? {
            if let Some(tile) = self.decoded(id)? {
                tiles.push((id, tile));
            }
        }
        let path = &self.path;
        let not_covered = |tile: TileId, latitude_deg, longitude_deg| TileError::NotCovered {
            latitude_deg,
            longitude_deg,
            zoom,
            x: tile.x,
            y: tile.y,
            path: path.clone(),
        };
        let render = |pick: &dyn Fn(&Tile) -> Arc<RgbImage>| {
            let of = |id| tiles.iter().find(|(other, _)| *other == id);
            georeference.render(zoom, tile_px, |id| of(id).map(|(_, tile)| pick(tile)))
        };
        let image = render(&|tile| tile.image.clone()).map_err(|error| match error {
            Error::MissingTile {
                tile,
                latitude_deg,
                longitude_deg,
            } => not_covered(tile, latitude_deg, longitude_deg),
            other => TileError::Patch(other),
        })?;
        if let Some((id, _)) = tiles.iter().find(|(_, tile)| tile.cover.is_some()) {
            let mut white = RgbImage::black(tile_px, tile_px);
            white.data.fill(u8::MAX);
            let white = Arc::new(white);
            let cover = render(&|tile| tile.cover.clone().unwrap_or_else(|| white.clone()))?;
            let black = cover.data.iter().filter(|value| **value < OPAQUE).count();
            if black as f64 > MOST_TRANSPARENT * cover.data.len() as f64 {
                let centre = georeference.centre();
                return Err(not_covered(*id, centre.latitude_deg, centre.longitude_deg));
            }
        }
        Ok(image)
    }

    /// One decoded tile, or nothing where the set has none or a wholly transparent one.
    ///
    /// # Errors
    /// [`TileError::Damaged`] when the tile is there and is no picture of the announced size.
    pub fn tile(&mut self, id: TileId) -> Result<Option<Arc<RgbImage>>, TileError> {
        Ok(self.decoded(id)?.map(|tile| tile.image))
    }

    /// Share of a tile's pixels that show ground: 0 where there is no tile.
    ///
    /// # Errors
    /// As [`Self::tile`].
    pub fn covered_fraction(&mut self, id: TileId) -> Result<f64, TileError> {
        Ok(match self.decoded(id)? {
            None => 0.0,
            Some(Tile { cover: None, .. }) => 1.0,
            Some(Tile {
                cover: Some(cover), ..
            }) => {
                let white = cover.data.iter().filter(|value| **value >= OPAQUE).count();
                white as f64 / cover.data.len() as f64
            }
        })
    }

    /// A tile's file as it is, JPEG, PNG or WebP.
    ///
    /// # Errors
    /// [`TileError::Damaged`] when it is there and cannot be read.
    pub fn bytes(&mut self, id: TileId) -> Result<Option<Vec<u8>>, TileError> {
        self.encoded(id).map_err(|problem| TileError::Damaged {
            zoom: id.zoom,
            x: id.x,
            y: id.y,
            path: self.path.clone(),
            problem,
        })
    }

    /// Whether the set has a tile, without decoding it.
    pub fn has(&mut self, id: TileId) -> bool {
        match &mut self.container {
            Container::Archive(archive) => matches!(archive.tile(id), Ok(Some(_))),
            Container::Folder => folder_tile(&self.path, id).is_some(),
        }
    }

    fn decoded(&mut self, id: TileId) -> Result<Option<Tile>, TileError> {
        if let Some(tile) = self.decoded.get(&id) {
            return Ok(tile);
        }
        let tile_px = self.manifest.tile_px;
        let picture = self.encoded(id).and_then(|bytes| {
            let Some(bytes) = bytes else { return Ok(None) };
            let tile = image_decode::decode(&bytes, tile_px).map_err(|e| e.to_string())?;
            let (width, height) = (tile.image.width, tile.image.height);
            if [width, height] != [tile_px; 2] {
                return Err(format!(
                    "has {width} × {height} px, and the manifest says {tile_px} × {tile_px}"
                ));
            }
            Ok(Some(tile))
        });
        let picture = picture.map_err(|problem| TileError::Damaged {
            zoom: id.zoom,
            x: id.x,
            y: id.y,
            path: self.path.clone(),
            problem,
        })?;
        let Some(picture) = picture else {
            return Ok(None);
        };
        let weight = picture.image.data.len();
        let transparent = |alpha: &Vec<u8>| alpha.iter().all(|value| *value < OPAQUE);
        let tile = if picture.alpha.as_ref().is_some_and(transparent) {
            None
        } else {
            let cover = picture.alpha.map(|alpha| {
                let white = alpha
                    .iter()
                    .flat_map(|value| [if *value < OPAQUE { 0 } else { u8::MAX }; 3]);
                Arc::new(RgbImage {
                    width: tile_px,
                    height: tile_px,
                    data: white.collect(),
                })
            });
            let image = Arc::new(picture.image);
            Some(Tile { image, cover })
        };
        let covers = tile.as_ref().is_some_and(|tile| tile.cover.is_some());
        let weight = if covers { 2 * weight } else { weight };
        self.decoded.insert(id, tile.clone(), weight);
        Ok(tile)
    }

    fn encoded(&mut self, id: TileId) -> Result<Option<Vec<u8>>, String> {
        match &mut self.container {
            Container::Archive(archive) => archive.tile(id),
            Container::Folder => read_folder_tile(&self.path, id),
        }
    }
}

/// `zoom/x/y.jpg`, `.jpeg`, `.png` or `.webp`, whichever is there.
fn folder_tile(folder: &Path, id: TileId) -> Option<PathBuf> {
    let column = folder.join(id.zoom.to_string()).join(id.x.to_string());
    let names = ["jpg", "jpeg", "png", "webp"];
    let paths = names.map(|extension| column.join(format!("{}.{extension}", id.y)));
    paths.into_iter().find(|path| {
        // What cannot be looked at is there, and an error when it is read.
        std::fs::metadata(path).map_or_else(|e| e.kind() != std::io::ErrorKind::NotFound, |_| true)
    })
}

fn read_folder_tile(folder: &Path, id: TileId) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = folder_tile(folder, id) else {
        return Ok(None);
    };
    let bytes = crate::transport::file::read(&path, LARGEST_TILE_FILE);
    bytes.map(Some).map_err(|e| e.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crossfix_calibration::mercator;
    use manifest::tests::manifest;

    pub(crate) const ORIGIN: [f64; 2] = [52.0116, 4.3571];

    pub(crate) fn origin() -> Geodetic {
        Geodetic::new(ORIGIN[0], ORIGIN[1], 0.0).unwrap()
    }

    fn png(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
        let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb(colour(x, y)));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// A 5 × 5 block of tiles around the origin whose colours say where they are.
    pub(crate) fn some_tiles() -> Vec<(TileId, Vec<u8>)> {
        let [col, row] = mercator::world_pixel_from_geodetic(ORIGIN[0], ORIGIN[1], 18, 256);
        let (x, y) = ((col / 256.0) as u32, (row / 256.0) as u32);
        let mut tiles = Vec::new();
        for (dx, dy) in (0..5).flat_map(|dx| (0..5).map(move |dy| (dx, dy))) {
            let id = TileId {
                zoom: 18,
                x: x + dx - 2,
                y: y + dy - 2,
            };
            tiles.push((
                id,
                png(256, 256, |c, r| {
                    [dx as u8 * 40 + (c / 8) as u8, r as u8, dy as u8 * 50]
                }),
            ));
        }
        let number = |id: &TileId| {
            pmtiles::TileId::from(pmtiles::TileCoord::new(id.zoom, id.x, id.y).unwrap()).value()
        };
        tiles.sort_by_key(|(id, _)| number(id));
        tiles
    }

    fn write_manifest(path: &Path) {
        std::fs::write(path, toml::to_string(&manifest()).unwrap()).unwrap();
    }

    /// The same tiles as an archive and as a folder.
    pub(crate) fn stores() -> (tempfile::TempDir, [PathBuf; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("tiles.pmtiles");
        std::fs::write(&archive, pmtiles_archive::tests::archive(&some_tiles())).unwrap();
        write_manifest(&folder.path().join("tiles.toml"));
        let xyz = folder.path().join("xyz");
        for (id, bytes) in some_tiles() {
            let column = xyz.join(id.zoom.to_string()).join(id.x.to_string());
            std::fs::create_dir_all(&column).unwrap();
            std::fs::write(column.join(format!("{}.png", id.y)), bytes).unwrap();
        }
        write_manifest(&xyz.join("tiles.toml"));
        (folder, [archive, xyz])
    }

    #[test]
    fn the_seed_of_the_fuzz_target_is_the_tiny_archive() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.pmtiles");
        let (_folder, [archive, _]) = stores();
        let bytes = std::fs::read(archive).unwrap();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(path, &bytes).unwrap();
        }
        // Compressed directories may differ from release to release of the compressor.
        assert!(std::fs::read(path).unwrap().len() > bytes.len() / 2);
        assert!(TileStore::open(path).is_err(), "it has no manifest");
    }

    fn spec() -> PatchSpec {
        PatchSpec {
            size_px: 128,
            metres_per_pixel: 0.5,
        }
    }

    #[test]
    fn an_archive_and_a_folder_of_the_same_tiles_give_the_same_patch() {
        let (_folder, [archive, xyz]) = stores();
        let mut archive = TileStore::open(archive).unwrap();
        let mut xyz = TileStore::open(xyz).unwrap();
        let (georeference, from_archive) = archive.patch(origin(), spec(), 4.0).unwrap();
        let (_, from_folder) = xyz.patch(origin(), spec(), 4.0).unwrap();
        assert_eq!(from_archive, from_folder);
        assert_eq!([from_archive.width, from_archive.height], [128, 128]);
        let (_, again) = archive.patch(georeference.centre(), spec(), 4.0).unwrap();
        assert!(
            Arc::ptr_eq(&from_archive, &again),
            "the second time comes from the cache"
        );
    }

    #[test]
    fn a_place_outside_says_where_and_in_which_set() {
        let (_folder, paths) = stores();
        for path in paths {
            let mut store = TileStore::open(&path).unwrap();
            let elsewhere = Geodetic::new(52.1, 4.5, 0.0).unwrap();
            let message = store.patch(elsewhere, spec(), 4.0).unwrap_err().to_string();
            assert!(
                message.starts_with("no aerial tile covers 52.09999,4.50000"),
                "{message}"
            );
            assert!(
                message.contains("zoom 18") && message.contains(path.to_str().unwrap()),
                "{message}"
            );
        }
    }

    #[test]
    fn tiles_that_are_no_pictures_of_the_right_size_are_errors() {
        let (_folder, [_, xyz]) = stores();
        let id = some_tiles()[12].0;
        let file = xyz.join(format!("18/{}/{}.png", id.x, id.y));
        let picture = std::fs::read(&file).unwrap();
        let cases = [
            (Vec::new(), "is"),
            (b"GIF89a not for us".to_vec(), "is"),
            (picture[..picture.len() / 2].to_vec(), "is"),
            (png(64, 64, |_, _| [0; 3]), "64 × 64"),
            (png(5000, 1, |_, _| [0; 3]), "is"),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&file, bytes).unwrap();
            let error = TileStore::open(&xyz).unwrap().tile(id).unwrap_err();
            assert!(matches!(error, TileError::Damaged { .. }));
            let message = error.to_string();
            assert!(
                message.contains(expected) && message.contains(&id.x.to_string()),
                "{message}"
            );
        }
    }

    #[test]
    fn transparent_ground_is_not_covered() {
        let (_folder, [_, xyz]) = stores();
        let id = TileId::containing(ORIGIN[0], ORIGIN[1], 18).unwrap();
        let file = xyz.join(format!("18/{}/{}.png", id.x, id.y));
        let with_alpha = |alpha: &dyn Fn(u32, u32) -> u8| {
            image::RgbaImage::from_fn(256, 256, |x, y| image::Rgba([80, 90, 70, alpha(x, y)]))
                .save(&file)
                .unwrap();
            let mut store = TileStore::open(&xyz).unwrap();
            let fraction = store.covered_fraction(id).unwrap();
            (fraction, store.patch(origin(), spec(), 4.0))
        };
        // Black under alpha 0 is what most writers leave there.
        let (fraction, patch) = with_alpha(&|_, _| 0);
        assert_eq!(fraction, 0.0);
        assert!(matches!(patch, Err(TileError::NotCovered { .. })));
        let (fraction, patch) = with_alpha(&|x, _| if x / 32 % 2 == 0 { 0 } else { 255 });
        assert_eq!(fraction, 0.5);
        assert!(matches!(patch, Err(TileError::NotCovered { .. })));
        let (_, patch) = with_alpha(&|x, _| if x % 150 == 0 { 0 } else { 255 });
        assert!(patch.is_ok(), "a few columns of seams");
        assert!(with_alpha(&|_, _| 255).1.is_ok());
    }

    #[test]
    fn what_is_no_tile_set_is_refused_when_opened() {
        let (folder, [archive, _]) = stores();
        let missing = TileStore::open(folder.path().join("nowhere"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("nowhere"), "{missing}");
        let text = folder.path().join("notes.txt");
        std::fs::write(
            &text,
            "not tiles at all, however long this sentence may grow to be".repeat(9),
        )
        .unwrap();
        let text = TileStore::open(text).unwrap_err().to_string();
        assert!(text.contains("is not a PMTiles archive"), "{text}");
        std::fs::remove_file(folder.path().join("tiles.toml")).unwrap();
        let bare = TileStore::open(&archive).unwrap_err();
        assert!(matches!(bare, TileError::Manifest { .. }), "{bare}");
        let mut other = manifest();
        other.zoom = 17;
        other.metres_per_pixel *= 2.0;
        std::fs::write(
            folder.path().join("tiles.toml"),
            toml::to_string(&other).unwrap(),
        )
        .unwrap();
        let mut bytes = std::fs::read(&archive).unwrap();
        bytes[100..102].fill(18);
        std::fs::write(&archive, bytes).unwrap();
        let zoom = TileStore::open(&archive).unwrap_err().to_string();
        assert!(zoom.contains("zooms") && zoom.contains("17"), "{zoom}");
    }
}
