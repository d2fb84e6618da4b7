"""The examples, as somebody runs them who has read what they say of themselves."""

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
    """What an example prints, or what it says on standard error where it has to fail."""
    command = [str(ROOT / "examples" / name), *map(str, arguments)]
    if name.endswith(".py"):
        command.insert(0, sys.executable)
    done = subprocess.run(command, env=os.environ | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def python(url, key):
    """Runs an example against the server."""
    def python(name, *arguments, **options):
        return run(name, *arguments, **{"TEALIGHT_URL": url, "TEALIGHT_API_KEY": key} | options)

    return python


def test_openais_client_does_all_three(python):
    vectors, chat, recording = python("openai_client.py", AUDIO / "jfk.flac").split("\n\n")
    first, near, far = vectors.splitlines()
    assert first.startswith("256 dimensions") and near.endswith("my password.")
    assert float(near.split()[0]) > float(far.split()[0]) + 0.3
    assert "Paris" in chat
    assert "what your country can do for you" in " ".join(recording.split()) and "0.00 to" in recording


def test_langchain_finds_and_answers(python):
    lines = python("langchain_search.py", "How long is the warranty on a lantern?").splitlines()
    found, answer = lines[:-1], lines[-1]
    assert len(found) == 2 and "six years" in found[0]
    assert answer.startswith("answer: ") and "six years" in answer


# langchain_search.py has the lines of openai_client.py, and takes five seconds to import.
@pytest.mark.parametrize("name", ["openai_client.py", "voice_memos.py"])
def test_what_is_wrong_is_said_in_a_line(python, name, tmp_path):
    shutil.copy(AUDIO / "speech.flac", tmp_path)
    arguments = {"openai_client.py": [tmp_path / "speech.flac"], "voice_memos.py": [tmp_path, "anything"]}[name]
    said = python(name, *arguments, code=1, TEALIGHT_URL="http://127.0.0.1:9")
    assert "is `tealight serve` running?" in said and "127.0.0.1:9" in said
    assert "pip install" in python(name, code=1)


NOTES = {
    "garden/apple.md": "# Apple tree\n\nPrune it in late winter, before the buds open. Cut crossing branches first.\n",
    "garden/beans.txt": "Beans are sown in May, when the soil is warm.\n",
    "house.md": "# Boiler\n\nThe plumber comes every October. His number is on the door.\n",
    "empty.md": "\n",
    "sour dough/to do.md": "Feed the sourdough starter with rye flour every morning.\n",
    # Only its end says what is asked for, hundreds of tokens on.
    "long.md": "Minutes of the meeting. " * 120 + "\n\nThe library card has to be renewed at the town hall in spring.\n",
    "picture.png": "How to prune an apple tree",
}


def test_notes_are_found_by_what_they_mean(tmp_path):
    folder, binaries = tmp_path / "notes", tmp_path / "bin"
    for name, text in NOTES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    binaries.mkdir()
    (binaries / "tealight").symlink_to(TEALIGHT.resolve())
    env = {"PATH": f"{binaries}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # A score, the note with the number of its part, and the passage.
    search = lambda question: [line.split("  ")[1].split("#")[0] for line in run("notes.sh", folder, question, **env).splitlines()]

    assert search("when do I trim fruit trees?")[0] == "./garden/apple.md"
    assert search("bread")[0] == "./sour dough/to do.md"
    assert search("where is the library card renewed?")[0] == "./long.md"
    [index] = (tmp_path / "cache/tealight").iterdir()
    made = index.stat().st_mtime_ns
    assert "./house.md" == search("heating repair")[0] and index.stat().st_mtime_ns == made, "nothing has changed"

    # What was made in the same tick of the clock as the index is no newer than it.
    later = made + 10**9
    (folder / "garden/beans.txt").write_text("The bicycle needs a new chain.\n")
    os.utime(folder / "garden/beans.txt", ns=(later, later))
    assert search("cycling")[0] == "./garden/beans.txt"
    (folder / "garden/beans.txt").unlink()
    later = index.stat().st_mtime_ns + 10**9
    os.utime(folder / "garden", ns=(later, later))
    assert "./garden/beans.txt" not in search("cycling")
    assert "examples/notes.sh" in run("notes.sh", code=2, **env)


def test_a_note_saved_while_the_index_is_made_is_not_lost(tmp_path):
    folder, binaries = tmp_path / "notes", tmp_path / "bin"
    folder.mkdir()
    binaries.mkdir()
    (folder / "beans.txt").write_text("Beans are sown in May.\n")
    # Documents have been read when the note is saved, and their index is not yet in its place.
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


def test_notes_without_tealight_leave_no_index(tmp_path):
    folder, binaries = tmp_path / "notes", tmp_path / "bin"
    folder.mkdir()
    binaries.mkdir()
    (folder / "beans.txt").write_text("Beans are sown in May.\n")
    for program in ["bash", "cksum", "cut", "find", "mkdir", "mv", "rm", "sed", "touch"]:
        (binaries / program).symlink_to(shutil.which(program))
    env = {"PATH": str(binaries), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run("notes.sh", folder, "beans", code=1, **env) == "tealight is not installed\n"
    assert not list(tmp_path.glob("cache/tealight/*"))


def test_voice_memos_are_found_at_their_second(python, tmp_path):
    body = (AUDIO / "speech.mp3").read_bytes()
    start = body.index(b"\xff\xfb")
    # Frames of nothing but a header are silence, each of them 1,152 samples of 44,100 a second.
    silence = (body[start : start + 4] + bytes(204)) * (12 * 44_100 // 1152)
    (tmp_path / "late.mp3").write_bytes(silence + body[start + 208 :])
    shutil.copy(AUDIO / "jfk.flac", tmp_path / "speech of 1961.flac")
    (tmp_path / "broken.mp3").write_bytes(b"this is no recording")
    (tmp_path / "list.txt").write_text("no recording either")

    best = python("voice_memos.py", tmp_path, "what one can do for the country").splitlines()[0]
    assert best == "speech of 1961.flac 0:07 ask what you can do for your country."
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert set(kept) == {"late.mp3.json", "speech of 1961.flac.json"}
    best = python("voice_memos.py", tmp_path, "and so my fellow").splitlines()[0]
    assert best.startswith(("late.mp3 0:11", "late.mp3 0:12")) and "fellow" in best
    assert kept == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}, "heard once"
