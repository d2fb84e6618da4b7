#!/usr/bin/env python3
"""Write the results of independent implementations for two recordings.

    make.py TINY_EN_FOLDER BASE_FOLDER    needs requirements.txt in this folder

By tests/whisper_reference.py, in float64:
    mel.npy                  every 10th frame of the log-mel spectrogram of tests/fixtures/audio/speech.flac, without the padding
    jfk-mel.npy              every 50th frame of that of jfk.flac, with 30 s of padding
    features-MODEL.npy       every 100th row of the encoder output for jfk.flac
    reference.json           for each model: suppressed tokens; the 20 highest logits of jfk.flac after each of some given tokens;
                             transcripts of it: plain, with words, with a prompt, and repeated four times (44 s, two windows)
By faster-whisper in float32, greedy:
    transcripts.json         segments and words of jfk.flac
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
AUDIO = HERE.parents[1] / "fixtures" / "audio"
sys.path.insert(0, str(HERE.parents[1]))

from whisper_reference import FRAMES, HOP_LENGTH, Whisper, load_audio, log_mel, pad_or_trim, transcribe

TOP_LOGITS, SPOKEN_TEXT, PROMPT, TIMES = 20, " And so my fellow Americans ask not what", "A speech of 1961.", 4


def save(name, rows):
    np.save(HERE / name, rows.astype("<f4"))


def round_floats(value):
    """Rounds to seven significant digits, the precision of float32."""
    if isinstance(value, dict):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [round_floats(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def write_json(name, value):
    """Writes indented JSON with each list of numbers on one line."""
    text = json.dumps(round_floats(value), indent=1)
    lines, depth = [], 0
    for line in text.splitlines():
        plain = line.strip()
        if depth and plain.rstrip(",").lstrip("-").replace(".", "").replace("e-", "").isdigit():
            lines[-1] += plain
        elif depth and plain.startswith("]"):
            lines[-1] += plain
        else:
            lines.append(line)
        depth = line.endswith("[") or depth and not plain.startswith("]") and not plain.startswith("{")
    (HERE / name).write_text("\n".join(lines) + "\n")


def logits(model, features):
    """The highest logits after the start-of-transcript sequence and after each token of the spoken text."""
    ids = [*model.tokens.sot_sequence("en", "transcribe"), model.tokens.timestamp_begin, *model.tokens.encode(SPOKEN_TEXT)]
    rows, _ = model.step(model.start(features), ids)
    top = [np.argsort(-row)[:TOP_LOGITS] for row in rows]
    return {"tokens": ids, "steps": [{"ids": order.tolist(), "values": row[order].tolist()} for row, order in zip(rows, top)]}


def reference(name, folder):
    model, samples = Whisper.load(folder, np.float64), load_audio(AUDIO / "jfk.flac")
    mel = log_mel(samples, model.n_mels)
    features = model.encode(pad_or_trim(mel[:len(mel) - FRAMES]))
    save("jfk-mel.npy", mel[::50])
    save(f"features-{name}.npy", features[::100])
    return {
        "suppressed": model.tokens.suppress_tokens(),
        "logits": logits(model, features),
        "plain": transcribe(model, samples),
        "words": transcribe(model, samples, "en", words=True),
        "prompted": transcribe(model, samples, "en", prompt=PROMPT),
        "repeated": transcribe(model, np.tile(samples, TIMES), "en"),
    }


def transcript(folder, audio):
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="float32")
    # word timestamps change the ends of segments, so they are transcribed separately
    segments, info = model.transcribe(audio, beam_size=1)
    with_words, _ = model.transcribe(audio, beam_size=1, word_timestamps=True)
    keys = ("start", "end", "text", "avg_logprob", "no_speech_prob")
    return {
        "language": info.language,
        "segments": [{key: getattr(s, key) for key in keys} for s in segments],
        "words": [{"word": w.word, "start": float(w.start), "end": float(w.end)} for s in with_words for w in s.words],
    }


def main():
    folders, jfk = dict(zip(("tiny.en", "base"), sys.argv[1:], strict=True)), str(AUDIO / "jfk.flac")
    speech = load_audio(AUDIO / "speech.flac")
    save("mel.npy", log_mel(speech)[:len(speech) // HOP_LENGTH:10])
    write_json("reference.json", {f"whisper-{name}": reference(name, folder) for name, folder in folders.items()})
    transcripts = {f"whisper-{name}": transcript(folder, jfk) for name, folder in folders.items()}
    (HERE / "transcripts.json").write_text(json.dumps(transcripts, indent=1) + "\n")


if __name__ == "__main__":
    main()
