"""OpenAI's client with nothing changed but the address: vectors of texts, a chat as it is written, and what a recording says when.

    pip install openai
    tealight pull whisper-base && tealight pull smollm2-135m-instruct
    tealight serve &
    python examples/openai_client.py tests/fixtures/audio/jfk.flac

TEALIGHT_URL is the address, http://127.0.0.1:9000 where it is not set: the function's own URL does as well. TEALIGHT_API_KEY is the key
that it asks for, if it asks for one.
"""

import os
import sys

from openai import APIConnectionError, APIStatusError, OpenAI

URL = os.environ.get("TEALIGHT_URL", "http://127.0.0.1:9000").rstrip("/")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # The client wants a key, though the server may not.
    client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("TEALIGHT_API_KEY", "none"))

    texts = ["How do I get back into my account?", "I forgot my password.", "The weather is fine today."]
    reply = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts, dimensions=256)
    question, *others = [row.embedding for row in reply.data]
    print(f"{len(question)} dimensions, {reply.usage.total_tokens} tokens. Like {texts[0]!r}:")
    for text, vector in zip(texts[1:], others):
        # Vectors have length 1, so that this is their cosine.
        print(f"  {sum(a * b for a, b in zip(question, vector)):.2f}  {text}")

    print("\nA chat:\n  ", end="")
    messages = [{"role": "user", "content": "Name the capital of France."}]
    for chunk in client.chat.completions.create(
        model="smollm2-135m-instruct", messages=messages, max_completion_tokens=60, temperature=0, stream=True
    ):
        print(chunk.choices[0].delta.content or "", end="", flush=True)

    print("\n\nA recording:")
    with open(sys.argv[1], "rb") as file:
        said = client.audio.transcriptions.create(
            model="whisper-base", file=file, response_format="verbose_json", timestamp_granularities=["segment"]
        )
    for segment in said.segments:
        print(f"  {segment.start:6.2f} to {segment.end:6.2f} s {segment.text}")


if __name__ == "__main__":
    try:
        main()
    except APIConnectionError as error:
        sys.exit(f"no answer from {URL}: is `tealight serve` running? ({error.__cause__ or error})")
    except APIStatusError as error:
        # Which field it is, what stands there, and what may: the server says all of it.
        sys.exit(f"{error.status_code} {error.message}")
    except OSError as error:
        sys.exit(str(error))
