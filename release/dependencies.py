"""Lists the contents of a release: the crates linked into the binary, and the models."""

import hashlib
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The architectures of Lambda.
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")


def metadata(platform):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform]
    return json.loads(subprocess.check_output(command, cwd=ROOT))


def linked_packages(graph):
    """The root's id, the packages linked into the binary by id, and their dependencies; without dev and build dependencies."""
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    root = graph["resolve"]["root"]
    visited, pending = set(), [root]
    while pending:
        package_id = pending.pop()
        if package_id in visited:
            continue
        visited.add(package_id)
        for dependency in nodes[package_id]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                pending.append(dependency["pkg"])
    edges = {package_id: [d["pkg"] for d in nodes[package_id]["deps"] if d["pkg"] in visited] for package_id in visited}
    packages = {package["id"]: package for package in graph["packages"] if package["id"] in visited}
    return root, packages, edges


def crates():
    """The union over all platforms of the root's id, the packages by id, and the dependencies of each.

    The other crates of the workspace count as part of the root.
    """
    packages, edges = {}, {}
    for platform in PLATFORMS:
        root, platform_packages, platform_edges = linked_packages(metadata(platform))
        packages |= platform_packages
        for package_id, targets in platform_edges.items():
            edges[package_id] = sorted({*edges.get(package_id, []), *targets})
    members = {package_id for package_id, package in packages.items() if package["source"] is None}
    edges[root] = sorted({target for member in members for target in edges[member]} - members)
    for member in members - {root}:
        del packages[member], edges[member]
    return root, packages, edges


def checksums():
    """Checksums of crates by (name, version), from Cargo.lock."""
    import tomllib

    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}


def models():
    """Name, license, origin and sha256 of each model in a release, from models/README.md."""
    text = (ROOT / "models/README.md").read_text()
    rows = []
    for file in sorted((ROOT / "models").glob("*.gguf")):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{file.name}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if cells[3].strip("`") != digest:
            raise SystemExit(f"{file.name} has sha256 {digest}, which is not the one in models/README.md")
        rows.append({"name": file.stem, "license": cells[2], "origin": cells[1].split("](")[1].split(")")[0], "sha256": digest})
    return rows
