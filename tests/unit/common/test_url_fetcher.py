"""Fetching by URL: real listeners count who connects; what is private is never connected to."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.errors import Forbidden, InvalidInput, PayloadTooLarge, RaglanError
from raglan.url_fetcher import UrlFetcher, resolve
from raglan.url_policy import SettingNames, UrlPolicy, is_public

NAMES = SettingNames("url_hosts", "url_networks", "url_max_bytes", "url_timeout_s")
ALLOWED = "127.0.0.2"
"""Stands for the public internet: an address of this machine that the policy allows."""
HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://127\u30020\u30020\u30021:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[fd00:ec2::254]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.1.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://192.0.0.8:{port}/",
    "http://198.18.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://240.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://127.0.0.2@127.0.0.1:{port}/",
    "http://user:secret@127.0.0.2:{port}/",
    "http://127.0.0.2:{port}\\@127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}\\",
    "http://127.0.0.1:{port}#@127.0.0.2:{port}/",
    "http://127.0.0.1:{port}?@127.0.0.2:{port}/",
    "http://127.0.0.2:{port}\r\nHost: 127.0.0.1/",
    " http://127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://127.0.0.2:22/",
    "http://127.0.0.2:99999/",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "gopher://127.0.0.1:{port}/_",
    "ftp://127.0.0.1:{port}/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "data:text/plain,a",
    "javascript:alert(1)",
    "http://",
    "http://..:{port}/",
    "http://-:{port}/",
    "http://[::1:{port}/",
    "http://127.0.0.1:{port}/" + "a" * 3_000,
]


@dataclass
class Listener:
    """An HTTP server that gives one reply to all, and counts its connections."""

    reply: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    pause_s: float = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await asyncio.sleep(self.pause_s)
            writer.write(self.reply)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@dataclass
class Hosts:
    port: int
    allowed: Listener
    private: Listener

    def fetcher(self, **options: Any) -> UrlFetcher:
        policy = UrlPolicy(
            options.pop("hosts", ["*"]),
            [f"{ALLOWED}/32"],
            ports=[self.port, 80, 443],
            names=NAMES,
        )
        return UrlFetcher(policy, **{"max_bytes": 10_000, "timeout_s": 5.0} | options)

    def url(self, path: str = "/a.txt", host: str = ALLOWED) -> str:
        return f"http://{host}:{self.port}{path}"


async def listening(allowed: Listener, private: Listener) -> list[asyncio.Server]:
    """Servers on one port of the allowed address and of both loopback addresses."""
    for _ in range(20):
        servers = [await asyncio.start_server(allowed.serve, ALLOWED, 0)]
        port = servers[0].sockets[0].getsockname()[1]
        try:
            for host in ("127.0.0.1", "::1"):
                servers.append(await asyncio.start_server(private.serve, host, port))
        except OSError:  # another process has the port on one of them
            await closed(servers)
        else:
            return servers
    raise AssertionError("no port is free on all three addresses")


async def closed(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    """The same port on the allowed address and on both loopback addresses."""
    allowed, private = Listener(), Listener()
    servers = await listening(allowed, private)
    yield Hosts(servers[0].sockets[0].getsockname()[1], allowed, private)
    await closed(servers)


class Attempts:
    """Notes to which addresses a fetcher connects, whether anything listens there or not."""

    def __init__(self, fetcher: UrlFetcher) -> None:
        self.addresses: list[str] = []
        self._sockets = fetcher._backend._sockets
        fetcher._backend._sockets = self  # type: ignore[assignment]

    async def connect_tcp(self, host: str, *rest: Any) -> Any:
        self.addresses.append(host)
        return await self._sockets.connect_tcp(host, *rest)


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("url", HOSTILE)
async def test_a_hostile_url_is_refused_unconnected(hosts: Hosts, url: str) -> None:
    fetcher = hosts.fetcher()
    attempts = Attempts(fetcher)
    with pytest.raises((InvalidInput, Forbidden)) as caught:
        await fetcher.fetch(url.format(port=hosts.port))
    assert "secret" not in str(caught.value)
    assert attempts.addresses == []
    assert (hosts.private.connections, hosts.allowed.connections) == (0, 0)


@pytest.mark.parametrize("url", [url for url in HOSTILE if "\r" not in url and url.isascii()])
async def test_a_redirect_to_a_hostile_url_is_refused(hosts: Hosts, url: str) -> None:
    """A relative target leads back to the host itself, and on until it is refused."""
    hosts.allowed.reply = redirect(url.format(port=hosts.port))
    fetcher = hosts.fetcher()
    attempts = Attempts(fetcher)
    with pytest.raises((InvalidInput, Forbidden)):
        await fetcher.fetch(hosts.url())
    assert set(attempts.addresses) == {ALLOWED}
    assert hosts.private.connections == 0


def answers(*rounds: list[str]) -> Callable[[str, int], Any]:
    """A name server that says something else each time."""
    left = list(rounds)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def test_a_name_that_changes_its_address_is_connected_where_it_was_checked(
    hosts: Hosts,
) -> None:
    fetcher = hosts.fetcher(resolve=answers([ALLOWED], ["127.0.0.1"]))
    hosts.allowed.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    found = await fetcher.fetch(hosts.url(host="rebinding.example"))
    assert found.content == b"ok"
    with pytest.raises(Forbidden):
        await fetcher.fetch(hosts.url(host="rebinding.example"))
    assert (hosts.allowed.connections, hosts.private.connections) == (1, 0)


async def test_a_redirect_to_the_same_name_is_resolved_and_checked_again(hosts: Hosts) -> None:
    hosts.allowed.reply = redirect("/again")
    fetcher = hosts.fetcher(resolve=answers([ALLOWED], ["::1"]))
    with pytest.raises(Forbidden):
        await fetcher.fetch(hosts.url(host="rebinding.example"))
    assert (hosts.allowed.connections, hosts.private.connections) == (1, 0)


@pytest.mark.parametrize("addresses", [[ALLOWED, "127.0.0.1"], ["127.0.0.1", ALLOWED]])
async def test_a_name_with_one_private_address_is_refused(
    hosts: Hosts, addresses: list[str]
) -> None:
    with pytest.raises(Forbidden):
        await hosts.fetcher(resolve=answers(addresses)).fetch(hosts.url(host="both.example"))
    assert (hosts.allowed.connections, hosts.private.connections) == (0, 0)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_no_proxy_is_used(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{hosts.port}")
    await hosts.fetcher().fetch(hosts.url())
    assert (hosts.allowed.connections, hosts.private.connections) == (1, 0)


async def test_only_named_hosts_are_fetched_from(hosts: Hosts) -> None:
    fetcher = hosts.fetcher(hosts=["*.example.com", "wiki"], resolve=answers([ALLOWED]))
    for host in ("a.example.com", "a.b.EXAMPLE.com.", "wiki"):
        await fetcher.fetch(hosts.url(host=host))
    for host in ("example.com", "badexample.com", "a.example.com.evil.org", "wiki.evil.org"):
        with pytest.raises(Forbidden, match="url_hosts"):
            await fetcher.fetch(hosts.url(host=host))
    assert hosts.allowed.connections == 3


async def test_a_document_comes_with_its_type_and_the_request_says_nothing(hosts: Hosts) -> None:
    hosts.allowed.reply = (
        b"HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; charset=utf-8\r\nContent-Length: 3\r\n\r\nabc"
    )
    found = await hosts.fetcher().fetch(hosts.url("/a b.html?q=\u00e4#part".replace(" ", "%20")))
    assert (found.content, found.media_type) == (b"abc", "text/html")
    assert found.url == hosts.url("/a%20b.html?q=%C3%A4")
    head = hosts.allowed.heads[0].decode()
    assert head.startswith("GET /a%20b.html?q=%C3%A4 HTTP/1.1\r\n")
    assert {line.partition(":")[0].lower() for line in head.splitlines()[1:] if line} == {
        "host", "user-agent", "accept-encoding",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 20_000, PayloadTooLarge, "url_max_bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"a" * 10**6),
            InvalidInput,
            "compressed",
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", InvalidInput, "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", InvalidInput, "could not be fetched"),
        (b"SSH-2.0-OpenSSH\r\n", InvalidInput, "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000, InvalidInput, "could not be fetched"),
        (redirect("/again"), InvalidInput, "more than 5 redirects"),
    ],
    ids=["large", "compressed", "missing", "short", "other protocol", "endless head", "loop"],
)  # fmt: skip
async def test_what_a_server_may_do_has_limits(
    hosts: Hosts, reply: bytes, error: type[RaglanError], words: str
) -> None:
    hosts.allowed.reply = reply
    with pytest.raises(error, match=words):
        await hosts.fetcher().fetch(hosts.url())


async def test_a_slow_server_is_left(hosts: Hosts) -> None:
    hosts.allowed.pause_s = 3
    with pytest.raises(InvalidInput, match="url_timeout_s"):
        await hosts.fetcher(timeout_s=0.2).fetch(hosts.url())


async def test_a_name_that_does_not_exist_is_said() -> None:
    fetcher = UrlFetcher(
        UrlPolicy("*", names=NAMES), max_bytes=1, timeout_s=20, resolve=answers([])
    )
    with pytest.raises(InvalidInput, match=r"'nowhere.example' is not known"):
        await fetcher.fetch("http://nowhere.example/")


async def test_names_are_resolved_by_the_system() -> None:
    assert "127.0.0.1" in await resolve("localhost", 80)


PUBLIC = ("8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1")


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=6))
def test_only_global_unicast_of_ipv6_is_public(address: Any) -> None:
    if is_public(address):
        assert address.packed[0] >> 5 == 1
        assert address.sixtofour is None
        assert address.teredo is None
        assert address.ipv4_mapped is None
