//! Pictures kept on disk as the networks eat them, so that the next epoch need not decode them.
//!
//! A cached picture is its size and its pixels, nothing compressed: for VIGOR 1.4 MB a sample, to
//! be read at the speed of the disk. Without a folder nothing is kept.

use super::picture;
use super::resample::resize;
use crate::run::sha256_json;
use crossfix_calibration::RgbImage;
use serde::Serialize;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// First bytes of a cached picture: format and version.
const MAGIC: [u8; 8] = *b"crossfx1";

/// Reads pictures, through a folder of decoded ones where there is one.
#[derive(Debug, Clone, Default)]
pub struct Pictures {
    folder: Option<PathBuf>,
}

impl Pictures {
    /// Keeps decoded pictures in a folder, which is made if need be.
    ///
    /// # Errors
    /// The operating system's.
    pub fn cached_in(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: Some(folder.into()),
        })
    }

    /// The picture in another size, or in its own.
    ///
    /// # Errors
    /// As [`picture::read`]. A cache that cannot be read or written costs time, not the picture.
    pub fn read(&self, path: &Path, size: Option<[usize; 2]>) -> Result<RgbImage, String> {
        self.derived(path, &size, || decoded(path, size))
    }

    /// The picture that `make` makes of the file at `path`; `how` is all that it depends on besides
    /// the file.
    ///
    /// # Errors
    /// As `make`. A cache that cannot be read or written costs time, not the picture.
    pub fn derived<E>(
        &self,
        path: &Path,
        how: &impl Serialize,
        make: impl FnOnce() -> Result<RgbImage, E>,
    ) -> Result<RgbImage, E> {
        let Some(kept) = self.kept(path, how) else {
            return make();
        };
        if let Some(image) = load(&kept) {
            return Ok(image);
        }
        let image = make()?;
        // A full disk is the user's to notice; training goes on without the cache.
        let _ = store(&kept, &image);
        Ok(image)
    }

    /// Where a picture is kept: named by its path, length and age and what is made of it, so that a
    /// picture that was replaced is decoded again.
    fn kept(&self, path: &Path, how: &impl Serialize) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        let about = std::fs::metadata(path).ok()?;
        let age = about.modified().ok()?;
        let age = age.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
        let name = sha256_json(&(path, about.len(), age.to_string(), how));
        Some(folder.join(&name[..2]).join(&name[2..]))
    }
}

fn decoded(path: &Path, size: Option<[usize; 2]>) -> Result<RgbImage, String> {
    let image = picture::read(path)?;
    Ok(match size {
        Some([width, height]) => resize(&image, width, height),
        None => image,
    })
}

/// A whole cached picture, or nothing.
fn load(path: &Path) -> Option<RgbImage> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut head = [0; 16];
    file.read_exact(&mut head).ok()?;
    let side = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let (width, height) = (side(8)? as usize, side(12)? as usize);
    let bytes = width.checked_mul(height)?.checked_mul(3)? as u64;
    if head[..8] != MAGIC || file.metadata().ok()?.len() != bytes + 16 {
        return None;
    }
    let mut data = Vec::with_capacity(bytes as usize);
    file.read_to_end(&mut data).ok()?;
    RgbImage::from_data(width, height, data).ok()
}

/// Written beside and renamed: a reader sees all of it or nothing.
fn store(path: &Path, image: &RgbImage) -> std::io::Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{number}", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&MAGIC)?;
        for side in [image.width, image.height] {
            file.write_all(&(side as u32).to_le_bytes())?;
        }
        file.write_all(&image.data)?;
        std::fs::rename(&beside, path)
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<PathBuf> {
        let inner = std::fs::read_dir(folder).unwrap();
        inner
            .flat_map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    #[test]
    fn a_kept_picture_is_the_decoded_one_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.png");
        image::RgbImage::from_fn(40, 20, |x, y| image::Rgb([x as u8, y as u8, 9]))
            .save(&source)
            .unwrap();
        let cache = folder.path().join("cache");
        let pictures = Pictures::cached_in(&cache).unwrap();
        let plain = Pictures::default().read(&source, Some([16, 8])).unwrap();
        assert_eq!(pictures.read(&source, Some([16, 8])).unwrap(), plain);
        let kept = files(&cache);
        assert_eq!(kept.len(), 1);
        // The second time it comes from the cache: a changed pixel shows.
        let mut bytes = std::fs::read(&kept[0]).unwrap();
        bytes[16] ^= 255;
        std::fs::write(&kept[0], &bytes).unwrap();
        assert_ne!(pictures.read(&source, Some([16, 8])).unwrap(), plain);
        // A cut one is decoded again.
        bytes.truncate(100);
        std::fs::write(&kept[0], &bytes).unwrap();
        assert_eq!(pictures.read(&source, Some([16, 8])).unwrap(), plain);
        // Another size is another picture.
        assert_eq!(pictures.read(&source, None).unwrap().width, 40);
        assert_eq!(files(&cache).len(), 2);
    }
}
