"""Runs the examples as their documentation describes."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
AUDIO = ROOT / "tests/fixtures/audio"
TEALIGHT = pathlib.Path(os.environ.get("TEALIGHT_BIN", ROOT / "target/release/tealight"))


def run(name, *arguments, code=0, **env):
    """Runs an example. Returns its output, or its standard error if `code` is not 0."""
    command = [str(ROOT / "examples" / name), *map(str, arguments)]
    if name.endswith(".py"):
        command.insert(0, sys.executable)
    result = subprocess.run(command, env=os.environ | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert result.returncode == code and "Traceback" not in result.stderr, result.stdout + result.stderr
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def python(url, key):
    """Runs an example against the server."""
    def python(name, *arguments, **options):
        return run(name, *arguments, **{"TEALIGHT_URL": url, "TEALIGHT_API_KEY": key} | options)

    return python


def test_openai_client_embeds_chats_and_transcribes(python):
    similarities, chat, transcript = python("openai_client.py", AUDIO / "jfk.flac").split("\n\n")
    first, near, far = similarities.splitlines()
    assert first.startswith("256 dimensions") and near.endswith("my password.")
    assert float(near.split()[0]) > float(far.split()[0]) + 0.3
    assert "Paris" in chat
    assert "what your country can do for you" in " ".join(transcript.split()) and "0.00 to" in transcript


def test_langchain_search_retrieves_and_answers(python):
    lines = python("langchain_search.py", "How long is the warranty on a lantern?").splitlines()
    found, answer = lines[:-1], lines[-1]
    assert len(found) == 2 and "six years" in found[0]
    assert answer.startswith("answer: ") and "six years" in answer


# langchain_search.py handles errors like openai_client.py and takes five seconds to import.
@pytest.mark.parametrize("name", ["openai_client.py", "voice_memos.py"])
def test_failure_prints_one_line(python, name, tmp_path):
    shutil.copy(AUDIO / "speech.flac", tmp_path)
    arguments = {"openai_client.py": [tmp_path / "speech.flac"], "voice_memos.py": [tmp_path, "anything"]}[name]
    message = python(name, *arguments, code=1, TEALIGHT_URL="http://127.0.0.1:9")
    assert "is `tealight serve` running?" in message and "127.0.0.1:9" in message
    assert "pip install" in python(name, code=1)


NOTES = {
    "garden/apple.md": "# Apple tree\n\nPrune it in late winter, before the buds open. Cut crossing branches first.\n",
    "garden/beans.txt": "Beans are sown in May, when the soil is warm.\n",
    "house.md": "# Boiler\n\nThe plumber comes every October. His number is on the door.\n",
    "empty.md": "\n",
    "sour dough/to do.md": "Feed the sourdough starter with rye flour every morning.\n",
    # The relevant sentence comes after hundreds of tokens.
    "long.md": "Minutes of the meeting. " * 120 + "\n\nThe library card has to be renewed at the town hall in spring.\n",
    "picture.png": "How to prune an apple tree",
}


def test_notes_search_finds_by_meaning_and_updates_index(tmp_path):
    folder, binaries = tmp_path / "notes", tmp_path / "bin"
    for name, text in NOTES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    binaries.mkdir()
    (binaries / "tealight").symlink_to(TEALIGHT.resolve())
    env = {"PATH": f"{binaries}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # Each line has the score, the note with the number of the chunk, and the passage.
    search = lambda question: [line.split("  ")[1].split("#")[0] for line in run("notes.sh", folder, question, **env).splitlines()]

    assert search("when do I trim fruit trees?")[0] == "./garden/apple.md"
    assert search("bread")[0] == "./sour dough/to do.md"
    assert search("where is the library card renewed?")[0] == "./long.md"
    [index] = (tmp_path / "cache/tealight").iterdir()
    built_at = index.stat().st_mtime_ns
    assert "./house.md" == search("heating repair")[0] and index.stat().st_mtime_ns == built_at, "the index was rebuilt although nothing has changed"

    # A file written within the same clock tick as the index would not be newer than it.
    later = built_at + 10**9
    (folder / "garden/beans.txt").write_text("The bicycle needs a new chain.\n")
    os.utime(folder / "garden/beans.txt", ns=(later, later))
    assert search("cycling")[0] == "./garden/beans.txt"
    (folder / "garden/beans.txt").unlink()
    later = index.stat().st_mtime_ns + 10**9
    os.utime(folder / "garden", ns=(later, later))
    assert "./garden/beans.txt" not in search("cycling")
    assert "examples/notes.sh" in run("notes.sh", code=2, **env)


def test_notes_saved_during_build_are_indexed_next_time(tmp_path):
    folder, binaries = tmp_path / "notes", tmp_path / "bin"
    folder.mkdir()
    binaries.mkdir()
    (folder / "beans.txt").write_text("Beans are sown in May.\n")
    # The note is saved after the documents have been read and before the index is moved into place.
    (binaries / "tealight").write_text(f"""#!/usr/bin/env bash
        if [[ $2 == build ]]; then
            "{TEALIGHT.resolve()}" "$@"
            echo "A zebra has escaped." >"{folder}/beans.txt"
            exit
        fi
        exec "{TEALIGHT.resolve()}" "$@"
    """)
    (binaries / "tealight").chmod(0o755)
    env = {"PATH": f"{binaries}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert "Beans" in run("notes.sh", folder, "zebra", **env)
    assert "zebra" in run("notes.sh", folder, "zebra", **env)


def test_notes_without_tealight_write_no_index(tmp_path):
    folder, binaries = tmp_path / "notes", tmp_path / "bin"
    folder.mkdir()
    binaries.mkdir()
    (folder / "beans.txt").write_text("Beans are sown in May.\n")
    for program in ["bash", "cksum", "cut", "find", "mkdir", "mv", "rm", "sed", "touch"]:
        (binaries / program).symlink_to(shutil.which(program))
    env = {"PATH": str(binaries), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run("notes.sh", folder, "beans", code=1, **env) == "tealight is not installed\n"
    assert not list(tmp_path.glob("cache/tealight/*"))


def test_voice_memos_finds_recording_and_time(python, tmp_path):
    body = (AUDIO / "speech.mp3").read_bytes()
    start = body.index(b"\xff\xfb")
    # MP3 frames with an empty body are silence; each has 1,152 samples at 44,100 Hz.
    silence = (body[start : start + 4] + bytes(204)) * (12 * 44_100 // 1152)
    (tmp_path / "late.mp3").write_bytes(silence + body[start + 208 :])
    shutil.copy(AUDIO / "jfk.flac", tmp_path / "speech of 1961.flac")
    (tmp_path / "broken.mp3").write_bytes(b"not audio")
    (tmp_path / "list.txt").write_text("not audio either")

    best = python("voice_memos.py", tmp_path, "what one can do for the country").splitlines()[0]
    assert best == "speech of 1961.flac 0:07 ask what you can do for your country."
    cached = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert set(cached) == {"late.mp3.json", "speech of 1961.flac.json"}
    best = python("voice_memos.py", tmp_path, "and so my fellow").splitlines()[0]
    assert best.startswith(("late.mp3 0:11", "late.mp3 0:12")) and "fellow" in best
    assert cached == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}, "a recording was transcribed twice"
