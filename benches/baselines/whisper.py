#!/usr/bin/env python3
"""Measure greedy transcription with another engine, after a warm-up run.

    whisper.py faster-whisper AUDIO THREADS MODEL_FOLDER RUNS    int8; needs faster-whisper
    whisper.py whisper.cpp AUDIO THREADS GGML_FILE RUNS          needs pywhispercpp; AUDIO is 16-bit mono WAV at 16 kHz

Prints {"s_median", "text"}.
"""

import json
import sys
import time
import wave


def faster_whisper(audio, threads, folder):
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)

    def run():
        segments, _ = model.transcribe(audio, beam_size=1, language="en")
        return "".join(segment.text for segment in segments)

    return run


def whisper_cpp(audio, threads, file):
    import numpy as np
    from pywhispercpp.model import Model

    model = Model(file, n_threads=threads, print_progress=False, print_realtime=False)
    with wave.open(audio) as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), "<i2").astype(np.float32) / 32768
    return lambda: " ".join(segment.text for segment in model.transcribe(samples, language="en"))


def main():
    engine, audio, threads, model, runs = sys.argv[1:]
    run = {"faster-whisper": faster_whisper, "whisper.cpp": whisper_cpp}[engine](audio, int(threads), model)
    text, times = run(), []
    for _ in range(int(runs)):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    print(json.dumps({"s_median": sorted(times)[len(times) // 2], "text": text}))


if __name__ == "__main__":
    main()
