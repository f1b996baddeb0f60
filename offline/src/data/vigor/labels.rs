//! A line of a VIGOR label file: a panorama, and its place in four tiles.

use crate::data::resample::round_half_even;
use crate::data::text::{number, plain_name};
use crate::data::vigor::TILE_PX;

/// Place of a camera relative to a tile's centre, pixels of the 640-pixel tile, as the label files
/// say it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Offset {
    /// Pixels south of the centre.
    pub south_px: f64,
    /// Pixels west of the centre: columns count the other way.
    pub west_px: f64,
}

impl Offset {
    /// Whether the camera is in the tile.
    pub fn inside(&self) -> bool {
        let half = TILE_PX as f64 / 2.0;
        self.south_px.abs() < half && self.west_px.abs() < half
    }

    /// Pixels (south, west) of an image with `side` pixels, rounded as the published loaders do:
    /// to whole pixels, halves to even.
    pub fn rounded(&self, side: usize) -> [f64; 2] {
        let scaled = |value: f64| round_half_even(value / TILE_PX as f64 * side as f64);
        [scaled(self.south_px), scaled(self.west_px)]
    }

    /// Column and row of the camera in an image with `side` pixels, not rounded.
    pub fn place(&self, side: usize) -> [f64; 2] {
        let half = side as f64 / 2.0;
        let scale = side as f64 / TILE_PX as f64;
        [half - self.west_px * scale, half + self.south_px * scale]
    }
}

/// A parsed line.
#[derive(Debug, Clone, PartialEq)]
pub struct Label<'a> {
    /// Name of the panorama's file.
    pub panorama: &'a str,
    /// Name of each tile's file and the camera's place in it, the positive one first.
    pub tiles: [(&'a str, Offset); 4],
}

/// Reads a line: 13 fields with a space between, the panorama and four times tile, south, west.
///
/// # Errors
/// What is wrong. Refused: names that are paths, numbers that are not finite or beyond any tile,
/// a positive tile that does not hold the camera, one tile with two places.
pub fn parse(line: &str) -> Result<Label<'_>, String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [panorama, rest @ ..] = fields.as_slice() else {
        return Err("an empty line".into());
    };
    if rest.len() != 12 {
        return Err(format!("{} fields, 13 expected", fields.len()));
    }
    let panorama = plain_name(panorama, ".jpg")?;
    let mut tiles = [("", Offset::default()); 4];
    for (index, (tile, fields)) in tiles.iter_mut().zip(rest.chunks_exact(3)).enumerate() {
        let name = plain_name(fields[0], ".png")?;
        let offset = Offset {
            south_px: number(fields[1])?,
            west_px: number(fields[2])?,
        };
        if index == 0 && !offset.inside() {
            return Err(format!(
                "the positive tile {name} does not hold the camera ({}, {} from its centre)",
                fields[1], fields[2]
            ));
        }
        let most = TILE_PX as f64;
        if offset.south_px.abs() > most || offset.west_px.abs() > most {
            return Err(format!(
                "{name}: offsets {} {} are far outside the tile",
                fields[1], fields[2]
            ));
        }
        *tile = (name, offset);
    }
    for (index, (name, offset)) in tiles.iter().enumerate() {
        let conflicts = |(before, other): &(&str, Offset)| before == name && other != offset;
        if tiles[..index].iter().any(conflicts) {
            return Err(format!("{name} stands twice, with different places"));
        }
    }
    Ok(Label { panorama, tiles })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &str = "a,40.7,-73.9,.jpg t0.png 102.0 22.0 t1.png -141.0 104.0 t2.png 177.0 -302.0 t3.png 64.0 -331.5";

    #[test]
    fn a_published_line_is_read() {
        let label = parse(LINE).unwrap();
        assert_eq!(label.panorama, "a,40.7,-73.9,.jpg");
        assert_eq!(label.tiles[0].1.rounded(512), [82.0, 18.0]);
        assert!(!label.tiles[3].1.inside());
    }

    #[test]
    fn south_is_down_and_west_is_left() {
        let offset = Offset {
            south_px: 64.0,
            west_px: 128.0,
        };
        assert_eq!(offset.place(640), [192.0, 384.0]);
    }

    #[test]
    fn hostile_and_inconsistent_lines_are_refused() {
        for (from, to) in [
            ("a,40.7", "../a,40.7"),
            ("t1.png", "/etc/t1.png"),
            ("t1.png", "..\\t1.png"),
            ("t1.png", "t0.png"),
            ("t1.png", "t1.exe"),
            ("-141.0", "nan"),
            ("-141.0", "1e300"),
            ("-141.0", "641"),
            ("102.0", "320.0"),
            (" t3.png", ""),
            (" 64.0", "  64.0"),
        ] {
            let line = LINE.replacen(from, to, 1);
            assert!(parse(&line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,400}") {
            let _ = parse(&line);
        }

        #[test]
        fn a_changed_line_never_names_a_file_elsewhere(
            place in 0usize..120, with in "[./\\\\ \u{0}a:~%-]{0,4}",
        ) {
            let mut line = LINE.to_string();
            line.insert_str(place.min(line.len()), &with);
            if let Ok(label) = parse(&line) {
                let names = label.tiles.iter().map(|(name, _)| *name).chain([label.panorama]);
                for name in names {
                    let path = std::path::Path::new(name);
                    prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name));
                    prop_assert_eq!(path.components().count(), 1);
                }
                prop_assert!(label.tiles[0].1.inside());
            }
        }
    }
}
