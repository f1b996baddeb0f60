//! How a receiver found its position, by GGA's quality or the mode letters of GNS, RMC and GLL.

use nmea::sentences::FixType;

/// How a position was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Code phases alone.
    Plain,
    /// With corrections of a station or of satellites (SBAS).
    Differential,
    /// Carrier phases with whole ambiguities.
    RtkFixed,
    /// Carrier phases with real-valued ambiguities.
    RtkFloat,
    /// By a simulator.
    Simulated,
    /// Not by satellites: none, estimated, or typed in.
    Invalid,
}

impl Quality {
    /// Of the crate's word for it. A receiver's own dead reckoning is not taken: it is no measurement of
    /// this moment, and the daemon reckons itself.
    pub fn of(fix_type: FixType) -> Self {
        match fix_type {
            FixType::Gps | FixType::Pps => Self::Plain,
            FixType::DGps => Self::Differential,
            FixType::Rtk => Self::RtkFixed,
            FixType::FloatRtk => Self::RtkFloat,
            FixType::Simulation => Self::Simulated,
            FixType::Invalid | FixType::Estimated | FixType::Manual => Self::Invalid,
        }
    }

    /// Range error as a share of a plain fix's. Typical user range errors are 3 to 4 m plain, half of
    /// that with corrections, decimetres with a float and centimetres with a fixed carrier-phase
    /// solution; a GST of the same epoch always comes first.
    pub fn range_share(self) -> f64 {
        match self {
            Self::Plain | Self::Simulated | Self::Invalid => 1.0,
            Self::Differential => 0.5,
            Self::RtkFloat => 0.1,
            Self::RtkFixed => 0.01,
        }
    }
}
