"""Semantic search in voice memos. Finds the recording and the time of a passage.

    pip install requests
    tealight pull whisper-base
    tealight serve                 # in another terminal
    python examples/voice_memos.py memos "what did the plumber say about the boiler"

prints the best matches first, such as

    monday.m4a 0:12 He says the boiler needs a new valve.

Each recording is transcribed and embedded once; the result is cached next to it, in monday.m4a.json. TEALIGHT_URL (default
http://127.0.0.1:9000) is the URL of the server or function, TEALIGHT_API_KEY its API key, if it has one.
"""

import json
import os
import pathlib
import sys

import requests

URL = os.environ.get("TEALIGHT_URL", "http://127.0.0.1:9000").rstrip("/")
HEADERS = {"authorization": f"Bearer {os.environ.get('TEALIGHT_API_KEY', 'none')}"}
EXTENSIONS = {".aac", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm"}


def post(path, **body):
    response = requests.post(f"{URL}{path}", headers=HEADERS, timeout=600, **body)
    if not response.ok:
        raise RuntimeError(f"{response.status_code} {response.text}")
    return response.json()


def embedded_segments(memo):
    """The segments of a recording, with text, times and embeddings."""
    cache = memo.with_name(memo.name + ".json")
    if not cache.exists() or cache.stat().st_mtime < memo.stat().st_mtime:
        # Without VAD, a segment after a pause may start at the beginning of the pause.
        with memo.open("rb") as file:
            result = post("/v1/audio/embeddings", files={"file": file}, data={"vad_filter": "true"})
        cache.write_text(json.dumps(result["data"]))
    return json.loads(cache.read_text())


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, question = pathlib.Path(sys.argv[1]), " ".join(sys.argv[2:])
    segments = []
    for memo in sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS):
        try:
            segments += [(memo.name, segment) for segment in embedded_segments(memo)]
        except RuntimeError as error:
            # A broken recording does not stop the search in the others.
            print(f"{memo.name}: {error}", file=sys.stderr)
    if not segments:
        sys.exit(f"no speech found in {folder}")
    query = post("/v1/embeddings", json={"input": question})["data"][0]["embedding"]
    # Embeddings have unit length, so the dot product is the cosine similarity.
    score = lambda vector: sum(a * b for a, b in zip(vector, query))
    for name, segment in sorted(segments, key=lambda item: -score(item[1]["embedding"]))[:3]:
        minutes, seconds = divmod(int(segment["start"]), 60)
        print(f"{name} {minutes}:{seconds:02} {segment['text']}")


if __name__ == "__main__":
    try:
        main()
    except requests.ConnectionError as error:
        sys.exit(f"no response from {URL}: is `tealight serve` running? ({error})")
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))
