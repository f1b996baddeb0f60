//! Camera frame and heatmap as pictures for a browser: made when somebody asks, and not too often.

use std::io::Cursor;
use std::time::{Duration, Instant};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, imageops};

use super::history::Numbered;
use crate::event::{Arrival, Event, Match};
use crate::image_decode::decode_rgb;

/// Largest camera picture that is decoded, pixels a side; that of the core.
const LARGEST_FRAME_PX: usize = 8192;
/// Longest side of a camera picture for the page, pixels.
const FRAME_SIDE_PX: u32 = 960;
const JPEG_QUALITY: u8 = 70;
/// Colour of the heatmap, and how opaque it is at its mode.
const HEATMAP_RGB: [u8; 3] = [255, 0, 170];
const HEATMAP_ALPHA: f32 = 220.0;
/// Cells with less than this share of the mode's probability are transparent; above it faint ones are
/// raised by this exponent, so that a second mode shows beside a sharp one.
const LEAST_SHARE: f32 = 1e-3;
const EXPONENT: f32 = 0.35;

/// The pictures that were made last.
#[derive(Debug)]
pub struct Pictures {
    every: Duration,
    frame: Made,
    heatmap: Made,
}

/// A picture, or why there is none.
type Picture = Result<Vec<u8>, String>;

#[derive(Debug, Default)]
struct Made {
    last: Option<(u64, Instant, Picture)>,
    /// How many were made.
    count: u64,
}

impl Pictures {
    /// Makes at most one of each in `every`.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            frame: Made::default(),
            heatmap: Made::default(),
        }
    }

    /// A JPEG of the frame, or of one shortly before it. What the file says of place, device and owner is
    /// not in it.
    pub fn frame(&mut self, frame: &Numbered<Arrival>, now: Instant) -> &Picture {
        let make = || frame_jpeg(&frame.value);
        self.frame.get(frame.number, self.every, now, make)
    }

    /// The number of the heatmap whose picture was made last.
    pub fn heatmap_number(&self) -> Option<u64> {
        self.heatmap.number()
    }

    /// A PNG of the heatmap, or of one shortly before it; transparent where it is improbable.
    pub fn heatmap(&mut self, found: &Numbered<Match>, now: Instant) -> &Picture {
        let make = || heatmap_png(&found.value);
        self.heatmap.get(found.number, self.every, now, make)
    }
}

impl Made {
    /// The number of what the picture shows that was made last.
    fn number(&self) -> Option<u64> {
        self.last.as_ref().map(|(number, ..)| *number)
    }

    fn get(
        &mut self,
        number: u64,
        every: Duration,
        now: Instant,
        make: impl FnOnce() -> Picture,
    ) -> &Picture {
        let good = self.last.as_ref().is_some_and(|(made_of, made, _)| {
            *made_of == number || now.saturating_duration_since(*made) < every
        });
        if !good {
            self.count += 1;
            self.last = None;
        }
        &self.last.get_or_insert_with(|| (number, now, make())).2
    }
}

fn frame_jpeg(arrival: &Arrival) -> Picture {
    let Event::Frame(frame) = &arrival.event else {
        return Err("no frame".into());
    };
    let picture = decode_rgb(&frame.image, LARGEST_FRAME_PX)
        .map_err(|error| format!("the frame of camera \"{}\" {error}", frame.camera))?;
    let size = [picture.width, picture.height].map(|side| side as u32);
    let pixels = image::RgbImage::from_raw(size[0], size[1], picture.data)
        .ok_or("the frame has another size than its pixels")?;
    let scale = f64::from(FRAME_SIDE_PX) / f64::from(size[0].max(size[1]));
    let small = if scale < 1.0 {
        let [width, height] = size.map(|side| ((f64::from(side) * scale).round() as u32).max(1));
        imageops::thumbnail(&pixels, width, height)
    } else {
        pixels
    };
    let mut jpeg = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
        .encode_image(&small)
        .map_err(|error| error.to_string())?;
    Ok(jpeg.into_inner())
}

fn heatmap_png(found: &Match) -> Picture {
    let heatmap = &found.fix.heatmap;
    let top = heatmap.mode().probability;
    let pixels: Vec<u8> = heatmap
        .probabilities()
        .iter()
        .flat_map(|probability| {
            let share = if top > 0.0 { probability / top } else { 0.0 };
            let [red, green, blue] = HEATMAP_RGB;
            let alpha = if share < LEAST_SHARE {
                0.0
            } else {
                HEATMAP_ALPHA * share.powf(EXPONENT)
            };
            [red, green, blue, alpha as u8]
        })
        .collect();
    let side = heatmap.side() as u32;
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&pixels, side, side, ExtendedColorType::Rgba8)
        .map_err(|error| error.to_string())?;
    Ok(png)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use crossfix_calibration::{Geodetic, Heatmap, PatchGeoreference, PatchSpec, RgbImage};

    use super::super::history::History;
    use super::*;
    use crate::event::{CameraFrame, CrossViewFix};
    use crate::port::Outbound;

    /// A frame of this size.
    pub fn frame(width: u32, height: u32) -> Outbound {
        let mut jpeg = Cursor::new(Vec::new());
        let pixels = image::RgbImage::from_pixel(width, height, image::Rgb([10, 200, 90]));
        JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
        frame_of(jpeg.into_inner())
    }

    /// A frame of these bytes.
    pub fn frame_of(image: Vec<u8>) -> Outbound {
        let frame = CameraFrame {
            time_ns: 1,
            image: image.into(),
            camera: "front".into(),
        };
        Outbound::Event(Arc::new(Arrival::at_once("front", Event::Frame(frame))))
    }

    /// A match whose heatmap is a Gaussian.
    pub fn found() -> Outbound {
        let spec = PatchSpec {
            size_px: 128,
            metres_per_pixel: 0.5,
        };
        let centre = Geodetic::new(-33.5, 151.25, 0.0).unwrap();
        let georeference = PatchGeoreference::exactly_at(centre, spec).unwrap();
        let fix = CrossViewFix {
            time_ns: 1,
            centre,
            heatmap: Heatmap::gaussian(64, 1.0, [10.0, -5.0], 3.0).unwrap(),
            yaw: None,
            yaw_sigma_rad: 0.0,
        };
        Outbound::Match(Arc::new(Match {
            fix,
            georeference,
            patch: Arc::new(RgbImage::black(128, 128)),
            camera: "front".into(),
        }))
    }

    #[test]
    fn pictures_are_small_and_made_at_most_so_often() {
        let (mut history, start) = (History::default(), Instant::now());
        let mut pictures = Pictures::new(Duration::from_millis(500));
        // 5 s of 20 frames a second, each asked for by four viewers.
        for step in 0..100 {
            let now = start + Duration::from_millis(50 * step);
            history.note(&frame(1600, 400), now);
            for _ in 0..4 {
                let jpeg = pictures.frame(history.frame.as_ref().unwrap(), now);
                let small = decode_rgb(jpeg.as_ref().unwrap(), 960).unwrap();
                assert_eq!([small.width, small.height], [960, 240]);
            }
        }
        assert_eq!(pictures.frame.count, 10);
        assert_eq!(pictures.heatmap.count, 0, "nobody asked for one");
    }

    #[test]
    fn a_frame_that_cannot_be_read_says_so() {
        let (mut history, now) = (History::default(), Instant::now());
        history.note(&frame_of(b"\xff\xd8\xff no picture".to_vec()), now);
        let mut pictures = Pictures::new(Duration::from_millis(500));
        let problem = pictures.frame(history.frame.as_ref().unwrap(), now);
        assert!(problem.as_ref().unwrap_err().contains("front"));
    }

    #[test]
    fn the_heatmap_is_opaque_at_its_mode_and_lies_where_the_patch_does() {
        let (mut history, now) = (History::default(), Instant::now());
        history.note(&found(), now);
        let mut pictures = Pictures::new(Duration::from_millis(500));
        let png = pictures.heatmap(history.heatmap.as_ref().unwrap(), now);
        let pixels = image::load_from_memory(png.as_ref().unwrap())
            .unwrap()
            .to_rgba8();
        assert_eq!(pixels.get_pixel(42, 36).0, [255, 0, 170, 220]);
        assert_eq!(pixels.get_pixel(0, 0).0[3], 0);
        let heatmap = &history.json(0, now)["heatmap"];
        let number = |name: &str| heatmap[name].as_f64().unwrap();
        let high_m = (number("north_deg") - number("south_deg")) * 110_900.0;
        assert!((high_m - 64.0).abs() < 0.1, "{high_m}");
        assert!(number("west_deg") < 151.25 && number("east_deg") > 151.25);
        let mode = heatmap["mode"].as_array().unwrap();
        let north_m = (mode[0].as_f64().unwrap() + 33.5) * 110_900.0;
        let metres_per_degree = 111_320.0 * 33.5f64.to_radians().cos();
        let east_m = (mode[1].as_f64().unwrap() - 151.25) * metres_per_degree;
        assert!(
            (north_m + 5.0).abs() < 1.0 && (east_m - 10.0).abs() < 1.0,
            "{north_m} {east_m}"
        );
    }
}
