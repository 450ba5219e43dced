"""Zip containers (docx, xlsx, pptx, odt, epub): checked before anything is unpacked."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final

from raglan_ingester.parsers.parsed import Unparsable

ENCRYPTED: Final = "The file is encrypted; remove its password and submit it again."
_MAX_UNPACKED_BYTES: Final = 512 * 1024 * 1024
_MAX_RATIO: Final = 200
"""Office files shrink 5 to 20 times; a bomb shrinks a thousand times."""
_RATIO_FROM_BYTES: Final = 10 * 1024 * 1024
_MAX_ENTRIES: Final = 20_000
_MAX_XML_BYTES: Final = 256 * 1024 * 1024


def open_archive(data: bytes, kind: str) -> zipfile.ZipFile:
    """Open a zip container whose entries unpack to a bounded size.

    An archive that lies about the sizes of its entries is stopped by zipfile, which reads no more
    than it declares.

    Args:
        data: the file.
        kind: what the file should be, for messages: "a Word document (docx)".

    Raises:
        Unparsable: it is empty, no zip archive, or a zip bomb.
    """
    if not data:
        raise Unparsable("The file is empty.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError):
        raise Unparsable(f"The file is not {kind}, or it is broken.") from None
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    is_bomb = unpacked > _RATIO_FROM_BYTES and unpacked > _MAX_RATIO * len(data)
    if unpacked > _MAX_UNPACKED_BYTES or is_bomb or len(entries) > _MAX_ENTRIES:
        raise Unparsable(
            f"The file would unpack from {len(data):,} to {unpacked:,} bytes in {len(entries):,} "
            "entries; it looks like a zip bomb and was not opened."
        )
    return archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one entry; empty if there is none.

    Raises:
        Unparsable: it is broken, encrypted or too large.
    """
    try:
        if archive.getinfo(name).file_size > _MAX_XML_BYTES:
            raise Unparsable(
                f"The part {name} of the file is larger than {_MAX_XML_BYTES:,} bytes."
            )
        return archive.read(name)
    except KeyError:
        return b""
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        raise Unparsable(f"The file is broken: its part {name} cannot be unpacked.") from None
    except RuntimeError:
        raise Unparsable(
            "The file is encrypted; remove its password and submit it again."
        ) from None
