"""Each request in README.md and docs/ that has a reply beside it gets that reply."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess

import numpy as np
import pytest
import requests
from conftest import cosines

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL = [*DOCUMENTS, *(ROOT / name for name in ["CONTRIBUTING.md", "CHANGELOG.md", "benches/README.md", "models/README.md"])]
ALL += sorted((ROOT / "examples").glob("**/README.md"))
BINARY = pathlib.Path(os.environ.get("TEALIGHT_BIN", ROOT / "target/release/tealight"))
SERVER = "http://127.0.0.1:9000"
PAIR = re.compile(r"```sh\n([^`]*?curl http://127\.0\.0\.1:9000[^`]*)```\n```json\n([^`]*)```")
PAIRS = [(path.name, *pair) for path in DOCUMENTS for pair in PAIR.findall(path.read_text())]
# What differs from reply to reply, or depends on the requests before.
VARIABLE = {"id", "created", "cached_tokens"}
# The documents show replies of all instruction sets except AVX2 without VNNI, which has other embeddings.
EXACT = 1e-6
AVX2_LEAST_COSINE = 0.9
AVX2_MOST_APART = 0.03


def name_of(pair):
    document, request, _ = pair
    return document + re.search(r"9000(/\S*)", request)[1]


def last_command(block):
    """The curl command of a block, which may start a server before."""
    return block[block.index("curl ") :]


def assert_alike(found, shown, isa, name=""):
    if isinstance(shown, dict):
        assert found.keys() == shown.keys(), name
        for key in shown:
            # Ids of points follow from their documents; ids of replies are random.
            if key not in VARIABLE or name in {"points", "results"}:
                assert_alike(found[key], shown[key], isa, key)
    elif isinstance(shown, list) and shown and isinstance(shown[0], float):
        assert len(found) == len(shown)
        is_avx2 = isa == "avx2"
        close = np.allclose(found, shown, rtol=0, atol=AVX2_MOST_APART if is_avx2 else EXACT)
        # A truncated embedding may be further off in each value than in its direction.
        assert close or is_avx2 and cosines(found, shown) > AVX2_LEAST_COSINE, (name, found, shown)
    elif isinstance(shown, list):
        assert len(found) == len(shown), name
        for left, right in zip(found, shown):
            assert_alike(left, right, isa, name)
    elif name == "score":
        assert abs(found - shown) <= (AVX2_MOST_APART if isa == "avx2" else EXACT), (name, found, shown)
    else:
        assert found == shown, name


def run(script, folder, **environment):
    process = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})
    assert process.returncode == 0, process.stderr
    return process.stdout


def send(block, url, key):
    command = last_command(block).replace(SERVER, url)
    return run(command.replace("curl ", f"curl -s -H 'authorization: Bearer {key}' ", 1), ROOT)


def isa_of(url, key):
    return requests.get(f"{url}/status", headers={"authorization": f"Bearer {key}"}, timeout=60).json()["isa"]


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if "TEALIGHT_INDEX" not in pair[1]], ids=name_of)
def test_request_in_documents_gets_shown_reply(url, key, pair):
    _, request, reply = pair
    assert_alike(json.loads(send(request, url, key)), json.loads(reply), isa_of(url, key))


@contextlib.contextmanager
def own_server(block, folder):
    """Runs the commands of a block before its request, among them `tealight serve &`, on a free port. Gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    commands = block[: block.index("curl ")].replace("tealight serve &", f"exec tealight serve --port {port}")
    environment = {**os.environ, "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(["bash", "-ec", commands], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        # The server says where it listens as soon as it does.
        for line in process.stderr:
            if "listening on" in line:
                yield f"http://127.0.0.1:{port}"
                return
        pytest.fail(f"the commands ended with code {process.wait()}: {commands}")
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if "TEALIGHT_INDEX" in pair[1]], ids=name_of)
def test_request_to_server_with_index_gets_shown_reply(key, pair, tmp_path):
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    _, block, reply = pair
    with own_server(block, tmp_path) as url:
        assert_alike(json.loads(send(block, url, key)), json.loads(reply), isa_of(url, key))


def test_readme_has_requests():
    assert len([pair for pair in PAIRS if pair[0] == "README.md"]) >= 3


def test_documents_have_requests():
    assert len(PAIRS) >= 12


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_to_files_and_headings(path):
    def anchors(file):
        headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", file.read_text(), flags=re.S), flags=re.M)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


def test_readme_is_at_most_200_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_files_named_in_contributing_exist():
    tables = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| `")]
    cells = [cell for line in tables for cell in re.findall(r"`([^`]+)`", line.split(" | ")[0])]
    # NAME and COMMAND stand for files that a contributor adds or chooses.
    files = [cell for cell in cells if "/" in cell and not re.search("NAME|COMMAND", cell)]
    assert len(files) > 20
    missing = [file for file in (file.split()[0] for file in files) if not (ROOT / file).exists()]
    assert not missing


def commands():
    """Subcommands of tealight in the documents, with the flags that each is given."""
    for path in ALL:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), flags=re.S):
            for line in block.replace("\\\n", " ").splitlines():
                for command, rest in re.findall(r"(?:tealight|--release --) ((?:(?:index|bench) )?[a-z]+)\b([^|;]*)", line.split(" #")[0]):
                    yield command, tuple(re.findall(r"(?<= )--[a-z][a-z-]*", rest))


def test_flags_in_documents_are_those_of_the_command_line():
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    found = set(commands())
    assert len(found) > 15
    for command, flags in sorted(found):
        help_text = subprocess.run([BINARY, *command.split(), "--help"], check=True, capture_output=True, text=True).stdout
        assert [flag for flag in flags if flag not in help_text] == [], command
