//! Formats of a transcript: OpenAI's JSON, plain text, and subtitles.

use serde::{Deserialize, Serialize};
use tealight_models::families::whisper::language_name;
use tealight_models::tasks::transcribe::{Segment, Task, Transcript, Word};

/// OpenAI's `response_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TranscriptFormat {
    /// An object with the text.
    #[default]
    Json,
    /// The text without timestamps.
    Text,
    /// SubRip subtitles.
    Srt,
    /// An object with the text, its segments and, on request, its words.
    VerboseJson,
    /// WebVTT subtitles.
    Vtt,
}

impl TranscriptFormat {
    /// All formats, in the order of error messages.
    pub const ALL: [Self; 5] = [Self::Json, Self::Text, Self::Srt, Self::VerboseJson, Self::Vtt];

    /// The name in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Srt => "srt",
            Self::VerboseJson => "verbose_json",
            Self::Vtt => "vtt",
        }
    }

    /// The format with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// Value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::VerboseJson => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Srt => "application/x-subrip; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
        }
    }
}

/// Which timestamps [`TranscriptFormat::VerboseJson`] includes: OpenAI's `timestamp_granularities`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granularities {
    /// Whether to include segments.
    pub segments: bool,
    /// Whether to include words.
    pub words: bool,
}

/// OpenAI's usage of a transcription.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DurationUsage {
    /// `duration`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Duration of the recording, in seconds, rounded up.
    pub seconds: u64,
}

impl DurationUsage {
    /// The usage of a recording, from its duration in seconds.
    pub fn new(seconds: f32) -> Self {
        Self { kind: "duration", seconds: seconds.ceil() as u64 }
    }
}

/// Response with the format `json`, the default.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TranscriptionJson {
    /// The text of the recording.
    pub text: String,
    /// Duration of the recording.
    pub usage: DurationUsage,
}

/// Response with the format `verbose_json`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TranscriptionVerboseJson {
    /// `transcribe` or `translate`.
    pub task: &'static str,
    /// Name of the language, such as `english`.
    pub language: String,
    /// Duration of the recording, in seconds.
    pub duration: f32,
    /// The text of the recording.
    pub text: String,
    /// Segments of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<TranscriptionSegment>>,
    /// Words of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<TranscriptionWord>>,
    /// Duration of the recording.
    pub usage: DurationUsage,
}

/// The response body of a transcription, as JSON.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum TranscriptionResponse {
    // The first form, because it has the fields of the other: a client that tries them in order would never reach it.
    /// With the format `verbose_json`.
    VerboseJson(TranscriptionVerboseJson),
    /// With the format `json`, the default.
    Json(TranscriptionJson),
}

/// A word with its timestamps.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TranscriptionWord {
    /// The word, without surrounding spaces.
    pub word: String,
    /// Start time in the recording, in seconds.
    pub start: f32,
    /// End time in the recording, in seconds.
    pub end: f32,
}

/// A segment with its timestamps and the statistics of its window.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TranscriptionSegment {
    /// Position in `segments`, from 0.
    pub id: usize,
    /// Start of the window, in hundredths of a second.
    pub seek: usize,
    /// Start time in the recording, in seconds.
    pub start: f32,
    /// End time in the recording, in seconds.
    pub end: f32,
    /// The text, with the space before the first word.
    pub text: String,
    /// Text and timestamp tokens.
    pub tokens: Vec<u32>,
    /// Temperature at which the window was decoded.
    pub temperature: f32,
    /// Mean natural log probability of the window's tokens.
    pub avg_logprob: f32,
    /// Length of the window's text divided by its length after zlib compression.
    pub compression_ratio: f32,
    /// Probability that the window contains no speech.
    pub no_speech_prob: f32,
}

/// The response body of a transcript.
///
/// # Errors
/// Never in practice: these types always serialize.
pub fn render(
    transcript: &Transcript,
    task: Task,
    format: TranscriptFormat,
    granularities: Granularities,
) -> serde_json::Result<String> {
    let response = match format {
        TranscriptFormat::Json => TranscriptionResponse::Json(TranscriptionJson {
            text: transcript.text().trim().into(),
            usage: DurationUsage::new(transcript.duration),
        }),
        TranscriptFormat::VerboseJson => {
            TranscriptionResponse::VerboseJson(verbose_json(transcript, task, granularities))
        }
        TranscriptFormat::Text => return Ok(format!("{}\n", transcript.text().trim())),
        TranscriptFormat::Srt => {
            return Ok(transcript.segments.iter().enumerate().map(|(i, s)| srt_cue(i, s)).collect());
        }
        TranscriptFormat::Vtt => {
            return Ok(format!("WEBVTT\n\n{}", transcript.segments.iter().map(vtt_cue).collect::<String>()));
        }
    };
    serde_json::to_string(&response)
}

fn verbose_json(transcript: &Transcript, task: Task, granularities: Granularities) -> TranscriptionVerboseJson {
    let segment = |(id, s): (usize, &Segment)| TranscriptionSegment {
        id,
        seek: s.seek,
        start: round_to_hundredths(s.start),
        end: round_to_hundredths(s.end),
        text: s.text.clone(),
        tokens: s.tokens.clone(),
        temperature: s.temperature,
        avg_logprob: s.avg_logprob,
        compression_ratio: s.compression_ratio,
        no_speech_prob: s.no_speech_prob,
    };
    let word = |w: &Word| TranscriptionWord {
        word: w.text.trim().into(),
        start: round_to_hundredths(w.start),
        end: round_to_hundredths(w.end),
    };
    let (task, language) = match task {
        Task::Transcribe => ("transcribe", language_name(&transcript.language)),
        // The language of the text, not of the speech.
        Task::Translate => ("translate", "english"),
    };
    TranscriptionVerboseJson {
        task,
        language: language.into(),
        duration: round_to_hundredths(transcript.duration),
        text: transcript.text().trim().into(),
        segments: granularities.segments.then(|| transcript.segments.iter().enumerate().map(segment).collect()),
        words: granularities.words.then(|| transcript.segments.iter().flat_map(|s| &s.words).map(word).collect()),
        usage: DurationUsage::new(transcript.duration),
    }
}

/// Rounds seconds to the precision of timestamps.
pub fn round_to_hundredths(seconds: f32) -> f32 {
    (seconds as f64 * 100.0).round() as f32 / 100.0
}

fn srt_cue(index: usize, segment: &Segment) -> String {
    let time = |seconds| format_timestamp(seconds, AlwaysHours(true), ',');
    format!("{}\n{} --> {}\n{}\n\n", index + 1, time(segment.start), time(segment.end), cue_text(&segment.text))
}

fn vtt_cue(segment: &Segment) -> String {
    let time = |seconds| format_timestamp(seconds, AlwaysHours(false), '.');
    format!("{} --> {}\n{}\n\n", time(segment.start), time(segment.end), cue_text(&segment.text))
}

/// Replaces the arrow that separates timestamps.
fn cue_text(text: &str) -> String {
    text.trim().replace("-->", "->")
}

/// Whether timestamps below an hour start with `00:`.
struct AlwaysHours(bool);

fn format_timestamp(seconds: f32, always_hours: AlwaysHours, decimal_mark: char) -> String {
    let ms = (seconds.max(0.0) as f64 * 1000.0).round() as u64;
    let (hours, minutes, seconds, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let hours = if always_hours.0 || hours > 0 { format!("{hours:02}:") } else { String::new() };
    format!("{hours}{minutes:02}:{seconds:02}{decimal_mark}{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ALL: Granularities = Granularities { segments: true, words: true };

    fn transcript() -> Transcript {
        let segment = |start, end, text: &str| Segment {
            seek: 0,
            start,
            end,
            text: text.into(),
            tokens: vec![50_364, 440],
            temperature: 0.0,
            avg_logprob: -0.25,
            compression_ratio: 1.25,
            no_speech_prob: 0.5,
            words: vec![Word { text: text.into(), start, end }],
        };
        let segments = vec![segment(0.0, 3.32, " The beach"), segment(3661.5, 3662.0, " a --> b")];
        Transcript { language: "de".into(), duration: 3662.004, segments }
    }

    fn render_json(task: Task, format: TranscriptFormat) -> Value {
        serde_json::from_str(&render(&transcript(), task, format, ALL).unwrap()).unwrap()
    }

    #[test]
    fn subtitles_have_timestamps_and_no_arrow_in_text() {
        let srt = render(&transcript(), Task::Transcribe, TranscriptFormat::Srt, ALL).unwrap();
        assert_eq!(srt, "1\n00:00:00,000 --> 00:00:03,320\nThe beach\n\n2\n01:01:01,500 --> 01:01:02,000\na -> b\n\n");
        let vtt = render(&transcript(), Task::Transcribe, TranscriptFormat::Vtt, ALL).unwrap();
        assert_eq!(vtt, "WEBVTT\n\n00:00.000 --> 00:03.320\nThe beach\n\n01:01:01.500 --> 01:01:02.000\na -> b\n\n");
    }

    #[test]
    fn json_has_fields_of_openai() {
        assert_eq!(
            render_json(Task::Transcribe, TranscriptFormat::Json),
            json!({"text": "The beach a --> b", "usage": {"type": "duration", "seconds": 3663}})
        );
        let translation = render_json(Task::Translate, TranscriptFormat::VerboseJson);
        assert_eq!((&translation["task"], &translation["language"]), (&"translate".into(), &"english".into()));
        let segment = &translation["segments"][1];
        assert_eq!((&segment["id"], &segment["avg_logprob"]), (&1.into(), &(-0.25).into()));
        let transcription = render_json(Task::Transcribe, TranscriptFormat::VerboseJson);
        assert_eq!(transcription["language"], "german");
        assert_eq!(transcription["words"][0], json!({"word": "The beach", "start": 0.0, "end": 3.32}));
        let none = Granularities { segments: false, words: false };
        let without_timestamps = serde_json::to_value(verbose_json(&transcript(), Task::Transcribe, none)).unwrap();
        assert!(without_timestamps.get("segments").is_none() && without_timestamps.get("words").is_none());
    }
}
