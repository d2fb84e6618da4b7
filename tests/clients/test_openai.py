"""The official OpenAI client. Its vectors come as base64 unless a test asks for floats."""

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


def test_shape_of_a_reply(create):
    reply = create("hello world")
    assert reply.object == "list" and reply.model == MODEL
    (row,) = reply.data
    assert row.object == "embedding" and row.index == 0 and len(row.embedding) == DIMENSION
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0


def test_usage_adds_up(create):
    each = [create(text).usage.total_tokens for text in TEXTS]
    assert create(TEXTS).usage.total_tokens == sum(each)


def test_rows_keep_the_order_of_the_inputs(create):
    assert [row.index for row in create(TEXTS).data] == [0, 1, 2]


def test_vectors_are_the_goldens(embed, goldens, cosine):
    texts, vectors = goldens
    similar = cosines(embed(texts, extra_body={"truncate": True}), vectors)
    assert similar.mean() >= cosine[0] and similar.min() >= cosine[1]


def test_vectors_have_length_one(embed):
    assert np.allclose(np.linalg.norm(embed(TEXTS), axis=1), 1, atol=1e-5)


def test_same_text_same_bits_in_any_batch(embed):
    alone = np.vstack([embed(text) for text in TEXTS])
    mates = embed([*reversed(TEXTS), "candle " * 200, *TEXTS])
    assert np.array_equal(alone, mates[-3:]) and np.array_equal(alone[::-1], mates[:3])


def test_base64_and_float_are_the_same_numbers(create, embed):
    floats = create(TEXTS, encoding_format="float")
    assert isinstance(floats.data[0].embedding[0], float)
    assert np.array_equal(embed(TEXTS), np.array([row.embedding for row in floats.data], dtype=np.float32))
    coded = create(TEXTS, encoding_format="base64").data[1].embedding
    assert np.array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), embed(TEXTS)[1])


def test_token_ids(embed, url, key):
    reply = requests.post(f"{url}/tokenize", json={"inputs": TEXTS}, headers={"authorization": f"Bearer {key}"})
    ids = [[token["id"] for token in tokens] for tokens in reply.json()]
    bare = [row[1:-1] for row in ids]
    assert np.array_equal(embed(ids[0]), embed(TEXTS[0])), "one list of ids is one input"
    assert np.array_equal(embed(ids), embed(TEXTS)), "a list of lists is one input each"
    assert np.array_equal(embed(bare), embed(ids)), "special tokens may be left away"


@pytest.mark.parametrize("dimensions", [1, 8, 128, DIMENSION])
def test_dimensions_cut_and_normalise_again(embed, dimensions):
    cut = embed(TEXTS)[:, :dimensions]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    got = embed(TEXTS, dimensions=dimensions)
    assert got.shape == (3, dimensions) and np.allclose(got, expected, atol=1e-6)


def test_user_changes_nothing(embed):
    assert np.array_equal(embed("hello world", user="someone"), embed("hello world"))


def test_alias_of_the_model(client, create):
    reply = client.embeddings.create(model=f"sentence-transformers/{MODEL}", input="hello world")
    assert reply.data[0].embedding == create("hello world").data[0].embedding


def test_bits(embed):
    bits = np.packbits(embed(TEXTS) > 0, axis=1)
    ubinary = embed(TEXTS, encoding_format="ubinary").astype(int)
    binary = embed(TEXTS, encoding_format="binary").astype(int)
    assert np.array_equal(ubinary, bits) and np.array_equal(binary, bits.astype(int) - 128)


def test_bytes(embed):
    int8, uint8 = (embed(TEXTS, encoding_format=name) for name in ("int8", "uint8"))
    assert np.array_equal(int8, np.rint(int8)) and int8.min() >= -128 and int8.max() <= 127
    assert np.array_equal(uint8, int8 + 128)
    assert cosines(int8, embed(TEXTS)).min() > 0.99


def test_long_input_is_cut_where_asked(embed):
    cut = embed(TOO_LONG, extra_body={"truncate": True})
    assert np.array_equal(cut, embed("candle " * (2 * MAX_TOKENS), extra_body={"truncate": True}))


def test_longest_list(embed):
    vectors = embed(["a"] * 2048, dimensions=1)
    assert vectors.shape == (2048, 1) and len(np.unique(vectors)) == 1


def test_models_list(client):
    models = {model.id: model for model in client.models.list()}
    assert models[MODEL].object == "model" and models[MODEL].owned_by and models[MODEL].created >= 0


@pytest.mark.parametrize("name", [MODEL, f"sentence-transformers/{MODEL}"])
def test_models_retrieve(client, name):
    assert client.models.retrieve(name).object == "model"


def test_unknown_model(client):
    for call in (
        lambda: client.embeddings.create(model="text-embedding-3-small", input="hello world"),
        lambda: client.models.retrieve("text-embedding-3-small"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "model_not_found" and "text-embedding-3-small" in caught.value.message


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
def test_bad_input(create, input, code):
    with pytest.raises(openai.BadRequestError) as caught:
        create(input)
    param = caught.value.param
    assert param and param.startswith("input"), caught.value.body
    check_bad_request(caught.value, code, param)


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
def test_bad_field(create, field, value, code):
    with pytest.raises(openai.BadRequestError) as caught:
        create("hello", extra_body={field: value})
    check_bad_request(caught.value, code, field)


def test_missing_input(url, key):
    reply = requests.post(f"{url}/v1/embeddings", json={"model": MODEL}, headers={"authorization": f"Bearer {key}"})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "input" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/embeddings", b"", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b"{", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b'{"input": "hel', 400, "invalid_json"),
        ("POST", "/embeddings", b"no json", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b"[]", 400, "invalid_type"),
        ("POST", "/v1/embeddings", b'["hello"]', 400, "invalid_type"),
        ("POST", "/v1/embeddings", b'{"input":"' + b"a" * 7_000_000 + b'"}', 413, "body_too_large"),
        ("GET", "/v1/embeddings", None, 405, "method_not_allowed"),
        ("POST", "/v1/models", b"{}", 405, "method_not_allowed"),
        ("POST", "/v1/nowhere", b"{}", 404, "unknown_url"),
        ("GET", "/nowhere", None, 404, "unknown_url"),
    ],
)
def test_errors_outside_the_fields(url, key, method, path, body, status, code):
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    reply = requests.request(method, url + path, data=body, headers=headers)
    assert reply.status_code == status and reply.headers["content-type"].startswith("application/json")
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == code


def test_invalid_utf8(url, key):
    if "/lambda-url/" in url:
        pytest.skip("the emulator cannot pass it on: it answers 500 itself")
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    reply = requests.post(f"{url}/v1/embeddings", data=b'{"input":"\xff\xfe"}', headers=headers)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "invalid_json"


def test_text_of_five_megabytes(create):
    with pytest.raises(openai.APIStatusError) as caught:
        create("candle " * 750_000)
    assert (caught.value.status_code, caught.value.code) in {
        (400, "context_length_exceeded"),
        (413, "body_too_large"),
    }


@pytest.mark.skipif("TEALIGHT_API_KEY" not in os.environ, reason="this server has no key")
@pytest.mark.parametrize("wrong", ["wrong", "é", ""])
def test_wrong_key(url, wrong):
    for headers in ({"authorization": f"Bearer {wrong}".encode()}, {"authorization": wrong.encode()}, {}):
        reply = requests.post(f"{url}/v1/embeddings", json={"input": "hello"}, headers=headers)
        assert reply.status_code == 401 and reply.json()["error"]["code"] == "invalid_api_key"


def test_still_alive(embed):
    assert embed("hello world").shape == (1, DIMENSION)
