"""URLs of databases, as settings give them and as SQLAlchemy takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

_POSTGRES: Final = {
    # A database made in the C locale would otherwise hand out bytes.
    "client_encoding": "utf8",
    "connect_timeout": "5",
    # A server that vanishes without a word is noticed within 25 s.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


def url_of(database_url: str, file: Path, password: str = "") -> str:
    """The SQLAlchemy URL: as given, with psycopg 3 for PostgreSQL, or SQLite in `file`.

    Args:
        database_url: empty for that file.
        file: the SQLite file.
        password: put into `database_url`, unless it is empty.
    """
    if not database_url:
        return f"sqlite:///{file}"
    url = sa.make_url(database_url)
    if password:
        url = url.set(password=password)
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg", query={**_POSTGRES, **url.query})
    return url.render_as_string(hide_password=False)


def check_url(prefix: str, url: str, password: str) -> None:
    """Check the settings `<prefix>DATABASE_URL` and `<prefix>DATABASE_PASSWORD`, empty for unset.

    Raises:
        ValueError: they cannot be used; the text holds neither of them.
    """
    variable = f"{prefix}DATABASE_URL"
    if password and not url:
        raise ValueError(f"{prefix}DATABASE_PASSWORD needs {variable}")
    if not url:
        return
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError(
            f"{variable} is not a URL of a database; give "
            "postgresql://user@host:5432/database or sqlite:///file, and percent-encode "
            "@, :, / and # in a password"
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres", "sqlite"):
        raise ValueError(
            f"{variable} names another database than PostgreSQL or SQLite; "
            "give postgresql://... or sqlite:///..."
        )
    if password and parsed.password is not None:
        raise ValueError(
            f"{variable} has a password of its own, and {prefix}DATABASE_PASSWORD is set; "
            "keep one of the two"
        )
