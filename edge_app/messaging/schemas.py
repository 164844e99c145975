"""JSON Schemas of all messages, made from the typed messages: ``python -m edge_app.messaging.schemas --write``."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from edge_app.messaging.messages import MESSAGE_OF_KIND, Message

__all__ = ["SCHEMA_DIR", "json_schemas"]

SCHEMA_DIR: Final = Path(__file__).resolve().parents[2] / "docs" / "schemas"
"""Where the schemas are kept in the source tree."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schemas() -> dict[str, dict[str, Any]]:
    """Schema of every message by its file name, for example ``mfi.histogram-1.json``.

    A schema forbids no further fields: fields may be added within a version.
    """
    found: dict[str, dict[str, Any]] = {}
    for model in MESSAGE_OF_KIND.values():
        name = _schema_name(model)
        body = model.model_json_schema(by_alias=True, mode="serialization")
        body = {"$schema": _DIALECT, "$id": f"urn:{name.replace('/', ':')}", **_open(body), "title": name}
        found[f"{name.replace('/', '-')}.json"] = body
    return found


def _schema_name(model: type[Message]) -> str:
    return str(model.model_fields["schema_"].default)


def _open(node: Any) -> Any:
    """The schema without ``additionalProperties: false`` and without the titles that repeat the keys."""
    if isinstance(node, list):
        return [_open(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {k: _open(v) for k, v in node.items() if not (k == "additionalProperties" and v is False)}
    if isinstance(kept.get("title"), str):
        del kept["title"]
    return kept


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the schemas, or say which are out of date (exit code 1)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="write them instead of comparing")
    parser.add_argument("--dir", type=Path, default=SCHEMA_DIR, help="folder of the schemas")
    options = parser.parse_args()
    directory: Path = options.dir
    wanted = {name: _text(schema) for name, schema in json_schemas().items()}
    stale = [name for name, text in wanted.items() if _read(directory / name) != text]
    stale += [p.name for p in sorted(directory.glob("*.json")) if p.name not in wanted]
    if not options.write:
        for name in stale:
            print(f"{directory / name} is out of date", file=sys.stderr)
        return 1 if stale else 0
    directory.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (directory / name).write_text(wanted[name], encoding="utf-8")
        else:
            (directory / name).unlink()
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
