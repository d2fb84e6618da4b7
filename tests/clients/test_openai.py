"""The OpenAI client, which requests embeddings as base64 unless a test requests floats."""

import base64
import os

import numpy as np
import openai
import pytest
import requests
from conftest import DIMENSION, MAX_TOKENS, MODEL, cosines

TEXTS = ["hello world", "a candle in the dark", "Grüße aus Köln, 世界 🕯"]
TOO_LONG = "candle " * (MAX_TOKENS + 50)


@pytest.fixture(scope="module")
def client(url, key):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def create(client):
    def create(input, **options):
        return client.embeddings.create(model=MODEL, input=input, **options)

    return create


@pytest.fixture(scope="module")
def embed(create):
    def embed(input, **options):
        return np.array([row.embedding for row in create(input, **options).data], dtype=np.float32)

    return embed


def test_response_has_openai_shape(create):
    response = create("hello world")
    assert response.object == "list" and response.model == MODEL
    (row,) = response.data
    assert row.object == "embedding" and row.index == 0 and len(row.embedding) == DIMENSION
    assert response.usage.prompt_tokens == response.usage.total_tokens > 0


def test_usage_of_batch_is_sum(create):
    per_text = [create(text).usage.total_tokens for text in TEXTS]
    assert create(TEXTS).usage.total_tokens == sum(per_text)


def test_embeddings_keep_input_order(create):
    assert [row.index for row in create(TEXTS).data] == [0, 1, 2]


def test_vectors_match_goldens(embed, goldens, min_cosine):
    texts, vectors = goldens
    similarities = cosines(embed(texts, extra_body={"truncate": True}), vectors)
    assert similarities.mean() >= min_cosine[0] and similarities.min() >= min_cosine[1]


def test_vectors_have_unit_length(embed):
    assert np.allclose(np.linalg.norm(embed(TEXTS), axis=1), 1, atol=1e-5)


def test_embedding_is_independent_of_batch(embed):
    single = np.vstack([embed(text) for text in TEXTS])
    batch = embed([*reversed(TEXTS), "candle " * 200, *TEXTS])
    assert np.array_equal(single, batch[-3:]) and np.array_equal(single[::-1], batch[:3])


def test_base64_and_float_are_equal(create, embed):
    floats = create(TEXTS, encoding_format="float")
    assert isinstance(floats.data[0].embedding[0], float)
    assert np.array_equal(embed(TEXTS), np.array([row.embedding for row in floats.data], dtype=np.float32))
    encoded = create(TEXTS, encoding_format="base64").data[1].embedding
    assert np.array_equal(np.frombuffer(base64.b64decode(encoded), "<f4"), embed(TEXTS)[1])


def test_token_ids_are_accepted_as_input(embed, url, key):
    response = requests.post(f"{url}/tokenize", json={"inputs": TEXTS}, headers={"authorization": f"Bearer {key}"})
    ids = [[token["id"] for token in tokens] for tokens in response.json()]
    without_special = [row[1:-1] for row in ids]
    assert np.array_equal(embed(ids[0]), embed(TEXTS[0])), "a list of ids is one input"
    assert np.array_equal(embed(ids), embed(TEXTS)), "a list of lists is one input per list"
    assert np.array_equal(embed(without_special), embed(ids)), "special tokens are optional"


@pytest.mark.parametrize("dimensions", [1, 8, 128, DIMENSION])
def test_dimensions_truncate_and_normalize(embed, dimensions):
    truncated = embed(TEXTS)[:, :dimensions]
    expected = truncated / np.linalg.norm(truncated, axis=1, keepdims=True)
    actual = embed(TEXTS, dimensions=dimensions)
    assert actual.shape == (3, dimensions) and np.allclose(actual, expected, atol=1e-6)


def test_user_is_ignored(embed):
    assert np.array_equal(embed("hello world", user="someone"), embed("hello world"))


def test_model_alias_is_accepted(client, create):
    response = client.embeddings.create(model=f"sentence-transformers/{MODEL}", input="hello world")
    assert response.data[0].embedding == create("hello world").data[0].embedding


def test_binary_encodings_pack_sign_bits(embed):
    bits = np.packbits(embed(TEXTS) > 0, axis=1)
    ubinary = embed(TEXTS, encoding_format="ubinary").astype(int)
    binary = embed(TEXTS, encoding_format="binary").astype(int)
    assert np.array_equal(ubinary, bits) and np.array_equal(binary, bits.astype(int) - 128)


def test_byte_encodings_approximate_floats(embed):
    int8, uint8 = (embed(TEXTS, encoding_format=name) for name in ("int8", "uint8"))
    assert np.array_equal(int8, np.rint(int8)) and int8.min() >= -128 and int8.max() <= 127
    assert np.array_equal(uint8, int8 + 128)
    assert cosines(int8, embed(TEXTS)).min() > 0.99


def test_long_input_is_truncated_if_requested(embed):
    truncated = embed(TOO_LONG, extra_body={"truncate": True})
    assert np.array_equal(truncated, embed("candle " * (2 * MAX_TOKENS), extra_body={"truncate": True}))


def test_max_batch_is_accepted(embed):
    vectors = embed(["a"] * 2048, dimensions=1)
    assert vectors.shape == (2048, 1) and len(np.unique(vectors)) == 1


def test_models_list_has_default_model(client):
    models = {model.id: model for model in client.models.list()}
    assert models[MODEL].object == "model" and models[MODEL].owned_by and models[MODEL].created >= 0


@pytest.mark.parametrize("name", [MODEL, f"sentence-transformers/{MODEL}"])
def test_model_is_retrieved_by_name(client, name):
    assert client.models.retrieve(name).object == "model"


def test_unknown_model_is_not_found(client):
    for call in (
        lambda: client.embeddings.create(model="text-embedding-3-small", input="hello world"),
        lambda: client.models.retrieve("text-embedding-3-small"),
    ):
        with pytest.raises(openai.NotFoundError) as raised:
            call()
        assert raised.value.code == "model_not_found" and "text-embedding-3-small" in raised.value.message


def check_bad_request(error, code, param):
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error"), error.body
    assert len(error.body["message"]) > 10


@pytest.mark.parametrize(
    ("input", "code"),
    [
        ("", "empty_input"),
        ([], "empty_input"),
        (["hello", ""], "empty_input"),
        ([[101, 102], []], "empty_input"),
        ([0.5], "invalid_type"),
        ([True], "invalid_type"),
        (["hello", None], "invalid_type"),
        ({"text": "hello"}, "invalid_type"),
        (7, "invalid_type"),
        (None, "invalid_type"),
        ([-1], "invalid_type"),
        ([10_000_000], "invalid_value"),
        ([[101, 10_000_000]], "invalid_value"),
        (["hello"] * 2049, "invalid_value"),
        (["hello"] * 10_000, "invalid_value"),
        (TOO_LONG, "context_length_exceeded"),
        (["hello", TOO_LONG], "context_length_exceeded"),
        ([2003] * (MAX_TOKENS + 1), "context_length_exceeded"),
    ],
)
def test_invalid_input_is_rejected(create, input, code):
    with pytest.raises(openai.BadRequestError) as raised:
        create(input)
    param = raised.value.param
    assert param and param.startswith("input"), raised.value.body
    check_bad_request(raised.value, code, param)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("dimensions", 0, "invalid_value"),
        ("dimensions", DIMENSION + 1, "invalid_value"),
        ("dimensions", -1, "invalid_type"),
        ("dimensions", "many", "invalid_type"),
        ("encoding_format", "hex", "invalid_type"),
        ("encoding_format", 5, "invalid_type"),
        ("prompt_name", "no such prompt", "invalid_value"),
        ("truncate", "yes", "invalid_type"),
        ("model", 5, "invalid_type"),
    ],
)
def test_invalid_field_is_rejected(create, field, value, code):
    with pytest.raises(openai.BadRequestError) as raised:
        create("hello", extra_body={field: value})
    check_bad_request(raised.value, code, field)


def test_missing_input_is_rejected(url, key):
    response = requests.post(f"{url}/v1/embeddings", json={"model": MODEL}, headers={"authorization": f"Bearer {key}"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "input" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/embeddings", b"", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b"{", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b'{"input": "hel', 400, "invalid_json"),
        ("POST", "/embeddings", b"not json", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b"[]", 400, "invalid_type"),
        ("POST", "/v1/embeddings", b'["hello"]', 400, "invalid_type"),
        ("POST", "/v1/embeddings", b'{"input":"' + b"a" * 7_000_000 + b'"}', 413, "body_too_large"),
        ("GET", "/v1/embeddings", None, 405, "method_not_allowed"),
        ("POST", "/v1/models", b"{}", 405, "method_not_allowed"),
        ("POST", "/v1/nowhere", b"{}", 404, "unknown_url"),
        ("GET", "/nowhere", None, 404, "unknown_url"),
    ],
)
def test_invalid_request_has_openai_error(url, key, method, path, body, status, code):
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    response = requests.request(method, url + path, data=body, headers=headers)
    assert response.status_code == status and response.headers["content-type"].startswith("application/json")
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == code


def test_invalid_utf8_is_rejected(url, key):
    if "/lambda-url/" in url:
        pytest.skip("the emulator rejects invalid UTF-8 itself, with status 500")
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    response = requests.post(f"{url}/v1/embeddings", data=b'{"input":"\xff\xfe"}', headers=headers)
    assert response.status_code == 400 and response.json()["error"]["code"] == "invalid_json"


def test_huge_text_is_rejected(create):
    with pytest.raises(openai.APIStatusError) as raised:
        create("candle " * 750_000)
    assert (raised.value.status_code, raised.value.code) in {
        (400, "context_length_exceeded"),
        (413, "body_too_large"),
    }


@pytest.mark.skipif("TEALIGHT_API_KEY" not in os.environ, reason="the server has no API key")
@pytest.mark.parametrize("wrong", ["wrong", "é", ""])
def test_wrong_key_is_unauthorized(url, wrong):
    for headers in ({"authorization": f"Bearer {wrong}".encode()}, {"authorization": wrong.encode()}, {}):
        response = requests.post(f"{url}/v1/embeddings", json={"input": "hello"}, headers=headers)
        assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"


def test_server_still_responds(embed):
    assert embed("hello world").shape == (1, DIMENSION)
