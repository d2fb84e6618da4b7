#!/usr/bin/env python3
"""Write mel.npy and transcripts.json: what independent implementations make of two recordings.

    make.py TINY_EN_FOLDER BASE_FOLDER    needs faster-whisper 1.2.1, ctranslate2 4.8.5 and NumPy 2

mel.npy: every tenth frame of the log-mel spectrogram of tests/fixtures/audio/speech.flac, from the equations of
openai/whisper (audio.py) in float64. transcripts.json: segments and words of jfk.flac by faster-whisper in float32, greedy.
"""

import json
import sys
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio

HERE = Path(__file__).resolve().parent
AUDIO = HERE.parents[1] / "fixtures" / "audio"
RATE, WINDOW, HOP, BANDS = 16000, 400, 160, 80


def mel_filters():
    """Slaney's scale and triangles of equal area."""
    hertz = lambda m: np.where(m < 15, 200 / 3 * m, 1000 * np.exp(np.log(6.4) / 27 * (m - 15)))
    edges = hertz(np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), BANDS + 2))
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def log_mel(samples):
    padded = np.pad(np.concatenate([samples, np.zeros(30 * RATE)]), WINDOW // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    count = (len(samples) + 30 * RATE) // HOP
    frames = np.stack([padded[i * HOP:i * HOP + WINDOW] * window for i in range(count)])
    powers = np.abs(np.fft.rfft(frames)) ** 2 @ mel_filters().T
    logs = np.log10(np.maximum(powers, 1e-10))
    logs = (np.maximum(logs, logs.max() - 8) + 4) / 4
    return logs[:len(samples) // HOP]


def transcript(folder, audio):
    model = WhisperModel(folder, device="cpu", compute_type="float32")
    # words move the ends of segments
    segments, info = model.transcribe(audio, beam_size=1)
    with_words, _ = model.transcribe(audio, beam_size=1, word_timestamps=True)
    keys = ("start", "end", "text", "avg_logprob", "no_speech_prob")
    return {
        "language": info.language,
        "segments": [{key: getattr(s, key) for key in keys} for s in segments],
        "words": [{"word": w.word, "start": float(w.start), "end": float(w.end)} for s in with_words for w in s.words],
    }


def main():
    (tiny, base), jfk = sys.argv[1:], str(AUDIO / "jfk.flac")
    np.save(HERE / "mel.npy", log_mel(decode_audio(str(AUDIO / "speech.flac")).astype(np.float64))[::10].astype("<f4"))
    transcripts = {"whisper-tiny.en": transcript(tiny, jfk), "whisper-base": transcript(base, jfk)}
    (HERE / "transcripts.json").write_text(json.dumps(transcripts, indent=1) + "\n")


if __name__ == "__main__":
    main()
