//! What a city looks like, as numbers: two styles and every style between them.
//!
//! `source` is a low brick town with lawns, `target` a taller, paler one in another season seen by
//! other cameras. Styles interpolate entrywise and apart for geometry, palette and sensor, so the
//! size and the kind of a domain gap are dials.

use serde::{Deserialize, Serialize};

/// A colour, red, green, blue from 0 to 255.
pub type Colour = [f32; 3];

/// Shapes and sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Distance between parallel streets, m.
    pub block_m: [f32; 2],
    /// Road widths, m, each with its weight.
    pub road_widths_m: Vec<[f32; 2]>,
    /// Pavement width, m.
    pub pavement_m: [f32; 2],
    /// How far streets bend away from the straight grid, m.
    pub bend_m: f32,
    /// Share of buildings with a gable roof.
    pub gable_share: f32,
    /// Height of the eaves, m.
    pub building_height_m: [f32; 2],
    /// Height of a storey, m.
    pub storey_m: f32,
    /// Weights of punched windows, ribbons and curtain walls.
    pub facade_weights: [f32; 3],
    /// Width of a lot along the street, m.
    pub lot_width_m: [f32; 2],
    /// Share of lots with a gap to their neighbour.
    pub gap_share: f32,
    /// Distance of the front from the pavement, m.
    pub setback_m: [f32; 2],
    /// Depth of a building, m.
    pub depth_m: [f32; 2],
    /// Share of built blocks with a lawn inside; the others have a car park.
    pub lawn_share: f32,
    /// How often streets have trees, and how dense parks are.
    pub tree_share: f32,
    /// Distance between street trees, m.
    pub tree_spacing_m: f32,
    /// Height of a tree, m.
    pub tree_height_m: [f32; 2],
    /// Radius of a crown, m.
    pub tree_radius_m: [f32; 2],
    /// Share of kerbside places with a parked car.
    pub parked_share: f32,
}

/// Colours and light.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Palette {
    /// Road surfaces; one is drawn per district.
    pub asphalt: Vec<Colour>,
    /// Pavement slabs.
    pub pavement: Vec<Colour>,
    /// Lawns and parks.
    pub grass: Vec<Colour>,
    /// Squares and car parks.
    pub plaza: Vec<Colour>,
    /// Roofs.
    pub roofs: Vec<Colour>,
    /// Walls.
    pub walls: Vec<Colour>,
    /// Window panes.
    pub windows: Vec<Colour>,
    /// Crowns of trees.
    pub trees: Vec<Colour>,
    /// Car bodies.
    pub cars: Vec<Colour>,
    /// Road paint.
    pub paint: Colour,
    /// Sky at the top of the picture.
    pub sky_high: Colour,
    /// Sky at the horizon; haze tends to it.
    pub sky_low: Colour,
    /// How cloudy, 0 to 1.
    pub cloud: f32,
    /// Haze, per metre.
    pub haze_per_m: f32,
    /// Light on a wall that faces away from the sun, 0 to 1.
    pub ambient: f32,
    /// Elevation of the sun, rad.
    pub sun_elevation_rad: [f32; 2],
}

/// What one camera makes of the light that reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SensorStyle {
    /// Exponent on intensities from 0 to 1.
    pub gamma: f32,
    /// Gain of red, green, blue.
    pub gains: [f32; 3],
    /// Slope about mid grey.
    pub contrast: f32,
    /// Added to every channel, of 255.
    pub offset: f32,
    /// Sigma of the noise, of 255.
    pub noise_sigma: f32,
}

/// How the middle of a road is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CentreLine {
    /// One broken line.
    Dashes,
    /// Two unbroken lines.
    Double,
}

/// How a pedestrian crossing is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crossing {
    /// Bars along the road.
    Zebra,
    /// Two lines across the road.
    Lines,
}

/// The road marking of a country: taken whole from one style or the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marking {
    /// The middle of the road.
    pub centre: CentreLine,
    /// Its colour.
    pub centre_colour: Colour,
    /// Crossings.
    pub crossing: Crossing,
    /// Share of street ends with a crossing.
    pub crossing_share: f32,
    /// Share of streets with edge lines.
    pub edge_share: f32,
}

/// Everything that the generator and the renderers ask of a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Style {
    /// Shapes and sizes.
    pub geometry: Geometry,
    /// Colours and light.
    pub palette: Palette,
    /// Road marking.
    pub marking: Marking,
    /// The camera on the vehicle.
    pub ground_sensor: SensorStyle,
    /// The camera in the aircraft.
    pub aerial_sensor: SensorStyle,
}

/// How far a style lies from the source (0) to the target (1), by kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// Shapes and sizes, 0 to 1.
    pub geometry: f32,
    /// Colours and light, 0 to 1.
    pub palette: f32,
    /// Both cameras, 0 to 1.
    pub sensor: f32,
    /// True for the target's road marking.
    pub marking: bool,
}

impl Gap {
    /// No gap: the source itself.
    pub const NONE: Self = Self {
        geometry: 0.0,
        palette: 0.0,
        sensor: 0.0,
        marking: false,
    };
}

impl Default for Gap {
    /// A gap that hurts a teacher without blinding it.
    fn default() -> Self {
        Self {
            geometry: 0.2,
            palette: 0.65,
            sensor: 0.35,
            marking: true,
        }
    }
}

impl Style {
    /// The style at `gap` on the way from `source` to `target`.
    pub fn between(source: &Self, target: &Self, gap: Gap) -> Self {
        Self {
            geometry: Geometry::between(&source.geometry, &target.geometry, gap.geometry),
            palette: Palette::between(&source.palette, &target.palette, gap.palette),
            marking: if gap.marking {
                target.marking
            } else {
                source.marking
            },
            ground_sensor: source
                .ground_sensor
                .towards(&target.ground_sensor, gap.sensor),
            aerial_sensor: source
                .aerial_sensor
                .towards(&target.aerial_sensor, gap.sensor),
        }
    }

    /// A low town of brick and lawns in early summer.
    pub fn source() -> Self {
        Self {
            geometry: Geometry {
                block_m: [48.0, 85.0],
                road_widths_m: vec![[6.5, 0.5], [8.5, 0.35], [12.0, 0.15]],
                pavement_m: [1.8, 2.8],
                bend_m: 7.0,
                gable_share: 0.75,
                building_height_m: [5.5, 12.0],
                storey_m: 3.0,
                facade_weights: [0.85, 0.15, 0.0],
                lot_width_m: [9.0, 18.0],
                gap_share: 0.35,
                setback_m: [1.0, 5.0],
                depth_m: [9.0, 13.0],
                lawn_share: 0.9,
                tree_share: 0.45,
                tree_spacing_m: 11.0,
                tree_height_m: [5.0, 11.0],
                tree_radius_m: [1.6, 3.4],
                parked_share: 0.45,
            },
            palette: Palette {
                asphalt: vec![
                    [92.0, 92.0, 96.0],
                    [84.0, 85.0, 88.0],
                    [104.0, 102.0, 100.0],
                ],
                pavement: vec![[150.0, 148.0, 145.0], [165.0, 160.0, 150.0]],
                grass: vec![[86.0, 112.0, 58.0], [96.0, 120.0, 66.0]],
                plaza: vec![[158.0, 148.0, 138.0], [140.0, 136.0, 130.0]],
                roofs: vec![
                    [150.0, 74.0, 56.0],
                    [128.0, 66.0, 54.0],
                    [112.0, 62.0, 50.0],
                    [88.0, 84.0, 86.0],
                    [120.0, 112.0, 104.0],
                ],
                walls: vec![
                    [168.0, 98.0, 76.0],
                    [188.0, 168.0, 140.0],
                    [205.0, 198.0, 186.0],
                    [146.0, 84.0, 66.0],
                    [176.0, 150.0, 120.0],
                ],
                windows: vec![[62.0, 70.0, 82.0], [48.0, 54.0, 62.0]],
                trees: vec![[58.0, 88.0, 40.0], [70.0, 100.0, 46.0], [48.0, 78.0, 40.0]],
                cars: vec![
                    [200.0, 200.0, 205.0],
                    [40.0, 42.0, 48.0],
                    [120.0, 124.0, 130.0],
                    [150.0, 30.0, 30.0],
                    [40.0, 60.0, 120.0],
                ],
                paint: [225.0, 225.0, 222.0],
                sky_high: [110.0, 150.0, 215.0],
                sky_low: [205.0, 215.0, 228.0],
                cloud: 0.6,
                haze_per_m: 0.004,
                ambient: 0.62,
                sun_elevation_rad: [0.7, 1.1],
            },
            marking: Marking {
                centre: CentreLine::Dashes,
                centre_colour: [225.0, 225.0, 222.0],
                crossing: Crossing::Zebra,
                crossing_share: 0.75,
                edge_share: 0.35,
            },
            ground_sensor: SensorStyle {
                gamma: 1.0,
                gains: [1.0; 3],
                contrast: 1.0,
                offset: 0.0,
                noise_sigma: 4.0,
            },
            aerial_sensor: SensorStyle {
                gamma: 1.0,
                gains: [1.0; 3],
                contrast: 1.0,
                offset: 0.0,
                noise_sigma: 4.0,
            },
        }
    }

    /// A taller, paler city in a dry autumn, seen by warmer and noisier cameras.
    pub fn target() -> Self {
        Self {
            geometry: Geometry {
                block_m: [58.0, 105.0],
                road_widths_m: vec![[8.5, 0.35], [12.0, 0.4], [16.0, 0.25]],
                pavement_m: [2.4, 4.0],
                bend_m: 3.5,
                gable_share: 0.12,
                building_height_m: [8.0, 26.0],
                storey_m: 3.6,
                facade_weights: [0.45, 0.3, 0.25],
                lot_width_m: [14.0, 32.0],
                gap_share: 0.22,
                setback_m: [0.0, 3.5],
                depth_m: [12.0, 20.0],
                lawn_share: 0.35,
                tree_share: 0.22,
                tree_spacing_m: 13.0,
                tree_height_m: [4.5, 8.5],
                tree_radius_m: [1.3, 2.8],
                parked_share: 0.5,
            },
            palette: Palette {
                asphalt: vec![
                    [128.0, 126.0, 122.0],
                    [118.0, 116.0, 114.0],
                    [140.0, 136.0, 128.0],
                ],
                pavement: vec![[186.0, 180.0, 168.0], [172.0, 166.0, 156.0]],
                grass: vec![[150.0, 138.0, 84.0], [128.0, 126.0, 74.0]],
                plaza: vec![[182.0, 172.0, 156.0], [150.0, 150.0, 152.0]],
                roofs: vec![
                    [176.0, 172.0, 166.0],
                    [150.0, 148.0, 146.0],
                    [200.0, 196.0, 188.0],
                    [112.0, 110.0, 112.0],
                    [160.0, 140.0, 120.0],
                ],
                walls: vec![
                    [206.0, 200.0, 188.0],
                    [150.0, 152.0, 156.0],
                    [120.0, 112.0, 106.0],
                    [190.0, 160.0, 124.0],
                    [170.0, 120.0, 96.0],
                    [96.0, 104.0, 116.0],
                ],
                windows: vec![
                    [70.0, 92.0, 110.0],
                    [92.0, 112.0, 124.0],
                    [52.0, 58.0, 66.0],
                ],
                trees: vec![
                    [110.0, 104.0, 44.0],
                    [134.0, 98.0, 40.0],
                    [84.0, 96.0, 50.0],
                ],
                cars: vec![
                    [220.0, 220.0, 222.0],
                    [60.0, 62.0, 66.0],
                    [150.0, 152.0, 156.0],
                    [130.0, 44.0, 40.0],
                    [176.0, 166.0, 140.0],
                ],
                paint: [228.0, 226.0, 216.0],
                sky_high: [120.0, 160.0, 205.0],
                sky_low: [222.0, 218.0, 205.0],
                cloud: 0.25,
                haze_per_m: 0.007,
                ambient: 0.55,
                sun_elevation_rad: [0.5, 0.9],
            },
            marking: Marking {
                centre: CentreLine::Double,
                centre_colour: [214.0, 172.0, 52.0],
                crossing: Crossing::Lines,
                crossing_share: 0.6,
                edge_share: 0.15,
            },
            ground_sensor: SensorStyle {
                gamma: 0.88,
                gains: [1.06, 1.0, 0.90],
                contrast: 0.92,
                offset: 6.0,
                noise_sigma: 6.0,
            },
            aerial_sensor: SensorStyle {
                gamma: 1.12,
                gains: [0.94, 1.0, 1.04],
                contrast: 1.08,
                offset: 4.0,
                noise_sigma: 5.0,
            },
        }
    }
}

impl Geometry {
    fn between(a: &Self, b: &Self, w: f32) -> Self {
        Self {
            block_m: mix_all(a.block_m, b.block_m, w),
            road_widths_m: mix_list(&a.road_widths_m, &b.road_widths_m, w),
            pavement_m: mix_all(a.pavement_m, b.pavement_m, w),
            bend_m: mix(a.bend_m, b.bend_m, w),
            gable_share: mix(a.gable_share, b.gable_share, w),
            building_height_m: mix_all(a.building_height_m, b.building_height_m, w),
            storey_m: mix(a.storey_m, b.storey_m, w),
            facade_weights: mix_all(a.facade_weights, b.facade_weights, w),
            lot_width_m: mix_all(a.lot_width_m, b.lot_width_m, w),
            gap_share: mix(a.gap_share, b.gap_share, w),
            setback_m: mix_all(a.setback_m, b.setback_m, w),
            depth_m: mix_all(a.depth_m, b.depth_m, w),
            lawn_share: mix(a.lawn_share, b.lawn_share, w),
            tree_share: mix(a.tree_share, b.tree_share, w),
            tree_spacing_m: mix(a.tree_spacing_m, b.tree_spacing_m, w),
            tree_height_m: mix_all(a.tree_height_m, b.tree_height_m, w),
            tree_radius_m: mix_all(a.tree_radius_m, b.tree_radius_m, w),
            parked_share: mix(a.parked_share, b.parked_share, w),
        }
    }
}

impl Palette {
    fn between(a: &Self, b: &Self, w: f32) -> Self {
        Self {
            asphalt: mix_list(&a.asphalt, &b.asphalt, w),
            pavement: mix_list(&a.pavement, &b.pavement, w),
            grass: mix_list(&a.grass, &b.grass, w),
            plaza: mix_list(&a.plaza, &b.plaza, w),
            roofs: mix_list(&a.roofs, &b.roofs, w),
            walls: mix_list(&a.walls, &b.walls, w),
            windows: mix_list(&a.windows, &b.windows, w),
            trees: mix_list(&a.trees, &b.trees, w),
            cars: mix_list(&a.cars, &b.cars, w),
            paint: mix_all(a.paint, b.paint, w),
            sky_high: mix_all(a.sky_high, b.sky_high, w),
            sky_low: mix_all(a.sky_low, b.sky_low, w),
            cloud: mix(a.cloud, b.cloud, w),
            haze_per_m: mix(a.haze_per_m, b.haze_per_m, w),
            ambient: mix(a.ambient, b.ambient, w),
            sun_elevation_rad: mix_all(a.sun_elevation_rad, b.sun_elevation_rad, w),
        }
    }
}

impl SensorStyle {
    fn towards(&self, other: &Self, w: f32) -> Self {
        Self {
            gamma: mix(self.gamma, other.gamma, w),
            gains: mix_all(self.gains, other.gains, w),
            contrast: mix(self.contrast, other.contrast, w),
            offset: mix(self.offset, other.offset, w),
            noise_sigma: mix(self.noise_sigma, other.noise_sigma, w),
        }
    }
}

fn mix(a: f32, b: f32, w: f32) -> f32 {
    a * (1.0 - w) + b * w
}

fn mix_all<const N: usize>(a: [f32; N], b: [f32; N], w: f32) -> [f32; N] {
    std::array::from_fn(|i| mix(a[i], b[i], w))
}

/// Entry by entry; the shorter list repeats, and each end of the scale is that style's own list.
fn mix_list<const N: usize>(a: &[[f32; N]], b: &[[f32; N]], w: f32) -> Vec<[f32; N]> {
    if w <= 0.0 {
        return a.to_vec();
    }
    if w >= 1.0 {
        return b.to_vec();
    }
    (0..a.len().max(b.len()))
        .map(|i| mix_all(a[i % a.len()], b[i % b.len()], w))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_gap_is_the_source_and_the_whole_gap_is_the_target() {
        let (source, target) = (Style::source(), Style::target());
        assert_eq!(Style::between(&source, &target, Gap::NONE), source);
        let whole = Gap {
            geometry: 1.0,
            palette: 1.0,
            sensor: 1.0,
            marking: true,
        };
        assert_eq!(Style::between(&source, &target, whole), target);
    }

    #[test]
    fn the_dials_turn_apart() {
        let (source, target) = (Style::source(), Style::target());
        let gap = Gap {
            palette: 0.5,
            ..Gap::NONE
        };
        let half = Style::between(&source, &target, gap);
        assert_eq!(half.geometry, source.geometry);
        assert_eq!(half.ground_sensor, source.ground_sensor);
        assert!((half.palette.cloud - 0.425).abs() < 1e-6);
        assert_eq!(half.palette.walls.len(), 6);
    }
}
