"""Fails where Cargo.lock has a crate that its authors have withdrawn, as the index of crates.io tells it."""

import concurrent.futures
import json
import pathlib
import tomllib
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]


def place(name):
    """https://doc.rust-lang.org/cargo/reference/registry-index.html#index-files"""
    name = name.lower()
    match len(name):
        case 1 | 2 as length:
            return f"{length}/{name}"
        case 3:
            return f"3/{name[0]}/{name}"
        case _:
            return f"{name[:2]}/{name[2:4]}/{name}"


def is_yanked(crate):
    name, version = crate
    with urllib.request.urlopen(f"https://index.crates.io/{place(name)}", timeout=60) as reply:
        lines = map(json.loads, reply.read().splitlines())
        return next(line["yanked"] for line in lines if line["vers"] == version)


def main():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    crates = [(p["name"], p["version"]) for p in lock["package"] if "source" in p]
    elsewhere = [p["name"] for p in lock["package"] if "registry+" not in p.get("source", "registry+")]
    if elsewhere:
        raise SystemExit(f"not from the registry: {', '.join(elsewhere)}")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yanked = [crate for crate, gone in zip(crates, pool.map(is_yanked, crates)) if gone]
    if yanked:
        raise SystemExit(f"withdrawn by their authors: {yanked}")
    print(f"{len(crates)} crates of Cargo.lock: all from the registry, none withdrawn")


if __name__ == "__main__":
    main()
