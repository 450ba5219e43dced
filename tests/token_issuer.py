"""An issuer of tokens that serves its keys, and tokens that it did not sign."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER: Final = "https://login.example.com"
AUDIENCE: Final = "raglan"


class Issuer:
    """Signs tokens and serves its key set; counts how often that is fetched."""

    def __init__(self) -> None:
        self.keys = {"one": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.fetched = 0
        self.body: bytes | None = None
        self.url = ""

    def document(self) -> bytes:
        rows = [
            jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            | {"kid": name, "alg": "RS256", "use": "sig"}
            for name, key in self.keys.items()
        ]
        return json.dumps({"keys": rows}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.fetched += 1
        body = self.document() if self.body is None else self.body
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    def token(self, key_id: str = "one", **claims: Any) -> str:
        now = time.time()
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "anna",
            "exp": now + 600,
            "scope": "query other",
            "tenant": "acme",
            "collections": ["a"],
        } | claims
        kept = {name: value for name, value in payload.items() if value is not None}
        key = self.keys.get(key_id) or self.keys["one"]
        return jwt.encode(kept, key, algorithm="RS256", headers={"kid": key_id})


@asynccontextmanager
async def serving() -> AsyncIterator[Issuer]:
    """Serve an issuer's keys on loopback."""
    made = Issuer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def unsigned(token: str, **header: Any) -> str:
    """The token with another header and no signature."""
    made = base64.urlsafe_b64encode(json.dumps({"kid": "one"} | header).encode()).rstrip(b"=")
    return f"{made.decode()}.{token.split('.')[1]}."


def signed_with(token: str, secret: bytes, **header: Any) -> str:
    """The token with an HMAC of a public text, which PyJWT itself would not make."""
    made = unsigned(token, **header).removesuffix(".")
    signature = hmac.digest(secret, made.encode(), "sha256")
    return f"{made}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
