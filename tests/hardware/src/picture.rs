//! Cameras that show something else than the world.

use crate::scenario::Picture;
use crossfix_onboard::event::CameraFrame;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, Rgb, RgbImage, imageops};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::sync::Arc;

/// Sigma of a camera's noise, grey levels.
const SENSOR_NOISE: f64 = 3.0;
/// Pictures of a loop.
const LOOP: usize = 10;
/// The age of old pictures, nanoseconds.
const OLD_NS: i64 = 1_000_000_000;

/// Spoils the frames that arrive while `lasts`.
pub fn spoil(
    frames: &mut [(i64, &mut CameraFrame)],
    what: Picture,
    lasts: impl Fn(i64) -> bool,
    rng: &mut ChaCha8Rng,
) {
    let originals: Vec<(i64, Arc<[u8]>)> = frames
        .iter()
        .map(|(at_ns, frame)| (*at_ns, frame.image.clone()))
        .collect();
    let first = originals.iter().position(|(at_ns, _)| lasts(*at_ns));
    let Some(first) = first else { return };
    for index in first..frames.len() {
        let (at_ns, frame) = &mut frames[index];
        if !lasts(*at_ns) {
            continue;
        }
        let original = &originals[index].1;
        frame.image = match what {
            Picture::Frozen => originals[first].1.clone(),
            Picture::Looped => originals[first.saturating_sub(index % LOOP)].1.clone(),
            Picture::SecondOld => {
                let old = originals.partition_point(|(time, _)| *time <= *at_ns - OLD_NS);
                originals[old.saturating_sub(1)].1.clone()
            }
            Picture::Cut => original[..original.len() / 2].into(),
            Picture::FrozenNoisy => edited(&originals[first].1, |picture| noisy(picture, rng)),
            Picture::Black => edited(original, |picture| filled(picture, 4, rng)),
            Picture::White => edited(original, |picture| filled(picture, 251, rng)),
            Picture::Noise => edited(original, |mut picture| {
                rng.fill(&mut *picture);
                picture
            }),
            Picture::Blurred => edited(original, |picture| imageops::blur(&picture, 6.0)),
            Picture::Mirrored => edited(original, |picture| imageops::flip_horizontal(&picture)),
            Picture::UpsideDown => edited(original, |picture| imageops::rotate180(&picture)),
            Picture::Turned => edited(original, |picture| turned(&picture)),
        };
    }
}

fn edited(bytes: &[u8], edit: impl FnOnce(RgbImage) -> RgbImage) -> Arc<[u8]> {
    let picture = image::load_from_memory_with_format(bytes, ImageFormat::Jpeg)
        .expect("recorded pictures are whole")
        .into_rgb8();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 90)
        .encode_image(&edit(picture))
        .expect("a picture in memory can be encoded");
    jpeg.into()
}

fn noisy(mut picture: RgbImage, rng: &mut ChaCha8Rng) -> RgbImage {
    for value in picture.iter_mut() {
        let noise: f64 = StandardNormal.sample(rng);
        *value = (f64::from(*value) + SENSOR_NOISE * noise).clamp(0.0, 255.0) as u8;
    }
    picture
}

fn filled(picture: RgbImage, grey: u8, rng: &mut ChaCha8Rng) -> RgbImage {
    noisy(
        RgbImage::from_pixel(picture.width(), picture.height(), Rgb([grey; 3])),
        rng,
    )
}

/// A panorama whose camera was turned by a quarter.
fn turned(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        *picture.get_pixel((x + width / 4) % width, y)
    })
}
