"""The InferenceClient of huggingface_hub, which posts to the given URL: the root or a route of the server."""

import numpy as np
import pytest
from conftest import DIMENSION, MAX_TOKENS, batches, cosines
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

TEXTS = ["hello world", "a candle in the dark", "Grüße aus Köln, 世界 🕯"]
TOO_LONG = "candle " * (MAX_TOKENS + 50)


@pytest.fixture(scope="module", params=["", "/embed", "/invocations"])
def client(request, url, key):
    return InferenceClient(model=url + request.param, token=key)


def test_single_text_gives_one_row(client):
    vector = client.feature_extraction("hello world")
    assert vector.shape == (1, DIMENSION) and vector.dtype == np.float32


def test_base_url_gives_same_vectors(client, url, key):
    other = InferenceClient(base_url=url, token=key)
    assert np.array_equal(other.feature_extraction(TEXTS), client.feature_extraction(TEXTS))


def test_batch_equals_single_requests(client):
    single = np.vstack([client.feature_extraction(text) for text in TEXTS])
    assert np.array_equal(client.feature_extraction(TEXTS), single)


def test_vectors_match_goldens(client, goldens, min_cosine):
    texts, vectors = goldens
    actual = np.vstack([client.feature_extraction(batch) for batch in batches(texts, 32)])
    assert cosines(actual, vectors).mean() >= min_cosine[0]


def test_normalize_defaults_to_true(client):
    unnormalized = client.feature_extraction(TEXTS, normalize=False)
    normalized = client.feature_extraction(TEXTS, normalize=True)
    assert np.array_equal(normalized, client.feature_extraction(TEXTS)), "normalize defaults to true"
    assert np.allclose(np.linalg.norm(normalized, axis=1), 1, atol=1e-5)
    assert not np.allclose(np.linalg.norm(unnormalized, axis=1), 1, atol=1e-2)
    assert np.allclose(cosines(unnormalized, normalized), 1, atol=1e-6)


def test_truncate_defaults_to_true(client):
    truncated = client.feature_extraction(TOO_LONG)
    assert np.array_equal(truncated, client.feature_extraction(TOO_LONG, truncate=True)), "truncate defaults to true"
    with pytest.raises(HfHubHTTPError) as raised:
        client.feature_extraction(TOO_LONG, truncate=False)
    assert raised.value.response.status_code == 422


def test_truncation_direction_selects_side(client):
    text = "first " * MAX_TOKENS + "last " * MAX_TOKENS
    right = client.feature_extraction(text, truncate=True, truncation_direction="right")
    left = client.feature_extraction(text, truncate=True, truncation_direction="left")
    assert np.array_equal(right, client.feature_extraction("first " * MAX_TOKENS))
    assert np.array_equal(left, client.feature_extraction("last " * MAX_TOKENS))


def test_dimensions_truncate_and_normalize(client):
    truncated = client.feature_extraction(TEXTS)[:, :128]
    expected = truncated / np.linalg.norm(truncated, axis=1, keepdims=True)
    assert np.allclose(client.feature_extraction(TEXTS, dimensions=128), expected, atol=1e-6)


def test_float_encoding_is_default(client):
    floats = client.feature_extraction(TEXTS, encoding_format="float")
    assert np.array_equal(floats, client.feature_extraction(TEXTS))


def test_unknown_prompt_is_rejected(client):
    with pytest.raises(HfHubHTTPError) as raised:
        client.feature_extraction("hello", prompt_name="no such prompt")
    assert raised.value.response.status_code == 422
    assert "no such prompt" in raised.value.response.json()["error"]


def test_sentence_similarity_is_dot_product(url, key):
    client = InferenceClient(model=f"{url}/similarity", token=key)
    scores = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    vectors = InferenceClient(model=url, token=key).feature_extraction(TEXTS)
    assert np.allclose(scores, vectors @ vectors[0], atol=1e-5)
