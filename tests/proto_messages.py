"""Random protobuf messages of any type, from its descriptor, and bytes that are nearly one."""

from __future__ import annotations

import math
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

MAX_DEPTH: Final = 4
_NAMES: Final = (
    "",
    "a",
    "default",
    "x" * 300,
    "\0",
    "../a",
    "1970",
    "{}",
    '{"a": 1}',
    "\U00010ffff",
)
_FLOATS: Final = (0.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 3e38)
_STEPS: Final = (0, 1, 2, 10, 384)
_SIGNED: Final = {32: (-(2**31), -1, 2**31 - 1), 64: (-(2**63), -1, 2**63 - 1)}
_UNSIGNED: Final = {32: (2**32 - 1,), 64: (2**64 - 1,)}


def messages(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Any]:
    """Build messages of one type; each field is set, or not, with values at the limits."""
    fields = [field for field in descriptor.fields if depth < MAX_DEPTH or not field.message_type]
    made = message_factory.GetMessageClass(descriptor)

    @st.composite
    def message(draw: st.DrawFn) -> Any:
        found = made()
        for field in fields:
            if draw(st.booleans()):
                _set(found, field, draw, depth)
        return found

    return message()


def _set(found: Any, field: FieldDescriptor, draw: st.DrawFn, depth: int) -> None:
    count = draw(st.sampled_from((1, 1, 2, 5))) if field.is_repeated else 1
    for _ in range(count):
        if field.message_type and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            if value.message_type:
                getattr(found, field.name)[draw(_scalars(key))].CopyFrom(
                    draw(messages(value.message_type, depth + 1))
                )
            else:
                getattr(found, field.name)[draw(_scalars(key))] = draw(_scalars(value))
        elif field.message_type:
            value = draw(messages(field.message_type, depth + 1))
            target = getattr(found, field.name)
            if field.is_repeated:
                target.append(value)
            else:
                target.CopyFrom(value)
        elif field.is_repeated:
            getattr(found, field.name).append(draw(_scalars(field)))
        else:
            setattr(found, field.name, draw(_scalars(field)))


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.sampled_from((b"", b"\0", b"{}", b"\x00\x3c" * 384)) | st.binary(max_size=64)
        names = st.sampled_from(_NAMES)
        return names | st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([*(each.number for each in field.enum_type.values), 99, -1])
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return st.sampled_from(_FLOATS)
    bits = 32 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    unsigned = kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    return st.sampled_from((*_STEPS, *(_UNSIGNED if unsigned else _SIGNED)[bits]))


@st.composite
def encoded(draw: st.DrawFn, descriptor: Descriptor) -> bytes:
    """Build the bytes of a message, some of them changed, or bytes that are no message."""
    kind = draw(st.sampled_from(("whole", "whole", "whole", "changed", "cut", "random")))
    if kind == "random":
        return draw(st.binary(max_size=200))
    data: bytes = draw(messages(descriptor)).SerializeToString()
    if kind == "whole" or not data:
        return data
    place = draw(st.integers(0, len(data) - 1))
    if kind == "cut":
        return data[:place]
    return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
