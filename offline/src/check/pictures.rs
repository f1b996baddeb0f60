//! Every picture: there, a regular file, whole, of the camera's size, and not another one again.

use super::{Report, Rows};
use crate::data::pairs::PairRow;
use crate::data::picture;
use crossfix_calibration::{Camera, RgbImage};
use crossfix_onboard::core::frame_quality::{
    LEAST_CONTRAST, REPEATS_LEVELS, ROWS, Thumbnail, UPSIDE_DOWN, correlation, mean_difference,
    row_means, texture, thumbnail,
};
use crossfix_onboard::image_decode::{self, Header};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use unicode_normalization::UnicodeNormalization;

/// Pictures that must be decoded before some of them can be said to differ from the rest.
const LEAST_PICTURES: usize = 12;
/// Share of the usual sharpness below which a picture is blurred.
const BLURRED: f64 = 0.25;
/// Share of pictures that are dark where the others are bright from which on they are turned, and not taken below
/// trees.
const MANY_TURNED: f64 = 0.01;
/// A panorama's edges may differ this many times as much as neighbouring columns.
const MOST_SEAM: f64 = 4.0;
/// Grey levels that are added to both before they are compared.
const SEAM_LEVELS: f64 = 1.0;

/// Pictures that are looked at before anything is said of them.
const AT_ONCE: usize = 2048;

/// What was seen of one picture.
struct Seen {
    header: Result<Header, String>,
    decoded: Option<Result<Looked, String>>,
    leaves: bool,
}

impl Seen {
    /// Whether it has the size that the camera makes.
    fn is_of(&self, rows: &Rows) -> bool {
        let (Ok(header), Some(manifest)) = (&self.header, &rows.manifest) else {
            return false;
        };
        [header.width, header.height] == manifest.camera.image_size()
    }
}

/// What its pixels show.
struct Looked {
    hash: [u8; 32],
    contrast: f64,
    sharpness: f64,
    thumbnail: Thumbnail,
    /// Difference of the first and last column, over that of neighbouring ones.
    seam: f64,
    transparent: f64,
}

/// What is kept of a picture that is held against the others.
struct Kept {
    row: usize,
    sharpness: f64,
    seam: f64,
    means: [f64; ROWS],
}

/// Looks at the pictures of a dataset, some at a time: pixels of no more than those are in memory.
pub(super) fn look(rows: &Rows, sample: Option<usize>, report: &mut Report) {
    let mut wanted = vec![false; rows.rows.len()];
    rows.spread(sample)
        .into_iter()
        .for_each(|row| wanted[row] = true);
    let root = rows.folder.canonicalize().unwrap_or_default();
    report.pictures = rows.rows.len();
    let mut folders = Folders::default();
    let mut repeats = Repeats::of(rows);
    let mut kept = Vec::new();
    for (number, wanted) in wanted.chunks(AT_ONCE).enumerate() {
        let first = number * AT_ONCE;
        let seen: Vec<Seen> = rows.rows[first..]
            .par_iter()
            .zip(wanted)
            .map(|((_, row), decode)| see(&rows.folder.join(&row.image), &root, *decode))
            .collect();
        for (row, seen) in (first..).zip(seen) {
            report.decoded += usize::from(seen.decoded.is_some());
            let (line, of_row) = &rows.rows[row];
            one(rows, (*line, of_row), &seen, &mut folders, report);
            let fits = seen.is_of(rows);
            if let (true, Some(Ok(looked))) = (fits, &seen.decoded) {
                repeats.take(row, looked);
                kept.push(Kept {
                    row,
                    sharpness: looked.sharpness,
                    seam: looked.seam,
                    means: row_means(&looked.thumbnail),
                });
            }
        }
    }
    named_twice(rows, report);
    repeats.say(report);
    beside_the_rest(rows, &kept, report);
    seam(rows, &kept, report);
}

fn see(path: &Path, root: &Path, decode: bool) -> Seen {
    let link = path.is_symlink();
    let leaves = link
        && path
            .canonicalize()
            .is_ok_and(|target| !target.starts_with(root));
    if !decode {
        let header = picture::header(path);
        return Seen {
            header,
            decoded: None,
            leaves,
        };
    }
    let said = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let bytes = picture::bytes(path);
    let header = bytes.clone().and_then(|bytes| {
        image_decode::header(&bytes, picture::MOST_SIDE_PX).map_err(|error| said(&error))
    });
    let decoded = header.is_ok().then(|| {
        let bytes = bytes.unwrap_or_default();
        let picture = image_decode::decode(&bytes, picture::MOST_SIDE_PX);
        let picture = picture.map_err(|error| said(&error))?;
        let texture = texture(&picture.image);
        let transparent = picture.alpha.as_ref().map_or(0.0, |alpha| {
            alpha.iter().filter(|value| **value < 128).count() as f64 / alpha.len() as f64
        });
        Ok(Looked {
            hash: Sha256::digest(&bytes).into(),
            contrast: texture.contrast,
            sharpness: texture.sharpness,
            thumbnail: thumbnail(&picture.image),
            seam: seam_of(&picture.image),
            transparent,
        })
    });
    Seen {
        header,
        decoded,
        leaves,
    }
}

/// What is wrong with one picture by itself.
fn one(
    rows: &Rows,
    (line, row): (usize, &PairRow),
    seen: &Seen,
    folders: &mut Folders,
    report: &mut Report,
) {
    let at = ("pairs.jsonl", Some(line));
    let path = rows.folder.join(&row.image);
    if seen.leaves {
        let what = format!("{} is a link out of the dataset", row.image);
        report.note(
            "link",
            at,
            what,
            "copy the file if the dataset is to be moved",
        );
    }
    let header = match &seen.header {
        Ok(header) => header,
        Err(what) => {
            let (check, remedy) = trouble(&path, what);
            let mut what = what.clone();
            if let Some(other) = folders.nearly(&path) {
                what += &format!(
                    "; there is {other:?}: the names differ in letters that look alike, in case or in blanks"
                );
            }
            report.problem(check, at, what, remedy);
            return;
        }
    };
    if let Some(manifest) = &rows.manifest {
        let expected = manifest.camera.image_size();
        let size = [header.width, header.height];
        if size != expected {
            let what = format!(
                "{}: {}×{} pixels{}, and the camera in dataset.toml makes {}×{}",
                row.image,
                size[0],
                size[1],
                if header.turned { " when upright" } else { "" },
                expected[0],
                expected[1]
            );
            let remedy =
                "give each camera its own dataset, and resize nothing without its calibration";
            report.problem("picture-size", at, what, remedy);
        }
    }
    if header.grey {
        let what = format!("{} is grey", row.image);
        let remedy = "networks are trained in colour; expect less, or train one on grey pictures";
        report.note("picture-grey", at, what, remedy);
    }
    if header.bits > 8 {
        let what = format!("{} has {} bits a channel", row.image, header.bits);
        let remedy =
            "the upper 8 bits are used: make sure that the full range is filled, or convert";
        report.note("picture-bits", at, what, remedy);
    }
    match &seen.decoded {
        Some(Err(what)) => {
            let (check, remedy) = trouble(&path, what);
            report.problem(check, at, what.clone(), remedy);
        }
        Some(Ok(looked)) if looked.contrast < LEAST_CONTRAST => {
            let what = format!(
                "{}: contrast {:.1} of 255 grey levels",
                row.image, looked.contrast
            );
            let remedy = "leave out pictures of a covered, dark or broken camera; 12 bits in a 16 bit file look like this too";
            report.problem("picture-blank", at, what, remedy);
        }
        Some(Ok(looked)) if looked.transparent > 0.01 => {
            let percent = 100.0 * looked.transparent;
            let what = format!("{}: {percent:.0} % of it is transparent", row.image);
            let remedy = "flatten it; what lies under transparent pixels would be learned";
            report.problem("picture-transparent", at, what, remedy);
        }
        _ => {}
    }
}

/// The kind of trouble that a file gives, and what to do.
fn trouble(path: &Path, what: &str) -> (&'static str, &'static str) {
    if path.is_symlink() && !path.exists() {
        return (
            "picture-link",
            "the link leads nowhere: copy the file there",
        );
    }
    if !path.exists() {
        return ("picture-missing", "copy the pictures, or correct `image`");
    }
    for (words, check, remedy) in [
        (
            "no regular file",
            "picture-file",
            "pipes, folders and devices are not read: put the picture there",
        ),
        (
            "cut short",
            "picture-cut",
            "copy the pictures again, or leave the rows out",
        ),
        ("CMYK", "picture-colour", "save them as RGB"),
        ("save it as", "picture-format", "save them as JPEG or PNG"),
        ("neither JPEG", "picture-format", "save them as JPEG or PNG"),
        (
            "bytes, which is the most",
            "picture-large",
            "make them smaller",
        ),
        (
            "within",
            "picture-unreadable",
            "make them again, or smaller",
        ),
    ] {
        if what.contains(words) {
            return (check, remedy);
        }
    }
    (
        "picture-unreadable",
        "make them readable, or leave the rows out",
    )
}

/// Folders' names in a form in which look-alikes are the same.
#[derive(Default)]
struct Folders(HashMap<PathBuf, HashMap<String, String>>);

impl Folders {
    /// A file whose name is the wanted one but for Unicode form, case and blanks.
    fn nearly(&mut self, path: &Path) -> Option<String> {
        let form = |name: &str| -> String {
            let composed: String = name.nfkc().collect();
            composed.trim().to_lowercase()
        };
        let folder = path.parent()?;
        if path.exists() {
            return None;
        }
        let names = self.0.entry(folder.into()).or_insert_with(|| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names.map(|name| (form(&name), name)).collect()
        });
        names.get(&form(path.file_name()?.to_str()?)).cloned()
    }
}

/// Rows that name one picture.
fn named_twice(rows: &Rows, report: &mut Report) {
    let mut named: HashMap<&str, usize> = HashMap::new();
    for (line, row) in &rows.rows {
        if let Some(before) = named.insert(&row.image, *line) {
            let what = format!("{} is also the picture of line {before}", row.image);
            let remedy = "a row has its own picture";
            report.problem("picture-twice", ("pairs.jsonl", Some(*line)), what, remedy);
        }
    }
}

/// Pictures that are the same though the vehicle moved, found as they come.
struct Repeats<'a> {
    rows: &'a Rows<'a>,
    /// The last row of each drive, after which its thumbnail is forgotten.
    ends: HashMap<&'a str, usize>,
    /// The first row of each picture.
    same: HashMap<[u8; 32], usize>,
    /// The row of each drive that others are compared with.
    last: HashMap<&'a str, (usize, Thumbnail)>,
    /// Rows that repeat an earlier one, with that one.
    found: Vec<[usize; 2]>,
}

impl<'a> Repeats<'a> {
    fn of(rows: &'a Rows<'a>) -> Self {
        let drives = rows.rows.iter().enumerate();
        Self {
            rows,
            ends: drives
                .map(|(index, (_, row))| (row.drive.as_str(), index))
                .collect(),
            same: HashMap::new(),
            last: HashMap::new(),
            found: Vec::new(),
        }
    }

    /// The next picture.
    fn take(&mut self, index: usize, looked: &Looked) {
        let drive = self.rows.rows[index].1.drive.as_str();
        // The first of them, from which the vehicle has moved furthest.
        let first = *self.same.entry(looked.hash).or_insert(index);
        let copy = (first != index).then_some(first);
        let alike = self.last.get(drive).filter(|(_, before)| {
            mean_difference(before, &looked.thumbnail) < REPEATS_LEVELS / 2.0
        });
        let alike = alike.map(|(index, _)| *index);
        if self.ends.get(drive) == Some(&index) {
            self.last.remove(drive);
        } else if alike.is_none() {
            self.last.insert(drive, (index, looked.thumbnail));
        }
        self.found
            .extend(copy.or(alike).map(|earlier| [earlier, index]));
    }

    /// Says those that are somewhere else than the picture that they repeat.
    fn say(self, report: &mut Report) {
        let mut standing = 0;
        for [earlier, index] in self.found {
            let ((earlier_line, earlier), (line, row)) =
                (&self.rows.rows[earlier], &self.rows.rows[index]);
            if earlier.image == row.image {
                continue;
            }
            let moved = super::places::distance_m(earlier, row);
            let variance = |row: &PairRow| row.covariance_m2[0][0] + row.covariance_m2[1][1];
            let bound = 5.0 + 3.0 * (variance(earlier) + variance(row)).sqrt();
            if moved < bound {
                standing += 1;
                continue;
            }
            let what = format!(
                "{} is the picture of line {earlier_line} again, {moved:.0} m away",
                row.image
            );
            let remedy = "the camera froze, or pictures and positions were joined wrongly: leave the rows out";
            report.problem("picture-frozen", ("pairs.jsonl", Some(*line)), what, remedy);
        }
        if standing > 0 {
            let what =
                format!("{standing} pictures show what the one before showed, at the same place");
            let remedy = "rows of a parked vehicle teach nothing new: keep one every few metres";
            report.note("parked", ("pairs.jsonl", None), what, remedy);
        }
    }
}

/// Pictures that differ from the rest of the dataset: upside down, blurred.
fn beside_the_rest(rows: &Rows, good: &[Kept], report: &mut Report) {
    if good.len() < LEAST_PICTURES {
        return;
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let sharpness = median(good.iter().map(|kept| kept.sharpness).collect());
    let usual: [f64; ROWS] =
        std::array::from_fn(|row| median(good.iter().map(|kept| kept.means[row]).collect()));
    let turned = good
        .iter()
        .filter(|kept| correlation(&kept.means, &usual) < UPSIDE_DOWN)
        .count();
    // Upright pictures are like that too where trees are dark above a bright road: some 1 of 1000.
    let many = turned as f64 > MANY_TURNED * good.len() as f64;
    for kept in good {
        let (line, row) = &rows.rows[kept.row];
        let at = ("pairs.jsonl", Some(*line));
        if correlation(&kept.means, &usual) < UPSIDE_DOWN {
            let what = format!("{} is dark where the others are bright", row.image);
            let remedy = "turn pictures that are upside down, or write their EXIF orientation";
            if many {
                report.problem("picture-upside-down", at, what, remedy);
            } else {
                report.note("picture-upside-down", at, what, remedy);
            }
        }
        if kept.sharpness < BLURRED * sharpness {
            let what = format!(
                "{}: sharpness {:.2}, usually {sharpness:.2}",
                row.image, kept.sharpness
            );
            report.note("picture-blurred", at, what, "leave out blurred pictures");
        }
    }
}

/// Mean difference of the first and the last column, over that of neighbouring columns.
fn seam_of(picture: &RgbImage) -> f64 {
    if picture.width < 8 {
        return 1.0;
    }
    let difference = |a: usize, b: usize| {
        let rows = 0..picture.height;
        let of = |row| {
            let (a, b) = (picture.pixel(a, row), picture.pixel(b, row));
            (0..3).map(|k| f64::from(a[k].abs_diff(b[k]))).sum::<f64>() / 3.0
        };
        rows.map(of).sum::<f64>() / picture.height as f64
    };
    let neighbours = (0..16).map(|part| {
        let column = part * (picture.width - 2) / 16;
        difference(column, column + 1)
    });
    let usual = neighbours.sum::<f64>() / 16.0;
    (difference(0, picture.width - 1) + SEAM_LEVELS) / (usual + SEAM_LEVELS)
}

/// A panorama goes on at the left where it ends at the right, and its pixels are square.
fn seam(rows: &Rows, good: &[Kept], report: &mut Report) {
    let Some(Camera::Equirectangular(camera)) = rows.manifest.as_ref().map(|m| &m.camera) else {
        return;
    };
    let across = 360.0 / camera.width as f64;
    let down = (camera.top_elevation_deg - camera.bottom_elevation_deg) / camera.height as f64;
    let ratio = across / down;
    if !(0.9..=1.1).contains(&ratio) {
        let what = format!(
            "camera: {}×{} pixels over 360° by {:.1}° are {ratio:.2} times as wide as high",
            camera.width,
            camera.height,
            camera.top_elevation_deg - camera.bottom_elevation_deg
        );
        let remedy = "top_elevation_deg and bottom_elevation_deg are those of the picture's edges; panoramas narrower than 360° are not read: describe the camera as a pinhole, or pad the picture to the whole circle";
        report.problem("camera", ("dataset.toml", None), what, remedy);
    }
    let mut seams: Vec<f64> = good.iter().map(|kept| kept.seam).collect();
    if seams.len() < LEAST_PICTURES {
        return;
    }
    seams.sort_by(f64::total_cmp);
    let seam = seams[seams.len() / 2];
    if seam > MOST_SEAM {
        let what = format!(
            "the pictures' left and right edges differ {seam:.1} times as much as neighbouring columns"
        );
        let remedy =
            "a panorama is a whole circle that closes: these are narrower, or no panoramas";
        report.problem("camera", ("dataset.toml", None), what, remedy);
    }
}

/// Decodes pictures of a published dataset, as many as asked for: what is wrong with which.
pub fn decode_all(paths: &[PathBuf], sample: Option<usize>) -> Vec<String> {
    let step = sample.map_or(1, |sample| paths.len().div_ceil(sample.max(1)).max(1));
    let chosen: Vec<&PathBuf> = paths.iter().step_by(step).collect();
    let found = chosen.par_iter().map(|path| picture::read(path).err());
    found.collect::<Vec<_>>().into_iter().flatten().collect()
}
