"""Parser processes: what they may use, and what happens to a document that wants more."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from raglan_ingester import landlock
from raglan_ingester.chunking import Sizes
from raglan_ingester.parsers.parsed import Unparsable
from raglan_ingester.parsing import CutDocument, ParseRequest, ParserPool

MIB = 1024 * 1024
Parse = Callable[..., Awaitable[CutDocument]]


@pytest.fixture
async def pools() -> AsyncIterator[Callable[..., ParserPool]]:
    async with AsyncExitStack() as stack:

        def make(**changes: float) -> ParserPool:
            limits = {"memory_bytes": 1024 * MIB, "cpu_s": 60, "wall_s": 60.0} | changes
            pool = ParserPool(workers=1, **limits)  # type: ignore[arg-type]
            stack.push_async_callback(pool.close)
            return pool

        yield make


def request(path: Path, data: bytes) -> ParseRequest:
    path.write_bytes(data)
    return ParseRequest(path, path.name, "", Sizes(500))


def markdown_that_takes_long() -> bytes:
    """A heading of links that never close: quadratic for every CommonMark parser."""
    return b"# " + b"[a](<b" * 400_000


async def test_a_worker_is_used_again_for_the_next_document(
    pools: Callable[..., ParserPool], tmp_path: Path
) -> None:
    pool = pools()

    cut = [
        await pool.parse(request(tmp_path / f"{n}.txt", f"Text {n}. ".encode() * 100))
        for n in range(3)
    ]

    assert [document.text[:6] for document in cut] == ["Text 0", "Text 1", "Text 2"]
    assert all(len(document.chunks) == 2 for document in cut)
    assert len(pool._all) == 1


async def test_a_document_that_needs_too_much_memory_fails_alone(
    pools: Callable[..., ParserPool], tmp_path: Path
) -> None:
    pool = pools(memory_bytes=256 * MIB)
    huge = request(tmp_path / "huge.json", b"[" + b"[1]," * 8_000_000 + b"1]")

    with pytest.raises(Unparsable, match="needed more than 256 MiB of memory"):
        await pool.parse(huge)

    assert (await pool.parse(request(tmp_path / "small.txt", b"fine"))).text == "fine"


async def test_a_document_that_takes_too_much_processor_time_fails_alone(
    pools: Callable[..., ParserPool], tmp_path: Path
) -> None:
    pool = pools(cpu_s=1)

    with pytest.raises(Unparsable, match="took more than 1 s of processor time"):
        await pool.parse(request(tmp_path / "slow.md", markdown_that_takes_long()))

    assert (await pool.parse(request(tmp_path / "small.txt", b"fine"))).text == "fine"


async def test_a_document_that_takes_too_long_on_the_clock_fails_alone(
    pools: Callable[..., ParserPool], tmp_path: Path
) -> None:
    pool = pools(wall_s=1.0)

    with pytest.raises(Unparsable, match="took more than 1 s to parse"):
        await pool.parse(request(tmp_path / "slow.md", markdown_that_takes_long()))

    assert (await pool.parse(request(tmp_path / "small.txt", b"fine"))).text == "fine"


async def test_a_cancelled_document_leaves_the_pool_usable(
    pools: Callable[..., ParserPool], tmp_path: Path
) -> None:
    pool = pools()
    slow = asyncio.create_task(
        pool.parse(request(tmp_path / "slow.md", markdown_that_takes_long()))
    )
    await asyncio.sleep(0)
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)

    assert (await pool.parse(request(tmp_path / "small.txt", b"fine"))).text == "fine"


@pytest.mark.parametrize(
    "deed",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
    ],
)
def test_a_confined_process_reaches_neither_network_nor_other_programs(deed: str) -> None:
    script = f"""
from raglan_ingester.confinement import confine
confine({1024 * MIB})
try:
    {deed}
except PermissionError:
    raise SystemExit(7)
"""

    done = subprocess.run([sys.executable, "-I", "-c", script], check=False, timeout=30)

    assert done.returncode == 7


def confined(script: str) -> str:
    """Return the output of `script` in a confined process with `active`, `libc`, `native_open`."""
    head = f"""
import ctypes, errno, os
from pathlib import Path
from raglan_ingester import landlock
from raglan_ingester.confinement import *
libc = ctypes.CDLL(None, use_errno=True)
def native_open(path):
    return libc.open(os.fsencode(path), os.O_RDONLY)
def refuses(call, *arguments):
    return call(*arguments) == -1 and ctypes.get_errno() in (errno.EACCES, errno.EPERM)
def start(*readable):
    return confine({1024 * MIB}, map(Path, readable))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", head + script],
        check=False,
        timeout=30,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_native_code_of_a_confined_process_reads_no_file_of_the_user(tmp_path: Path) -> None:
    """Not the ingester's environment either, which holds its secrets."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    said = confined(f"""
paths = ["/etc/passwd", "/proc/self/environ", f"/proc/{{os.getppid()}}/environ", {str(secret)!r}]
active = start()
print(LANDLOCK in active, all(refuses(native_open, path) for path in paths))
""")
    assert said == ("True True" if landlock.abi() else "False False")


def test_a_confined_process_reads_what_it_is_given_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    said = confined(f"""
start({str(tmp_path)!r})
print(open({str(tmp_path / "tokenizer.json")!r}).read())
if landlock.abi():
    assert refuses(libc.open, os.fsencode({str(tmp_path / "new")!r}), os.O_CREAT | os.O_WRONLY)
    assert refuses(libc.unlink, os.fsencode({str(tmp_path / "tokenizer.json")!r}))
import decimal, zoneinfo, sqlite3  # modules and their libraries are found as before
""")
    assert said == "{}"


def test_without_landlock_python_refuses_files_and_the_process_says_so(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    said = confined(f"""
landlock.abi = lambda: 0
print(LANDLOCK in start())
for look in (open, os.listdir, Path.read_bytes):
    try:
        look(Path({str(tmp_path)!r}) / ("secret" if look is not os.listdir else ""))
    except PermissionError as error:
        print(error)
import decimal, zoneinfo, sqlite3
""")
    assert said.splitlines() == [
        "False",
        f"A parser may not read {tmp_path}/secret",
        f"A parser may not read {tmp_path}",
        f"A parser may not read {tmp_path}/secret",
    ]


def test_confined_native_code_has_no_sockets_and_no_exec() -> None:
    """Native code of a confined process has no sockets and starts no program."""
    said = confined("""
active = start()
if SECCOMP in active:
    assert refuses(libc.socket, 2, 1, 0)
    assert refuses(libc.socket, 2, 2, 0)
    assert refuses(libc.socket, 1, 1, 0)
    assert refuses(libc.kill, os.getppid(), 0)
if {SECCOMP, LANDLOCK} & set(active):
    assert refuses(libc.execv, b"/bin/true", (ctypes.c_char_p * 2)(b"true", None))
print(SECCOMP in active)
""")
    assert said == str(seccomp_is_there())


def seccomp_is_there() -> bool:
    try:
        import pyseccomp
    except (ImportError, RuntimeError):
        return False
    return bool(pyseccomp.get_api())


async def test_a_pool_says_by_what_its_processes_are_confined(
    pools: Callable[..., ParserPool], tmp_path: Path
) -> None:
    pool = pools()
    await pool.open()
    assert "audit_hook" in pool.confinement
    assert ("landlock" in pool.confinement) == bool(landlock.abi())
    assert (await pool.parse(request(tmp_path / "small.txt", b"It is fine."))).text == "It is fine."


def test_a_confined_process_has_no_network_even_for_native_code() -> None:
    script = f"""
import ctypes, os
from raglan_ingester.confinement import confine
before = os.readlink("/proc/self/ns/net")
libc = ctypes.CDLL(None)
probe = os.fork()
if probe == 0:
    os._exit(0 if libc.unshare(0x10000000 | 0x40000000) == 0 else 1)
permitted = os.waitpid(probe, 0)[1] == 0
confine({1024 * MIB})
raise SystemExit(0 if not permitted or os.readlink("/proc/self/ns/net") != before else 1)
"""

    done = subprocess.run([sys.executable, "-I", "-c", script], check=False, timeout=30)

    assert done.returncode == 0
