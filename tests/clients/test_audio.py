"""The OpenAI client: transcription in every response format, with the weights that tests/run fetches."""

import base64
import os
import pathlib
import urllib.parse

import boto3
import openai
import pytest
import requests
from moto.server import ThreadedMotoServer

AUDIO = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "audio"
SPOKEN_TEXT = "what your country can do for you"


@pytest.fixture(scope="module")
def client(url, key):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def transcribe(client, **options):
    with open(AUDIO / "jfk.flac", "rb") as file:
        return client.audio.transcriptions.create(**{"model": "whisper-1", "file": file} | options)


def test_json_has_text_and_duration(client):
    response = transcribe(client)
    assert SPOKEN_TEXT in response.text
    assert (response.usage.type, response.usage.seconds) == ("duration", 11)


def test_text_and_subtitle_formats_are_strings(client):
    assert SPOKEN_TEXT in transcribe(client, response_format="text")
    assert transcribe(client, response_format="srt").startswith("1\n00:00:00,")
    assert transcribe(client, response_format="vtt").startswith("WEBVTT\n\n00:00.")


def test_verbose_json_has_segments(client):
    response = transcribe(client, response_format="verbose_json", timestamp_granularities=["segment"], language="en", temperature=0)
    assert response.language == "english" and abs(response.duration - 11) < 0.1
    assert "".join(s.text for s in response.segments).strip() == response.text
    assert all(s.start < s.end <= 11.02 and s.avg_logprob < 0 and 0 <= s.no_speech_prob <= 1 for s in response.segments)
    assert [s.id for s in response.segments] == list(range(len(response.segments)))


def test_words_have_timestamps(client):
    response = transcribe(client, response_format="verbose_json", timestamp_granularities=["word"])
    assert response.segments is None and [w.word for w in response.words[:4]] == ["And", "so", "my", "fellow"]
    assert all(a.end <= b.start + 1e-6 and a.start < a.end for a, b in zip(response.words, response.words[1:]))
    both = transcribe(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert both.segments and both.words == response.words


def test_stream_has_deltas_and_full_text(client):
    events = list(transcribe(client, stream=True))
    assert [e.type for e in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1)
    assert events[-1].type == "transcript.text.done" and SPOKEN_TEXT in events[-1].text
    assert "".join(e.delta for e in events[:-1]).strip() == events[-1].text


def test_vad_options_are_accepted(client):
    plain = transcribe(client).text
    assert transcribe(client, chunking_strategy="auto").text == plain
    vad = {"type": "server_vad", "threshold": 0.6, "prefix_padding_ms": 500, "silence_duration_ms": 1500}
    assert transcribe(client, chunking_strategy=vad).text == plain
    assert transcribe(client, extra_body={"vad_filter": True, "beam_size": 2}).text


def test_translations_are_english(client):
    with open(AUDIO / "speech.mp3", "rb") as file:
        response = client.audio.translations.create(model="whisper-base", file=file, response_format="verbose_json")
    assert response.language == "english" and response.text


@pytest.mark.parametrize("name", ["speech.ogg", "speech.opus.ogg", "speech.opus.webm", "speech.m4a", "speech.he2.aac", "speech.aac51.m4a", "speech.flac"])
def test_every_audio_format_is_transcribed(client, name):
    response = client.audio.transcriptions.create(model="whisper-1", file=(name, (AUDIO / name).read_bytes()), language="en")
    assert "fellow" in response.text.lower(), response.text


def test_speech_models_are_listed(client):
    names = [model.id for model in client.models.list()]
    assert {"whisper-1", "whisper-base", "smollm2-135m-instruct"} <= set(names) and len(names) == len(set(names))
    assert [client.models.retrieve(name).id for name in ["whisper-1", "whisper-base"]] == ["whisper-1", "whisper-base"]


def test_metrics_count_audio_seconds(client, url):
    def seconds():
        lines = requests.get(f"{url}/metrics", timeout=60).text.splitlines()
        return float(next(line for line in lines if line.startswith("tealight_audio_seconds_total")).split()[1])

    before = seconds()
    transcribe(client)
    list(transcribe(client, stream=True))
    assert abs(seconds() - before - 22) < 0.1


def test_empty_form_fields_are_ignored(url, key):
    headers = {"authorization": f"Bearer {key}"}
    fields = {"model": "", "temperature": "", "language": "", "stream": "", "beam_size": ""}
    with open(AUDIO / "speech.flac", "rb") as file:
        response = requests.post(f"{url}/v1/audio/transcriptions", data=fields, files={"file": file}, headers=headers, timeout=60)
    assert response.status_code == 200 and "fellow" in response.json()["text"].lower(), response.text


def test_audio_embeddings_embed_each_segment(client, url, key):
    headers = {"authorization": f"Bearer {key}"}
    fields = {"model": "whisper-1", "dimensions": "128", "encoding_format": "float"}
    with open(AUDIO / "jfk.flac", "rb") as file:
        response = requests.post(f"{url}/v1/audio/embeddings", data=fields, files={"file": file}, headers=headers, timeout=60).json()
    assert (response["language"], response["model"], response["speech_model"]) == ("english", "all-MiniLM-L6-v2", "whisper-base")
    texts = [row["text"] for row in response["data"]]
    assert SPOKEN_TEXT in " ".join(texts) and all(row["start"] < row["end"] for row in response["data"])
    vectors = client.embeddings.create(model=response["model"], input=texts, dimensions=128, encoding_format="float").data
    assert [row["embedding"] for row in response["data"]] == [row.embedding for row in vectors]
    with open(AUDIO / "jfk.flac", "rb") as file:
        invalid = requests.post(f"{url}/v1/audio/embeddings", data={"dimensions": "9999"}, files={"file": file}, headers=headers, timeout=60)
    assert invalid.status_code == 400 and invalid.json()["error"]["param"] == "dimensions"


def test_json_body_accepts_base64_audio(url, key):
    body = {"file": base64.b64encode((AUDIO / "speech.mp3").read_bytes()).decode(), "model": "whisper-1", "language": "en"}
    headers = {"authorization": f"Bearer {key}"}
    response = requests.post(f"{url}/v1/audio/transcriptions", json=body, headers=headers, timeout=60)
    assert response.status_code == 200 and "fellow" in response.json()["text"].lower(), response.text


@pytest.fixture(scope="module")
def bucket():
    """Puts objects into a bucket of a mock S3 at the endpoint that the server was started with."""
    server = ThreadedMotoServer(port=urllib.parse.urlparse(os.environ["AWS_ENDPOINT_URL_S3"]).port, verbose=False)
    server.start()
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="recordings")
    yield lambda key, body: s3.put_object(Bucket="recordings", Key=key, Body=body)
    server.stop()


def test_s3_uri_is_transcribed_if_allowed(client, url, key, bucket):
    bucket("talks/1961 in/jfk ü+.flac", (AUDIO / "jfk.flac").read_bytes())
    bucket("others/jfk.flac", (AUDIO / "jfk.flac").read_bytes())
    headers = {"authorization": f"Bearer {key}"}

    def transcribe_uri(uri):
        body = {"uri": uri, "response_format": "verbose_json"}
        return requests.post(f"{url}/v1/audio/transcriptions", json=body, headers=headers, timeout=60)

    response = transcribe_uri("s3://recordings/talks/1961 in/jfk ü+.flac")
    assert response.status_code == 200 and response.json()["text"] == transcribe(client).text, response.text
    missing, foreign = transcribe_uri("s3://recordings/talks/none.flac"), transcribe_uri("s3://recordings/others/jfk.flac")
    assert missing.status_code == 400 and "NoSuchKey" in missing.text, missing.text
    assert foreign.status_code == 400 and foreign.json()["error"]["param"] == "uri", foreign.text


@pytest.mark.parametrize("options, param", [
    ({"chunking_strategy": "sometimes"}, "chunking_strategy"),
    ({"chunking_strategy": {"type": "server_vad", "threshold": 2}}, "chunking_strategy.threshold"),
    ({"extra_body": {"beam_size": 99}}, "beam_size"),
    ({"file": ("a.wav", b"not audio")}, "file"),
    ({"file": ("a.wav", b"")}, "file"),
    ({"file": ("a.mkv", (AUDIO / "speech.ac3.mkv").read_bytes())}, "file"),
    ({"response_format": "docx"}, "response_format"),
    ({"language": "xx"}, "language"),
    ({"temperature": 2}, "temperature"),
    ({"model": "whisper-giant"}, "model"),
])
def test_invalid_request_names_parameter(client, options, param):
    with pytest.raises(openai.APIStatusError) as raised:
        transcribe(client, **options)
    assert raised.value.status_code in (400, 404, 422) and raised.value.body["param"] == param, raised.value
