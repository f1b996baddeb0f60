//! Local frames of sinks: one from the first position on, for as long as the program runs. A sink that is opened
//! anew goes on in its frame; in another one its positions would jump and nothing would say so.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crossfix_calibration::{Geodetic, LocalFrame};

static FRAMES: Mutex<BTreeMap<String, LocalFrame>> = Mutex::new(BTreeMap::new());

/// The frame of the sink of this name; begins at `first` when it has none yet.
pub fn of(sink: &str, first: Geodetic) -> LocalFrame {
    let mut frames = FRAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let frame = frames
        .entry(sink.to_owned())
        .or_insert_with(|| LocalFrame::new(first));
    frame.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_keeps_its_frame_when_it_is_opened_anew() {
        let place = |latitude_deg| Geodetic::new(latitude_deg, 4.0, 0.0).unwrap();
        let first = of("the one", place(52.0));
        let again = of("the one", place(53.0));
        assert_eq!(first.origin(), again.origin());
        assert_eq!(of("another", place(53.0)).origin(), place(53.0));
    }
}
