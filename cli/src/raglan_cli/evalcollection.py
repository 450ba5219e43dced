"""The collection that an evaluation works in: its own, never one with other documents in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from raglan_cli import documents
from raglan_cli.beir import Dataset
from raglan_cli.client import Gateway
from raglan_cli.failure import Failure, UsageFailure
from raglan_cli.screen import err


@contextmanager
def of_its_own(
    gateway: Gateway, dataset: Dataset, given: str | None, *, keep: bool
) -> Iterator[str]:
    """The name of a collection that holds nothing, or documents of the corpus only.

    Args:
        gateway: the mesh under evaluation.
        dataset: the evaluation set.
        given: the name that the user chose; else one that is made of folder and corpus.
        keep: without it the collection is deleted at the end, if an evaluation made it. One of a
            `given` name that was there before stays.

    Raises:
        UsageFailure: the collection holds other documents.
    """
    name = given or dataset.collection
    existed = gateway.collection(name) is not None
    if existed:
        _require_only_corpus(gateway, dataset, name)
    made = not existed or name == dataset.collection
    try:
        yield name
    except BaseException:
        if made and not keep:
            with suppress(Failure):
                gateway.delete_collection(name)
        raise
    if made and not keep:
        gateway.delete_collection(name)
    elif not keep:
        err.print(f"{name} stays: it was there before this evaluation.", style="yellow")


def _require_only_corpus(gateway: Gateway, dataset: Dataset, name: str) -> None:
    corpus = {
        document["id"]: hashlib.sha256(document["text"].encode()).hexdigest()
        for document in dataset.corpus()
    }
    for held in documents.stored(gateway, name):
        if corpus.get(held["id"]) != held["sha256"]:
            raise UsageFailure(
                f"The collection {name} holds documents that are not of this corpus, e.g. "
                f"{held['id']}. An evaluation does not touch them: leave out --collection, or "
                "name a collection that does not exist."
            )
