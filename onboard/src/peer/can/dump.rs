//! The log format of can-utils (`candump -l`): `(1436509052.249713) can0 123#DEADBEEF`.

use super::decode::Frame;

/// The time in nanoseconds UTC and the message of a line; none for remote and error frames, and for those of other
/// interfaces than `interface` where that is given.
///
/// # Errors
/// What is wrong with the line.
pub fn frame_of(line: &str, interface: Option<&str>) -> Result<Option<(i64, Frame)>, String> {
    let fail = || format!("{line:?} is not as `candump -l` writes it: (seconds) interface id#data");
    let mut words = line.split_whitespace();
    let stamp = words
        .next()
        .and_then(|word| word.strip_prefix('(')?.strip_suffix(')'))
        .ok_or_else(fail)?;
    let from = words.next().ok_or_else(fail)?;
    let message = words.next().ok_or_else(fail)?;
    let time_ns = time_ns(stamp).ok_or_else(fail)?;
    let (id, data) = message.split_once('#').ok_or_else(fail)?;
    if interface.is_some_and(|interface| interface != from) {
        return Ok(None);
    }
    let extended = id.len() == 8;
    if !extended && id.len() != 3 {
        return Err(fail());
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| fail())?;
    // CAN FD: another # and a digit of flags. A remote frame has an R.
    let data = match data.strip_prefix('#') {
        Some(data) => data.get(1..).ok_or_else(fail)?,
        None if data.starts_with('R') => return Ok(None),
        None => data,
    };
    if id > 0x1fff_ffff {
        return Ok(None);
    }
    let digits = data.as_bytes();
    let bytes = digits.chunks(2).map(|pair| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16)
            .ok()
            .filter(|_| pair.len() == 2)
    });
    let data = bytes.collect::<Option<Vec<u8>>>().ok_or_else(fail)?;
    Ok(Some((time_ns, Frame { id, extended, data })))
}

/// Seconds with a fraction, without the rounding of a float.
fn time_ns(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let seconds: i64 = seconds.parse().ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(i64::from(digits.parse::<u32>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_kind_are_read() {
        let (time_ns, frame) = frame_of("(1436509052.249713) vcan0 044#2A366C2BBA", None)
            .unwrap()
            .unwrap();
        assert_eq!(time_ns, 1_436_509_052_249_713_000);
        assert_eq!((frame.id, frame.extended), (0x44, false));
        assert_eq!(frame.data, [0x2a, 0x36, 0x6c, 0x2b, 0xba]);
        let (_, frame) = frame_of("(1.5) can1 18FEF100#01 T", None).unwrap().unwrap();
        assert_eq!((frame.id, frame.extended), (0x18fe_f100, true));
        let (_, frame) = frame_of("(1.5) can1 123##1112233", None).unwrap().unwrap();
        assert_eq!(frame.data, [0x11, 0x22, 0x33]);
        assert!(
            frame_of("(1.5) can0 123#", None)
                .unwrap()
                .unwrap()
                .1
                .data
                .is_empty()
        );
        assert_eq!(frame_of("(1.5) can0 123#R", None).unwrap(), None);
        // Of two buses in one recording, one is meant.
        let of = |interface| frame_of("(1.5) can1 123#11", Some(interface)).unwrap();
        assert!(of("can1").is_some() && of("can0").is_none());
        assert_eq!(frame_of("(1.5) can0 20000004#0000", None).unwrap(), None);
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "  can0  123   [2]  DE AD",
            "(x) can0 123#00",
            "(1.5) can0 12#00",
            "(1.5) can0 123#0",
            "(1.5) can0 123#GG",
            "(1.5) can0 123##",
            "(1.5) can0 123#0é",
        ] {
            assert!(frame_of(line, None).is_err(), "{line}");
        }
    }
}
