//! An aerial picture as GeoTIFF: where its pixels are, and which of them show nothing.
//!
//! Read in its own strips or tiles, of which the last are kept, so that memory does not grow with the picture.

use super::projection::Projection;
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

/// Decoded strips or tiles that are kept, bytes.
const KEPT_BYTES: usize = 256 << 20;
/// Largest strip or tile, bytes.
const MOST_CHUNK_BYTES: usize = 1 << 30;

/// An open picture.
pub struct GeoTiff {
    decoder: Decoder<BufReader<File>>,
    /// Its coordinate reference system.
    pub projection: Projection,
    /// Columns and rows.
    pub size: [u32; 2],
    /// Coordinates of its upper left corner, and of a step of a column and of a row.
    affine: [f64; 6],
    channels: usize,
    /// Which channel is alpha.
    alpha: Option<usize>,
    no_data: Option<u8>,
    chunk: [u32; 2],
    chunks: HashMap<u32, (u64, Arc<Vec<u8>>)>,
    used: u64,
    bytes: usize,
}

impl GeoTiff {
    /// Opens a picture; `epsg` is its reference system where it does not say or says wrongly.
    ///
    /// # Errors
    /// What it is or lacks, and what to do.
    pub fn open(path: &Path, epsg: Option<u32>) -> Result<Self, String> {
        let say = |what: String| format!("{}: {what}", path.display());
        Self::read(path, epsg).map_err(say)
    }

    fn read(path: &Path, epsg: Option<u32>) -> Result<Self, String> {
        let text = |error: tiff::TiffError| format!("is no TIFF that is read: {error}");
        let file = crossfix_onboard::file::open(path).map_err(|error| error.to_string())?;
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MOST_CHUNK_BYTES;
        limits.intermediate_buffer_size = MOST_CHUNK_BYTES;
        let mut decoder = Decoder::new(BufReader::new(file))
            .map_err(text)?
            .with_limits(limits);
        let (columns, rows) = decoder.dimensions().map_err(text)?;
        let colours = decoder.colortype().map_err(text)?;
        let convert = "convert it to 8 bits and RGB: gdal_translate -ot Byte -scale IN.tif OUT.tif (-expand rgb for a palette)";
        let (channels, alpha) = match colours {
            ColorType::Gray(8) => (1, None),
            ColorType::GrayA(8) => (2, Some(1)),
            ColorType::RGB(8) | ColorType::YCbCr(8) => (3, None),
            ColorType::RGBA(8) => (4, Some(3)),
            // Red, green, blue, near infrared.
            ColorType::Multiband {
                bit_depth: 8,
                num_samples,
            } if num_samples >= 3 => (usize::from(num_samples), None),
            other => return Err(format!("its pixels are {other:?}; {convert}")),
        };
        let planar: Option<u32> = decoder
            .find_tag_unsigned(Tag::PlanarConfiguration)
            .map_err(text)?;
        if planar == Some(2) && channels > 1 {
            return Err("its channels are apart; write them together: gdal_translate -co INTERLEAVE=PIXEL IN.tif OUT.tif".into());
        }
        let numbers =
            |decoder: &mut Decoder<BufReader<File>>, tag| decoder.get_tag_f64_vec(tag).ok();
        let affine = affine(
            numbers(&mut decoder, Tag::ModelPixelScaleTag),
            numbers(&mut decoder, Tag::ModelTiepointTag),
            numbers(&mut decoder, Tag::ModelTransformationTag),
        );
        let keys = decoder
            .get_tag_u16_vec(Tag::GeoKeyDirectoryTag)
            .unwrap_or_default();
        let citation = decoder
            .get_tag_ascii_string(Tag::GeoAsciiParamsTag)
            .unwrap_or_default();
        let mut affine = affine.ok_or(
            "it does not say where it is (no GeoTIFF scale and tie point); gdal_translate -a_srs EPSG:N IN.tif OUT.tif with its .tfw beside it writes that",
        )?;
        // Coordinates are of the centre of the first pixel.
        if key(&keys, 1025) == Some(2) {
            affine[0] -= 0.5 * (affine[1] + affine[2]);
            affine[3] -= 0.5 * (affine[4] + affine[5]);
        }
        let epsg = epsg.or_else(|| epsg_of(&keys, &citation)).ok_or(
            "it does not say its coordinate reference system; give --epsg N, as its supplier states it",
        )?;
        let no_data = match decoder.get_tag_ascii_string(Tag::GdalNodata) {
            Err(_) => None,
            Ok(text) => {
                let value = text.trim_matches([' ', '\0']).parse::<f64>().ok();
                value
                    .filter(|value| (0.0..=255.0).contains(value) && value.fract() == 0.0)
                    .map(|value| value as u8)
            }
        };
        let chunk = decoder.chunk_dimensions();
        Ok(Self {
            projection: Projection::of_epsg(epsg)?,
            decoder,
            size: [columns, rows],
            affine,
            channels,
            alpha,
            no_data,
            chunk: [chunk.0, chunk.1],
            chunks: HashMap::new(),
            used: 0,
            bytes: 0,
        })
    }

    /// Coordinates of a continuous pixel.
    pub fn coordinates(&self, [column, row]: [f64; 2]) -> [f64; 2] {
        let [x, xc, xr, y, yc, yr] = self.affine;
        [x + xc * column + xr * row, y + yc * column + yr * row]
    }

    /// The continuous pixel of coordinates.
    pub fn pixel(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [x0, xc, xr, y0, yc, yr] = self.affine;
        let (dx, dy) = (x - x0, y - y0);
        let determinant = xc * yr - xr * yc;
        [
            (dx * yr - dy * xr) / determinant,
            (dy * xc - dx * yc) / determinant,
        ]
    }

    /// Latitude and longitude of a continuous pixel.
    pub fn place(&self, pixel: [f64; 2]) -> Option<[f64; 2]> {
        self.projection.inverse(self.coordinates(pixel))
    }

    /// The colour of a pixel; nothing where it shows nothing.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn colour(&mut self, [column, row]: [i64; 2]) -> Result<Option<[u8; 3]>, String> {
        let inside = |value: i64, size: u32| (0..i64::from(size)).contains(&value);
        if !inside(column, self.size[0]) || !inside(row, self.size[1]) {
            return Ok(None);
        }
        let (column, row) = (column as u32, row as u32);
        let [wide, high] = self.chunk;
        let across = self.size[0].div_ceil(wide);
        let index = row / high * across + column / wide;
        let chunk = self.chunk(index)?;
        // The last chunks of a row and column are as small as the picture.
        let (chunk_wide, _) = self.decoder.chunk_data_dimensions(index);
        let at = (row % high * chunk_wide + column % wide) as usize * self.channels;
        let Some(values) = chunk.get(at..at + self.channels) else {
            return Err(format!("its part {index} ends early; copy the file again"));
        };
        let rgb = match self.channels {
            1 | 2 => [values[0]; 3],
            _ => [values[0], values[1], values[2]],
        };
        let transparent = self.alpha.is_some_and(|alpha| values[alpha] < 128);
        let empty = self.no_data.is_some_and(|value| rgb == [value; 3]);
        Ok((!transparent && !empty).then_some(rgb))
    }

    fn chunk(&mut self, index: u32) -> Result<Arc<Vec<u8>>, String> {
        self.used += 1;
        if let Some((used, chunk)) = self.chunks.get_mut(&index) {
            *used = self.used;
            return Ok(chunk.clone());
        }
        let chunk = match self.decoder.read_chunk(index) {
            Ok(DecodingResult::U8(bytes)) => Arc::new(bytes),
            Ok(_) => return Err("its pixels are no bytes".into()),
            Err(error) => return Err(format!("its part {index} cannot be read: {error}")),
        };
        self.bytes += chunk.len();
        self.chunks.insert(index, (self.used, chunk.clone()));
        while self.bytes > KEPT_BYTES && self.chunks.len() > 1 {
            let oldest = self.chunks.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(index, _)| *index) else {
                break;
            };
            if let Some((_, chunk)) = self.chunks.remove(&oldest) {
                self.bytes -= chunk.len();
            }
        }
        Ok(chunk)
    }
}

/// # Source
/// OGC 19-008r4 GeoTIFF, section 7.2.3: raster to model coordinates.
fn affine(
    scale: Option<Vec<f64>>,
    tie: Option<Vec<f64>>,
    transformation: Option<Vec<f64>>,
) -> Option<[f64; 6]> {
    let affine = if let Some(m) = transformation.filter(|m| m.len() == 16) {
        [m[3], m[0], m[1], m[7], m[4], m[5]]
    } else {
        let (scale, tie) = (scale?, tie?);
        let [sx, sy] = scale.get(..2)?.try_into().ok()?;
        let [i, j, _, x, y, _] = tie.get(..6)?.try_into().ok()?;
        [x - i * sx, sx, 0.0, y + j * sy, 0.0, -sy]
    };
    let good = affine.iter().all(|value: &f64| value.is_finite());
    let determinant = affine[1] * affine[5] - affine[2] * affine[4];
    (good && determinant != 0.0).then_some(affine)
}

/// The value of a key that is written in the directory itself.
fn key(directory: &[u16], wanted: u16) -> Option<u16> {
    let entries = directory.get(4..)?.chunks_exact(4);
    let mut found = entries.filter(|entry| entry[0] == wanted && entry[1] == 0);
    found.next().map(|entry| entry[3])
}

/// The number of the projected system, or of the geographic one, or that in the citation (`EPSG:2154|`).
fn epsg_of(directory: &[u16], citation: &str) -> Option<u32> {
    const USER_DEFINED: u16 = 32767;
    let projected = key(directory, 3072).filter(|code| *code != USER_DEFINED);
    let is_projected = key(directory, 1024) == Some(1);
    let geographic = key(directory, 2048).filter(|code| !is_projected && *code != USER_DEFINED);
    let named = || {
        let after = citation.split("EPSG:").nth(1)?;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    projected.or(geographic).map(u32::from).or_else(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_found_by_key_and_by_citation() {
        let utm = [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32631];
        assert_eq!(epsg_of(&utm, ""), Some(32631));
        let user = [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32767];
        assert_eq!(epsg_of(&user, "EPSG:2154|"), Some(2154));
        assert_eq!(epsg_of(&user, "Lambert"), None);
        let degrees = [1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326];
        assert_eq!(epsg_of(&degrees, ""), Some(4326));
    }

    #[test]
    fn a_tie_point_and_a_transformation_say_the_same() {
        let tied = affine(
            Some(vec![0.2, 0.3, 0.0]),
            Some(vec![1.0, 2.0, 0.0, 100.0, 200.0, 0.0]),
            None,
        );
        let mut matrix = vec![0.0; 16];
        (matrix[0], matrix[3], matrix[5], matrix[7]) = (0.2, 99.8, -0.3, 200.6);
        let transformed = affine(None, None, Some(matrix)).unwrap();
        for (a, b) in tied.unwrap().iter().zip(transformed) {
            assert!((a - b).abs() < 1e-9);
        }
        assert_eq!(affine(None, None, None), None);
    }
}
