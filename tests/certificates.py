"""A private authority, and the files of processes that it vouches for."""

from __future__ import annotations

from pathlib import Path

import trustme
from raglan import tls_files

SERVICES = ("gateway", "embedder", "retriever", "reranker", "generator", "ingester", "tracer")


class Authority:
    """Issues certificates into a folder."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    def write(self, folder: Path, *names: str) -> dict[str, str]:
        """Variables of a process whose certificate holds `names`, by default every service's."""
        folder.mkdir(parents=True, exist_ok=True)
        issued = self.ca.issue_cert(*(names or SERVICES))
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        contents = (chain, issued.private_key_pem.bytes(), self.ca.cert_pem.bytes())
        found = {}
        for name, content in zip(tls_files.FILES, contents, strict=True):
            path = folder / f"{name.rpartition('_')[2].lower()}.pem"
            temporary = path.with_suffix(".new")
            temporary.write_bytes(content)
            temporary.replace(path)
            found[name] = str(path)
        return found
