"""What is inside a release: the crates that are linked into the binary, and the models beside it."""

import hashlib
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Both halves of Lambda.
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")


def metadata(platform):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform]
    return json.loads(subprocess.check_output(command, cwd=ROOT))


def linked(about):
    """Packages by their ids that the binary is linked from: no tests, no build scripts."""
    nodes = {node["id"]: node for node in about["resolve"]["nodes"]}
    root = about["resolve"]["root"]
    reached, waiting = set(), [root]
    while waiting:
        at = waiting.pop()
        if at in reached:
            continue
        reached.add(at)
        for dependency in nodes[at]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    edges = {at: [d["pkg"] for d in nodes[at]["deps"] if d["pkg"] in reached] for at in reached}
    packages = {package["id"]: package for package in about["packages"] if package["id"] in reached}
    return root, packages, edges


def crates():
    """Of all platforms: the root's id, packages by id, and what each depends on."""
    packages, edges = {}, {}
    for platform in PLATFORMS:
        root, some, lines = linked(metadata(platform))
        packages |= some
        for at, targets in lines.items():
            edges[at] = sorted({*edges.get(at, []), *targets})
    return root, packages, edges


def checksums():
    """Checksums of crates by name and version, from Cargo.lock."""
    import tomllib

    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}


def models():
    """Names, licences, origins and sha256 of the models that releases carry, as models/README.md has them."""
    text = (ROOT / "models/README.md").read_text()
    found = []
    for file in sorted((ROOT / "models").glob("*.gguf")):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{file.name}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if cells[3].strip("`") != digest:
            raise SystemExit(f"{file.name} is not the file of models/README.md: {digest}")
        found.append({"name": file.stem, "license": cells[2], "origin": cells[1].split("](")[1].split(")")[0], "sha256": digest})
    return found
