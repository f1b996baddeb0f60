//! Writes a pairs dataset: the counterpart of [`super`].
//!
//! Rows and pictures first, tiles next, `dataset.toml` last, so that a dataset cut short is never
//! taken for a whole one.

use super::truth::TruthRow;
use super::{DatasetManifest, PairRow};
use crossfix_calibration::mercator::geodetic_from_world_pixel;
use crossfix_calibration::{RgbImage, TileId};
use crossfix_onboard::tiles::TileManifest;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use pmtiles::{PmTilesWriter, TileCoord, TileType};
use serde::Serialize;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Quality of every JPEG we write: artefacts stay below the sensor noise.
pub const JPEG_QUALITY: u8 = 92;

/// Why a dataset could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file cannot be made.
    #[error("cannot write {}: {error}; is there room, and may you write there?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// There is something already.
    #[error("{} is not empty; give another folder or remove it first", .0.display())]
    NotEmpty(PathBuf),
    /// A picture, row or tile has no written form.
    #[error("{what} cannot be encoded: {reason}")]
    Encode {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
}

/// A dataset in the making.
pub struct PairsWriter {
    folder: PathBuf,
    pairs: BufWriter<fs::File>,
    metadata: BufWriter<fs::File>,
    /// Made when the first true position is known.
    truth: Option<BufWriter<fs::File>>,
}

/// The rows once more, for programs that read folders of images.
const METADATA: &str = "images/metadata.jsonl";

impl PairsWriter {
    /// Makes the folder, which must be new or empty.
    ///
    /// # Errors
    /// [`WriteError`] when it is not, or cannot be made.
    pub fn create(folder: &Path) -> Result<Self, WriteError> {
        let images = folder.join("images");
        if folder.exists() {
            let mut entries = fs::read_dir(folder).map_err(in_file(folder))?;
            if entries.next().is_some() {
                return Err(WriteError::NotEmpty(folder.into()));
            }
        }
        fs::create_dir_all(&images).map_err(in_file(&images))?;
        Ok(Self {
            folder: folder.into(),
            pairs: new_file(&folder.join("pairs.jsonl"))?,
            metadata: new_file(&folder.join(METADATA))?,
            truth: None,
        })
    }

    /// Appends a row, and its truth where that is known.
    ///
    /// # Errors
    /// [`WriteError::File`] when the disk refuses.
    pub fn row(&mut self, pair: &PairRow, truth: Option<&TruthRow>) -> Result<(), WriteError> {
        line(&mut self.pairs, &self.folder.join("pairs.jsonl"), pair)?;
        self.metadata(pair)?;
        let Some(truth) = truth else { return Ok(()) };
        let path = self.folder.join("truth.jsonl");
        let file = match &mut self.truth {
            Some(file) => file,
            none => none.insert(new_file(&path)?),
        };
        line(file, &path, truth)
    }

    /// The same row with `file_name`, the picture relative to `images/`, in place of `image`, which those
    /// programs call the picture itself.
    fn metadata(&mut self, pair: &PairRow) -> Result<(), WriteError> {
        let path = self.folder.join(METADATA);
        let row = serde_json::to_value(pair).map_err(|error| WriteError::Encode {
            what: path.display().to_string(),
            reason: error.to_string(),
        })?;
        let file_name = pair.image.strip_prefix("images/").unwrap_or(&pair.image);
        let mut fields = serde_json::Map::from_iter([("file_name".into(), file_name.into())]);
        let others = row.as_object().into_iter().flatten();
        let others = others.filter(|(name, _)| *name != "image");
        fields.extend(others.map(|(name, value)| (name.clone(), value.clone())));
        line(&mut self.metadata, &path, &fields)
    }

    /// Writes the tiles with their manifest, then `dataset.toml`.
    ///
    /// # Errors
    /// [`WriteError`] when the disk refuses.
    pub fn finish(
        mut self,
        manifest: &DatasetManifest,
        tiles: Vec<(TileId, Vec<u8>)>,
        tile_manifest: &TileManifest,
    ) -> Result<(), WriteError> {
        let files = [
            (Some(&mut self.pairs), "pairs.jsonl"),
            (Some(&mut self.metadata), METADATA),
            (self.truth.as_mut(), "truth.jsonl"),
        ];
        for (file, name) in files {
            let Some(file) = file else { continue };
            file.flush().map_err(in_file(&self.folder.join(name)))?;
        }
        write_tiles(&self.folder.join(&manifest.tiles), tiles, tile_manifest)?;
        write_toml(&self.folder.join("tiles.toml"), tile_manifest)?;
        write_toml(&self.folder.join("dataset.toml"), manifest)
    }
}

fn new_file(path: &Path) -> Result<BufWriter<fs::File>, WriteError> {
    let file = fs::File::create(path).map_err(in_file(path))?;
    Ok(BufWriter::new(file))
}

/// Writes an archive of tiles, all JPEG, PNG or WebP, with its bounds and zoom.
///
/// # Errors
/// [`WriteError`] when the disk refuses.
pub fn write_tiles(
    path: &Path,
    mut tiles: Vec<(TileId, Vec<u8>)>,
    manifest: &TileManifest,
) -> Result<(), WriteError> {
    let encode = |error: pmtiles::PmtError| WriteError::Encode {
        what: path.display().to_string(),
        reason: error.to_string(),
    };
    let place = |x: u32, y: u32| {
        let pixel = [x, y].map(|tile| f64::from(tile) * manifest.tile_px as f64);
        geodetic_from_world_pixel(pixel, manifest.zoom, manifest.tile_px)
    };
    let span = |pick: fn(&TileId) -> u32| {
        let values = tiles.iter().map(|(id, _)| pick(id));
        (
            values.clone().min().unwrap_or(0),
            values.max().unwrap_or(0) + 1,
        )
    };
    let ((west, east), (north, south)) = (span(|id| id.x), span(|id| id.y));
    let ([max_lat, min_lon], [min_lat, max_lon]) = (place(west, north), place(east, south));
    let first = tiles.first().map_or(&[][..], |(_, bytes)| bytes);
    let (kind, format) = match first {
        [0x89, ..] => (TileType::Png, "png"),
        [b'R', ..] => (TileType::Webp, "webp"),
        _ => (TileType::Jpeg, "jpg"),
    };
    let about = serde_json::json!({
        "name": "crossfix tiles",
        "type": "baselayer",
        "format": format,
        "attribution": manifest.attribution,
        "license": manifest.licence,
    });
    let file = fs::File::create(path).map_err(in_file(path))?;
    let mut archive = PmTilesWriter::new(kind)
        .min_zoom(manifest.zoom)
        .max_zoom(manifest.zoom)
        .bounds(min_lon, min_lat, max_lon, max_lat)
        .center(0.5 * (min_lon + max_lon), 0.5 * (min_lat + max_lat))
        .center_zoom(manifest.zoom)
        .metadata(about.to_string())
        .create(file)
        .map_err(encode)?;
    tiles.sort_by_key(|(id, _)| (id.y, id.x));
    let mut placed = tiles
        .iter()
        .map(|(id, data)| Ok((TileCoord::new(id.zoom, id.x, id.y).map_err(encode)?, data)))
        .collect::<Result<Vec<_>, WriteError>>()?;
    // Archives are read fastest when tiles lie in the order of their ids along the Hilbert curve.
    placed.sort_by_key(|(coordinate, _)| pmtiles::TileId::from(*coordinate));
    for (coordinate, data) in placed {
        archive.add_tile(coordinate, data).map_err(encode)?;
    }
    archive.finalize().map_err(encode)
}

/// A picture as JPEG bytes.
///
/// # Errors
/// [`WriteError::Encode`] when its size and bytes disagree.
pub fn jpeg(image: &RgbImage, what: &str) -> Result<Vec<u8>, WriteError> {
    let mut bytes = Vec::with_capacity(16 << 10);
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode(
            &image.data,
            image.width as u32,
            image.height as u32,
            ExtendedColorType::Rgb8,
        )
        .map_err(|error| WriteError::Encode {
            what: what.into(),
            reason: error.to_string(),
        })?;
    Ok(bytes)
}

/// Writes a file, naming it when that fails.
///
/// # Errors
/// [`WriteError::File`].
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    fs::write(path, bytes).map_err(in_file(path))
}

/// Appends a value as one line of JSON.
///
/// # Errors
/// [`WriteError`] when it has no JSON form or the disk refuses.
pub fn line(file: &mut impl Write, path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    let mut text = serde_json::to_vec(value).map_err(|error| WriteError::Encode {
        what: path.display().to_string(),
        reason: error.to_string(),
    })?;
    text.push(b'\n');
    file.write_all(&text).map_err(in_file(path))
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    let text = toml::to_string(value).map_err(|error| WriteError::Encode {
        what: path.display().to_string(),
        reason: error.to_string(),
    })?;
    write_file(path, text.as_bytes())
}

/// Names the file in an error.
pub fn in_file(path: &Path) -> impl FnOnce(std::io::Error) -> WriteError {
    let path = path.to_path_buf();
    move |error| WriteError::File { path, error }
}
