//! One-dimensional numpy arrays (`.npy`), as the published test orientations and orders come in.

use std::io::Read;
use std::path::Path;

/// Largest file that is read.
const MOST_BYTES: u64 = 64 << 20;

/// Reads a one-dimensional array of 64-bit floats or integers.
///
/// # Errors
/// The path, what is wrong and what to do.
pub fn read(path: &Path) -> Result<Vec<f64>, String> {
    let say = |what: String| format!("{}: {what}", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| say(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(say(format!("more than {MOST_BYTES} bytes")));
    }
    parse(&bytes).map_err(|what| {
        say(format!(
            "{what}; save it again with numpy.save as one dimension of float64 or int64"
        ))
    })
}

/// Reads the bytes of a file.
///
/// # Errors
/// What is wrong. Arrays of objects, which numpy would unpickle, are refused.
pub fn parse(bytes: &[u8]) -> Result<Vec<f64>, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not a numpy file")?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err("an unknown version of the format".into()),
    };
    if length > rest.len() {
        return Err("cut short in its header".into());
    }
    let (header, data) = rest.split_at(length);
    let header = std::str::from_utf8(header).map_err(|error| error.to_string())?;
    let field = |name: &str| {
        let (_, rest) = header.split_once(name)?;
        Some(rest.trim_start().trim_start_matches(':').trim_start())
    };
    let number: fn([u8; 8]) -> f64 = match field("'descr'") {
        Some(text) if text.starts_with("'<f8'") => f64::from_le_bytes,
        Some(text) if text.starts_with("'<i8'") => |bytes| i64::from_le_bytes(bytes) as f64,
        _ => return Err("its numbers are not little-endian float64 or int64".into()),
    };
    let count: usize = field("'shape'")
        .and_then(|text| text.strip_prefix('('))
        .and_then(|text| text.split_once(",)"))
        .and_then(|(count, _)| count.trim().parse().ok())
        .ok_or("not one dimension")?;
    if count.checked_mul(8) != Some(data.len()) {
        return Err(format!("{} bytes for {count} numbers", data.len()));
    }
    let numbers: Vec<f64> = data
        .chunks_exact(8)
        .map(|chunk| number(chunk.try_into().unwrap_or_default()))
        .collect();
    if numbers.iter().all(|value| value.is_finite()) {
        Ok(numbers)
    } else {
        Err("holds numbers that are not finite".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        // numpy pads the header so that the data is aligned to 64 bytes.
        let padding = 64 - (10 + header.len() + 1) % 64;
        header += &" ".repeat(padding);
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn floats_and_integers_are_read() {
        let floats: Vec<u8> = [1.5f64, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        assert_eq!(parse(&file("<f8", "(2,)", &floats)), Ok(vec![1.5, -2.0]));
        let integers: Vec<u8> = [7i64, 3].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(parse(&file("<i8", "(2,)", &integers)), Ok(vec![7.0, 3.0]));
    }

    #[test]
    fn other_arrays_are_refused() {
        let data = [0; 16];
        for (descr, shape) in [
            ("|O", "(2,)"),
            ("<f4", "(4,)"),
            ("<f8", "(1, 2)"),
            ("<f8", "(3,)"),
            ("<f8", "(18446744073709551615,)"),
            ("<f8", "()"),
        ] {
            assert!(
                parse(&file(descr, shape, &data)).is_err(),
                "{descr} {shape}"
            );
        }
        assert!(parse(&file("<f8", "(1,)", &f64::NAN.to_le_bytes())).is_err());
    }

    proptest! {
        #[test]
        fn damaged_files_are_refused_or_read(
            cut in 0usize..200, changes in prop::collection::vec((0usize..200, any::<u8>()), 0..6),
        ) {
            let mut bytes = file("<f8", "(4,)", &[0; 32]);
            for (place, value) in changes {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            bytes.truncate(cut);
            let _ = parse(&bytes);
        }
    }
}
