"""Collects the licences of all that a release carries: release/licenses.py FILE. Fails where one is not of those that we take, or has no
text."""

import pathlib
import re
import sys

from dependencies import ROOT, crates, models
from license_expression import get_spdx_licensing

TAKEN = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0",
    "Unicode-3.0", "Unlicense", "Zlib", "Apache-2.0 WITH LLVM-exception",
}  # fmt: skip
FILES = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)
LICENSING = get_spdx_licensing()


def spdx(text):
    """An SPDX expression: old crates write a slash where it has OR."""
    return re.sub(r"\s*/\s*", " OR ", text)


def is_taken(expression):
    """Whether an expression can be met by licences that we take."""
    parsed = LICENSING.parse(spdx(expression), validate=True)

    def holds(node):
        if node.operator.strip() == "AND" if hasattr(node, "operator") else False:
            return all(holds(part) for part in node.args)
        if hasattr(node, "operator"):
            return any(holds(part) for part in node.args)
        return str(node) in TAKEN

    return holds(parsed)


def texts(package):
    """The texts of a crate's licence files; where it has none, that of the licence it names, which for these two is always the same."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and FILES.match(file.name)]
    if files:
        return [read(file) for file in files]
    names = {str(name) for name in LICENSING.license_symbols(spdx(package["license"]))}
    if "Apache-2.0" in names:
        return [read(ROOT / "LICENSE-APACHE")]
    if "MIT" in names:
        holder = ", ".join(package["authors"]) or f"the authors of {package['name']}"
        return [re.sub(r"Copyright .*", f"Copyright (c) {holder}", read(ROOT / "LICENSE-MIT"), count=1)]
    raise SystemExit(f"{package['name']} {package['version']} carries no text of its licence, {package['license']}")


def read(file):
    return file.read_text(errors="replace").strip()


def collected():
    root, packages, _ = crates()
    refused = [f"{p['name']} {p['version']}: {p['license']}" for p in packages.values() if not p["license"] or not is_taken(p["license"])]
    if refused:
        raise SystemExit("licences that we do not take: " + "; ".join(refused))
    holders = {}
    lines = ["Licences of what this release carries.", "", "Models"]
    lines += [f"  {m['name']}: {m['license']}, {m['origin']}" for m in models()]
    lines += ["", "Crates", f"  {packages[root]['name']} {packages[root]['version']}: {packages[root]['license']}"]
    for at, package in sorted(packages.items(), key=lambda item: (item[1]["name"], item[1]["version"])):
        if at != root:
            lines.append(f"  {package['name']} {package['version']}: {spdx(package['license'])}")
        for text in texts(package):
            holders.setdefault(text, []).append(f"{package['name']} {package['version']}")
    for text, names in sorted(holders.items(), key=lambda item: item[1]):
        lines += ["", "-" * 100, ", ".join(names), "", text]
    return "\n".join(lines) + "\n", len(packages) - 1


def main():
    text, count = collected()
    pathlib.Path(sys.argv[1]).write_text(text)
    print(f"{count} crates, {len(models())} model: licences are taken and collected")


if __name__ == "__main__":
    main()
