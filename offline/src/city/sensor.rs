//! What a camera makes of the light: white balance, exposure, gamma, contrast, offset and noise.

use super::dice::Dice;
use super::style::SensorStyle;
use crossfix_calibration::RgbImage;
use std::sync::OnceLock;

/// One exposure: a sensor's style with this picture's white balance and exposure.
pub struct Exposure {
    tables: [Vec<f32>; 3],
    noise_sigma: f32,
    noise: u64,
}

const TABLE_STEPS: f32 = 4.0;

impl Exposure {
    /// Draws the jitter of one picture, or of one flight.
    pub fn new(style: &SensorStyle, dice: &mut Dice) -> Self {
        let exposure = dice.normal(0.07).exp() as f32;
        let tables = std::array::from_fn(|channel| {
            let gain = style.gains[channel] * exposure * dice.normal(0.03).exp() as f32;
            (0..=(255.0 * TABLE_STEPS) as usize)
                .map(|step| {
                    let light = step as f32 / (255.0 * TABLE_STEPS);
                    let tone = (light * gain).clamp(0.0, 1.0).powf(style.gamma);
                    ((tone - 0.5) * style.contrast + 0.5) * 255.0 + style.offset
                })
                .collect()
        });
        let noise = u64::from(dice.bits());
        Self {
            tables,
            noise_sigma: style.noise_sigma,
            noise,
        }
    }

    /// The picture of these intensities (0 to 255); `salt` makes the noise of this picture its own.
    pub fn develop(
        &self,
        width: usize,
        height: usize,
        pixels: impl Iterator<Item = [f32; 3]>,
        salt: u64,
    ) -> RgbImage {
        let bell = bell_table();
        let mut state = super::dice::derive_seed(self.noise, &[salt]) | 1;
        let mut data = Vec::with_capacity(3 * width * height);
        for pixel in pixels {
            // xorshift64 (Marsaglia 2003): three table indices per step.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            for (channel, intensity) in pixel.into_iter().enumerate() {
                let step = (intensity.clamp(0.0, 255.0) * TABLE_STEPS) as usize;
                let noise = bell[(state >> (16 + 13 * channel)) as usize & (BELL - 1)];
                let value = self.tables[channel][step] + self.noise_sigma * noise;
                data.push(value.clamp(0.0, 255.0) as u8);
            }
        }
        RgbImage {
            width,
            height,
            data,
        }
    }
}

const BELL: usize = 8192;

/// Gaussian draws of sigma 1, indexed at random.
fn bell_table() -> &'static [f32] {
    static TABLE: OnceLock<Vec<f32>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut dice = Dice::new(0x6265_6c6c, &[]);
        (0..BELL).map(|_| dice.normal(1.0) as f32).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::*;

    #[test]
    fn noise_has_the_sigma_asked_for_and_repeats_with_its_seed() {
        let style = Style::source().ground_sensor;
        let grey = || (0..10_000).map(|_| [128.0; 3]);
        let shot =
            |seed| Exposure::new(&style, &mut Dice::new(seed, &[])).develop(100, 100, grey(), 5);
        let image = shot(1);
        assert_eq!(image.data, shot(1).data);
        assert_ne!(image.data, shot(2).data);
        let red: Vec<f32> = image
            .data
            .iter()
            .step_by(3)
            .map(|&v| f32::from(v))
            .collect();
        let mean = red.iter().sum::<f32>() / 1e4;
        let sigma = (red.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 1e4).sqrt();
        assert!((sigma - style.noise_sigma).abs() < 0.3, "sigma {sigma}");
    }
}
