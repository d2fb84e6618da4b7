#!/usr/bin/env python3
"""Render conversations with `transformers`, using the chat templates of many models that are part of llama.cpp's source.

    chat_templates.py SDIST OUTPUT    needs transformers and jinja2. SDIST is the path of the source archive of llama-cpp-python,
                                      which contains llama.cpp; it is downloaded if missing

OUTPUT is JSON: [{"name", "template", "chat", "expected": text, or null if the template rejects the conversation}].
"""

import hashlib
import json
import re
import sys
import tarfile
import urllib.request
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template

INDEX_URL, ARCHIVE = "https://pypi.org/simple/llama-cpp-python/", "llama_cpp_python-0.3.36.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "The weather of a place <now>",
          "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]}}}]
CHATS = {
    "question": {"messages": [{"role": "user", "content": "What's 2 + 2?"}]},
    "conversation": {"messages": [
        {"role": "system", "content": "Be brief & \"kind\"."}, {"role": "user", "content": "  Hello \n"},
        {"role": "assistant", "content": "Hi.\nHow are you?"}, {"role": "user", "content": "Größe 漢字 🎙️"}]},
    "tools": {"messages": [{"role": "system", "content": "Help."}, {"role": "user", "content": "Weather?"}], "tools": TOOLS},
    "wrong order": {"messages": [{"role": "assistant", "content": "I begin."}, {"role": "assistant", "content": "And go on."}]},
    "empty": {"messages": [{"role": "user", "content": ""}]},
}
TEMPLATE_VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}


def fetch(path):
    """Downloads the source archive without pip, which would build it to determine its dependencies."""
    with urllib.request.urlopen(INDEX_URL, timeout=60) as page:
        links = re.findall(r'href="([^"#]+)', page.read().decode())
    link = next(link for link in links if link.endswith(ARCHIVE))
    with urllib.request.urlopen(link, timeout=300) as response:
        data = response.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{link} has sha256 {digest}; expected {SHA256}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def render(template, chat):
    try:
        return compile_template(template).render(**chat, **TEMPLATE_VARIABLES)
    except Exception:
        return None


def main():
    source, output = sys.argv[1:]
    if not Path(source).exists():
        fetch(source)
    rows = []
    with tarfile.open(source) as archive:
        for member in archive:
            if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                template = archive.extractfile(member).read().decode()
                name = member.name.rsplit("/", 1)[1]
                rows += [{"name": f"{name}, {chat_name}", "template": template, "chat": chat, "expected": render(template, chat)} for chat_name, chat in CHATS.items()]
    with open(output, "w") as out:
        json.dump(rows, out)
    print(f"{len(rows)} conversations, {sum(row['expected'] is None for row in rows)} rejected")


if __name__ == "__main__":
    main()
