"""Collects the licenses of everything in a release: release/licenses.py FILE. Fails if a license is not allowed or its text is missing."""

import pathlib
import re
import sys

from dependencies import ROOT, crates, models
from license_expression import get_spdx_licensing

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0",
    "Unicode-3.0", "Unlicense", "Zlib", "Apache-2.0 WITH LLVM-exception",
}  # fmt: skip
FILES = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)
LICENSING = get_spdx_licensing()


def spdx(text):
    """A license field as an SPDX expression; old crates write a slash instead of OR."""
    return re.sub(r"\s*/\s*", " OR ", text)


def is_allowed(expression):
    """Whether allowed licenses satisfy an SPDX expression."""
    parsed = LICENSING.parse(spdx(expression), validate=True)

    def satisfied(node):
        if node.operator.strip() == "AND" if hasattr(node, "operator") else False:
            return all(satisfied(part) for part in node.args)
        if hasattr(node, "operator"):
            return any(satisfied(part) for part in node.args)
        return str(node) in ALLOWED

    return satisfied(parsed)


def license_texts(package):
    """The license files of a crate; if it has none, the standard text of Apache-2.0 or MIT."""
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
    raise SystemExit(f"{package['name']} {package['version']} does not contain the text of its license, {package['license']}")


def read(file):
    return file.read_text(errors="replace").strip()


def collect():
    root, packages, _ = crates()
    disallowed = [f"{p['name']} {p['version']}: {p['license']}" for p in packages.values() if not p["license"] or not is_allowed(p["license"])]
    if disallowed:
        raise SystemExit("licenses that are not allowed: " + "; ".join(disallowed))
    packages_by_text = {}
    lines = ["Licenses of the contents of this release.", "", "Models"]
    lines += [f"  {m['name']}: {m['license']}, {m['origin']}" for m in models()]
    lines += ["", "Crates", f"  {packages[root]['name']} {packages[root]['version']}: {packages[root]['license']}"]
    for package_id, package in sorted(packages.items(), key=lambda item: (item[1]["name"], item[1]["version"])):
        if package_id != root:
            lines.append(f"  {package['name']} {package['version']}: {spdx(package['license'])}")
        for text in license_texts(package):
            packages_by_text.setdefault(text, []).append(f"{package['name']} {package['version']}")
    for text, names in sorted(packages_by_text.items(), key=lambda item: item[1]):
        lines += ["", "-" * 100, ", ".join(names), "", text]
    return "\n".join(lines) + "\n", len(packages) - 1


def main():
    text, count = collect()
    pathlib.Path(sys.argv[1]).write_text(text)
    print(f"{count} crates, {len(models())} model: all licenses are allowed; texts collected")


if __name__ == "__main__":
    main()
