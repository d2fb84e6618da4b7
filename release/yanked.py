"""Fails if a crate in Cargo.lock is yanked according to the crates.io index, or is not from crates.io."""

import concurrent.futures
import json
import pathlib
import tomllib
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]


def index_path(name):
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
    with urllib.request.urlopen(f"https://index.crates.io/{index_path(name)}", timeout=60) as response:
        lines = map(json.loads, response.read().splitlines())
        return next(line["yanked"] for line in lines if line["vers"] == version)


def main():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    crates = [(p["name"], p["version"]) for p in lock["package"] if "source" in p]
    other_sources = [p["name"] for p in lock["package"] if "registry+" not in p.get("source", "registry+")]
    if other_sources:
        raise SystemExit(f"not from crates.io: {', '.join(other_sources)}")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = zip(crates, pool.map(is_yanked, crates))
        yanked = [crate for crate, crate_is_yanked in results if crate_is_yanked]
    if yanked:
        raise SystemExit(f"yanked: {yanked}")
    print(f"{len(crates)} crates in Cargo.lock: all from crates.io, none yanked")


if __name__ == "__main__":
    main()
