//! KITTI's text: list lines, the inertial unit's files, calibration.

use crate::data::text::{lines, number};
use std::path::Path;

/// Size of the image that every camera matrix is scaled from, whatever the frame's own size.
const NOMINAL_FRAME_PX: [f64; 2] = [1242.0, 375.0];

/// Day, drive and number of a frame; all of them plain path components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameName {
    /// Such as `2011_09_26`.
    pub day: String,
    /// Such as `2011_09_26_drive_0002_sync`.
    pub drive: String,
    /// Such as `0000000048`.
    pub frame: String,
}

impl FrameName {
    /// The name as the lists say it.
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.day, self.drive, self.frame)
    }
}

/// What a test list says about a frame, in shares of the ranges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Listed {
    /// Shift along the vehicle's heading.
    pub shift_x: f64,
    /// Shift across it.
    pub shift_y: f64,
    /// Turn.
    pub theta: f64,
}

/// Reads a line of a list: a path, and in test lists three numbers in [-1, 1].
///
/// # Errors
/// What is wrong. Paths must be `<day>/<drive>/<frame>.png` of digits and underscores, so that
/// none leaves the dataset's folder.
pub fn parse_line(line: &str, test: bool) -> Result<(FrameName, Option<Listed>), String> {
    let mut fields = line.split_ascii_whitespace();
    let path = fields.next().ok_or("an empty line")?;
    let numbers: Vec<&str> = fields.collect();
    let name = parse_path(path)?;
    if !test {
        if numbers.is_empty() {
            return Ok((name, None));
        }
        return Err(format!("{} numbers in a training list", numbers.len()));
    }
    let [x, y, theta] = numbers.as_slice() else {
        return Err(format!(
            "{} numbers behind the path, 3 expected: shift x, shift y, theta",
            numbers.len()
        ));
    };
    let share = |text: &str| match number(text)? {
        value if value.abs() <= 1.0 => Ok(value),
        value => Err(format!("{value} is not within -1 and 1")),
    };
    let listed = Listed {
        shift_x: share(x)?,
        shift_y: share(y)?,
        theta: share(theta)?,
    };
    Ok((name, Some(listed)))
}

fn parse_path(path: &str) -> Result<FrameName, String> {
    let wrong = || format!("{path:?} is not DAY/DRIVE/FRAME.png");
    let parts: Vec<&str> = path.split('/').collect();
    let [day, drive, file] = parts.as_slice() else {
        return Err(wrong());
    };
    let frame = file.strip_suffix(".png").ok_or_else(wrong)?;
    let word = |text: &str, most: usize| {
        (1..=most).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    // The published loader cuts the drive's path at a fixed length; so do its lists.
    let published = day.len() == 10 && word(day, 10) && word(drive, 64) && word(frame, 32);
    if !published || !drive.starts_with(day) || !frame.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    Ok(FrameName {
        day: (*day).into(),
        drive: (*drive).into(),
        frame: frame.into(),
    })
}

/// Yaw of a frame: the sixth number of the first line of its `oxts` file, radians
/// counter-clockwise from east.
///
/// # Errors
/// The path and what is wrong.
pub fn read_yaw(path: &Path) -> Result<f64, String> {
    let lines = lines(path)?;
    let first = lines.first().map_or("", String::as_str);
    parse_yaw(first).map_err(|what| format!("{}: {what}", path.display()))
}

fn parse_yaw(line: &str) -> Result<f64, String> {
    let field = line
        .split(' ')
        .nth(5)
        .ok_or("fewer than 6 numbers in the first line")?;
    match number(field)? {
        yaw if yaw.abs() <= 7.0 => Ok(yaw),
        yaw => Err(format!("a yaw of {yaw} radians")),
    }
}

/// A pinhole camera's matrix, pixels of the image that the network eats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraMatrix {
    /// Focal length along columns and rows.
    pub focal_px: [f64; 2],
    /// Principal point, column and row.
    pub centre_px: [f64; 2],
}

impl CameraMatrix {
    /// The matrix for an image of another size: columns and rows scale by themselves.
    pub fn scaled(&self, columns: usize, rows: usize) -> Self {
        let [width, height] = NOMINAL_FRAME_PX;
        let (x, y) = (columns as f64 / width, rows as f64 / height);
        Self {
            focal_px: [self.focal_px[0] * x, self.focal_px[1] * y],
            centre_px: [self.centre_px[0] * x, self.centre_px[1] * y],
        }
    }
}

/// Camera matrix of the left colour camera, from the line `P_rect_02` of a calibration file, for
/// an image of 1242 × 375.
///
/// # Errors
/// The path and what is wrong.
pub fn read_camera(path: &Path) -> Result<CameraMatrix, String> {
    parse_camera(&lines(path)?).map_err(|what| format!("{}: {what}", path.display()))
}

fn parse_camera(lines: &[String]) -> Result<CameraMatrix, String> {
    let found: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("P_rect_02:"))
        .collect();
    let [line] = found.as_slice() else {
        return Err(format!("{} lines P_rect_02, 1 expected", found.len()));
    };
    let numbers: Vec<f64> = line
        .split_ascii_whitespace()
        .map(number)
        .collect::<Result<_, _>>()?;
    if numbers.len() != 12 {
        return Err(format!(
            "P_rect_02 has {} numbers, 12 expected",
            numbers.len()
        ));
    }
    let camera = CameraMatrix {
        focal_px: [numbers[0], numbers[5]],
        centre_px: [numbers[2], numbers[6]],
    };
    if camera.focal_px.iter().all(|focal| *focal > 0.0) {
        Ok(camera)
    } else {
        Err(format!("focal lengths {:?}", camera.focal_px))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "2011_09_26/2011_09_26_drive_0002_sync/0000000048.png";

    #[test]
    fn published_lines_are_read() {
        let (name, listed) = parse_line(PATH, false).unwrap();
        assert_eq!(format!("{}.png", name.id()), PATH);
        assert_eq!(listed, None);
        let (_, listed) = parse_line(&format!("{PATH} -0.34 -0.96 -0.0077"), true).unwrap();
        assert_eq!(listed.unwrap().shift_y, -0.96);
    }

    #[test]
    fn hostile_and_inconsistent_lines_are_refused() {
        for line in [
            "",
            "../../etc/passwd.png",
            "2011_09_26/../../../x.png",
            "2011_09_26/2011_09_26_drive_0002_sync/../x.png",
            "/2011_09_26/2011_09_26_drive_0002_sync/1.png",
            "2011_09_26/2011_10_03_drive_0002_sync/1.png",
            "2011_09_26/2011_09_26_drive_0002_sync/1.exe",
            "2011_09_26/2011_09_26_drive_0002_sync/1\u{0}.png",
        ] {
            assert!(parse_line(line, false).is_err(), "{line:?}");
        }
        for numbers in ["", " 0.1 0.2", " 0.1 0.2 nan", " 0.1 0.2 1.5", " 0 0 0 0"] {
            assert!(
                parse_line(&format!("{PATH}{numbers}"), true).is_err(),
                "{numbers}"
            );
        }
        assert!(parse_line(&format!("{PATH} 0 0 0"), false).is_err());
    }

    #[test]
    fn damaged_yaws_and_cameras_are_refused() {
        assert_eq!(parse_yaw("49 8 112 0.02 0.01 -0.4873 0"), Ok(-0.4873));
        for line in ["", "1 2 3", "0 0 0 0 0 inf", "0 0 0 0 0 99"] {
            assert!(parse_yaw(line).is_err(), "{line}");
        }
        let one = "P_rect_02: 700 0 600 40 0 701 170 0.2 0 0 1 0".to_string();
        let camera = parse_camera(std::slice::from_ref(&one)).unwrap();
        assert_eq!(
            (camera.focal_px, camera.centre_px),
            ([700.0, 701.0], [600.0, 170.0])
        );
        assert!(parse_camera(&[one.clone(), one]).is_err());
        assert!(parse_camera(&["P_rect_02: 1 2 3".into()]).is_err());
        assert!(parse_camera(&["P_rect_02: -700 0 600 40 0 701 170 0.2 0 0 1 0".into()]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(line in ".{0,200}", test in any::<bool>()) {
            let _ = parse_line(&line, test);
            let _ = parse_yaw(&line);
            let _ = parse_camera(&[format!("P_rect_02:{line}")]);
        }

        #[test]
        fn a_changed_path_stays_in_the_folder(place in 0usize..60, with in "[./\\\\ \u{0}a_~%0]{0,4}") {
            let mut line = PATH.to_string();
            line.insert_str(place.min(line.len()), &with);
            if let Ok((name, _)) = parse_line(&line, false) {
                for part in [name.day, name.drive, name.frame] {
                    prop_assert!(part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
                }
            }
        }
    }
}
