"""Each request in README.md and docs/ that is followed by a response gets that response."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess

import numpy as np
import pytest
import requests
from conftest import cosines

ROOT = pathlib.Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS = [*GUIDES, *(ROOT / name for name in ["CONTRIBUTING.md", "CHANGELOG.md", "benches/README.md", "models/README.md"])]
DOCS += sorted((ROOT / "examples").glob("**/README.md"))
BINARY = pathlib.Path(os.environ.get("TEALIGHT_BIN", ROOT / "target/release/tealight"))
SERVER = "http://127.0.0.1:9000"
EXAMPLE = re.compile(r"```sh\n([^`]*?curl (?:--retry \d+ --retry-connrefused )?http://127\.0\.0\.1:9000[^`]*)```\n```json\n([^`]*)```")
EXAMPLES = [(path.name, *example) for path in GUIDES for example in EXAMPLE.findall(path.read_text())]
# Fields that vary between responses, or depend on earlier requests.
VARYING_FIELDS = {"id", "created", "cached_tokens"}
# The guides show responses of all instruction sets except AVX2 without VNNI, whose embeddings differ.
MAX_DIFFERENCE = 1e-6
AVX2_MIN_COSINE = 0.9
AVX2_MAX_DIFFERENCE = 0.03


def name_of(example):
    guide, request, _ = example
    return guide + re.search(r"9000(/\S*)", request)[1]


def last_command(block):
    """The curl command of a block, which may start a server first."""
    return block[block.index("curl ") :]


def assert_matches(actual, documented, isa, name=""):
    max_difference = AVX2_MAX_DIFFERENCE if isa == "avx2" else MAX_DIFFERENCE
    if isinstance(documented, dict):
        assert actual.keys() == documented.keys(), name
        for key in documented:
            # Ids of points are derived from their documents; ids of responses are random.
            if key not in VARYING_FIELDS or name in {"points", "results"}:
                assert_matches(actual[key], documented[key], isa, key)
    elif isinstance(documented, list) and documented and isinstance(documented[0], float):
        assert len(actual) == len(documented)
        is_close = np.allclose(actual, documented, rtol=0, atol=max_difference)
        # The values of a truncated embedding may differ more than its direction.
        assert is_close or isa == "avx2" and cosines(actual, documented) > AVX2_MIN_COSINE, (name, actual, documented)
    elif isinstance(documented, list):
        assert len(actual) == len(documented), name
        for pair in zip(actual, documented):
            assert_matches(*pair, isa, name)
    elif name == "score":
        assert abs(actual - documented) <= max_difference, (name, actual, documented)
    else:
        assert actual == documented, name


def run(script, folder, **environment):
    process = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})
    assert process.returncode == 0, process.stderr
    return process.stdout


def send(block, url, key):
    command = last_command(block).replace(SERVER, url)
    return run(command.replace("curl ", f"curl -s -H 'authorization: Bearer {key}' ", 1), ROOT)


def isa_of(url, key):
    return requests.get(f"{url}/status", headers={"authorization": f"Bearer {key}"}, timeout=60).json()["isa"]


@pytest.mark.parametrize("example", [example for example in EXAMPLES if "TEALIGHT_INDEX" not in example[1]], ids=name_of)
def test_request_in_guide_gets_documented_response(url, key, example):
    _, request, response = example
    assert_matches(json.loads(send(request, url, key)), json.loads(response), isa_of(url, key))


@contextlib.contextmanager
def start_server(block, folder):
    """Runs the commands of a block before its request, among them `tealight serve &`, on a free port. Yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    commands = block[: block.index("curl ")].replace("tealight serve &", f"exec tealight serve --port {port}")
    environment = {**os.environ, "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(["bash", "-ec", commands], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        # The server prints its address once it is listening.
        for line in process.stderr:
            if "listening on" in line:
                yield f"http://127.0.0.1:{port}"
                return
        pytest.fail(f"the commands ended with code {process.wait()}: {commands}")
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("example", [example for example in EXAMPLES if "TEALIGHT_INDEX" in example[1]], ids=name_of)
def test_request_to_server_with_index_gets_documented_response(key, example, tmp_path):
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    _, block, response = example
    with start_server(block, tmp_path) as url:
        assert_matches(json.loads(send(block, url, key)), json.loads(response), isa_of(url, key))


def test_readme_has_requests():
    assert len([example for example in EXAMPLES if example[0] == "README.md"]) >= 3


def test_guides_have_requests():
    assert len(EXAMPLES) >= 12


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
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
    """Commands of tealight in the guides, as lists of arguments."""
    for path in DOCS:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), flags=re.S):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.findall(r"(?:tealight|--release --) ([a-z][^|;&]*)", line.split(" #")[0]):
                    yield shlex.split(command)


def test_commands_in_guides_are_valid():
    if not BINARY.exists():
        pytest.skip(f"{BINARY} is not built")
    found = list(commands())
    assert len(found) > 15
    for arguments in found:
        # Arguments are parsed, and rejected if they are invalid, before --help takes effect.
        process = subprocess.run([BINARY, *arguments, "--help"], capture_output=True, text=True)
        assert process.returncode == 0, (arguments, process.stderr)
