//! The strip of a camera picture that a student takes as input.

use crossfix_calibration::{Camera, Error, RgbImage, StripMapper};

use crate::card::GroundInput;

/// Cuts the strip of `ground` out of a picture that was taken with this yaw (radians counter-clockwise from
/// east); returns it with the azimuth of its left edge, radians clockwise from north. `mapper` is kept for
/// the next picture.
///
/// # Errors
/// What the camera does not see of the strip, or a picture of another size than the camera's.
pub fn cut(
    mapper: &mut Option<StripMapper>,
    camera: &Camera,
    ground: &GroundInput,
    yaw_rad: f64,
    picture: &RgbImage,
) -> Result<(RgbImage, f64), Error> {
    let direction = ground.strip_spec(yaw_rad);
    let fitting = match mapper.take() {
        Some(mapper) if mapper.fits(camera, &direction) => mapper,
        _ => StripMapper::new(camera, &direction)?,
    };
    let strip = fitting
        .remap(direction.left_azimuth_rad, yaw_rad)
        .and_then(|remap| remap.apply(picture));
    *mapper = Some(fitting);
    Ok((strip?, direction.left_azimuth_rad))
}
