#!/usr/bin/env python3
"""Time faster-whisper in int8 on a recording, greedy, after one run that is not timed.

    whisper.py AUDIO THREADS MODEL_FOLDER    prints {"engine", "threads", "s_median", "text"}; needs faster-whisper 1.2.1
"""

import json
import sys
import time

from faster_whisper import WhisperModel

RUNS = 3


def main():
    audio, threads, folder = sys.argv[1:]
    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))

    def run():
        segments, _ = model.transcribe(audio, beam_size=1, language="en")
        return "".join(segment.text for segment in segments)

    text, times = run(), []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    print(json.dumps({"engine": "faster-whisper int8", "threads": int(threads), "s_median": sorted(times)[1], "text": text}))


if __name__ == "__main__":
    main()
