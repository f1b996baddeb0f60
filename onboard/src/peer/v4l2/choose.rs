//! Which of the formats that a camera offers is taken.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::V4l2Config;

/// Sizes that are named in a message.
const SIZES_NAMED: usize = 8;

/// Pixels as cameras deliver them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelFormat {
    /// JPEG pictures (MJPG or JPEG), passed on as they are.
    Mjpeg,
    /// Luma and halved colour in turn (YUYV), 2 bytes a pixel.
    Yuyv,
    /// The same, colour first (UYVY).
    Uyvy,
    /// A plane of luma and one of quartered colour (NV12), 1.5 bytes a pixel.
    Nv12,
    /// A plane of luma and two of quartered colour (YU12, also called I420), 1.5 bytes a pixel.
    Yuv420,
    /// Luma alone (GREY), 1 byte a pixel.
    Grey,
}

impl PixelFormat {
    /// All of them; the first that a camera offers is taken where the config names none.
    const ALL: [Self; 6] = [
        Self::Mjpeg,
        Self::Yuyv,
        Self::Uyvy,
        Self::Nv12,
        Self::Yuv420,
        Self::Grey,
    ];

    /// The codes that V4L2 has for it.
    const fn codes(self) -> &'static [Code] {
        match self {
            Self::Mjpeg => const { &[Code(*b"MJPG"), Code(*b"JPEG")] },
            Self::Yuyv => const { &[Code(*b"YUYV")] },
            Self::Uyvy => const { &[Code(*b"UYVY")] },
            Self::Nv12 => const { &[Code(*b"NV12")] },
            Self::Yuv420 => const { &[Code(*b"YU12")] },
            Self::Grey => const { &[Code(*b"GREY")] },
        }
    }

    /// The format of a code.
    pub fn of(code: Code) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.codes().contains(&code))
    }
}

/// The four characters by which V4L2 names a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub [u8; 4]);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii().to_string().trim_end())
    }
}

/// A format that a camera offers, and in which sizes; in none named when its driver does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The format.
    pub code: Code,
    /// Its sizes.
    pub sizes: Vec<Sizes>,
}

/// One size, or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// Columns and rows.
    One(u32, u32),
    /// The smallest, the largest and the step of columns and of rows.
    Range([u32; 3], [u32; 3]),
}

impl Sizes {
    fn contains(self, width: u32, height: u32) -> bool {
        match self {
            Self::One(columns, rows) => (columns, rows) == (width, height),
            Self::Range(columns, rows) => {
                [(width, columns), (height, rows)]
                    .iter()
                    .all(|&(side, [least, most, step])| {
                        (least..=most).contains(&side) && (side - least).is_multiple_of(step.max(1))
                    })
            }
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(width, height) => write!(f, "{width} × {height}"),
            Self::Range([narrowest, widest, _], [lowest, highest, _]) => {
                write!(f, "{narrowest} × {lowest} to {widest} × {highest}")
            }
        }
    }
}

impl Offer {
    fn has(&self, width: u32, height: u32) -> bool {
        let mut sizes = self.sizes.iter();
        self.sizes.is_empty() || sizes.any(|sizes| sizes.contains(width, height))
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        for (index, sizes) in self.sizes.iter().take(SIZES_NAMED).enumerate() {
            write!(f, "{} {sizes}", if index == 0 { "" } else { "," })?;
        }
        if self.sizes.len() > SIZES_NAMED {
            write!(f, " and {} more", self.sizes.len() - SIZES_NAMED)?;
        }
        Ok(())
    }
}

/// The code of the format to ask a camera for.
///
/// # Errors
/// Why none of its formats will do, with those that it has.
pub fn choose(offers: &[Offer], config: &V4l2Config) -> Result<Code, String> {
    if offers.is_empty() {
        return Err(
            "has no formats to capture: it is no camera, or one of a camera's other devices; \
             `v4l2-ctl --list-devices` names them"
                .into(),
        );
    }
    let wanted: Vec<PixelFormat> = match config.format {
        Some(format) => vec![format],
        None => PixelFormat::ALL.to_vec(),
    };
    let codes: Vec<Code> = wanted
        .iter()
        .flat_map(|format| format.codes())
        .copied()
        .collect();
    let found = codes.iter().find(|&&code| {
        offers
            .iter()
            .any(|offer| offer.code == code && offer.has(config.width, config.height))
    });
    found.copied().ok_or_else(|| {
        let names: Vec<String> = codes.iter().map(ToString::to_string).collect();
        let offered: Vec<String> = offers.iter().map(ToString::to_string).collect();
        format!(
            "does not offer {} × {} px as {}; it offers {}",
            config.width,
            config.height,
            names.join(", "),
            offered.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(code: &[u8; 4], sizes: &[Sizes]) -> Offer {
        Offer {
            code: Code(*code),
            sizes: sizes.to_vec(),
        }
    }

    fn config(width: u32, height: u32, format: Option<PixelFormat>) -> V4l2Config {
        V4l2Config {
            width,
            height,
            format,
            ..V4l2Config::default()
        }
    }

    #[test]
    fn pictures_that_need_no_work_come_first_where_the_size_is_offered() {
        let offers = [
            offer(b"RGB3", &[]),
            offer(b"YUYV", &[Sizes::One(640, 480), Sizes::One(1280, 720)]),
            offer(b"MJPG", &[Sizes::One(1280, 720)]),
            offer(b"NV12", &[Sizes::Range([64, 1920, 16], [48, 1080, 2])]),
        ];
        for (width, height, format, code) in [
            (1280, 720, None, b"MJPG"),
            (640, 480, None, b"YUYV"),
            (1280, 720, Some(PixelFormat::Yuyv), b"YUYV"),
            (80, 50, None, b"NV12"),
            (1920, 1080, None, b"NV12"),
        ] {
            let chosen = choose(&offers, &config(width, height, format));
            assert_eq!(chosen, Ok(Code(*code)), "{width} × {height} {format:?}");
        }
        for (width, height, format) in [
            (81, 50, None),
            (80, 51, None),
            (1936, 1080, None),
            (640, 480, Some(PixelFormat::Mjpeg)),
            (640, 480, Some(PixelFormat::Grey)),
        ] {
            let words = choose(&offers, &config(width, height, format)).unwrap_err();
            let offered = "it offers RGB3; YUYV 640 × 480, 1280 × 720; MJPG 1280 × 720; \
                           NV12 64 × 48 to 1920 × 1080";
            assert!(words.ends_with(offered), "{words}");
        }
    }

    #[test]
    fn a_driver_that_names_no_sizes_is_asked_for_any() {
        let offers = [offer(b"JPEG", &[])];
        assert_eq!(choose(&offers, &config(7, 5, None)), Ok(Code(*b"JPEG")));
        assert_eq!(PixelFormat::of(Code(*b"JPEG")), Some(PixelFormat::Mjpeg));
        assert_eq!(PixelFormat::of(Code(*b"Y16 ")), None);
        assert_eq!(Code(*b"Y16 ").to_string(), "Y16");
        let words = choose(&[], &config(7, 5, None)).unwrap_err();
        assert!(words.contains("it is no camera"), "{words}");
    }
}
