"""The Prometheus client library parses /metrics."""

import requests
from prometheus_client.parser import text_string_to_metric_families


def metric_families(url):
    return {family.name: family for family in text_string_to_metric_families(requests.get(f"{url}/metrics").text)}


def test_prometheus_parses_metrics(url, key):
    body, headers = {"input": "hello world"}, {"authorization": f"Bearer {key}"}
    assert requests.post(f"{url}/v1/embeddings", json=body, headers=headers).ok
    before = metric_families(url)
    assert requests.post(f"{url}/v1/embeddings", json=body, headers=headers).ok
    after = metric_families(url)
    tokens = lambda families: families["tealight_tokens"].samples[0].value
    assert tokens(after) == tokens(before) + 4
    duration = after["te_request_inference_duration"]
    assert duration.type == "histogram" and any(sample.name.endswith("_bucket") for sample in duration.samples)
    loaded = {sample.labels["model"]: sample.value for sample in after["tealight_model_load_seconds"].samples}
    assert loaded["all-MiniLM-L6-v2"] > 0
    assert after["process_resident_memory_bytes"].samples[0].value > 1 << 20
