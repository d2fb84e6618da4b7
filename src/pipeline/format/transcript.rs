//! What a transcript looks like outside: OpenAI's JSON, text and subtitles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tealight_models::families::whisper::language_name;
use tealight_models::tasks::transcribe::{Segment, Task, Transcript, Word};

/// How a transcript is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The text in an object.
    #[default]
    Json,
    /// The text.
    Text,
    /// SubRip subtitles.
    Srt,
    /// The text, its segments and their figures.
    VerboseJson,
    /// WebVTT subtitles.
    Vtt,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 5] = [Form::Json, Form::Text, Form::Srt, Form::VerboseJson, Form::Vtt];

    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Form::Json => "json",
            Form::Text => "text",
            Form::Srt => "srt",
            Form::VerboseJson => "verbose_json",
            Form::Vtt => "vtt",
        }
    }

    /// The form of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// The type of the reply.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Json | Form::VerboseJson => "application/json",
            Form::Text => "text/plain; charset=utf-8",
            Form::Srt => "application/x-subrip; charset=utf-8",
            Form::Vtt => "text/vtt; charset=utf-8",
        }
    }
}

/// What [`Form::VerboseJson`] has besides the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Segments and their figures.
    pub segments: bool,
    /// Words and their times.
    pub words: bool,
}

/// Seconds of audio, as OpenAI counts them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Usage {
    /// `duration`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whole seconds, begun ones too.
    pub seconds: u64,
}

impl Usage {
    /// Of a recording of so many seconds.
    pub fn of(seconds: f32) -> Self {
        Self { kind: "duration", seconds: seconds.ceil() as u64 }
    }
}

/// A transcript in [`Form::Json`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct Short {
    /// The whole text.
    pub text: String,
    /// What it cost.
    pub usage: Usage,
}

/// A transcript in [`Form::VerboseJson`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct Verbose {
    /// `transcribe` or `translate`.
    pub task: &'static str,
    /// The name of the language.
    pub language: String,
    /// Seconds.
    pub duration: f32,
    /// The whole text.
    pub text: String,
    /// Parts of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<VerboseSegment>>,
    /// Words of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<VerboseWord>>,
    /// What it cost.
    pub usage: Usage,
}

/// A word of a text with its time.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerboseWord {
    /// Without spaces around it.
    pub word: String,
    /// Seconds.
    pub start: f32,
    /// Seconds.
    pub end: f32,
}

/// A part of a text with its time.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerboseSegment {
    /// Its number.
    pub id: usize,
    /// Where its window begins, in hundredths of a second.
    pub seek: usize,
    /// Seconds.
    pub start: f32,
    /// Seconds.
    pub end: f32,
    /// With the space before the first word.
    pub text: String,
    /// Ids of text and moments.
    pub tokens: Vec<u32>,
    /// At which it was decoded.
    pub temperature: f32,
    /// Mean natural logarithm of the probabilities of the window's tokens.
    pub avg_logprob: f32,
    /// How much better the window's text compresses than noise.
    pub compression_ratio: f32,
    /// How likely it is that nobody speaks in the window.
    pub no_speech_prob: f32,
}

/// A transcript as the body of a reply.
///
/// # Errors
/// serde_json's, of which there are none.
pub fn render(transcript: &Transcript, task: Task, form: Form, parts: Parts) -> serde_json::Result<String> {
    let usage = Usage::of(transcript.duration);
    match form {
        Form::Json => serde_json::to_string(&Short { text: transcript.text().trim().into(), usage }),
        Form::Text => Ok(format!("{}\n", transcript.text().trim())),
        Form::VerboseJson => serde_json::to_string(&verbose(transcript, task, parts)),
        Form::Srt => Ok(transcript.segments.iter().enumerate().map(|(i, s)| srt(i, s)).collect()),
        Form::Vtt => Ok(format!("WEBVTT\n\n{}", transcript.segments.iter().map(vtt).collect::<String>())),
    }
}

/// All that is known of a transcript.
pub fn verbose(transcript: &Transcript, task: Task, parts: Parts) -> Verbose {
    let segment = |(id, s): (usize, &Segment)| VerboseSegment {
        id,
        seek: s.seek,
        start: rounded(s.start),
        end: rounded(s.end),
        text: s.text.clone(),
        tokens: s.tokens.clone(),
        temperature: s.temperature,
        avg_logprob: s.log_probability,
        compression_ratio: s.compression,
        no_speech_prob: s.no_speech,
    };
    let word = |w: &Word| VerboseWord { word: w.text.trim().into(), start: rounded(w.start), end: rounded(w.end) };
    let (task, language) = match task {
        Task::Transcribe => ("transcribe", language_name(&transcript.language)),
        // What is written is English, whatever is spoken.
        Task::Translate => ("translate", "english"),
    };
    Verbose {
        task,
        language: language.into(),
        duration: rounded(transcript.duration),
        text: transcript.text().trim().into(),
        segments: parts.segments.then(|| transcript.segments.iter().enumerate().map(segment).collect()),
        words: parts.words.then(|| transcript.segments.iter().flat_map(|s| &s.words).map(word).collect()),
        usage: Usage::of(transcript.duration),
    }
}

/// To hundredths, which is what moments are known to.
pub fn rounded(seconds: f32) -> f32 {
    (seconds as f64 * 100.0).round() as f32 / 100.0
}

fn srt(index: usize, segment: &Segment) -> String {
    let time = |seconds| clock(seconds, true, ',');
    format!("{}\n{} --> {}\n{}\n\n", index + 1, time(segment.start), time(segment.end), line(&segment.text))
}

fn vtt(segment: &Segment) -> String {
    let time = |seconds| clock(seconds, false, '.');
    format!("{} --> {}\n{}\n\n", time(segment.start), time(segment.end), line(&segment.text))
}

/// A text that cannot be taken for a time.
fn line(text: &str) -> String {
    text.trim().replace("-->", "->")
}

fn clock(seconds: f32, always_hours: bool, point: char) -> String {
    let ms = (seconds.max(0.0) as f64 * 1000.0).round() as u64;
    let (hours, minutes, seconds, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let hours = if always_hours || hours > 0 { format!("{hours:02}:") } else { String::new() };
    format!("{hours}{minutes:02}:{seconds:02}{point}{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Parts = Parts { segments: true, words: true };

    fn transcript() -> Transcript {
        let segment = |start, end, text: &str| Segment {
            seek: 0,
            start,
            end,
            text: text.into(),
            tokens: vec![50_364, 440],
            temperature: 0.0,
            log_probability: -0.25,
            compression: 1.25,
            no_speech: 0.5,
            words: vec![Word { text: text.into(), start, end }],
        };
        let segments = vec![segment(0.0, 3.32, " The beach"), segment(3661.5, 3662.0, " a --> b")];
        Transcript { language: "de".into(), duration: 3662.004, segments }
    }

    #[test]
    fn subtitles_are_as_players_read_them() {
        let srt = render(&transcript(), Task::Transcribe, Form::Srt, ALL).unwrap();
        assert_eq!(srt, "1\n00:00:00,000 --> 00:00:03,320\nThe beach\n\n2\n01:01:01,500 --> 01:01:02,000\na -> b\n\n");
        let vtt = render(&transcript(), Task::Transcribe, Form::Vtt, ALL).unwrap();
        assert_eq!(vtt, "WEBVTT\n\n00:00.000 --> 00:03.320\nThe beach\n\n01:01:01.500 --> 01:01:02.000\na -> b\n\n");
    }

    #[test]
    fn json_has_openais_fields() {
        let short: serde_json::Value =
            serde_json::from_str(&render(&transcript(), Task::Transcribe, Form::Json, ALL).unwrap()).unwrap();
        assert_eq!(
            short,
            serde_json::json!({"text": "The beach a --> b", "usage": {"type": "duration", "seconds": 3663}})
        );
        let long: serde_json::Value =
            serde_json::from_str(&render(&transcript(), Task::Translate, Form::VerboseJson, ALL).unwrap()).unwrap();
        assert_eq!((&long["task"], &long["language"]), (&"translate".into(), &"english".into()));
        assert_eq!((&long["segments"][1]["id"], &long["segments"][1]["avg_logprob"]), (&1.into(), &(-0.25).into()));
        let long: serde_json::Value =
            serde_json::from_str(&render(&transcript(), Task::Transcribe, Form::VerboseJson, ALL).unwrap()).unwrap();
        assert_eq!(long["language"], "german");
        assert_eq!(long["words"][0], serde_json::json!({"word": "The beach", "start": 0.0, "end": 3.32}));
        let few = Parts { segments: false, words: false };
        let bare = serde_json::to_value(verbose(&transcript(), Task::Transcribe, few)).unwrap();
        assert!(bare.get("segments").is_none() && bare.get("words").is_none());
    }
}
