//! Input formats, detected by file extension.

use tealight_core::{Error, Result, truncate_for_display};

/// Format of an input file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// `.jsonl`, `.ndjson`: one document per line.
    JsonLines,
    /// `.csv`, `.tsv`, with this delimiter: one document per row. The header has a column `text` and optionally `id`; the other
    /// columns become metadata.
    Csv(u8),
    /// `.parquet`: the same columns as [`InputFormat::Csv`].
    Parquet,
    /// `.txt`, `.md`: the file is one document.
    Text,
    /// Audio or video: one document per segment of the transcript.
    Audio,
}

const AUDIO_EXTENSIONS: [&str; 18] = [
    "aac", "aif", "aiff", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mov", "mp2", "mp3", "mp4", "oga", "ogg", "opus",
    "wav", "webm",
];

impl InputFormat {
    /// The format of a file, by the extension of its name or S3 key.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] if the extension is unsupported.
    pub fn from_file_name(name: &str) -> Result<Self> {
        let last = name.rsplit('/').next().unwrap_or(name);
        let extension = last.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Ok(InputFormat::JsonLines),
            "csv" => Ok(InputFormat::Csv(b',')),
            "tsv" => Ok(InputFormat::Csv(b'\t')),
            "parquet" => Ok(InputFormat::Parquet),
            "txt" | "md" | "markdown" => Ok(InputFormat::Text),
            extension if AUDIO_EXTENSIONS.contains(&extension) => Ok(InputFormat::Audio),
            _ => {
                let name = truncate_for_display(last);
                let supported = "jsonl, ndjson, csv, tsv, parquet, txt, md, and audio or video";
                let message = format!("{name:?} has an unsupported file extension; supported: {supported}");
                Err(Error::invalid_value("name", message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_extension_determines_format() {
        for (name, format) in [
            ("a/b.JSONL", InputFormat::JsonLines),
            ("b.csv", InputFormat::Csv(b',')),
            ("b.tsv", InputFormat::Csv(b'\t')),
            ("x.parquet", InputFormat::Parquet),
            ("notes.v2.md", InputFormat::Text),
            ("talk.mp3", InputFormat::Audio),
            ("talk.MP2", InputFormat::Audio),
        ] {
            assert_eq!(InputFormat::from_file_name(name).unwrap(), format, "{name}");
        }
        for name in ["x", "x.exe", "jsonl", "", "a.jsonl/", ".."] {
            assert!(InputFormat::from_file_name(name).unwrap_err().message.contains("jsonl"), "{name}");
        }
    }
}
