#!/usr/bin/env python3
"""Write what `transformers` makes of conversations by the chat templates that llama.cpp's source carries, of many makers' models.

    chat_templates.py SDIST OUTPUT    needs transformers and jinja2; SDIST is where llama-cpp-python's source goes, which has
                                      llama.cpp in it; downloaded where it is missing

OUTPUT is JSON: [{"name", "template", "chat", "expected": text, or null where the template refuses the conversation}].
"""

import hashlib
import json
import re
import sys
import tarfile
import urllib.request
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template

INDEX, SOURCE = "https://pypi.org/simple/llama-cpp-python/", "llama_cpp_python-0.3.36.tar.gz"
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
AROUND = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}


def fetch(path):
    """pip would build it to know what it needs."""
    with urllib.request.urlopen(INDEX, timeout=60) as page:
        links = re.findall(r'href="([^"#]+)', page.read().decode())
    link = next(link for link in links if link.endswith(SOURCE))
    with urllib.request.urlopen(link, timeout=300) as reply:
        data = reply.read()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{link} has the sha256 {found}, not {SHA256}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def rendered(template, chat):
    try:
        return compile_template(template).render(**chat, **AROUND)
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
                rows += [{"name": f"{name}, {what}", "template": template, "chat": chat, "expected": rendered(template, chat)} for what, chat in CHATS.items()]
    with open(output, "w") as out:
        json.dump(rows, out)
    print(f"{len(rows)} conversations, {sum(row['expected'] is None for row in rows)} refused")


if __name__ == "__main__":
    main()
