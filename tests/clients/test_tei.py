"""The routes of text-embeddings-inference: fields, defaults, limits, shapes, status codes and x-* headers."""

import json
import re

import numpy as np
import openapi_spec_validator
import pytest
import requests
from conftest import DIMENSION, GOLDENS, MAX_TOKENS, MODEL, batches, cosines

TEXTS = ["hello world", "a candle in the dark", "Grüße aus Köln, 世界 🕯"]
TOO_LONG = "candle " * (MAX_TOKENS + 50)
MAX_BATCH = 32
HEADERS = ["x-compute-time", "x-compute-characters", "x-compute-tokens", "x-total-time"]
HEADERS += ["x-tokenization-time", "x-queue-time", "x-inference-time"]


@pytest.fixture(scope="module")
def session(key):
    with requests.Session() as session:
        session.headers["authorization"] = f"Bearer {key}"
        yield session


@pytest.fixture(scope="module")
def post(session, url):
    """Posts fields, checks the status and returns the JSON of the response."""

    def post(path, status=200, **fields):
        response = session.post(url + path, json=fields)
        assert response.status_code == status, response.text[:500]
        assert response.headers["content-type"].startswith("application/json")
        return response.json()

    return post


@pytest.fixture(scope="module")
def get(session, url):
    def get(path, status=200):
        response = session.get(url + path)
        assert response.status_code == status, response.text[:500]
        return response

    return get


# Embeddings


def test_embed_returns_list_even_for_one_text(post):
    assert np.shape(post("/embed", inputs="hello world")) == (1, DIMENSION)
    assert np.shape(post("/embed", inputs=TEXTS)) == (3, DIMENSION)


def test_embed_matches_goldens(post, goldens, min_cosine):
    texts, vectors = goldens
    actual = np.vstack([post("/embed", inputs=batch) for batch in batches(texts, MAX_BATCH)])
    assert cosines(actual, vectors).mean() >= min_cosine[0]


def test_embed_equals_openai_route(post):
    rows = post("/v1/embeddings", input=TEXTS, model=MODEL)["data"]
    assert [row["embedding"] for row in rows] == post("/embed", inputs=TEXTS)


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_embed_aliases_give_same_response(post, path):
    assert post(path, inputs=TEXTS) == post("/embed", inputs=TEXTS)


def test_embed_accepts_mixed_texts_and_token_ids(post):
    ids = [token["id"] for token in post("/tokenize", inputs="hello world")[0]]
    ids_alone = post("/embed", inputs=ids)
    mixed = post("/embed", inputs=["hello world", ids])
    assert mixed == [*ids_alone, *ids_alone]


def test_embed_normalize_defaults_to_true(post):
    norms = np.linalg.norm(post("/embed", inputs=TEXTS), axis=1)
    assert np.allclose(norms, 1, atol=1e-5)
    assert not np.allclose(np.linalg.norm(post("/embed", inputs=TEXTS, normalize=False), axis=1), 1, atol=1e-2)


def test_embed_truncate_defaults_to_true(post):
    assert post("/embed", inputs=TOO_LONG) == post("/embed", inputs=TOO_LONG, truncate=True)
    assert post("/embed", inputs=TOO_LONG, truncate=None) == post("/embed", inputs=TOO_LONG)
    post("/embed", inputs=TOO_LONG, truncate=False, status=422)


@pytest.mark.parametrize("direction", ["left", "Left"])
def test_embed_truncates_left_if_requested(post, direction):
    text = "first " * MAX_TOKENS + "last " * MAX_TOKENS
    left = post("/embed", inputs=text, truncation_direction=direction)
    assert left == post("/embed", inputs="last " * MAX_TOKENS) != post("/embed", inputs=text)


def test_embed_dimensions_truncate_and_normalize(post):
    truncated = np.array(post("/embed", inputs=TEXTS))[:, :64]
    expected = truncated / np.linalg.norm(truncated, axis=1, keepdims=True)
    assert np.allclose(post("/embed", inputs=TEXTS, dimensions=64), expected, atol=1e-6)


def test_embed_supports_encoding_formats(post):
    bits = np.packbits(np.array(post("/embed", inputs=TEXTS)) > 0, axis=1)
    assert np.array_equal(post("/embed", inputs=TEXTS, encoding_format="ubinary"), bits)
    assert np.shape(post("/embed", inputs=TEXTS, encoding_format="int8")) == (3, DIMENSION)
    assert all(isinstance(row, str) for row in post("/embed", inputs=TEXTS, encoding_format="base64"))


def test_embed_ignores_unknown_fields(post):
    assert post("/embed", inputs=TEXTS, color="warm") == post("/embed", inputs=TEXTS)


def test_embed_all_returns_one_vector_per_token(post):
    tokens = post("/tokenize", inputs=TEXTS)
    pooled = post("/embed", inputs=TEXTS)
    for vectors, row, vector in zip(post("/embed_all", inputs=TEXTS), tokens, pooled, strict=True):
        assert np.shape(vectors) == (len(row), DIMENSION)
        assert cosines(np.mean(vectors, axis=0), vector) > 0.99999, "this model uses mean pooling"


def test_similarity_is_dot_product(post):
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS}
    vectors = np.array(post("/embed", inputs=TEXTS))
    assert np.allclose(post("/similarity", inputs=inputs), vectors @ vectors[0], atol=1e-5)
    parameters = {"truncate": True, "truncation_direction": "right", "prompt_name": None}
    assert post("/similarity", inputs=inputs, parameters=parameters) == post("/similarity", inputs=inputs)


# Tokens


def test_tokenize_returns_ids_texts_and_offsets(post):
    (row,) = post("/tokenize", inputs="hello world")
    assert [set(token) for token in row] == [{"id", "text", "special", "start", "stop"}] * 4
    assert [token["id"] for token in row] == [101, 7592, 2088, 102]
    assert [token["text"] for token in row[1:3]] == ["hello", "world"]
    assert [token["special"] for token in row] == [True, False, False, True]
    assert [(token["start"], token["stop"]) for token in row] == [(None, None), (0, 5), (6, 11), (None, None)]


def test_tokenize_matches_goldens(post, goldens):
    texts, _ = goldens
    names = ("texts.json", "tokens.json")
    expected = dict(zip(*(json.loads((GOLDENS / name).read_text()) for name in names)))
    for batch in batches(texts, MAX_BATCH):
        rows = [[token["id"] for token in row] for row in post("/tokenize", inputs=batch)]
        actual = [row if len(row) <= MAX_TOKENS else row[: MAX_TOKENS - 1] + row[-1:] for row in rows]
        assert actual == [expected[text] for text in batch]


def test_tokenize_offsets_count_bytes(post):
    text = "Grüße, 世界"
    last = post("/tokenize", inputs=[text], add_special_tokens=False)[0][-1]
    assert text.encode()[last["start"] : last["stop"]].decode() == "界"


def test_tokenize_without_special_tokens(post):
    rows = post("/tokenize", inputs=TEXTS, add_special_tokens=False)
    assert len(rows) == 3 and not any(token["special"] for row in rows for token in row)


def test_tokenize_does_not_truncate(post):
    assert len(post("/tokenize", inputs=TOO_LONG)[0]) > MAX_TOKENS


def test_decode_returns_texts(post):
    ids = [101, 7592, 2088, 102]
    assert post("/decode", ids=ids) == ["hello world"]
    assert post("/decode", ids=[ids, [7592]]) == ["hello world", "hello"]
    assert post("/decode", ids=ids, skip_special_tokens=False) == ["[CLS] hello world [SEP]"]


# Metadata


def test_info_has_tei_fields(get):
    info = get("/info").json()
    assert MODEL in info["model_id"] and info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == MAX_TOKENS and info["max_client_batch_size"] == MAX_BATCH
    assert info["auto_truncate"] is True
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", info["version"])
    keys = "model_sha model_dtype served_model_name max_concurrent_requests max_batch_tokens max_batch_requests"
    assert set(keys.split()) | {"tokenization_workers", "sha", "docker_label"} <= info.keys()


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health_has_empty_body(get, path):
    assert get(path).content == b""


SAMPLE = re.compile(r'[a-zA-Z_:][\w:]*(\{(\w+="[^"\n]*",?)*\})? (NaN|[+-]Inf|-?[0-9.e+-]+)( \d+)?')


def test_metrics_have_prometheus_format(get):
    response = get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if line and not line.startswith("#")]
    assert lines and [line for line in lines if not SAMPLE.fullmatch(line)] == []


def test_openapi_is_valid_and_complete(get):
    document = get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    posts = ["/embed", "/embed_all", "/similarity", "/tokenize", "/decode", "/v1/embeddings"]
    gets = ["/info", "/health", "/metrics", "/v1/models", "/v1/models/{model}"]
    assert {("post", path) for path in posts} | {("get", path) for path in gets} <= routes


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/embed", {"inputs": TEXTS}),
        ("/embed_all", {"inputs": TEXTS}),
        ("/v1/embeddings", {"input": TEXTS}),
        ("/similarity", {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}}),
    ],
)
def test_inference_routes_have_compute_headers(session, url, post, path, fields):
    headers = session.post(url + path, json=fields).headers
    values = {name: int(headers[name]) for name in HEADERS}
    assert headers["x-compute-type"]
    assert values["x-compute-characters"] == sum(map(len, TEXTS))
    assert values["x-compute-tokens"] == sum(map(len, post("/tokenize", inputs=TEXTS)))
    assert values["x-total-time"] >= values["x-inference-time"]


# Errors


@pytest.mark.parametrize("path", ["/embed", "/embed_all"])
@pytest.mark.parametrize(
    ("fields", "status", "error_type"),
    [
        ({"inputs": ""}, 400, "Empty"),
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": ["hello", ""]}, 400, "Empty"),
        ({"inputs": ["hello"] * (MAX_BATCH + 1)}, 422, "Validation"),
        ({"inputs": ["hello"] * 10_000}, 422, "Validation"),
        ({"inputs": TOO_LONG, "truncate": False}, 422, "Validation"),
        ({"inputs": [10_000_000]}, 422, "Validation"),
        ({"inputs": "hello", "prompt_name": "no such prompt"}, 422, "Validation"),
        ({"inputs": "hello", "truncation_direction": "up"}, 422, "Validation"),
        ({"inputs": {"text": "hello"}}, 422, "Validation"),
        ({"inputs": 7}, 422, "Validation"),
        ({"inputs": None}, 422, "Validation"),
        ({}, 422, "Validation"),
    ],
)
def test_invalid_fields_are_rejected(post, path, fields, status, error_type):
    error = post(path, status=status, **fields)
    assert error["error_type"] == error_type and len(error["error"]) > 10


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/embed", {"inputs": "hello", "dimensions": 0}, 422),
        ("/embed", {"inputs": "hello", "dimensions": DIMENSION + 1}, 422),
        ("/embed", {"inputs": "hello", "normalize": "yes"}, 422),
        ("/embed", {"inputs": "hello", "encoding_format": "hex"}, 422),
        ("/similarity", {"inputs": "hello"}, 422),
        ("/similarity", {"inputs": {"source_sentence": "hello", "sentences": []}}, 400),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["hello"]}}, 400),
        ("/similarity", {"inputs": {"source_sentence": "hello", "sentences": ["hello"] * MAX_BATCH}}, 422),
        ("/tokenize", {"inputs": ""}, 400),
        ("/tokenize", {"inputs": ["hello"] * (MAX_BATCH + 1)}, 422),
        ("/tokenize", {"inputs": [1, 2]}, 422),
        ("/decode", {"ids": []}, 400),
        ("/decode", {"ids": [10_000_000]}, 422),
        ("/decode", {"ids": "hello"}, 422),
    ],
)
def test_invalid_fields_of_other_routes_are_rejected(post, path, fields, status):
    error = post(path, status=status, **fields)
    assert set(error) == {"error", "error_type"}
    assert error["error_type"] == ("Empty" if status == 400 else "Validation")


def test_max_batch_is_accepted(post):
    assert np.shape(post("/embed", inputs=["hello"] * MAX_BATCH)) == (MAX_BATCH, DIMENSION)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("POST", b"", 400),
        ("POST", b"{", 400),
        ("POST", b'{"inputs": "hel', 400),
        ("POST", b"[]", 422),
        ("POST", b'["hello"]', 422),
        ("POST", b'{"inputs":"' + b"a" * 7_000_000 + b'"}', 413),
        ("GET", None, 405),
        ("DELETE", None, 405),
    ],
)
def test_invalid_request_has_tei_error(session, url, method, body, status):
    response = session.request(method, f"{url}/embed", data=body, headers={"content-type": "application/json"})
    assert response.status_code == status and set(response.json()) == {"error", "error_type"}


def test_huge_text_is_truncated_or_too_large(session, url):
    response = session.post(f"{url}/embed", json={"inputs": "candle " * 750_000})
    assert response.status_code in (200, 413), "truncated like any long text, or body too large"


def test_numbers_are_valid_json(session, url):
    """Rejects NaN and Infinity, which json.loads would accept."""

    def reject(constant):
        raise AssertionError(constant)

    response = session.post(f"{url}/embed", json={"inputs": [" ", "\u0000\u0001", "🕯"]})
    assert response.status_code == 200
    json.loads(response.text, parse_constant=reject)
