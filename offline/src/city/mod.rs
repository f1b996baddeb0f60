//! A simulated town: somewhere to learn, adapt and test when there is no data to hand.
//!
//! style → streets → layout → district (a raster) → aerial tiles, panoramas, drives, satellite fixes.
//! An [`Area`] is a town in one style whose districts are told apart by [`Part`], so that nothing
//! is evaluated where it was trained. The same seed gives the same bytes.

pub mod aerial;
pub mod detail;
pub mod dice;
pub mod district;
pub mod drive;
pub mod frames;
pub mod front;
pub mod gnss;
pub mod ground;
pub mod layout;
pub mod markings;
mod painter;
pub mod panorama;
pub mod raster;
pub mod route;
pub mod sensor;
pub mod streets;
pub mod style;
pub mod tiles;

use crossfix_calibration::{Enu, Geodetic, LocalFrame};
use detail::Detail;
use dice::derive_seed;
use district::{District, SIDE_M};
use serde::{Deserialize, Serialize};
use style::{Gap, Style};

/// Which town.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AreaName {
    /// The source area, where true positions may be used.
    Source,
    /// The target area, to which a teacher is adapted.
    Target,
}

/// Districts that share nothing with those of the other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// For training in the source area, for adaptation in the target area.
    Adapt,
    /// For choices: epochs, recipes, gates.
    Validation,
    /// For the figures that are reported.
    Test,
}

impl Part {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adapt => "adapt",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl AreaName {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// What makes an area.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AreaConfig {
    /// Which town.
    pub area: AreaName,
    /// Seed of the whole world: source and target of one seed belong together.
    pub seed: u64,
    /// How far the target lies from the source; the source itself ignores it.
    pub gap: Gap,
}

/// A town in one style.
#[derive(Clone, Debug)]
pub struct Area {
    config: AreaConfig,
    style: Style,
    detail: Detail,
}

/// The local origin of the simulated world.
const WORLD_LATITUDE_DEG: f64 = 52.0116;
const WORLD_LONGITUDE_DEG: f64 = 4.3571;
/// Districts stand this far apart, so that no two share an aerial tile.
const DISTRICT_SPACING_M: f64 = 2000.0;

/// Prepares an area; districts are built one at a time, when asked for.
pub fn build_area(config: AreaConfig) -> Area {
    let gap = match config.area {
        AreaName::Source => Gap::NONE,
        AreaName::Target => config.gap,
    };
    Area {
        config,
        style: Style::between(&Style::source(), &Style::target(), gap),
        detail: Detail::default(),
    }
}

impl Area {
    /// The same town drawn at another fineness.
    #[must_use]
    pub fn drawn_at(self, detail: Detail) -> Self {
        Self { detail, ..self }
    }

    /// How finely it is drawn.
    pub fn detail(&self) -> Detail {
        self.detail
    }

    /// What it was made from.
    pub fn config(&self) -> &AreaConfig {
        &self.config
    }

    /// Its style, the gap applied.
    pub fn style(&self) -> &Style {
        &self.style
    }

    /// The seed of a part's district: no two districts of a world share one.
    pub fn district_seed(&self, part: Part, index: usize) -> u64 {
        derive_seed(
            self.config.seed,
            &[self.config.area as u64, part as u64, index as u64],
        )
    }

    /// Builds one district, at its place on the globe.
    pub fn district(&self, part: Part, index: usize) -> PlacedDistrict {
        let seed = self.district_seed(part, index);
        PlacedDistrict {
            district: District::new(&self.style, seed, self.detail.grid()),
            frame: self.frame(part, index),
            detail: self.detail,
            seed,
            name: format!("{}-{}-{index:02}", self.config.area.name(), part.name()),
        }
    }

    /// ENU about the middle of a district.
    pub fn frame(&self, part: Part, index: usize) -> LocalFrame {
        let world = LocalFrame::new(Geodetic {
            latitude_deg: WORLD_LATITUDE_DEG,
            longitude_deg: WORLD_LONGITUDE_DEG,
            height_m: 0.0,
        });
        let column = index as f64;
        let row = (3 * self.config.area as usize + part as usize) as f64;
        let middle = world.geodetic_from_enu(Enu::new(
            DISTRICT_SPACING_M * column,
            DISTRICT_SPACING_M * row,
            0.0,
        ));
        LocalFrame::new(Geodetic {
            height_m: 0.0,
            ..middle
        })
    }
}

/// A district with its place on the globe.
pub struct PlacedDistrict {
    /// The raster.
    pub district: District,
    /// ENU about its middle.
    pub frame: LocalFrame,
    /// How finely it is drawn.
    pub detail: Detail,
    /// What it was made from.
    pub seed: u64,
    /// Unique within a world, for ids.
    pub name: String,
}

impl PlacedDistrict {
    /// The place of a point in local metres (x east, y north of the south-west corner).
    pub fn geodetic(&self, local: [f64; 2]) -> Geodetic {
        let half = 0.5 * f64::from(SIDE_M);
        self.frame
            .geodetic_from_enu(Enu::new(local[0] - half, local[1] - half, 0.0))
    }

    /// The point in local metres at a place.
    pub fn local(&self, place: Geodetic) -> [f64; 2] {
        let half = 0.5 * f64::from(SIDE_M);
        let enu = self.frame.enu_from_geodetic(place);
        [enu.east() + half, enu.north() + half]
    }
}

#[cfg(test)]
mod tests;
