"""Writes the bill of materials of a release as CycloneDX 1.6 in JSON: release/sbom.py FILE. The same tree gives the same bytes."""

import pathlib
import sys
import uuid

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from dependencies import checksums, crates, models
from licenses import spdx
from packageurl import PackageURL


def component(package, digest):
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else []
    name, version = package["name"], package["version"]
    links = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(package["repository"]))] if package["repository"] else []
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"pkg:cargo/{name}@{version}",
        purl=PackageURL("cargo", None, name, version),
        licenses=[LicenseExpression(spdx(package["license"]))],
        hashes=hashes,
        external_references=links,
    )


def model(about):
    return Component(
        name=about["name"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{about['name']}",
        licenses=[LicenseExpression(about["license"])],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=about["sha256"])],
        external_references=[ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(about["origin"]))],
    )


def bill():
    root, packages, edges = crates()
    digests = checksums()
    components = {at: component(p, digests[p["name"], p["version"]]) for at, p in packages.items()}
    components[root].type = ComponentType.APPLICATION
    carried = [model(about) for about in models()]
    bom = Bom(components=[c for at, c in components.items() if at != root] + carried)
    bom.metadata.component = components[root]
    for at, targets in edges.items():
        bom.register_dependency(components[at], [components[t] for t in targets])
    bom.register_dependency(components[root], carried)
    # By what is in it, so that the same tree gives the same bytes.
    names = sorted(f"{c.bom_ref.value} {[h.content for h in c.hashes]}" for c in bom.components)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(names))
    bom.metadata.timestamp = None
    return bom


def main():
    text = JsonV1Dot6(bill()).output_as_string(indent=1)
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"the bill is not CycloneDX: {errors}")
    pathlib.Path(sys.argv[1]).write_text(text + "\n")


if __name__ == "__main__":
    main()
