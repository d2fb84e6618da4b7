"""The OpenAI client with only the base URL changed: embeddings, a streamed chat completion, and a transcription with timestamps.

    pip install openai
    tealight pull whisper-base && tealight pull smollm2-135m-instruct
    tealight serve                 # in another terminal
    python examples/openai_client.py tests/fixtures/audio/jfk.flac

TEALIGHT_URL (default http://127.0.0.1:9000) is the URL of the server or function, TEALIGHT_API_KEY its API key, if it has one.
"""

import os
import sys

from openai import APIConnectionError, APIStatusError, OpenAI

URL = os.environ.get("TEALIGHT_URL", "http://127.0.0.1:9000").rstrip("/")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # The client requires a key even if the server does not.
    client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("TEALIGHT_API_KEY", "none"))

    texts = ["How do I get back into my account?", "I forgot my password.", "The weather is fine today."]
    response = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts, dimensions=256)
    question, *others = [item.embedding for item in response.data]
    print(f"{len(question)} dimensions, {response.usage.total_tokens} tokens. Similarity to {texts[0]!r}:")
    for text, vector in zip(texts[1:], others):
        # Embeddings have unit length, so the dot product is the cosine similarity.
        print(f"  {sum(a * b for a, b in zip(question, vector)):.2f}  {text}")

    print("\nChat:\n  ", end="")
    messages = [{"role": "user", "content": "Name the capital of France."}]
    for chunk in client.chat.completions.create(
        model="smollm2-135m-instruct", messages=messages, max_completion_tokens=60, temperature=0, stream=True
    ):
        print(chunk.choices[0].delta.content or "", end="", flush=True)

    print("\n\nTranscript:")
    with open(sys.argv[1], "rb") as file:
        transcription = client.audio.transcriptions.create(
            model="whisper-base", file=file, response_format="verbose_json", timestamp_granularities=["segment"]
        )
    for segment in transcription.segments:
        print(f"  {segment.start:6.2f} to {segment.end:6.2f} s {segment.text}")


if __name__ == "__main__":
    try:
        main()
    except APIConnectionError as error:
        sys.exit(f"no response from {URL}: is `tealight serve` running? ({error.__cause__ or error})")
    except APIStatusError as error:
        # The message names the field, its value and the limit.
        sys.exit(f"{error.status_code} {error.message}")
    except OSError as error:
        sys.exit(str(error))
