//! Splits the tokens of a window into segments at its timestamps.

use super::fallback::Attempt;
use super::segment::Segment;
use crate::families::whisper::Whisper;

/// Frames of 10 ms per second.
pub(super) const FRAMES_PER_SECOND: f32 = 100.0;
/// Frames per encoder position, which is the unit of timestamp tokens.
const INPUT_STRIDE: usize = 2;

/// The segments of a window of `size` frames from `seek` on, and the number of frames to the start of the next window.
pub(super) fn split_into_segments(
    model: &Whisper,
    attempt: &Attempt,
    seek: usize,
    size: usize,
) -> (Vec<Segment>, usize) {
    let timestamp_begin = model.tokenizer.special.timestamp_begin();
    let tokens = &attempt.result.tokens;
    let is_timestamp = |id: &u32| *id >= timestamp_begin;
    let timestamp_pos = |id: u32| (id - timestamp_begin) as usize;
    let count = tokens.len();
    // A single timestamp at the end means that there is no speech after it in the window.
    let single_timestamp_ending =
        count > 0 && is_timestamp(&tokens[count - 1]) && (count < 2 || !is_timestamp(&tokens[count - 2]));
    let mut slice_ends: Vec<usize> =
        (1..count).filter(|i| is_timestamp(&tokens[i - 1]) && is_timestamp(&tokens[*i])).collect();
    // From an integer number of frames, so that the same time is the same float in every window.
    let seconds = |frame: usize| frame as f32 / FRAMES_PER_SECOND;
    // A timestamp may be in the silence after the end of the recording.
    let time = |id: u32| seconds(seek + (timestamp_pos(id) * INPUT_STRIDE).min(size));
    if slice_ends.is_empty() {
        let last = tokens.iter().rev().find(|id| is_timestamp(id)).filter(|id| **id != timestamp_begin);
        let end = last.map_or(seconds(seek + size), |id| time(*id));
        return (new_segment(model, attempt, seek, seconds(seek), end, tokens).into_iter().collect(), size);
    }
    if single_timestamp_ending {
        slice_ends.push(count);
    }
    let (mut segments, mut slice_start) = (vec![], 0);
    for slice_end in slice_ends {
        let slice = &tokens[slice_start..slice_end];
        let (start, end) = (time(slice[0]), time(slice[slice.len() - 1]));
        segments.extend(new_segment(model, attempt, seek, start, end, slice));
        slice_start = slice_end;
    }
    let advance = if single_timestamp_ending { size } else { timestamp_pos(tokens[slice_start - 1]) * INPUT_STRIDE };
    // Without progress, the loop over windows would not end.
    (segments, if advance == 0 { size } else { advance })
}

/// A segment, unless it is empty in time or has no letter or digit: Whisper often transcribes noise as dots.
fn new_segment(
    model: &Whisper,
    attempt: &Attempt,
    seek: usize,
    start: f32,
    end: f32,
    tokens: &[u32],
) -> Option<Segment> {
    let text = model.tokenizer.decode(tokens);
    if !text.contains(char::is_alphanumeric) || start >= end {
        return None;
    }
    Some(Segment {
        seek,
        start,
        end,
        text,
        tokens: tokens.to_vec(),
        temperature: attempt.temperature,
        avg_logprob: attempt.result.avg_logprob,
        compression_ratio: attempt.compression_ratio,
        no_speech_prob: attempt.result.no_speech_prob,
        words: vec![],
    })
}
