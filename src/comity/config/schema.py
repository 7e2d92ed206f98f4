"""The files' JSON schema and reference page, both made from the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from comity.config.federation import FederationFile
from comity.config.site import SiteFile
from comity.errors import ConfigError

KINDS: Final[Mapping[str, type[BaseModel]]] = {"federation": FederationFile, "site": SiteFile}
PREFACE: Final = """# Configuration

Two kinds of TOML files: a *federation file* says who takes part, a *site file* says what one site
holds and what its owner lets leave. Keys are written in kebab-case. A key that is not listed here
is an error; all errors of a file are reported at once (`comity config check FILE`). Relative paths
start from the folder of the file that they stand in. `comity config explain FILE` says in plain
sentences what a file allows, and `comity config schema KIND` prints its JSON schema.

This page is made from the models by `comity config schema --reference`.
"""


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of file.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no {kind!r} file", hint=f"known: {', '.join(KINDS)}")
    found = KINDS[kind].model_json_schema(by_alias=True, mode="validation")
    return {"$schema": GenerateJsonSchema.schema_dialect, **found}


def reference_page() -> str:
    """The reference of all files as Markdown."""
    parts = [PREFACE]
    for kind in KINDS:
        schema = json_schema(kind)
        parts.append(f"## The {kind} file\n\n{schema['description']}\n")
        definitions = schema["$defs"]
        parts.append(_table(schema, definitions))
        tables = [found for found in definitions.values() if found["type"] == "object"]
        for table in sorted(tables, key=lambda found: str(found["description"])):
            title, _, rest = table["description"].partition(": ")
            parts.append(f"### {title}\n\n{rest[0].upper()}{rest[1:]}\n")
            parts.append(_table(table, definitions))
    return "\n".join(parts)


def _table(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    required = schema.get("required", [])
    for key, field in schema["properties"].items():
        default = "required" if key in required else _default(field)
        kind = " or ".join(dict.fromkeys(_types(field, definitions)))
        rows.append(f"| `{key}` | {kind} | {default} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None or value in ("", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


_WORDS: Final = {
    "array": "list",
    "boolean": "true or false",
    "integer": "whole number",
    "object": "table",
    "string": "text",
}


def _types(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    for choice in field.get("anyOf", [field]):
        if choice.get("type") == "null":
            continue
        if "$ref" in choice:
            target = definitions[choice["$ref"].rsplit("/", 1)[1]]
            yield "table" if target["type"] == "object" else "word"
        else:
            kind = choice.get("format", "") or choice["type"]
            yield _WORDS.get(kind, kind)
