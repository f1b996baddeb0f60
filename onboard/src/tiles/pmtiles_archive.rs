//! Reads single tiles out of a `PMTiles` v3 archive, with every length bounded.
//!
//! The `pmtiles` crate numbers the tiles along the Hilbert curve. Its reader is asynchronous, maps
//! the file (a truncation under way would then kill the daemon) and inflates without a limit, so the
//! two directory levels are walked here: plain positioned reads, and an upper bound on everything
//! that a damaged or hostile archive can announce.
//!
//! # Source
//! `PMTiles` version 3 specification, sections 3 (header) and 4 (directories).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crossfix_calibration::mercator::TileId;
use flate2::read::GzDecoder;

use crate::lru::Lru;

const HEADER_BYTES: usize = 127;
/// Largest directory, stored or inflated.
const LARGEST_DIRECTORY: u64 = 32 << 20;
/// Largest encoded tile.
const LARGEST_TILE: u64 = 16 << 20;
/// Leaf directories below the root; the specification recommends one.
const DEEPEST_LEAF: usize = 4;
/// Directory entries kept in memory.
const CACHED_ENTRIES: usize = 1 << 18;

/// An open archive.
#[derive(Debug)]
pub(super) struct PmTilesArchive {
    file: File,
    header: Header,
    root: Arc<Vec<Entry>>,
    leaves: Lru<u64, Arc<Vec<Entry>>>,
}

#[derive(Debug, Clone, Copy)]
struct Section {
    offset: u64,
    length: u64,
}

#[derive(Debug)]
struct Header {
    leaves: Section,
    data: Section,
    directories_gzip: bool,
    tiles_gzip: bool,
    zooms: [u8; 2],
}

/// `run_length` 0 points to a leaf directory, otherwise to that many equal tiles.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    tile: u64,
    run_length: u64,
    length: u64,
    offset: u64,
}

impl PmTilesArchive {
    /// Opens the archive and reads its root directory.
    ///
    /// # Errors
    /// A sentence saying what is wrong with the archive.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = crate::transport::file::open(path).map_err(|e| e.to_string())?;
        let file_length = file.metadata().map_err(|e| e.to_string())?.len();
        let mut bytes = [0; HEADER_BYTES];
        if file_length < HEADER_BYTES as u64 {
            return Err(format!(
                "has {file_length} bytes, too few for a PMTiles header"
            ));
        }
        file.read_exact_at(&mut bytes, 0)
            .map_err(|e| e.to_string())?;
        let (header, root) = Header::parse(&bytes, file_length)?;
        let root = read_directory(&file, root, header.directories_gzip)
            .map_err(|problem| format!("root directory: {problem}"))?;
        Ok(Self {
            file,
            header,
            root: Arc::new(root),
            leaves: Lru::new(CACHED_ENTRIES),
        })
    }

    /// Lowest and highest zoom in the archive.
    pub(super) fn zooms(&self) -> [u8; 2] {
        self.header.zooms
    }

    /// The encoded tile, or nothing where the archive has none.
    ///
    /// # Errors
    /// A sentence saying what is wrong with the archive.
    pub(super) fn tile(&mut self, tile: TileId) -> Result<Option<Vec<u8>>, String> {
        let number = pmtiles::TileCoord::new(tile.zoom, tile.x, tile.y)
            .map(|coordinate| pmtiles::TileId::from(coordinate).value())
            .map_err(|e| e.to_string())?;
        let mut directory = self.root.clone();
        for _ in 0..=DEEPEST_LEAF {
            let Some(entry) = find(&directory, number) else {
                return Ok(None);
            };
            if entry.run_length > 0 {
                let bytes = read_section(&self.file, self.header.data, entry, LARGEST_TILE)?;
                return if self.header.tiles_gzip {
                    inflate(&bytes, LARGEST_TILE)
                } else {
                    Ok(bytes)
                }
                .map(Some);
            }
            directory = self.leaf(entry)?;
        }
        Err(format!(
            "its directories are nested more than {DEEPEST_LEAF} deep"
        ))
    }

    fn leaf(&mut self, entry: Entry) -> Result<Arc<Vec<Entry>>, String> {
        if let Some(leaf) = self.leaves.get(&entry.offset) {
            return Ok(leaf);
        }
        let place = within(self.header.leaves, entry)?;
        let leaf = read_directory(&self.file, place, self.header.directories_gzip)
            .map_err(|problem| format!("leaf directory: {problem}"))?;
        let leaf = Arc::new(leaf);
        self.leaves.insert(entry.offset, leaf.clone(), leaf.len());
        Ok(leaf)
    }
}

impl Header {
    /// The header and where the root directory lies.
    fn parse(bytes: &[u8; HEADER_BYTES], file_length: u64) -> Result<(Self, Section), String> {
        if !bytes.starts_with(b"PMTiles") {
            return Err("is not a PMTiles archive (it does not start with `PMTiles`)".into());
        }
        if bytes[7] != 3 {
            return Err(format!(
                "is PMTiles version {}, and only 3 is read",
                bytes[7]
            ));
        }
        let u64_at = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let section = |name: &str, at: usize| {
            let section = Section {
                offset: u64_at(at),
                length: u64_at(at + 8),
            };
            match section.offset.checked_add(section.length) {
                Some(end) if end <= file_length => Ok(section),
                _ => Err(format!(
                    "is truncated: its {name} are said to be {} bytes at {}, and the file has {file_length}",
                    section.length, section.offset
                )),
            }
        };
        let gzip = |name: &str, at: usize| match bytes[at] {
            1 => Ok(false),
            2 => Ok(true),
            other => Err(format!(
                "has {name} in compression {other}; only none (1) and gzip (2) are read"
            )),
        };
        let other = match bytes[99] {
            // Some writers leave it open (0); each tile's own bytes say what it is.
            0 | 2..=4 => None,
            1 => Some("vector tiles (type 1), and matching needs aerial pictures".to_owned()),
            5 => Some("AVIF tiles (type 5); write them as PNG, JPEG or WebP".to_owned()),
            other => Some(format!(
                "tiles of type {other}; only PNG (2), JPEG (3) and WebP (4) are read"
            )),
        };
        if let Some(other) = other {
            return Err(format!("holds {other}"));
        }
        let root = section("root directory", 8)?;
        let header = Self {
            leaves: section("leaf directories", 40)?,
            data: section("tiles", 56)?,
            directories_gzip: gzip("directories", 97)?,
            // Some writers leave it open (0) for pictures, which nobody compresses again.
            tiles_gzip: bytes[98] != 0 && gzip("tiles", 98)?,
            zooms: [bytes[100], bytes[101]],
        };
        Ok((header, root))
    }
}

/// The place of an entry in the file, if it lies inside its section.
fn within(section: Section, entry: Entry) -> Result<Section, String> {
    match entry.offset.checked_add(entry.length) {
        Some(end) if end <= section.length => Ok(Section {
            offset: section.offset + entry.offset,
            length: entry.length,
        }),
        _ => Err("is damaged: a directory entry points outside its section".into()),
    }
}

fn read_section(
    file: &File,
    section: Section,
    entry: Entry,
    limit: u64,
) -> Result<Vec<u8>, String> {
    read_place(file, within(section, entry)?, limit)
}

fn read_place(file: &File, place: Section, limit: u64) -> Result<Vec<u8>, String> {
    if place.length > limit {
        return Err(format!(
            "is damaged: a part of {} bytes, more than {limit}",
            place.length
        ));
    }
    let mut bytes = vec![0; place.length as usize];
    file.read_exact_at(&mut bytes, place.offset)
        .map_err(|e| e.to_string())?;
    Ok(bytes)
}

fn inflate(bytes: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let mut inflated = Vec::new();
    GzDecoder::new(bytes)
        .take(limit + 1)
        .read_to_end(&mut inflated)
        .map_err(|e| format!("is damaged: {e}"))?;
    if inflated.len() as u64 > limit {
        return Err(format!(
            "is damaged: a part inflates to more than {limit} bytes"
        ));
    }
    Ok(inflated)
}

fn read_directory(file: &File, place: Section, gzip: bool) -> Result<Vec<Entry>, String> {
    let stored = read_place(file, place, LARGEST_DIRECTORY)?;
    let bytes = if gzip {
        inflate(&stored, LARGEST_DIRECTORY)?
    } else {
        stored
    };
    parse_directory(&bytes).ok_or_else(|| "is damaged: not a PMTiles directory".into())
}

/// Four columns of variable-length integers: tile numbers (as differences), run lengths, lengths,
/// offsets (0 for "right behind the entry before", else plus one).
fn parse_directory(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut bytes = bytes;
    let count = usize::try_from(varint(&mut bytes)?).ok()?;
    if count > bytes.len() / 4 {
        return None;
    }
    let mut entries = vec![Entry::default(); count];
    let mut tile = 0u64;
    for entry in &mut entries {
        tile = tile.checked_add(varint(&mut bytes)?)?;
        entry.tile = tile;
    }
    for entry in &mut entries {
        entry.run_length = varint(&mut bytes)?;
    }
    for entry in &mut entries {
        entry.length = varint(&mut bytes)?;
    }
    let mut behind = None;
    for entry in &mut entries {
        entry.offset = match varint(&mut bytes)? {
            0 => behind?,
            more => more - 1,
        };
        behind = entry.offset.checked_add(entry.length);
    }
    Some(entries)
}

/// Takes one LEB128 integer off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The entry that covers a tile number: its own, the run that reaches it, or the leaf before it.
fn find(entries: &[Entry], tile: u64) -> Option<Entry> {
    let after = entries.partition_point(|entry| entry.tile <= tile);
    let entry = *entries.get(after.checked_sub(1)?)?;
    (entry.run_length == 0 || tile - entry.tile < entry.run_length).then_some(entry)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bytes of an archive, written by the `pmtiles` crate.
    pub(crate) fn archive(tiles: &[(TileId, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut writer = pmtiles::PmTilesWriter::new(pmtiles::TileType::Png)
            .create(&mut bytes)
            .unwrap();
        for (tile, data) in tiles {
            let coordinate = pmtiles::TileCoord::new(tile.zoom, tile.x, tile.y).unwrap();
            writer.add_tile(coordinate, data).unwrap();
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    fn open(bytes: &[u8]) -> Result<PmTilesArchive, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        PmTilesArchive::open(file.path())
    }

    fn tile(zoom: u8, x: u32, y: u32) -> TileId {
        TileId { zoom, x, y }
    }

    fn many_tiles() -> Vec<(TileId, Vec<u8>)> {
        let mut tiles: Vec<_> = (0..80u32)
            .flat_map(|x| (0..80u32).map(move |y| tile(18, 1000 + x, 2000 + y)))
            .collect();
        let number = |t: &TileId| {
            pmtiles::TileId::from(pmtiles::TileCoord::new(t.zoom, t.x, t.y).unwrap()).value()
        };
        tiles.sort_by_key(number);
        tiles
            .into_iter()
            .map(|t| (t, format!("{} {} {}", t.zoom, t.x, t.y).into_bytes()))
            .collect()
    }

    #[test]
    fn every_tile_that_the_pmtiles_crate_wrote_is_found() {
        // 6400 distinct tiles don't fit into the root directory, so leaves are read too.
        let tiles = many_tiles();
        let mut archive = open(&archive(&tiles)).unwrap();
        for (tile, data) in &tiles {
            assert_eq!(
                archive.tile(*tile).unwrap().as_ref(),
                Some(data),
                "{tile:?}"
            );
        }
        assert_eq!(archive.tile(tile(18, 999, 2000)).unwrap(), None);
        assert_eq!(archive.tile(tile(17, 0, 0)).unwrap(), None);
        assert!(archive.tile(tile(3, 8, 0)).is_err());
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let bytes = archive(&many_tiles()[..50]);
        for length in [0, 1, 7, 60, 126, 127, 200, bytes.len() - 1] {
            assert!(open(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn other_files_are_called_by_their_name() {
        let zeros = open(&[0; 500]).unwrap_err();
        assert!(zeros.contains("not a PMTiles archive"), "{zeros}");
        let mut vectors = archive(&many_tiles()[..5]);
        vectors[99] = 1;
        let vectors = open(&vectors).unwrap_err();
        assert!(vectors.contains("type 1"), "{vectors}");
    }

    #[test]
    fn a_directory_bomb_stops_at_the_limit() {
        use std::io::Write;
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        bomb.write_all(&vec![0; (LARGEST_TILE + 2) as usize])
            .unwrap();
        let error = inflate(&bomb.finish().unwrap(), LARGEST_TILE).unwrap_err();
        assert!(error.contains("inflates"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn flipped_bytes_never_panic(at in 0usize..2000, value: u8, second in 0usize..127) {
            let tiles = many_tiles();
            let mut bytes = archive(&tiles[..40]);
            let at = at % bytes.len();
            bytes[at] = value;
            bytes[second] ^= value;
            if let Ok(mut archive) = open(&bytes) {
                for (tile, _) in &tiles[..40] {
                    let _ = archive.tile(*tile);
                }
            }
        }

        #[test]
        fn garbage_is_no_directory_or_a_bounded_one(bytes: Vec<u8>) {
            if let Some(entries) = parse_directory(&bytes) {
                assert!(entries.len() <= bytes.len());
            }
        }
    }
}
