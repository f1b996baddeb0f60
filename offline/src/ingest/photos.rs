//! Folders of photos with their positions in them: EXIF, and XMP of panoramas.

use super::track::Track;
use super::{Frame, Place, Recording, name_of};
use crate::data::picture;
use anyhow::bail;
use crossfix_calibration::{Camera, Equirectangular, Geodetic, Mount, Pinhole, Yaw};
use crossfix_onboard::event::{CovarianceRule, FixDimension, GnssFix, Reception, YawMeasurement};
use crossfix_onboard::image_decode;
use exif::{Exif, In, Rational, Tag, Value};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};

/// 1-sigma error of a photo's position that states none, metres.
const DEFAULT_SIGMA_M: f64 = 8.0;
/// Metres of 1-sigma error for each unit of dilution of precision.
const DOP_SIGMA_M: f64 = 4.0;
/// 1-sigma error of a photo's direction by a compass, and of its course, degrees.
const DIRECTION_SIGMA_DEG: f64 = 15.0;
const COURSE_SIGMA_DEG: f64 = 8.0;
/// Vehicles that are slower than this have no course, km/h.
const COURSE_SPEED_KMH: f64 = 5.0;
/// Diagonal of a 35 mm film frame, millimetres.
const FILM_DIAGONAL_MM: f64 = 43.266_615;
/// Photos further apart than this are of different drives, nanoseconds.
const DRIVE_GAP_NS: i64 = 600_000_000_000;

/// What a photo says of itself.
struct Photo {
    path: PathBuf,
    fix: GnssFix,
    yaw: Option<YawMeasurement>,
    /// Whether the yaw is the camera's, not the vehicle's.
    by_camera: bool,
    camera: Option<Camera>,
    local_time: bool,
}

/// Opens a folder of photos: one recording for each camera and drive. `configured` is the camera as the config
/// describes it, whose mount turns the photos' directions into the vehicle's.
///
/// # Errors
/// When none of its pictures says where and when it was taken.
pub fn open(
    folder: &Path,
    files: &[PathBuf],
    configured: Option<&Camera>,
) -> anyhow::Result<Vec<Recording>> {
    let pictures: Vec<&PathBuf> = files.iter().filter(|path| is_picture(path)).collect();
    let read: Vec<Result<Photo, String>> = pictures.par_iter().map(|path| read(path)).collect();
    let mut photos = Vec::new();
    let mut wrong = Vec::new();
    for photo in read {
        match photo {
            Ok(photo) => photos.push(photo),
            Err(what) => wrong.push(what),
        }
    }
    if photos.is_empty() {
        bail!(
            "no picture in {} says where and when it was taken ({}); give --track, or logs",
            folder.display(),
            wrong.first().map_or("there is none", String::as_str)
        );
    }
    let left_rad = configured.map_or(0.0, |camera| camera.mount().yaw_left_deg.to_radians());
    for photo in photos.iter_mut().filter(|photo| photo.by_camera) {
        if let Some(measured) = &mut photo.yaw {
            measured.yaw = Yaw::new(measured.yaw.radians() - left_rad);
        }
    }
    photos.sort_by_key(|photo| photo.fix.time_ns);
    let name = name_of(folder);
    let mut recordings: Vec<Recording> = Vec::new();
    let mut cameras: Vec<Option<Camera>> = Vec::new();
    for photo in &photos {
        if !cameras.contains(&photo.camera) {
            cameras.push(photo.camera.clone());
        }
    }
    for camera in cameras {
        let of_camera: Vec<&Photo> = photos
            .iter()
            .filter(|photo| photo.camera == camera)
            .collect();
        let apart = |pair: [&Photo; 2]| pair[1].fix.time_ns - pair[0].fix.time_ns > DRIVE_GAP_NS;
        for drive in of_camera.chunk_by(|a, b| !apart([a, b])) {
            let number = recordings.len();
            recordings.push(recording(
                format!("{name}-{number:02}"),
                drive,
                camera.clone(),
            ));
        }
    }
    if let Some(first) = recordings.first_mut() {
        if !wrong.is_empty() {
            let note = format!(
                "{} pictures are left out, such as {}",
                wrong.len(),
                wrong[0]
            );
            first.notes.push(note);
        }
        let local = photos.iter().filter(|photo| photo.local_time).count();
        if local > 0 {
            first.notes.push(format!(
                "{local} pictures say no time zone; their times are taken for UTC"
            ));
        }
    }
    Ok(recordings)
}

fn recording(name: String, photos: &[&Photo], camera: Option<Camera>) -> Recording {
    let frames = photos.iter().map(|photo| Frame {
        time_ns: photo.fix.time_ns,
        at: Place::File(photo.path.clone()),
    });
    let yaws = photos
        .iter()
        .filter_map(|photo| Some((photo.fix.time_ns, photo.yaw?)));
    let fixes = photos.iter().map(|photo| photo.fix.clone()).collect();
    Recording {
        name,
        files: photos.iter().map(|photo| photo.path.clone()).collect(),
        frames: frames.collect(),
        track: Track::new(fixes, Vec::new(), yaws.collect()),
        camera,
        notes: Vec::new(),
    }
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|name| name.to_str());
    let extension = extension.map(str::to_ascii_lowercase);
    matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png" | "webp"))
}

/// What a photo says of place, time, direction and camera; an error says what is missing.
fn read(path: &Path) -> Result<Photo, String> {
    let say = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let bytes = picture::bytes(path)?;
    let header = image_decode::header(&bytes, picture::MOST_SIDE_PX).map_err(|e| say(&e))?;
    let exif = exif::Reader::new()
        .read_from_container(&mut std::io::Cursor::new(&bytes))
        .map_err(|error| say(&format!("no EXIF ({error})")))?;
    let position = position(&exif).ok_or_else(|| say(&"no GPS position"))?;
    let (time_ns, local_time) = time(&exif).ok_or_else(|| say(&"no time"))?;
    let number = |tag| number(&exif, tag);
    let sigma_m = match (number(Tag::GPSHPositioningError), number(Tag::GPSDOP)) {
        (Some(error), _) if error > 0.0 => error,
        (_, Some(dop)) if dop > 0.0 => DOP_SIGMA_M * dop,
        _ => DEFAULT_SIGMA_M,
    };
    let variance = sigma_m.clamp(1.0, 1000.0).powi(2);
    let magnetic = |tag| text(&exif, tag).is_some_and(|text| text.starts_with('M'));
    let speed_kmh = number(Tag::GPSSpeed).map(|speed| {
        let unit = text(&exif, Tag::GPSSpeedRef).unwrap_or_default();
        speed
            * match unit.chars().next() {
                Some('M') => 1.609_344,
                Some('N') => 1.852,
                _ => 1.0,
            }
    });
    let track_deg = number(Tag::GPSTrack).filter(|_| !magnetic(Tag::GPSTrackRef));
    let xmp = xmp(&bytes);
    let panorama = xmp.as_ref().is_some_and(|xmp| {
        value(xmp, "GPano:ProjectionType").is_some_and(|kind| kind.starts_with("equirect"))
    });
    // Some cameras write a heading of 0 into XMP and the measured one into EXIF.
    let posed = xmp
        .as_ref()
        .and_then(|xmp| value(xmp, "GPano:PoseHeadingDegrees")?.parse().ok());
    let direction = number(Tag::GPSImgDirection)
        .filter(|_| !magnetic(Tag::GPSImgDirectionRef))
        .or(posed.filter(|heading: &f64| *heading != 0.0 && heading.is_finite()));
    let course = track_deg.filter(|_| speed_kmh.is_some_and(|speed| speed >= COURSE_SPEED_KMH));
    let yaw = match (direction, course) {
        (Some(direction), _) => Some(YawMeasurement::from_heading_deg(
            direction,
            DIRECTION_SIGMA_DEG,
        )),
        (None, Some(course)) => Some(YawMeasurement::from_heading_deg(course, COURSE_SIGMA_DEG)),
        _ => None,
    };
    let size = [header.width, header.height];
    let camera = if panorama || size[0] == 2 * size[1] {
        Some(sphere(size, xmp.as_deref()).map_err(|what| say(&what))?)
    } else {
        number(Tag::FocalLengthIn35mmFilm)
            .filter(|focal| *focal > 0.0)
            .map(|focal| flat(size, focal))
    };
    let fix = GnssFix {
        time_ns,
        position,
        covariance_m2: [[variance, 0.0], [0.0, variance]],
        height_sigma_m: f64::from(u16::MAX),
        covariance_rule: CovarianceRule::Default,
        speed_mps: speed_kmh.map(|speed| speed / 3.6),
        track_deg,
        dimension: FixDimension::Two,
        reception: Reception::default(),
    };
    Ok(Photo {
        path: path.into(),
        fix,
        yaw,
        by_camera: direction.is_some(),
        camera,
        local_time,
    })
}

fn text(exif: &Exif, tag: Tag) -> Option<String> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Ascii(lines) => {
            let line = String::from_utf8_lossy(lines.first()?);
            Some(line.trim_matches(['\0', ' ']).to_owned())
        }
        _ => None,
    }
}

fn rationals(exif: &Exif, tag: Tag) -> Option<Vec<f64>> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Rational(values) => Some(values.iter().map(Rational::to_f64).collect()),
        Value::Short(values) => Some(values.iter().map(|value| f64::from(*value)).collect()),
        _ => None,
    }
}

fn number(exif: &Exif, tag: Tag) -> Option<f64> {
    let value = *rationals(exif, tag)?.first()?;
    value.is_finite().then_some(value)
}

/// # Source
/// Exif 3.0, section 4.6.7: degrees, minutes, seconds, and the hemisphere.
fn position(exif: &Exif) -> Option<Geodetic> {
    let angle = |tag, reference, negative: char| {
        let parts = rationals(exif, tag)?;
        let [degrees, minutes, seconds] = parts.get(..3)?.try_into().ok()?;
        let angle = degrees + minutes / 60.0 + seconds / 3600.0;
        let sign = text(exif, reference)?
            .to_ascii_uppercase()
            .starts_with(negative);
        Some(if sign { -angle } else { angle })
    };
    let latitude = angle(Tag::GPSLatitude, Tag::GPSLatitudeRef, 'S')?;
    let longitude = angle(Tag::GPSLongitude, Tag::GPSLongitudeRef, 'W')?;
    // A status of V is no fix, and so is 0, 0.
    let no_fix = text(exif, Tag::GPSStatus).is_some_and(|status| status.starts_with('V'));
    let position = Geodetic::new(latitude, longitude, 0.0).ok()?;
    (!no_fix && (latitude, longitude) != (0.0, 0.0)).then_some(position)
}

/// Nanoseconds UTC, by GNSS time or else by the camera's clock; and whether its time zone is not known.
fn time(exif: &Exif) -> Option<(i64, bool)> {
    let date_of = |text: &str| {
        let mut parts = text.split([':', '-', ' ']).map(str::parse::<i32>);
        let [year, month, day] = std::array::from_fn(|_| parts.next());
        let month = Month::try_from(u8::try_from(month?.ok()?).ok()?).ok()?;
        Date::from_calendar_date(year?.ok()?, month, u8::try_from(day?.ok()?).ok()?).ok()
    };
    let ns = |moment: PrimitiveDateTime, offset: UtcOffset| {
        i64::try_from(moment.assume_offset(offset).unix_timestamp_nanos()).ok()
    };
    let gps = || {
        let date = date_of(&text(exif, Tag::GPSDateStamp)?)?;
        let parts = rationals(exif, Tag::GPSTimeStamp)?;
        let [hour, minute, second] = parts.get(..3)?.try_into().ok()?;
        let seconds: f64 = 3600.0 * hour + 60.0 * minute + second;
        let whole = (seconds as u64).min(86_399) as u32;
        let nanosecond = ((seconds - f64::from(whole)).clamp(0.0, 0.999_999) * 1e9) as u32;
        let time = Time::from_hms_nano(
            (whole / 3600) as u8,
            (whole / 60 % 60) as u8,
            (whole % 60) as u8,
            nanosecond,
        );
        ns(date.with_time(time.ok()?), UtcOffset::UTC)
    };
    if let Some(time_ns) = gps() {
        return Some((time_ns, false));
    }
    let taken = text(exif, Tag::DateTimeOriginal)?;
    let (date, clock) = taken.split_once(' ')?;
    let date = date_of(date)?;
    let mut parts = clock.split(':').map(str::parse::<u8>);
    let [hour, minute, second] = std::array::from_fn(|_| parts.next());
    let time = Time::from_hms(hour?.ok()?, minute?.ok()?, second?.ok()?).ok()?;
    let part =
        text(exif, Tag::SubSecTimeOriginal).and_then(|part| format!("0.{part}").parse().ok());
    let nanoseconds = (part.unwrap_or(0.0f64).clamp(0.0, 0.999_999) * 1e9) as i64;
    let offset = text(exif, Tag::OffsetTimeOriginal).and_then(|text| offset_of(&text));
    let time_ns = ns(date.with_time(time), offset.unwrap_or(UtcOffset::UTC))? + nanoseconds;
    Some((time_ns, offset.is_none()))
}

/// `+02:00`
fn offset_of(text: &str) -> Option<UtcOffset> {
    let (hours, minutes) = text.split_once(':')?;
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    UtcOffset::from_hms(hours.parse().ok()?, sign * minutes.parse::<i8>().ok()?, 0).ok()
}

/// A whole panorama, or a band of one that is a whole turn wide.
///
/// # Source
/// Photo Sphere XMP Metadata: `CroppedAreaTopPixels` and so on, in pixels of the full sphere.
fn sphere([width, height]: [usize; 2], xmp: Option<&str>) -> Result<Camera, String> {
    let number = |name: &str| -> Option<f64> { value(xmp?, name)?.parse().ok() };
    let full_width = number("GPano:FullPanoWidthPixels");
    let cropped = number("GPano:CroppedAreaImageWidthPixels").or(Some(width as f64));
    if let (Some(full), Some(cropped)) = (full_width, cropped)
        && cropped < 0.999 * full
    {
        return Err(format!(
            "a panorama of {cropped} of {full} columns; only whole turns are read"
        ));
    }
    let full_height = number("GPano:FullPanoHeightPixels").unwrap_or(height as f64);
    let own_height = number("GPano:CroppedAreaImageHeightPixels").unwrap_or(full_height);
    let top = number("GPano:CroppedAreaTopPixels").unwrap_or(0.0);
    let elevation = |row: f64| 90.0 - 180.0 * row / full_height.max(1.0);
    Ok(Camera::Equirectangular(Equirectangular {
        width,
        height,
        top_elevation_deg: elevation(top),
        bottom_elevation_deg: elevation(top + own_height).max(-90.0),
        mount: Mount::default(),
    }))
}

/// A pinhole of a focal length that is stated for 35 mm film, by the diagonals.
fn flat([width, height]: [usize; 2], focal_35_mm: f64) -> Camera {
    let diagonal = (width as f64).hypot(height as f64);
    let focal = focal_35_mm * diagonal / FILM_DIAGONAL_MM;
    Camera::Pinhole(Pinhole {
        width,
        height,
        fx: focal,
        fy: focal,
        cx: width as f64 / 2.0,
        cy: height as f64 / 2.0,
        distortion: None,
        mount: Mount::default(),
    })
}

/// The XMP packet of a picture, wherever it stands in the file.
fn xmp(bytes: &[u8]) -> Option<String> {
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|part| part == what);
    let head = &bytes[..bytes.len().min(1 << 20)];
    let start = find(head, b"<x:xmpmeta")?;
    let end = find(&head[start..], b"</x:xmpmeta>")?;
    Some(String::from_utf8_lossy(&head[start..start + end]).into_owned())
}

/// The value of a property, written as an attribute or as an element.
fn value<'a>(xmp: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = xmp;
    while let Some(at) = rest.find(name) {
        rest = &rest[at + name.len()..];
        let trimmed = rest.trim_start();
        if let Some(quoted) = trimmed.strip_prefix('=') {
            let quoted = quoted.trim_start();
            let quote = quoted.chars().next()?;
            return quoted[1..].split(quote).next().map(str::trim);
        }
        if let Some(element) = rest.strip_prefix('>') {
            return element.split('<').next().map(str::trim);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_attributes_and_as_elements() {
        let xmp = r#"<x:xmpmeta><rdf:Description GPano:ProjectionType = "equirectangular" GPano:PoseHeadingDegrees='12.5'>
            <GPano:FullPanoWidthPixels>4000</GPano:FullPanoWidthPixels></rdf:Description></x:xmpmeta>"#;
        assert_eq!(value(xmp, "GPano:ProjectionType"), Some("equirectangular"));
        assert_eq!(value(xmp, "GPano:PoseHeadingDegrees"), Some("12.5"));
        assert_eq!(value(xmp, "GPano:FullPanoWidthPixels"), Some("4000"));
        assert_eq!(value(xmp, "GPano:Other"), None);
    }

    #[test]
    fn a_band_of_a_panorama_has_its_elevations_and_a_part_of_the_turn_is_refused() {
        let xmp = |width: u32| {
            format!(
                "<GPano:FullPanoWidthPixels>4000</GPano:FullPanoWidthPixels><GPano:FullPanoHeightPixels>2000</GPano:FullPanoHeightPixels>\
                 <GPano:CroppedAreaImageWidthPixels>{width}</GPano:CroppedAreaImageWidthPixels>\
                 <GPano:CroppedAreaImageHeightPixels>1000</GPano:CroppedAreaImageHeightPixels><GPano:CroppedAreaTopPixels>400</GPano:CroppedAreaTopPixels>"
            )
        };
        let Ok(Camera::Equirectangular(camera)) = sphere([4000, 1000], Some(&xmp(4000))) else {
            panic!("no panorama");
        };
        assert_eq!(
            [camera.top_elevation_deg, camera.bottom_elevation_deg],
            [54.0, -36.0]
        );
        assert!(
            sphere([2000, 1000], Some(&xmp(2000)))
                .unwrap_err()
                .contains("whole turns")
        );
    }

    #[test]
    fn time_zones_are_read() {
        assert_eq!(offset_of("-07:30").unwrap().whole_minutes(), -450);
        assert_eq!(offset_of("+02:00").unwrap().whole_hours(), 2);
        assert_eq!(offset_of("Z"), None);
    }
}
