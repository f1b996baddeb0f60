//! The ground image that a student takes as input: a strip, or a pinhole picture.

use crossfix_calibration::{Camera, Error, RgbImage, StripMapper, StripRemap};

use crate::card::GroundInput;

/// A pinhole picture of which the camera sees less than this is not used.
const LEAST_SEEN: f64 = 0.5;

/// Tables from a camera's pictures to a student's ground images, made once.
pub struct GroundMapper {
    ground: GroundInput,
    camera: Camera,
    table: Table,
}

enum Table {
    /// A table for every yaw.
    Strip(StripMapper),
    /// One table: the picture turns with the vehicle.
    Pinhole(StripRemap),
    /// None can be made, for this reason: it is not tried again for each picture.
    Refused(String),
}

impl GroundMapper {
    /// # Errors
    /// For a camera that cannot be, or one that sees less than half of a pinhole picture.
    pub fn new(camera: &Camera, ground: &GroundInput) -> Result<Self, Error> {
        let table = match ground.pinhole_view() {
            None => Table::Strip(StripMapper::new(camera, &ground.strip_spec(0.0))?),
            Some(view) => {
                let remap = StripRemap::pinhole(camera, &view)?;
                let seen = remap.seen_fraction();
                if seen < LEAST_SEEN {
                    return Err(Error::Camera(format!(
                        "the camera sees {:.0} % of the picture that the student looks at, a level one of \
                         {:.0}° along the vehicle's nose; correct its mount and lens, or take a student for \
                         this camera",
                        100.0 * seen,
                        ground.fov_deg
                    )));
                }
                Table::Pinhole(remap)
            }
        };
        Ok(Self {
            ground: *ground,
            camera: camera.clone(),
            table,
        })
    }

    fn fits(&self, camera: &Camera, ground: &GroundInput) -> bool {
        self.camera == *camera && self.ground == *ground
    }
}

/// Makes the ground image of `ground` out of a picture that was taken with this yaw (radians
/// counter-clockwise from east); returns it with the azimuth of its left edge, radians clockwise from
/// north, which means nothing for a pinhole picture. `mapper` is kept for the next picture.
///
/// # Errors
/// As [`GroundMapper::new`], and for a picture of another size than the camera's.
pub fn cut(
    mapper: &mut Option<GroundMapper>,
    camera: &Camera,
    ground: &GroundInput,
    yaw_rad: f64,
    picture: &RgbImage,
) -> Result<(RgbImage, f64), Error> {
    let left_azimuth_rad = ground.strip_spec(yaw_rad).left_azimuth_rad;
    let fitting = match mapper.take() {
        Some(mapper) if mapper.fits(camera, ground) => mapper,
        _ => GroundMapper::new(camera, ground).unwrap_or_else(|error| GroundMapper {
            ground: *ground,
            camera: camera.clone(),
            table: Table::Refused(error.to_string()),
        }),
    };
    let image = match &fitting.table {
        Table::Refused(problem) => Err(Error::Camera(problem.clone())),
        Table::Strip(strip) => strip
            .remap(left_azimuth_rad, yaw_rad)
            .and_then(|remap| remap.apply(picture)),
        Table::Pinhole(remap) => remap.apply(picture),
    };
    *mapper = Some(fitting);
    Ok((image?, left_azimuth_rad))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::tests::tiny_card;
    use crossfix_calibration::{Mount, Pinhole};

    fn camera(yaw_left_deg: f64) -> Camera {
        Camera::Pinhole(Pinhole {
            mount: Mount {
                yaw_left_deg,
                ..Mount::default()
            },
            ..Pinhole::with_horizontal_view(128, 96, 1.6)
        })
    }

    fn pinhole() -> GroundInput {
        GroundInput {
            rows: 24,
            columns: 32,
            camera: Some([20.0, 20.0, 15.5, 11.5]),
            ..tiny_card().ground
        }
    }

    /// Bright right of the middle.
    fn half() -> RgbImage {
        let mut picture = RgbImage::black(128, 96);
        for (row, column) in (0..96).flat_map(|row| (64..128).map(move |column| (row, column))) {
            picture.set_pixel(column, row, [200; 3]);
        }
        picture
    }

    #[test]
    fn a_pinhole_picture_turns_with_the_vehicle() {
        let mut mapper = None;
        let mut images = [0.0, 1.0, -2.5].map(|yaw_rad| {
            let cut = cut(&mut mapper, &camera(0.0), &pinhole(), yaw_rad, &half());
            cut.unwrap().0
        });
        assert_eq!(images[0], images[1]);
        assert_eq!(images[0], images[2]);
        assert_eq!([images[0].width, images[0].height], [32, 24]);
        assert_eq!(images[0].pixel(12, 12), [0; 3]);
        assert_eq!(images[0].pixel(19, 12), [200; 3]);
        // Another camera gets another table.
        let left = camera(20.0);
        images[1] = cut(&mut mapper, &left, &pinhole(), 0.0, &half()).unwrap().0;
        assert_ne!(images[0], images[1]);
    }

    #[test]
    fn a_camera_that_looks_elsewhere_is_refused_with_what_it_sees() {
        let mut mapper = None;
        let error = cut(&mut mapper, &camera(170.0), &pinhole(), 0.0, &half())
            .unwrap_err()
            .to_string();
        assert!(error.contains("sees 0 % of the picture"), "{error}");
    }
}
