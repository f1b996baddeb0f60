//! Several cameras as one: their pictures of one moment, stitched into a panorama.

use std::sync::Arc;

use crossfix_calibration::{Camera, Error, RgbImage, Stitcher};

use crate::config::RigConfig;
use crate::event::CameraFrame;
use crate::image_decode::decode_rgb;

/// The name of the stitched camera.
const NAME: &str = "rig";

/// Puts the frames of a rig's cameras together.
#[derive(Debug)]
pub struct Rig {
    /// Names of the cameras, in the order of the config.
    names: Vec<String>,
    within_ns: i64,
    within_s: f64,
    least_seen: f64,
    stitcher: Stitcher,
    camera: Camera,
    /// The moment whose frames are still coming.
    open: Option<Moment>,
    /// The cameras that the latest panorama was made without.
    without: Vec<usize>,
}

/// Frames of one moment, at most one of each camera.
#[derive(Debug)]
pub(super) struct Moment {
    /// Of the frame that came first.
    first_ns: i64,
    frames: Vec<Option<CameraFrame>>,
}

impl Moment {
    /// The mean of its frames' times.
    pub(super) fn time_ns(&self) -> i64 {
        let later = self.frames.iter().flatten();
        let later = later.map(|frame| frame.time_ns - self.first_ns);
        let (count, sum) = later.fold((0, 0), |(count, sum), later| (count + 1, sum + later));
        self.first_ns + sum / count.max(1)
    }
}

/// A panorama of one moment.
#[derive(Debug)]
pub(super) struct Stitched {
    pub(super) picture: RgbImage,
    /// The same as a frame of the stitched camera.
    pub(super) frame: CameraFrame,
    /// Whether every camera had its part in it.
    pub(super) is_whole: bool,
}

impl Rig {
    /// The rig that the config describes.
    ///
    /// # Errors
    /// For cameras that cannot be.
    pub fn new(config: &RigConfig) -> Result<Self, Error> {
        let cameras: Vec<_> = config
            .camera
            .iter()
            .map(|camera| (camera.lens.clone(), camera.lever_arm))
            .collect();
        let panorama = config.panorama();
        Ok(Self {
            names: config
                .camera
                .iter()
                .map(|camera| camera.source.clone())
                .collect(),
            within_ns: (config.within_s * 1e9) as i64,
            within_s: config.within_s,
            least_seen: config.least_seen,
            stitcher: Stitcher::new(&cameras, &panorama)?,
            camera: panorama.camera(),
            open: None,
            without: Vec::new(),
        })
    }

    /// The camera that its panoramas look taken by.
    pub fn camera(&self) -> &Camera {
        &self.camera
    }

    /// Takes a frame; returns a moment when it is complete, or when a frame of a later one came.
    ///
    /// # Errors
    /// For a frame of another camera, or of a moment that is over, in words.
    pub(super) fn take(&mut self, frame: CameraFrame) -> Result<Option<Moment>, String> {
        let Some(index) = self.names.iter().position(|name| *name == frame.camera) else {
            return Err(format!(
                "camera \"{}\" is none of the rig's ({})",
                frame.camera,
                self.names.join(", ")
            ));
        };
        let mut closed = None;
        match &self.open {
            Some(moment)
                if moment.frames[index].is_none()
                    && (frame.time_ns - moment.first_ns).abs() <= self.within_ns => {}
            Some(moment) if frame.time_ns < moment.first_ns => {
                return Err(format!(
                    "a frame of camera \"{}\" came after those of a later moment",
                    frame.camera
                ));
            }
            _ => closed = self.open.take(),
        }
        let moment = self.open.get_or_insert_with(|| Moment {
            first_ns: frame.time_ns,
            frames: vec![None; self.names.len()],
        });
        moment.frames[index] = Some(frame);
        if moment.frames.iter().all(Option::is_some) {
            closed = self.open.take();
        }
        Ok(closed)
    }

    /// Forgets the frames that wait for others.
    pub(super) fn forget(&mut self) {
        self.open = None;
    }

    /// The panorama of a moment. A camera whose picture is missing or broken leaves its part black.
    ///
    /// # Errors
    /// When the cameras that are left see too little, or a picture has another size than its camera's, in
    /// words.
    pub(super) fn stitch(
        &mut self,
        moment: &Moment,
        largest_side_px: usize,
    ) -> Result<Stitched, String> {
        let mut pictures = Vec::with_capacity(moment.frames.len());
        for frame in &moment.frames {
            let picture = frame.as_ref().and_then(|frame| {
                decode_rgb(&frame.image, largest_side_px)
                    .inspect_err(|error| {
                        tracing::warn!(camera = frame.camera, %error, "a picture cannot be used");
                    })
                    .ok()
            });
            pictures.push(picture);
        }
        let there: Vec<bool> = pictures.iter().map(Option::is_some).collect();
        let without: Vec<usize> = (0..there.len()).filter(|index| !there[*index]).collect();
        if !without.is_empty() {
            let names: Vec<&str> = without
                .iter()
                .map(|index| self.names[*index].as_str())
                .collect();
            let names = names.join(", ");
            if without != self.without {
                tracing::warn!(
                    cameras = names,
                    "the panorama is made without these cameras"
                );
            }
            let all = self.stitcher.seen_fraction(&vec![true; there.len()]);
            let seen = self.stitcher.seen_fraction(&there) / all;
            if seen < self.least_seen {
                self.without = without;
                return Err(format!(
                    "no usable picture of {names} within {} s, and the other cameras see {:.0} % of what all \
                     see (rig.least_seen)",
                    self.within_s,
                    100.0 * seen
                ));
            }
        } else if !self.without.is_empty() {
            tracing::info!("the panorama is made with all cameras again");
        }
        self.without = without;
        let picture = self
            .stitcher
            .stitch(&pictures)
            .map_err(|error| error.to_string())?;
        Ok(Stitched {
            frame: CameraFrame {
                time_ns: moment.time_ns(),
                image: portable_pixmap(&picture),
                camera: NAME.to_owned(),
            },
            is_whole: self.without.is_empty(),
            picture,
        })
    }
}

/// The picture as binary PNM, which costs no time.
fn portable_pixmap(picture: &RgbImage) -> Arc<[u8]> {
    let mut bytes = format!("P6\n{} {}\n255\n", picture.width, picture.height).into_bytes();
    bytes.extend_from_slice(&picture.data);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_calibration::{LeverArm, Mount, Pinhole};

    use crate::config::RigCameraConfig;

    fn lens(yaw_left_deg: f64) -> Camera {
        Camera::Pinhole(Pinhole {
            mount: Mount {
                yaw_left_deg,
                ..Mount::default()
            },
            ..Pinhole::with_horizontal_view(64, 48, 2.2)
        })
    }

    fn rig(least_seen: f64) -> Rig {
        let cameras = [("front", 0.0), ("left", 120.0), ("right", -120.0)];
        let camera = cameras.map(|(source, yaw_left_deg)| RigCameraConfig {
            source: source.into(),
            lens: lens(yaw_left_deg),
            lever_arm: LeverArm::default(),
        });
        let config = RigConfig {
            camera: camera.into(),
            least_seen,
            width: 128,
            ..RigConfig::default()
        };
        Rig::new(&config).unwrap()
    }

    /// A picture of one colour.
    fn frame(camera: &str, time_ms: i64, level: u8) -> CameraFrame {
        let mut picture = RgbImage::black(64, 48);
        picture.data.fill(level);
        CameraFrame {
            time_ns: time_ms * 1_000_000,
            image: portable_pixmap(&picture),
            camera: camera.into(),
        }
    }

    #[test]
    fn frames_of_one_moment_become_one_panorama_at_their_mean_time() {
        let mut rig = rig(0.6);
        assert!(rig.take(frame("left", 0, 50)).unwrap().is_none());
        assert!(rig.take(frame("front", 20, 100)).unwrap().is_none());
        let moment = rig.take(frame("right", 40, 200)).unwrap().unwrap();
        assert_eq!(moment.time_ns(), 20_000_000);
        let stitched = rig.stitch(&moment, 8192).unwrap();
        assert!(stitched.is_whole);
        let row = stitched.picture.height / 2;
        // Left of the nose is left of the centre.
        assert_eq!(stitched.picture.pixel(64, row), [100; 3]);
        assert_eq!(stitched.picture.pixel(64 - 43, row), [50; 3]);
        assert_eq!(stitched.picture.pixel(64 + 43, row), [200; 3]);
        // What is recorded and compared is the same picture.
        let again = decode_rgb(&stitched.frame.image, 8192).unwrap();
        assert_eq!(again, stitched.picture);
        let size = [again.width, again.height];
        assert_eq!(size, rig.camera().image_size());
    }

    #[test]
    fn a_moment_ends_when_the_next_begins_and_goes_on_without_the_camera() {
        let mut rig = rig(0.6);
        rig.take(frame("left", 0, 50)).unwrap();
        rig.take(frame("front", 10, 100)).unwrap();
        let moment = rig.take(frame("left", 100, 50)).unwrap().unwrap();
        let stitched = rig.stitch(&moment, 8192).unwrap();
        assert!(!stitched.is_whole);
        assert_eq!(stitched.frame.time_ns, 5_000_000);
        let row = stitched.picture.height / 2;
        assert_eq!(stitched.picture.pixel(64 + 43, row), [0; 3]);
        // What comes later than the next moment's first frame is too late.
        let late = rig.take(frame("right", 20, 200)).unwrap_err();
        assert!(late.contains("right"), "{late}");
        let stranger = rig.take(frame("rear", 110, 1)).unwrap_err();
        assert!(
            stranger.contains("rear") && stranger.contains("front, left"),
            "{stranger}"
        );
    }

    #[test]
    fn too_few_cameras_are_an_error_that_names_the_others() {
        let mut rig = rig(0.9);
        rig.take(frame("left", 0, 50)).unwrap();
        rig.take(frame("front", 10, 100)).unwrap();
        let moment = rig.take(frame("left", 100, 50)).unwrap().unwrap();
        let problem = rig.stitch(&moment, 8192).unwrap_err();
        assert!(
            problem.contains("right") && problem.contains("rig.least_seen"),
            "{problem}"
        );
        // A broken picture is a missing one.
        let broken = CameraFrame {
            image: (&b"no picture"[..]).into(),
            ..frame("front", 110, 0)
        };
        rig.take(broken).unwrap();
        let moment = rig.take(frame("right", 120, 200)).unwrap().unwrap();
        let problem = rig.stitch(&moment, 8192).unwrap_err();
        assert!(problem.contains("front"), "{problem}");
    }

    #[test]
    fn a_camera_that_is_faster_than_the_others_begins_a_new_moment() {
        let mut rig = rig(0.1);
        rig.take(frame("front", 0, 100)).unwrap();
        let moment = rig.take(frame("front", 30, 120)).unwrap().unwrap();
        assert_eq!(moment.time_ns(), 0);
        rig.forget();
        assert!(rig.take(frame("left", 0, 100)).unwrap().is_none());
    }
}
