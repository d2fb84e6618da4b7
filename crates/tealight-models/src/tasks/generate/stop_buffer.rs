//! What is written, token by token, held back until it is certain: whole characters, and no part of what ends the text.

/// Bytes of tokens on their way out.
#[derive(Debug, Default)]
pub struct Written {
    stops: Vec<Vec<u8>>,
    held: Vec<u8>,
    stopped: bool,
}

impl Written {
    /// A text that one of `stops` ends; empty ones do not.
    pub fn new<'a>(stops: impl IntoIterator<Item = &'a str>) -> Self {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).map(|s| s.as_bytes().to_vec()).collect();
        Self { stops, ..Self::default() }
    }

    /// Whether a stop was there.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token's bytes; returns the text that is certain.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.extend_from_slice(bytes);
        let found = self.stops.iter().filter_map(|stop| find(&self.held, stop)).min();
        if let Some(at) = found {
            self.stopped = true;
            self.held.truncate(at);
            return self.end();
        }
        let certain = self.held.len() - self.uncertain();
        let rest = self.held.split_off(certain);
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held = rest;
        text
    }

    /// The rest, once no more will come; bytes that are no characters become U+FFFD.
    pub fn end(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    /// How many bytes at the end may be the beginning of a stop, or of a character.
    fn uncertain(&self) -> usize {
        let is_begun = |count: &usize| {
            let tail = &self.held[self.held.len() - count..];
            self.stops.iter().any(|stop| stop.len() > *count && stop.starts_with(tail))
        };
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0).min(self.held.len());
        let stop = (1..=longest).rev().find(is_begun).unwrap_or(0);
        let whole = self.held.len() - stop;
        stop + begun_character(&self.held[..whole])
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Bytes at the end that begin a character and are not all of it.
fn begun_character(bytes: &[u8]) -> usize {
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
        let mut written = Written::new(stops.iter().copied());
        let mut out: Vec<String> = tokens.iter().map(|token| written.push(token)).collect();
        out.push(written.end());
        (out, written.is_stopped())
    }

    #[test]
    fn characters_come_whole() {
        let euro = "€".as_bytes();
        assert_eq!(parts(&[], &[b"1 ", &euro[..1], &euro[1..2], &euro[2..], b"!"]).0, ["1 ", "", "", "€", "!", ""]);
        assert_eq!(parts(&[], &[b"a\xff", b"b", &euro[..2]]).0, ["a\u{fffd}", "b", "", "\u{fffd}"]);
    }

    #[test]
    fn stops_are_never_seen() {
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
