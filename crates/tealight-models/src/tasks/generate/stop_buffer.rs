//! Decodes generated tokens to text, and holds back bytes that may be part of a character or of a stop sequence.

/// Bytes of generated tokens that are not text yet.
#[derive(Debug, Default)]
pub struct StopBuffer {
    stops: Vec<Vec<u8>>,
    pending: Vec<u8>,
    stopped: bool,
}

impl StopBuffer {
    /// Stops at the first occurrence of one of `stops`; empty ones are ignored.
    pub fn new<'a>(stops: impl IntoIterator<Item = &'a str>) -> Self {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).map(|s| s.as_bytes().to_vec()).collect();
        Self { stops, ..Self::default() }
    }

    /// Whether a stop sequence was found.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Appends the bytes of a token, and returns the text that no later token can change. Text from a stop sequence on is dropped.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.pending.extend_from_slice(bytes);
        let stop_start = self.stops.iter().filter_map(|stop| find(&self.pending, stop)).min();
        if let Some(at) = stop_start {
            self.stopped = true;
            self.pending.truncate(at);
            return self.finish();
        }
        let emittable_len = self.pending.len() - self.undecided_suffix_len();
        let undecided = self.pending.split_off(emittable_len);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = undecided;
        text
    }

    /// Returns the text held back, after the last token; incomplete characters become U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// Number of bytes at the end that may be the start of a stop sequence or of a character.
    fn undecided_suffix_len(&self) -> usize {
        let is_stop_prefix = |count: &usize| {
            let tail = &self.pending[self.pending.len() - count..];
            self.stops.iter().any(|stop| stop.len() > *count && stop.starts_with(tail))
        };
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0).min(self.pending.len());
        let stop = (1..=longest).rev().find(is_stop_prefix).unwrap_or(0);
        let without_stop = &self.pending[..self.pending.len() - stop];
        stop + incomplete_character(without_stop)
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// Number of bytes at the end that are the start of an incomplete character.
fn incomplete_character(bytes: &[u8]) -> usize {
    for count in 1..=bytes.len().min(3) {
        let length = match bytes[bytes.len() - count] {
            0b1100_0000..0b1110_0000 => 2,
            0b1110_0000..0b1111_0000 => 3,
            0xf0..=0xf4 => 4,
            0b1000_0000..0b1100_0000 => continue,
            _ => 1,
        };
        return if count < length { count } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(stops: &[&str], tokens: &[&[u8]]) -> (Vec<String>, bool) {
        let mut buffer = StopBuffer::new(stops.iter().copied());
        let mut out: Vec<String> = tokens.iter().map(|token| buffer.push(token)).collect();
        out.push(buffer.finish());
        (out, buffer.is_stopped())
    }

    #[test]
    fn push_partial_character_returns_it_when_complete() {
        let euro = "€".as_bytes();
        assert_eq!(parts(&[], &[b"1 ", &euro[..1], &euro[1..2], &euro[2..], b"!"]).0, ["1 ", "", "", "€", "!", ""]);
        assert_eq!(parts(&[], &[b"a\xff", b"b", &euro[..2]]).0, ["a\u{fffd}", "b", "", "\u{fffd}"]);
    }

    #[test]
    fn push_stop_sequence_returns_no_part_of_it() {
        assert_eq!(
            parts(&["\n\n"], &[b"a\n", b"b\n", b"\nc"]),
            (vec!["a".into(), "\nb".into(), "".into(), "".into()], true)
        );
        assert_eq!(parts(&["STOP", "TO"], &[b"S", b"T", b"OP"]), (["", "", "", ""].map(String::from).into(), true));
        assert_eq!(parts(&["END"], &[b"the EN", b"TRY"]), (["the ", "ENTRY", ""].map(String::from).into(), false));
        assert_eq!(parts(&["END"], &[b"EN"]), (["", "EN"].map(String::from).into(), false));
        assert_eq!(parts(&[""], &[b"x"]), (["x", ""].map(String::from).into(), false));
        let (out, stopped) = parts(&["é!"], &["aé".as_bytes(), b"?", "é".as_bytes(), b"!x"]);
        assert_eq!((out.concat().as_str(), stopped), ("aé?", true));
    }
}
