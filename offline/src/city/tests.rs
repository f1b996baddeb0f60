//! The parts of the city together: same seed, same bytes; and geometry that agrees between views.

use super::detail::Detail;
use super::frames::{CameraKind, Headings, random_frame};
use super::ground::Pose;
use super::*;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::f64::consts::{FRAC_PI_2, TAU};

const MAGENTA: [u8; 3] = [255, 0, 255];

fn is_magenta(pixel: &[f32]) -> bool {
    pixel[0] > 110.0 && pixel[2] > 110.0 && pixel[1] < 0.35 * pixel[0]
}

fn area(area: AreaName, seed: u64) -> Area {
    build_area(AreaConfig {
        area,
        seed,
        gap: Gap::default(),
    })
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let digest = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let placed = area(AreaName::Target, 5).district(Part::Adapt, 0);
            let mut hash = Sha256::new();
            let frames = (0..6).into_par_iter();
            let frames = frames.map(|number| {
                random_frame(&placed, number, CameraKind::Panorama, Headings::Measured)
            });
            for frame in frames.collect::<Vec<_>>() {
                hash.update(&frame.image.data);
                hash.update(frame.coarse.latitude_deg.to_le_bytes());
            }
            for (_, tile) in tiles::render(&placed) {
                hash.update(&tile.data);
            }
            format!("{:x}", hash.finalize())
        })
    };
    assert_eq!(digest(1), digest(3));
}

#[test]
fn parts_and_areas_share_no_district() {
    let mut seeds = Vec::new();
    for name in [AreaName::Source, AreaName::Target] {
        for part in [Part::Adapt, Part::Validation, Part::Test] {
            seeds.extend((0..20).map(|index| area(name, 1).district_seed(part, index)));
        }
    }
    let count = seeds.len();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), count);
}

/// A free place with a clear view of another, so that a marker put there is seen.
fn place_with_view(placed: &PlacedDistrict, distance: f64) -> ([f64; 2], [f64; 2]) {
    let free = |p: [f64; 2]| placed.district.is_free(p[0] as f32, p[1] as f32);
    let clear = |p: [f64; 2]| {
        let cell = placed.district.cell(p[0] as f32, p[1] as f32);
        cell.is_some_and(|cell| cell.base_cm < 30 && cell.crown_top_cm == 0)
    };
    for step in 0..40_000 {
        let camera = [
            80.0 + f64::from(step % 200) * 2.0,
            80.0 + f64::from(step / 200) * 2.0,
        ];
        if !free(camera) {
            continue;
        }
        for bearing in 0..32 {
            let azimuth = f64::from(bearing) * TAU / 32.0 + 0.1;
            let along = |d: f64| [camera[0] + d * azimuth.sin(), camera[1] + d * azimuth.cos()];
            if (0..=(4.0 * distance) as usize).all(|d| clear(along(d as f64 / 4.0))) {
                return (camera, along(distance));
            }
        }
    }
    panic!("no clear view of {distance} m");
}

/// As fine as the published networks see.
fn fine() -> Detail {
    Detail {
        panorama: "320x640".parse().unwrap(),
        zoom: 20,
    }
}

#[test]
fn a_marker_stands_at_the_same_azimuth_in_the_panorama_as_on_the_ground() {
    for detail in [Detail::default(), fine()] {
        marker_in_the_panorama(detail);
    }
}

fn marker_in_the_panorama(detail: Detail) {
    let town = area(AreaName::Source, 9).drawn_at(detail);
    let mut placed = town.district(Part::Test, 0);
    let columns = detail.panorama.columns() as f64;
    let (camera, marker) = place_with_view(&placed, 14.0);
    placed
        .district
        .put_marker(marker.map(|m| m as f32), 1.0, 3.0, MAGENTA);
    for yaw_rad in [FRAC_PI_2, 0.3, -2.2] {
        let pose = Pose {
            x: camera[0],
            y: camera[1],
            yaw_rad,
        };
        let view = panorama::render(&placed.district, &pose, 0, detail.panorama);
        let azimuth = (marker[0] - camera[0]).atan2(marker[1] - camera[1]);
        let forward = FRAC_PI_2 - yaw_rad;
        let turn = (azimuth - forward + TAU / 2.0).rem_euclid(TAU);
        let expected = turn / TAU * columns;
        let (mut sum, mut count, mut lowest) = (0.0, 0.0, 0);
        for (index, pixel) in view.pixels.iter().enumerate() {
            if is_magenta(pixel) {
                let column = (index % view.width) as f64 + 0.5;
                // Nearest turn, for a marker that straddles the seam.
                sum += column + columns * ((expected - column) / columns).round();
                count += 1.0;
                lowest = lowest.max(index / view.width);
            }
        }
        assert!(count > 4.0, "the marker is not seen");
        assert!(
            (sum / count - expected).abs() < 0.6,
            "column {} not {expected}",
            sum / count
        );
        // Its foot, 13.5 m away and 1.9 m below the camera, but for kerbs between them.
        let base_m = |[x, y]: [f64; 2]| {
            let cell = placed.district.cell(x as f32, y as f32);
            0.01 * f64::from(cell.map_or(0, |cell| cell.base_cm))
        };
        let before = [
            camera[0] + 13.0 * azimuth.sin(),
            camera[1] + 13.0 * azimuth.cos(),
        ];
        let below_m = f64::from(ground::EYE_M) + base_m(camera) - base_m(before);
        let foot = detail.panorama.top_rad() + (below_m / 13.5).atan();
        let row = foot / detail.panorama.radians_per_pixel();
        assert!(
            (lowest as f64 + 0.5 - row).abs() < 1.3,
            "foot in row {lowest}, not {row}"
        );
    }
}

#[test]
fn a_marker_stands_where_the_pinhole_model_puts_it() {
    let mut placed = area(AreaName::Source, 9).district(Part::Test, 0);
    let (camera, marker) = place_with_view(&placed, 14.0);
    placed
        .district
        .put_marker(marker.map(|m| m as f32), 1.0, 3.0, MAGENTA);
    let azimuth = (marker[0] - camera[0]).atan2(marker[1] - camera[1]);
    for off_axis in [-0.6_f64, 0.0, 0.5] {
        let pose = Pose {
            x: camera[0],
            y: camera[1],
            yaw_rad: FRAC_PI_2 - azimuth + off_axis,
        };
        let view = front::render(&placed.district, &pose, 0);
        // Yaw turned left by off_axis, so the marker lies to the right by as much.
        let expected = 0.5 * front::COLUMNS as f64 + front::focal_px() * off_axis.tan();
        let columns: Vec<f64> = (0..view.pixels.len())
            .filter(|&i| is_magenta(&view.pixels[i]))
            .map(|i| (i % view.width) as f64 + 0.5)
            .collect();
        let mean = columns.iter().sum::<f64>() / columns.len() as f64;
        assert!(
            (mean - expected).abs() < 0.8,
            "column {mean}, not {expected}"
        );
    }
}

#[test]
fn a_marker_stands_at_the_same_place_in_the_aerial_patch() {
    use crossfix_calibration::{PatchGeoreference, PatchSpec};
    use std::collections::HashMap;
    use std::sync::Arc;

    let mut placed = area(AreaName::Source, 9).district(Part::Test, 0);
    let marker = [331.2, 276.9];
    placed
        .district
        .put_marker(marker.map(|m| m as f32), 2.0, 3.0, MAGENTA);
    let tiles: HashMap<_, _> = tiles::render(&placed)
        .into_iter()
        .map(|(id, tile)| (id, Arc::new(tile)))
        .collect();
    let spec = PatchSpec {
        size_px: 128,
        metres_per_pixel: 0.5,
    };
    for offset in [[0.0, 0.0], [20.0, -17.0], [-22.0, 22.0]] {
        let near = placed.geodetic([marker[0] - offset[0], marker[1] - offset[1]]);
        let patch = PatchGeoreference::centred_on(near, spec, 0.5).unwrap();
        let image = patch
            .render(tiles::ZOOM, tiles::TILE_PX, |id| tiles.get(&id).cloned())
            .unwrap();
        let (mut sum, mut count) = ([0.0, 0.0], 0.0);
        for (index, pixel) in image.data.chunks_exact(3).enumerate() {
            if is_magenta(&[pixel[0], pixel[1], pixel[2]].map(f32::from)) {
                sum[0] += (index % 128) as f64 + 0.5;
                sum[1] += (index / 128) as f64 + 0.5;
                count += 1.0;
            }
        }
        assert!(
            (8.0..30.0).contains(&count),
            "{count} magenta pixels, not 16 or so"
        );
        let expected = patch.pixel_from_geodetic(placed.geodetic(marker));
        for axis in 0..2 {
            let found = sum[axis] / count;
            assert!(
                (found - expected[axis]).abs() < 0.5,
                "axis {axis}: {found}, not {}",
                expected[axis]
            );
        }
    }
}

#[test]
fn a_fine_town_shows_half_a_metre_sharply_at_the_resolution_of_the_published_networks() {
    use crossfix_calibration::{PatchGeoreference, PatchSpec};
    use std::collections::HashMap;
    use std::sync::Arc;

    let spec = PatchSpec {
        size_px: 512,
        metres_per_pixel: 0.140_184,
    };
    let marker = [331.2, 276.9];
    let seen = |detail: Detail| {
        let town = area(AreaName::Source, 9).drawn_at(detail);
        let mut placed = town.district(Part::Test, 0);
        let at = marker.map(|m| m as f32);
        placed.district.put_marker(at, 0.5, 3.0, MAGENTA);
        let tiles: HashMap<_, _> = tiles::render_each(&placed, |id, tile| (id, Arc::new(tile)))
            .into_iter()
            .collect();
        let near = placed.geodetic([marker[0] - 20.0, marker[1] + 17.0]);
        let patch = PatchGeoreference::centred_on(near, spec, 8.0).unwrap();
        let image = patch
            .render(detail.zoom, tiles::TILE_PX, |id| tiles.get(&id).cloned())
            .unwrap();
        let expected = patch.pixel_from_geodetic(placed.geodetic(marker));
        let places: Vec<[f64; 2]> = image
            .data
            .chunks_exact(3)
            .enumerate()
            .filter(|(_, pixel)| is_magenta(&[pixel[0], pixel[1], pixel[2]].map(f32::from)))
            .map(|(index, _)| [(index % 512) as f64 + 0.5, (index / 512) as f64 + 0.5])
            .collect();
        (places, expected)
    };
    let (places, expected) = seen(fine());
    // (0.5 m / 0.14 m)² = 12.7 pixels; the rim is mixed with the ground.
    assert!((8..=18).contains(&places.len()), "{} pixels", places.len());
    for axis in 0..2 {
        let mean = places.iter().map(|p| p[axis]).sum::<f64>() / places.len() as f64;
        // To one cell of the raster, 0.125 m.
        assert!(
            (mean - expected[axis]).abs() < 0.9,
            "axis {axis}: {mean}, not {}",
            expected[axis]
        );
    }
}
