"""Kubernetes' schemas for kubeconform, one file a kind, complete in itself.

Run by the linters' own interpreter, which has the packages that they come from:

    python checks/schemas.py FOLDER KIND...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = "v1.37.0"
OPERATOR = {"ServiceMonitor": "servicemonitor-monitoring-v1"}
"""Kinds of the Prometheus operator, and what kubeconform calls their files."""


def main(folder: Path, kinds: list[str]) -> None:
    """Write the schemas of these kinds."""
    import kubernetes_validate

    folder.mkdir(parents=True, exist_ok=True)
    shipped = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    shipped /= f"{VERSION}-local-strict"
    definitions = json.loads((shipped / "_definitions.json").read_text())["$defs"]
    for kind in kinds:
        if kind in OPERATOR:
            (folder / f"{OPERATOR[kind]}.json").write_text(json.dumps(operator(kind)))
            continue
        (file,) = (
            file
            for file in shipped.glob(f"{kind.lower()}-*v1.json")
            if file.stem.endswith("-v1") and json.loads(file.read_text())["properties"].get("kind")
        )
        (folder / file.name).write_text(json.dumps(complete(file, definitions)))


def complete(file: Path, definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema with all that it refers to inside."""
    schema = local(json.loads(file.read_text()))
    schema.pop("$id")
    needed: dict[str, Any] = {}
    waiting = list(references(schema))
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = local(definitions[name])
            waiting += references(needed[name])
    return {**schema, "$defs": needed}


def local(node: Any) -> Any:
    """The same with references into the schema itself."""
    if isinstance(node, dict):
        return {
            key: f"#/$defs/{value.rpartition('/')[2]}" if key == "$ref" else local(value)
            for key, value in node.items()
        }
    return [local(one) for one in node] if isinstance(node, list) else node


def references(node: Any) -> Iterator[str]:
    """Names of the definitions that are referred to."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value.rpartition("/")[2]
            else:
                yield from references(value)
    elif isinstance(node, list):
        for one in node:
            yield from references(one)


def operator(kind: str) -> dict[str, Any]:
    """The schema of one of the operator's kinds, which takes no field that is not in it."""
    from cloudcoil.models.prometheus_operator import v1

    schema: dict[str, Any] = getattr(v1, kind).model_json_schema(by_alias=True)
    for each in (schema, *schema["$defs"].values()):
        if each.get("properties"):
            each["additionalProperties"] = False
    return schema


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
