"""The OpenAI client: chat and text completions, streamed or not, with the weights that tests/run fetches."""

import concurrent.futures
import json

import numpy as np
import openai
import pytest
import requests

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "Name a colour."}]


@pytest.fixture(scope="module")
def client(url, key):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def chat(client, **options):
    options = {"model": MODEL, "messages": QUESTION, "max_tokens": 16, "temperature": 0} | options
    return client.chat.completions.create(**options)


def complete(client, **options):
    options = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0} | options
    return client.completions.create(**options)


def test_chat_response_has_openai_shape(client):
    response = chat(client)
    assert response.object == "chat.completion" and response.id.startswith("chatcmpl-") and response.model == MODEL
    choice = response.choices[0]
    assert (choice.index, choice.message.role, choice.finish_reason, choice.logprobs) == (0, "assistant", "length", None)
    assert choice.message.content and response.usage.completion_tokens == 16
    assert response.usage.total_tokens == response.usage.prompt_tokens + 16
    assert chat(client).choices == response.choices


def test_chat_prefix_is_cached(client):
    first = {"role": "assistant", "content": chat(client).choices[0].message.content}
    more = chat(client, messages=[*QUESTION, first, {"role": "user", "content": [{"type": "text", "text": "Another."}]}])
    assert 0 < more.usage.prompt_tokens_details.cached_tokens < more.usage.prompt_tokens


def test_stream_deltas_join_to_full_text(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    deltas = [chunk.choices[0] for chunk in chunks[:-1]]
    assert "".join(d.delta.content or "" for d in deltas) == whole.choices[0].message.content
    assert [d.finish_reason for d in deltas] == [None] * (len(deltas) - 1) + ["length"] and len(deltas) > 8
    texts = list(complete(client, stream=True))
    assert "".join(c.choices[0].text for c in texts) == complete(client).choices[0].text
    assert texts[-1].choices[0].finish_reason == "length"


def test_logprobs_are_returned(client):
    content = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(content) == 16 and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in content)
    assert all(t.token == t.top_logprobs[0].token and bytes(t.bytes).decode() == t.token for t in content)
    logprobs = complete(client, logprobs=2, echo=True).choices[0].logprobs
    assert logprobs.tokens[:4] == ["Once", " upon", " a", " time"] and logprobs.token_logprobs[0] is None
    assert logprobs.text_offset[:3] == [0, 4, 9] and len(logprobs.tokens) == 20
    streamed = [c.choices[0].logprobs for c in chat(client, logprobs=True, stream=True) if c.choices[0].logprobs]
    assert [t.logprob for part in streamed for t in part.content] == [t.logprob for t in content]


def test_json_schema_constrains_output(client):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120, "minimum": 0}},
              "required": ["name", "age"], "additionalProperties": False}
    response_format = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
    question = [{"role": "user", "content": "Describe a person as JSON."}]
    for seed in range(3):
        response = chat(client, messages=question, response_format=response_format, max_tokens=80, temperature=1, seed=seed)
        person = json.loads(response.choices[0].message.content)
        assert set(person) == {"name", "age"} and len(person["name"]) <= 12 and 0 <= person["age"] <= 120
    response = chat(client, messages=question, response_format={"type": "json_object"}, max_tokens=400, temperature=1, seed=2)
    if response.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(response.choices[0].message.content), dict)


def test_sampling_is_reproducible_with_seed(client):
    sample = lambda **more: [c.message.content for c in chat(client, temperature=1, n=3, seed=7, **more).choices]
    assert sample() == sample() and len(set(sample())) > 1
    assert chat(client, temperature=1, seed=8).choices[0].message.content not in sample()[:1]
    assert chat(client, temperature=2, top_p=0).choices == chat(client).choices
    assert chat(client, temperature=2, extra_body={"top_k": 1}).choices == chat(client).choices
    assert chat(client, temperature=2, extra_body={"min_p": 1}).choices == chat(client).choices


def test_stop_sequence_ends_text_and_is_removed(client):
    whole = complete(client, max_tokens=40).choices[0].text
    stop = whole.split()[5]
    stopped = complete(client, max_tokens=40, stop=[stop, "never generated"]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.text == whole[:whole.index(stop)]
    chunks = complete(client, max_tokens=40, stop=stop, stream=True)
    assert "".join(c.choices[0].text for c in chunks) == stopped.text


def test_penalties_and_logit_bias_change_output(client):
    first = complete(client, max_tokens=1, logprobs=1).choices[0]
    ids = requests.post(f"{client.base_url}completions", json={"prompt": [504], "max_tokens": 1, "model": MODEL},
                        headers={"authorization": f"Bearer {client.api_key}"}, timeout=60)
    assert ids.status_code == 200, ids.text
    assert complete(client, max_tokens=1, logit_bias={"28": -100}).choices[0].text != first.text == ","
    # In 80 tokens, some token repeats.
    repeated = complete(client, max_tokens=80).choices[0].text
    assert complete(client, max_tokens=80, frequency_penalty=2).choices[0].text != repeated


def test_text_model_embeds(client):
    texts = ["The cat sat on the mat.", "A cat was sitting on a mat.", "Interest rates rose by half a point."]
    response = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    vectors = np.array([row.embedding for row in response.data])
    assert vectors.shape == (3, 576) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] and response.model == MODEL
    single = client.embeddings.create(model=MODEL, input=texts[1], encoding_format="float", dimensions=64).data[0].embedding
    assert np.allclose(np.array(single), vectors[1, :64] / np.linalg.norm(vectors[1, :64]), atol=1e-6)


def test_concurrent_requests_equal_single_requests(client):
    prompts = [f"The number {i} is" for i in range(10)]
    sequential = [complete(client, prompt=prompt).choices[0].text for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        parallel = list(pool.map(lambda prompt: complete(client, prompt=prompt).choices[0].text, prompts))
    assert parallel == sequential
    batch = complete(client, prompt=prompts, n=1)
    assert [c.text for c in batch.choices] == sequential and [c.index for c in batch.choices] == list(range(10))


@pytest.mark.parametrize("options, param", [
    ({"messages": []}, "messages"),
    ({"messages": [{"content": "no role"}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": "long " * 9000}]}, "messages"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"n": 0}, "n"),
    ({"stop": ["x"] * 99}, "stop"),
    ({"logprobs": True, "top_logprobs": 99}, "top_logprobs"),
    ({"logit_bias": {"word": 1}}, "logit_bias"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "cake"}}}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}}, "response_format"),
    ({"model": "gpt-9"}, "model"),
    ({"model": "all-MiniLM-L6-v2"}, "model"),
    ({"extra_body": {"temperature": "hot"}}, "temperature"),
    ({"extra_body": {"stop": {"a": 1}}}, "stop"),
    ({"extra_body": {"stream_options": 3}}, "stream_options"),
    ({"extra_body": {"tools": 5}}, "tools"),
    ({"stop": ["x", ""]}, "stop"),
])
def test_invalid_chat_request_names_parameter(client, options, param):
    with pytest.raises(openai.APIStatusError) as raised:
        chat(client, **options)
    assert raised.value.status_code in (400, 404) and raised.value.body["param"] == param, raised.value


@pytest.mark.parametrize("options, param", [
    ({"best_of": 3}, "best_of"),
    ({"extra_body": {"response_format": {"type": "json_object"}}}, "response_format"),
    ({"suffix": "end"}, "suffix"),
    ({"extra_body": {"top_p": "all"}}, "top_p"),
    ({"extra_body": {"seed": 1e30}}, "seed"),
])
def test_invalid_completion_request_names_parameter(client, options, param):
    with pytest.raises(openai.BadRequestError) as raised:
        complete(client, **options)
    assert raised.value.body["param"] == param, raised.value


def test_logprobs_distinguish_tokens_of_partial_characters(client):
    logprobs = complete(client, prompt="😀 is an emoji. 和平", max_tokens=6, logprobs=5).choices[0].logprobs
    assert all(len(top) == 5 and top[token] == log for token, log, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs))
    parts = [c.choices[0].logprobs for c in complete(client, logprobs=0, stream=True) if c.choices[0].logprobs]
    whole = complete(client, logprobs=0).choices[0].logprobs
    assert [offset for part in parts for offset in part.text_offset] == whole.text_offset


def test_empty_prompt_is_rejected(client):
    for prompt in ("", [], [""]):
        with pytest.raises(openai.BadRequestError):
            complete(client, prompt=prompt)
