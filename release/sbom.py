"""Writes the software bill of materials of a release as CycloneDX 1.6 JSON: release/sbom.py FILE. The output is reproducible."""

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


def crate_component(package, digest):
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


def model_component(model):
    return Component(
        name=model["name"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{model['name']}",
        licenses=[LicenseExpression(model["license"])],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model["sha256"])],
        external_references=[ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(model["origin"]))],
    )


def create_bom():
    root, packages, edges = crates()
    digests = checksums()
    components = {package_id: crate_component(p, digests[p["name"], p["version"]]) for package_id, p in packages.items()}
    components[root].type = ComponentType.APPLICATION
    model_components = [model_component(model) for model in models()]
    bom = Bom(components=[c for package_id, c in components.items() if package_id != root] + model_components)
    bom.metadata.component = components[root]
    for package_id, targets in edges.items():
        bom.register_dependency(components[package_id], [components[t] for t in targets])
    bom.register_dependency(components[root], model_components)
    # A serial number derived from the contents, and no timestamp, make the output reproducible.
    contents = sorted(f"{c.bom_ref.value} {[h.content for h in c.hashes]}" for c in bom.components)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(contents))
    bom.metadata.timestamp = None
    return bom


def main():
    text = JsonV1Dot6(create_bom()).output_as_string(indent=1)
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"the SBOM is not valid CycloneDX: {errors}")
    pathlib.Path(sys.argv[1]).write_text(text + "\n")


if __name__ == "__main__":
    main()
