"""Each request of README that has a reply beside it has that reply."""

import json
import pathlib
import re
import subprocess

import numpy as np
import pytest
import requests
from conftest import cosines

ROOT = pathlib.Path(__file__).parents[2]
PAIRS = re.findall(r"```sh\n([^`]*?curl http://127\.0\.0\.1:9000[^`]*)```\n```json\n([^`]*)```", (ROOT / "README.md").read_text())
# Other requests may come between.
OWN = {"id", "created", "cached_tokens"}
# The replies shown are those of all instruction sets but AVX2 alone, whose vectors are others.
EXACT = 1e-6
AVX2_LEAST_COSINE = 0.9
AVX2_MOST_APART = 0.03


def command(text):
    """The last command of a block, which may have begun a server before."""
    return text[text.index("curl ") :]


def alike(found, shown, isa, name=""):
    if isinstance(shown, dict):
        assert found.keys() == shown.keys(), name
        for key in shown:
            # Points are named by their documents, replies by chance.
            if key not in OWN or name == "points":
                alike(found[key], shown[key], isa, key)
    elif isinstance(shown, list) and shown and isinstance(shown[0], float):
        assert len(found) == len(shown)
        is_avx2 = isa == "avx2"
        close = np.allclose(found, shown, rtol=0, atol=AVX2_MOST_APART if is_avx2 else EXACT)
        # Few values of a vector: their direction.
        assert close or is_avx2 and cosines(found, shown) > AVX2_LEAST_COSINE, (name, found, shown)
    elif isinstance(shown, list):
        assert len(found) == len(shown), name
        for left, right in zip(found, shown):
            alike(left, right, isa, name)
    else:
        assert found == shown, name


@pytest.mark.parametrize("request_, reply", PAIRS, ids=[re.search(r"9000(/\S+)", pair[0])[1] for pair in PAIRS])
def test_a_request_has_the_reply_that_is_shown(url, key, request_, reply):
    shell = command(request_).replace("http://127.0.0.1:9000", url).replace("curl ", f"curl -s -H 'authorization: Bearer {key}' ", 1)
    found = subprocess.run(["bash", "-c", shell], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    isa = requests.get(f"{url}/status", headers={"authorization": f"Bearer {key}"}, timeout=60).json()["isa"]
    alike(json.loads(found), json.loads(reply), isa)


def test_readme_has_requests():
    assert len(PAIRS) >= 6
