"""`raglan ingest --dry-run`: what it would do, by the hashes that the collection holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from raglan_cli import documents
from raglan_cli.client import Gateway
from raglan_cli.failure import FAILED
from raglan_cli.files import Selection, SourceFile
from raglan_cli.screen import err, out, print_json
from raglan_cli.walk import cannot_read

_SENTENCES: Final = {
    "new": "new",
    "changed": "replaces what is stored",
    "unchanged": "unchanged",
    "removed": "would be deleted: its file is gone",
}


def show(
    gateway: Gateway,
    collection: str,
    selection: Selection,
    metadata: Mapping[str, Any],
    *,
    prune: bool,
    json: bool,
) -> None:
    """Print what `raglan ingest` would do with the selection.

    Raises:
        SystemExit: some files cannot be read; status 1.
    """
    report = compare(gateway, collection, selection, metadata, prune=prune)
    if json:
        print_json(report)
    else:
        _print(report)
    if report["failed"]:
        raise SystemExit(FAILED)


def compare(
    gateway: Gateway,
    collection: str,
    selection: Selection,
    metadata: Mapping[str, Any],
    *,
    prune: bool,
) -> dict[str, Any]:
    """The names of documents by what would become of them."""
    exists = gateway.collection(collection) is not None
    held = list(documents.stored(gateway, collection)) if exists else []
    ids = {each["id"] for each in held}
    hashes = {
        each["id"]: each["sha256"]
        for each in held
        if each["status"] == "ready"
        and all(each["metadata"].get(k) == v for k, v in metadata.items())
    }
    report: dict[str, Any] = {"collection": collection, "dry_run": True}
    report |= {"new": [], "changed": [], "unchanged": []}
    report["removed"] = documents.gone(held, selection) if prune else []
    failed = list(selection.unreadable)
    for file in selection.files:
        try:
            is_same = hashes.get(file.name) == _sha256(file)
        except OSError as error:
            failed.append((file.name, cannot_read(error)))
        else:
            kind = "unchanged" if is_same else "changed" if file.name in ids else "new"
            report[kind].append(file.name)
    report["skipped"] = _named(selection.skipped)
    report["failed"] = _named(failed)
    return report


def _sha256(file: SourceFile) -> str:
    with file.path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _named(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"document": name, "reason": reason} for name, reason in pairs]


def _print(report: dict[str, Any]) -> None:
    for kind, sentence in _SENTENCES.items():
        for name in report[kind]:
            out.print(f"{name}  ({sentence})")
    for each in report["skipped"]:
        out.print(f"{each['document']}  (skipped: {each['reason']})", style="dim")
    for each in report["failed"]:
        err.print(f"{each['document']}: {each['reason']}", style="red")
    counts = ", ".join(f"{len(report[kind])} {kind}" for kind in _SENTENCES)
    out.print(f"Nothing was changed in {report['collection']}. It would be: {counts}.")
