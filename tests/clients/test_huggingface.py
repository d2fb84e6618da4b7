"""huggingface_hub's InferenceClient, which posts to the URL as it is given: the root, or a route of the server."""

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


def test_one_text(client):
    vector = client.feature_extraction("hello world")
    assert vector.shape == (1, DIMENSION) and vector.dtype == np.float32


def test_base_url_is_the_same_server(client, url, key):
    other = InferenceClient(base_url=url, token=key)
    assert np.array_equal(other.feature_extraction(TEXTS), client.feature_extraction(TEXTS))


def test_list_is_as_one_by_one(client):
    alone = np.vstack([client.feature_extraction(text) for text in TEXTS])
    assert np.array_equal(client.feature_extraction(TEXTS), alone)


def test_vectors_are_the_goldens(client, goldens, cosine):
    texts, vectors = goldens
    got = np.vstack([client.feature_extraction(batch) for batch in batches(texts, 32)])
    assert cosines(got, vectors).mean() >= cosine[0]


def test_normalize(client):
    plain = client.feature_extraction(TEXTS, normalize=False)
    normal = client.feature_extraction(TEXTS, normalize=True)
    assert np.array_equal(normal, client.feature_extraction(TEXTS)), "normalised unless told otherwise"
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    assert not np.allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-2)
    assert np.allclose(cosines(plain, normal), 1, atol=1e-6)


def test_truncate(client):
    cut = client.feature_extraction(TOO_LONG)
    assert np.array_equal(cut, client.feature_extraction(TOO_LONG, truncate=True)), "cut unless told otherwise"
    with pytest.raises(HfHubHTTPError) as caught:
        client.feature_extraction(TOO_LONG, truncate=False)
    assert caught.value.response.status_code == 422


def test_truncation_direction(client):
    text = "first " * MAX_TOKENS + "last " * MAX_TOKENS
    right = client.feature_extraction(text, truncate=True, truncation_direction="right")
    left = client.feature_extraction(text, truncate=True, truncation_direction="left")
    assert np.array_equal(right, client.feature_extraction("first " * MAX_TOKENS))
    assert np.array_equal(left, client.feature_extraction("last " * MAX_TOKENS))


def test_dimensions(client):
    cut = client.feature_extraction(TEXTS)[:, :128]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    assert np.allclose(client.feature_extraction(TEXTS, dimensions=128), expected, atol=1e-6)


def test_encoding_format(client):
    floats = client.feature_extraction(TEXTS, encoding_format="float")
    assert np.array_equal(floats, client.feature_extraction(TEXTS))


def test_unknown_prompt(client):
    with pytest.raises(HfHubHTTPError) as caught:
        client.feature_extraction("hello", prompt_name="no such prompt")
    assert caught.value.response.status_code == 422
    assert "no such prompt" in caught.value.response.json()["error"]


def test_sentence_similarity(url, key):
    client = InferenceClient(model=f"{url}/similarity", token=key)
    scores = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    vectors = InferenceClient(model=url, token=key).feature_extraction(TEXTS)
    assert np.allclose(scores, vectors @ vectors[0], atol=1e-5)
