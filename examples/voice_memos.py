"""Search in voice memos: which of them says it, and at which second.

    pip install requests
    tealight pull whisper-base
    tealight serve &
    python examples/voice_memos.py memos "what did the plumber say about the boiler"

prints the best first, as in

    monday.m4a 0:12 The boiler wants a new valve, he says.

Each recording is heard once: what it says is kept beside it, in monday.m4a.json. TEALIGHT_URL and TEALIGHT_API_KEY say where tealight is
and which key it asks for.
"""

import json
import os
import pathlib
import sys

import requests

URL = os.environ.get("TEALIGHT_URL", "http://127.0.0.1:9000").rstrip("/")
HEADERS = {"authorization": f"Bearer {os.environ.get('TEALIGHT_API_KEY', 'none')}"}
ENDINGS = {".aac", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm"}


def post(path, **body):
    reply = requests.post(f"{URL}{path}", headers=HEADERS, timeout=600, **body)
    if not reply.ok:
        raise RuntimeError(f"{reply.status_code} {reply.text}")
    return reply.json()


def heard(memo):
    """What a recording says, a segment each, with times and vectors."""
    kept = memo.with_name(memo.name + ".json")
    if not kept.exists() or kept.stat().st_mtime < memo.stat().st_mtime:
        # Over voices alone: else what is said after a pause may begin where the pause does.
        with memo.open("rb") as file:
            said = post("/v1/audio/embeddings", files={"file": file}, data={"vad_filter": "true"})
        kept.write_text(json.dumps(said["data"]))
    return json.loads(kept.read_text())


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, question = pathlib.Path(sys.argv[1]), " ".join(sys.argv[2:])
    segments = []
    for memo in sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS):
        try:
            segments += [(memo.name, segment) for segment in heard(memo)]
        except RuntimeError as error:
            # One that is broken must not hide the others.
            print(f"{memo.name}: {error}", file=sys.stderr)
    if not segments:
        sys.exit(f"nothing is said in {folder}")
    asked = post("/v1/embeddings", json={"input": question})["data"][0]["embedding"]
    # Vectors have length 1, so that this is their cosine.
    score = lambda vector: sum(a * b for a, b in zip(vector, asked))
    for name, segment in sorted(segments, key=lambda found: -score(found[1]["embedding"]))[:3]:
        minutes, seconds = divmod(int(segment["start"]), 60)
        print(f"{name} {minutes}:{seconds:02} {segment['text']}")


if __name__ == "__main__":
    try:
        main()
    except requests.ConnectionError as error:
        sys.exit(f"no answer from {URL}: is `tealight serve` running? ({error})")
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))
