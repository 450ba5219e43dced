"""Twenty sources of five kinds change at once while the ingester is killed: index and sources."""

from __future__ import annotations

import http.server
import mailbox
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import mesh_process
import psycopg
import yaml
from postgres_server import PostgresServer
from report import Row

DOCUMENTS: Final = 20
"""Of each source at the start."""
CHANGED: Final = 4
"""Documents that each step adds, changes and deletes in every source."""
STEPS: Final = 4
KILLED_AT: Final = (1, 2)
_SETTLED_S: Final = 600.0
_TEXT: Final = re.compile(r"Text \d+ of \S+ in \S+\.")
_ENTRY: Final = {"collection": "default", "every": "2s", "delete_after": "2s"}


class Source(Protocol):
    """A place outside, whose documents are named by their paths."""

    name: str

    def entry(self) -> dict[str, Any]:
        """Return its fields in the file of sources."""

    def write(self, path: str, text: str) -> None:
        """Add a document, or change it."""

    def delete(self, path: str) -> None:
        """Remove a document."""

    def commit(self) -> None:
        """Let what was written be seen."""

    def key(self, path: str) -> str:
        """Return the id of a document without the name of the source."""


class Folder:
    """Text files."""

    def __init__(self, root: Path, number: int) -> None:
        self.name = f"folder-{number}"
        self.path = root / self.name
        self.path.mkdir()

    def entry(self) -> dict[str, Any]:
        return {"kind": "folder", "path": str(self.path)}

    def write(self, path: str, text: str) -> None:
        (self.path / f"{path}.txt").write_text(text)

    def delete(self, path: str) -> None:
        (self.path / f"{path}.txt").unlink()

    def commit(self) -> None:
        return

    def key(self, path: str) -> str:
        return f"{path}.txt"


class Repository(Folder):
    """Text files of a git repository."""

    def __init__(self, root: Path, number: int) -> None:
        super().__init__(root, number + 1000)
        self.name = f"git-{number}"
        self._git("init", "--quiet", "--initial-branch", "main")

    def entry(self) -> dict[str, Any]:
        return {"kind": "git", "url": str(self.path)}

    def commit(self) -> None:
        self._git("add", "--all")
        identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
        self._git(*identity, "commit", "--quiet", "--allow-empty", "--message", "Change")

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self.path), *arguments], check=True)


class Mail:
    """Messages of a maildir, which are replaced instead of changed."""

    def __init__(self, root: Path, number: int) -> None:
        self.name = f"mail-{number}"
        self._box = mailbox.Maildir(root / self.name)
        self._keys: dict[str, str] = {}

    def entry(self) -> dict[str, Any]:
        return {"kind": "maildir", "path": str(Path(self._box._path))}

    def write(self, path: str, text: str) -> None:
        if path in self._keys:
            self.delete(path)
        message = EmailMessage()
        message["From"], message["To"] = "a@example.com", "b@example.com"
        message["Subject"] = path
        message.set_content(text)
        self._keys[path] = self._box.add(message)

    def delete(self, path: str) -> None:
        self._box.remove(self._keys.pop(path))

    def commit(self) -> None:
        self._box.flush()

    def key(self, path: str) -> str:
        return self._keys[path]


class Site:
    """Pages of a sitemap, served on the loopback interface."""

    def __init__(self, server: http.server.ThreadingHTTPServer, pages: dict[str, str], number: int):
        self.name = f"site-{number}"
        self._host = f"127.0.0.1:{server.server_port}"
        self._port = server.server_port
        self._pages = pages

    def entry(self) -> dict[str, Any]:
        return {
            "kind": "sitemap",
            "url": f"http://{self._host}/{self.name}/sitemap.xml",
            "networks": ["127.0.0.0/8"],
            "ports": [self._port],
        }

    def write(self, path: str, text: str) -> None:
        self._pages[self._page(path)] = f"<title>{path}</title><main><p>{text}</p></main>"

    def delete(self, path: str) -> None:
        del self._pages[self._page(path)]

    def commit(self) -> None:
        prefix = f"/{self.name}/"
        listed = [page for page in list(self._pages) if page.startswith(prefix)]
        urls = "".join(
            f"<url><loc>http://{self._host}{page}</loc></url>"
            for page in listed
            if not page.endswith(".xml")
        )
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        self._pages[f"{prefix}sitemap.xml"] = f'<urlset xmlns="{space}">{urls}</urlset>'

    def key(self, path: str) -> str:
        return f"{self._host}{self._page(path)}"

    def _page(self, path: str) -> str:
        return f"/{self.name}/{path}"


class Table:
    """Rows of a table of PostgreSQL."""

    def __init__(self, url: str, number: int) -> None:
        self.name = f"rows-{number}"
        self._url = url
        self._table = f"rows_{number}"
        self._run(f"CREATE TABLE {self._table} (id text PRIMARY KEY, body text)")

    def entry(self) -> dict[str, Any]:
        query = f"SELECT id, body FROM {self._table}"
        return {"kind": "postgresql", "url": self._url, "query": query, "key": "id", "text": "body"}

    def write(self, path: str, text: str) -> None:
        self._run(
            f"INSERT INTO {self._table} VALUES (%s, %s) "
            "ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body",
            (path, text),
        )

    def delete(self, path: str) -> None:
        self._run(f"DELETE FROM {self._table} WHERE id = %s", (path,))

    def commit(self) -> None:
        return

    def key(self, path: str) -> str:
        return path

    def _run(self, statement: str, values: tuple[str, ...] = ()) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement, values)


class World:
    """Twenty sources, and what they hold."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources
        self._held: dict[str, dict[str, str]] = {source.name: {} for source in sources}
        self._chance = random.Random(16)
        self._written = 0
        for source in sources:
            for number in range(DOCUMENTS):
                self._write(source, f"first-{number}")
            source.commit()

    def change(self) -> None:
        """Add, change and delete documents of every source."""
        for source in self._sources:
            held = self._held[source.name]
            gone = self._chance.sample(sorted(held), CHANGED)
            for path in gone:
                source.delete(path)
                del held[path]
            for path in self._chance.sample(sorted(held), CHANGED):
                self._write(source, path)
            for path in gone[::2]:  # comes back with another text
                self._write(source, path)
            for _ in range(CHANGED):
                self._write(source, f"new-{self._written}")
            source.commit()

    def expected(self) -> dict[str, str]:
        """Text by id of the document."""
        return {
            f"{source.name}/{source.key(path)}": text
            for source in self._sources
            for path, text in self._held[source.name].items()
        }

    def file(self) -> str:
        """The file of sources."""
        entries = [{"name": each.name, **_ENTRY, **each.entry()} for each in self._sources]
        return yaml.safe_dump({"sources": entries})

    def _write(self, source: Source, path: str) -> None:
        self._written += 1
        text = f"Text {self._written} of {path} in {source.name}."
        source.write(path, text)
        self._held[source.name][path] = text


@contextmanager
def _served() -> Iterator[tuple[http.server.ThreadingHTTPServer, dict[str, str]]]:
    """A server of pages by path; it answers 404 for the others."""
    pages: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            kind = "application/xml" if self.path.endswith(".xml") else "text/html; charset=utf-8"
            self.send_response(404 if body is None else 200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len((body or "").encode())))
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server, pages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _listed(client: httpx.Client) -> list[str]:
    """Ids of all documents."""
    found: list[str] = []
    after = ""
    while True:
        asked = {"limit": 500} | ({"after": after} if after else {})
        reply = client.get("/v1/collections/default/documents", params=asked)
        reply.raise_for_status()
        page = reply.json()
        found += [each["id"] for each in page["documents"]]
        if not (after := page.get("next_after") or ""):
            return found


def _differences(client: httpx.Client, expected: dict[str, str]) -> dict[str, list[str]]:
    """Ids that should not be there, that are missing, and whose chunks have another text."""
    listed = _listed(client)
    found = {"orphans": sorted(set(listed) - set(expected)), "outdated": []}
    found["missing"] = sorted(set(expected) - set(listed))
    for id_ in sorted(set(listed) & set(expected)):
        reply = client.get(f"/v1/collections/default/documents/{id_}")
        chunks = " ".join(chunk["text"] for chunk in reply.json().get("chunks", ()))
        if _TEXT.findall(" ".join(chunks.split())) != [expected[id_]]:
            found["outdated"].append(id_)
    return found


def sources() -> list[Row]:
    """All rows."""
    with ExitStack() as opened:
        root = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        database = PostgresServer()
        opened.callback(database.remove)
        server, pages = opened.enter_context(_served())
        made: list[tuple[int, Callable[[int], Source]]] = [
            (6, lambda number: Folder(root, number)),
            (5, lambda number: Repository(root, number)),
            (3, lambda number: Mail(root, number)),
            (3, lambda number: Site(server, pages, number)),
            (3, lambda number: Table(database.url, number)),
        ]
        world = World([make(number) for count, make in made for number in range(count)])
        file = root / "sources.yaml"
        file.write_text(world.file())
        variables = {
            "RAGLAN_INGESTER_SOURCES_FILE": str(file),
            "RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE": "0",
        }
        mesh = opened.enter_context(mesh_process.running(root / "mesh", **variables))
        client = opened.enter_context(mesh.client(timeout=60))
        return list(_rows(mesh, client, world))


def _rows(mesh: mesh_process.Mesh, client: httpx.Client, world: World) -> Iterator[Row]:
    def is_equal() -> bool:
        return set(_listed(client)) == set(world.expected())

    began = time.monotonic()
    mesh_process.until(is_equal, within_s=_SETTLED_S, what="the first sync of all sources")
    first_s = time.monotonic() - began
    chance = random.Random(1)
    for step in range(STEPS):
        world.change()
        time.sleep(chance.uniform(0.5, 4))
        if step in KILLED_AT:
            pid = mesh_process.until(
                lambda: mesh.pid("ingester"), within_s=60, what="the ingester has started"
            )
            os.kill(pid, signal.SIGKILL)
            world.change()
    began = time.monotonic()
    expected = world.expected()
    mesh_process.until(is_equal, within_s=_SETTLED_S, what="the index holds what the sources do")
    end = time.monotonic() + _SETTLED_S
    while any((found := _differences(client, expected)).values()) and time.monotonic() < end:
        time.sleep(1)
    settled_s = time.monotonic() - began
    held = client.get("/v1/collections/default").json()
    documents = len(expected)
    label = "20 sources of 5 kinds change at once, ingester killed twice"
    yield Row(f"{label}: documents in the sources afterwards", "", documents)
    yield Row("the same: orphans in the index", "", len(found["orphans"]), target="<= 0")
    yield Row("the same: documents missing", "", len(found["missing"]), target="<= 0")
    yield Row("the same: documents with an outdated text", "", len(found["outdated"]), "<= 0")
    yield Row("the same: documents that the retriever holds", "", held["documents"])
    yield Row("the same: seconds until they are equal, from the last change", "s", settled_s)
    yield Row("the first sync of all", "s", first_s)
