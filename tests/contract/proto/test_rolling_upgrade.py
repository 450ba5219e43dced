"""Messages of every release and of today, read by the other: nothing is lost on the way."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import old_wire
import pytest
import raglan.v1
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

UNKNOWN_VALUE = 99
"""Of an enum: what a later version may have added."""

CHOICES = 7
"""Members of the largest oneof, and one more."""

RELEASES = old_wire.releases()
LOADED = {path.stem: old_wire.Release(path) for path in RELEASES}
CASES = [
    pytest.param(release, name, id=f"{release}-{name}")
    for release, loaded in LOADED.items()
    for name in sorted(loaded.messages)
]


def todays() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for module in pkgutil.iter_modules(raglan.v1.__path__):
        if module.name.endswith("_pb2"):
            loaded = importlib.import_module(f"raglan.v1.{module.name}")
            for name in loaded.DESCRIPTOR.message_types_by_name:
                found[name] = getattr(loaded, name)
    return found


TODAY = todays()


def fill(message: Any, choice: int, depth: int = 0) -> Any:
    """Set every field; of a oneof, the field that `choice` picks."""
    chosen = {
        oneof.name: oneof.fields[choice % len(oneof.fields)].name
        for oneof in message.DESCRIPTOR.oneofs
    }
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and chosen[oneof.name] != field.name:
            continue
        if field.message_type is None:
            value = _scalar(field)
            if field.is_repeated:
                getattr(message, field.name).extend([value, value])
            else:
                setattr(message, field.name, value)
        elif field.message_type.GetOptions().map_entry:
            _fill_map(message, field, choice, depth)
        elif depth < 3 and field.is_repeated:
            fill(getattr(message, field.name).add(), choice, depth + 1)
        elif depth < 3:
            held = getattr(message, field.name)
            held.SetInParent()
            fill(held, choice, depth + 1)
    return message


def _fill_map(message: Any, field: Any, choice: int, depth: int) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    held = getattr(message, field.name)
    if value.message_type is None:
        held[_scalar(key)] = _scalar(value)
    else:
        fill(held[_scalar(key)], choice, depth + 1)


def _scalar(field: Any) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return b"\x00\xff" if field.type == FieldDescriptor.TYPE_BYTES else "Zürich"
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return 1.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return UNKNOWN_VALUE
        case _:
            return 7


def text_of(message: Message) -> str:
    """Comparable between classes of different pools."""
    return str(message)


@pytest.mark.parametrize(("release", "name"), CASES)
def test_an_old_message_passes_through_a_new_process(release: str, name: str) -> None:
    old = LOADED[release].messages[name]
    for choice in range(CHOICES):
        sent = fill(old(), choice)
        read = TODAY[name].FromString(sent.SerializeToString())
        assert text_of(read) == text_of(sent), "a field has another name or type"
        assert old.FromString(read.SerializeToString()) == sent


@pytest.mark.parametrize(("release", "name"), CASES)
def test_a_new_message_passes_through_an_old_process(release: str, name: str) -> None:
    old = LOADED[release].messages[name]
    known = set(old.DESCRIPTOR.fields_by_name)
    for choice in range(CHOICES):
        sent = fill(TODAY[name](), choice)
        read = old.FromString(sent.SerializeToString())
        assert TODAY[name].FromString(read.SerializeToString()) == sent, "unknown fields were lost"
        assert {field.name for field, _ in read.ListFields()} == {
            field.name for field, _ in sent.ListFields() if field.name in known
        }


@pytest.mark.parametrize("release", LOADED)
def test_every_rpc_of_the_release_is_served(release: str) -> None:
    served = set()
    for module in pkgutil.iter_modules(raglan.v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"raglan.v1.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                served |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert LOADED[release].methods.keys() <= served


def test_there_is_a_release_and_it_is_not_todays_contract() -> None:
    """A release that knows all of today's messages would show nothing about new ones."""
    assert RELEASES
    first = LOADED[RELEASES[0].stem]
    assert len(first.messages) > 50
    assert first.messages.keys() < TODAY.keys()


def test_the_proxy_hands_on_only_what_the_release_knows(tmp_path: Path) -> None:
    release = LOADED[RELEASES[0].stem]
    name = "GetJobRequest"
    old = release.messages[name]
    extra = b"\x9a\x3f\x03new"  # field 1011, which no version has
    data = old(id="job-1").SerializeToString() + extra
    assert old_wire._known(old, data) == old(id="job-1").SerializeToString()
    assert "/raglan.v1.IngesterService/Export" not in release.methods
