//! JPEG pictures out of a stream of bytes, whatever is between them: nothing, the headers of a multipart
//! stream, lengths.
//!
//! A picture is followed from marker to marker (ITU-T T.81, annex B), so the thumbnail inside another
//! picture's header is no picture, and its end is no end. One whose end does not come before the next
//! one begins was cut; it is dropped and counted.

/// A larger picture is not one that a camera made, bytes.
const PICTURE_LIMIT_BYTES: usize = 64 << 20;

const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Collects bytes and hands out pictures.
#[derive(Debug, Default)]
pub struct JpegSplitter {
    bytes: Vec<u8>,
    /// Bytes at the front that are of no more use.
    done: usize,
    /// How far the picture behind them was followed; 0 while there is none.
    at: usize,
    in_scan: bool,
    /// Pictures whose end is missing.
    pub cut: u64,
}

/// What following a picture came to.
enum Found {
    /// It ends before this byte.
    End(usize),
    /// More bytes are needed.
    More,
    /// It was cut; the search goes on at this byte.
    Cut(usize),
}

impl JpegSplitter {
    /// Forgets what was read of an unfinished picture: another stream begins.
    pub fn start_over(&mut self) {
        *self = Self {
            cut: self.cut,
            ..Self::default()
        };
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        // Only here, so that many small pictures at once cost no more than their bytes.
        self.bytes.drain(..self.done);
        self.at = self.at.saturating_sub(self.done);
        self.done = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole picture.
    pub fn next_picture(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.at == 0 && !self.find_start() {
                return None;
            }
            match self.follow() {
                Found::End(end) => {
                    let picture = self.bytes[self.done..end].to_vec();
                    self.go_on_at(end);
                    return Some(picture);
                }
                Found::Cut(next) => {
                    self.cut += 1;
                    self.go_on_at(next);
                }
                Found::More if self.bytes.len() - self.done > PICTURE_LIMIT_BYTES => {
                    self.cut += 1;
                    self.go_on_at(self.bytes.len());
                    return None;
                }
                Found::More => return None,
            }
        }
    }

    /// Looks for the next picture from this byte on.
    fn go_on_at(&mut self, next: usize) {
        (self.done, self.at, self.in_scan) = (next, 0, false);
    }

    /// Finds the next beginning of a picture.
    fn find_start(&mut self) -> bool {
        let start = self.bytes[self.done..]
            .windows(3)
            .position(|three| three == [0xff, START, 0xff]);
        if let Some(start) = start {
            self.done += start;
            self.at = self.done + 2;
            return true;
        }
        // The last two bytes may be the beginning of one.
        self.done = self.done.max(self.bytes.len().saturating_sub(2));
        false
    }

    fn follow(&mut self) -> Found {
        loop {
            if self.in_scan {
                // Compressed data up to a marker; after 0xff come 0 for itself and 0xd0 to 0xd7 for restarts.
                let rest = &self.bytes[self.at..];
                let marker = rest
                    .windows(2)
                    .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff));
                let Some(marker) = marker else {
                    self.at = self.bytes.len().saturating_sub(1).max(self.at);
                    return Found::More;
                };
                self.at += marker;
                self.in_scan = false;
            }
            let at = self.at;
            let Some(&[first, marker]) =
                self.bytes.get(at..at + 2).and_then(|two| two.first_chunk())
            else {
                return Found::More;
            };
            match (first, marker) {
                (0xff, END) => return Found::End(at + 2),
                (0xff, START) => return Found::Cut(at),
                (0xff, 0xff) => self.at += 1, // fill bytes before a marker
                (0xff, 0x01 | 0xd0..=0xd7) => self.at += 2,
                (0xff, _) => {
                    let Some(length) = self.bytes.get(at + 2..at + 4) else {
                        return Found::More;
                    };
                    let length = usize::from(length[0]) << 8 | usize::from(length[1]);
                    if length < 2 {
                        return Found::Cut(at);
                    }
                    if self.bytes.len() < at + 2 + length {
                        return Found::More;
                    }
                    self.at += 2 + length;
                    self.in_scan = marker == SCAN;
                }
                _ => return Found::Cut(at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image_decode::decode_rgb;

    /// A picture with a thumbnail in its header, which begins and ends as a picture does.
    fn picture(shade: u8) -> Vec<u8> {
        let encode = |side: u32| {
            let pixels = image::RgbImage::from_fn(side, side, |x, y| {
                image::Rgb([shade, (x * 37 % 256) as u8, (y * 91 % 256) as u8])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            let written = pixels.write_to(&mut bytes, image::ImageFormat::Jpeg);
            written.unwrap();
            bytes.into_inner()
        };
        let (whole, thumbnail) = (encode(40), encode(8));
        let length = (thumbnail.len() + 2) as u16;
        let header = [&[0xff, 0xe1][..], &length.to_be_bytes(), &thumbnail].concat();
        [&whole[..2], &header, &whole[2..]].concat()
    }

    fn split(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, u64) {
        let mut splitter = JpegSplitter::default();
        let mut pictures = Vec::new();
        for bytes in stream.chunks(piece) {
            splitter.push(bytes);
            pictures.extend(std::iter::from_fn(|| splitter.next_picture()));
        }
        (pictures, splitter.cut)
    }

    #[test]
    fn pictures_come_out_whatever_is_between_them_and_however_they_are_cut_up() {
        let pictures: Vec<_> = (1..4).map(|shade| picture(shade * 60)).collect();
        let boundary = b"\r\n--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 1234\r\n\r\n";
        for between in [&b""[..], boundary, &[0, 0, 4, 210], &[0xff; 5]] {
            let stream: Vec<u8> = pictures
                .iter()
                .flat_map(|one| [between, one].concat())
                .collect();
            for piece in [1, 7, 100, 1 << 20] {
                assert_eq!(split(&stream, piece), (pictures.clone(), 0));
            }
        }
    }

    #[test]
    fn a_picture_that_was_cut_is_dropped_and_the_next_one_comes() {
        let (one, other) = (picture(60), picture(120));
        for keep in [3, 20, 300, one.len() - 40, one.len() - 2] {
            let stream = [&one[..keep], &other, &other].concat();
            let (found, cut) = split(&stream, 64);
            assert!(cut >= 1, "{keep} bytes kept");
            assert_eq!(found.last(), Some(&other), "{keep} bytes kept");
            assert!(found.iter().all(|one| decode_rgb(one, 64).is_ok()));
        }
    }

    /// Beginnings of pictures inside a header that leads nowhere: each could be tried anew, for ever.
    #[test]
    fn a_hostile_header_takes_no_longer_than_its_bytes() {
        let inside: Vec<u8> = [0xff, START, 0xff, 0xe0, 0, 0]
            .into_iter()
            .cycle()
            .take(65_533)
            .collect();
        let segment = [&[0xff, 0xe0, 0xff, 0xff][..], &inside].concat();
        let hostile = [&[0xff, START][..], &segment.repeat(480), &[0, 0]].concat();
        let one = picture(60);
        let begun = std::time::Instant::now();
        let (found, _) = split(&[hostile, one.repeat(40)].concat(), 1 << 16);
        assert_eq!(found.last(), Some(&one));
        assert!(
            begun.elapsed().as_secs_f64() < 10.0,
            "{:?}",
            begun.elapsed()
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_a_picture_after_them_comes(noise in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..64) {
            let one = picture(60);
            // Noise may look like a header of up to 64 KiB that the first pictures are inside of.
            let many: Vec<u8> = std::iter::repeat_n(one.clone(), 80).flatten().collect();
            let (found, _) = split(&[noise, many].concat(), piece * 64);
            prop_assert_eq!(found.last(), Some(&one));
        }
    }
}
