"""Every field, enum value and rpc of the contracts, as `name -> what must never change of it`.

`python proto/fields.py` adds what is new to `proto/fields.json` and leaves what is there, so that a
change to a published field shows up as a difference (tests/contract/proto). The number of names is
the wire revision, which each service reports: it only grows.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path

import raglan.v1
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

RECORD = Path(__file__).with_suffix(".json")
REVISION = Path(raglan.v1.__path__[0]) / "revision.py"


def current() -> dict[str, str]:
    """The contracts as the generated stubs have them."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(raglan.v1.__path__):
        if module.name.endswith("_pb2"):
            _file(importlib.import_module(f"raglan.v1.{module.name}").DESCRIPTOR, found)
    return found


def recorded() -> dict[str, str]:
    """The contracts as they were published."""
    content: dict[str, str] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return content


def _file(file: FileDescriptor, found: dict[str, str]) -> None:
    for message in file.message_types_by_name.values():
        _message(message, found)
    for enum in file.enum_types_by_name.values():
        _enum(enum, found)
    for service in file.services_by_name.values():
        for method in service.methods:
            streams = f"{method.client_streaming:d}{method.server_streaming:d}"
            found[method.full_name] = (
                f"rpc {method.input_type.full_name} -> {method.output_type.full_name} {streams}"
            )


def _message(message: Descriptor, found: dict[str, str]) -> None:
    for field in message.fields:
        kind = (field.message_type or field.enum_type).full_name if _named(field) else field.type
        many = "repeated " if field.is_repeated else ""
        oneof = f" in {field.containing_oneof.name}" if field.containing_oneof else ""
        found[field.full_name] = f"{many}{kind} = {field.number}{oneof}"
    for nested in message.nested_types:
        _message(nested, found)
    for enum in message.enum_types:
        _enum(enum, found)


def _enum(enum: EnumDescriptor, found: dict[str, str]) -> None:
    for value in enum.values:
        found[f"{enum.full_name}.{value.name}"] = f"value {value.number}"


def _named(field: FieldDescriptor) -> bool:
    return field.message_type is not None or field.enum_type is not None


if __name__ == "__main__":
    names = current() | recorded()
    RECORD.write_text(json.dumps(names, indent=1, sort_keys=True) + "\n")
    about = '"""Number of names in the contracts; written by make proto."""'
    REVISION.write_text(f"{about}\n\nREVISION = {len(names)}\n")
