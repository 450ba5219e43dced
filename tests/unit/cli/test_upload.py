import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_cli.files import SourceFile, select
from raglan_cli.upload import LazyFile, Unsendable, batches


def selected(path):
    (source,) = select([path]).files
    return source


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 60), st.integers(1, 12))
def test_requests_are_bounded_and_keep_every_file_in_order(sizes, max_bytes, max_files):
    sources = [SourceFile(None, str(i), size, (0, 0, 0)) for i, size in enumerate(sizes)]
    made = list(batches(sources, max_bytes=max_bytes, max_files=max_files))
    assert [source for batch in made for source in batch] == sources
    for batch in made:
        assert 1 <= len(batch) <= max_files
        assert len(batch) == 1 or sum(source.size for source in batch) <= max_bytes


def test_a_lazy_file_is_open_only_between_its_first_and_last_byte(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    read = []
    lazy = LazyFile(selected(path), read.append)
    assert lazy.seek(0, io.SEEK_END) == 3
    assert lazy._open is None
    assert lazy.read(2) == b"ab"
    assert lazy._open is not None
    assert (lazy.read(2), lazy.read(2), lazy.read(2)) == (b"c", b"", b"")
    assert lazy._open is None
    lazy.seek(0)
    assert lazy.read(3) == b"abc"
    lazy.close()
    assert sum(read) == 6


@pytest.mark.parametrize("now", [b"abcdef", b"a"])
def test_a_file_that_changes_before_it_is_read_is_unsendable(tmp_path, now):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    lazy = LazyFile(selected(path), [].append)
    assert lazy.seek(0, io.SEEK_END) == 3
    path.write_bytes(now)
    with pytest.raises(Unsendable, match="It changed while it was sent"):
        while lazy.read(2):
            pass


def test_a_file_that_is_gone_is_unsendable(tmp_path):
    with pytest.raises(Unsendable, match="No such file"):
        LazyFile(SourceFile(tmp_path / "a", "a", 3, (0, 0, 0)), [].append).seek(0, io.SEEK_END)


@pytest.mark.parametrize("when", ["before it is measured", "before it is read"])
@pytest.mark.parametrize("by", ["link", "pipe"])
def test_what_took_the_place_of_a_chosen_file_is_not_sent(tmp_path, when, by):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    secret = tmp_path / "secret"
    secret.write_bytes(b"xyz")
    lazy = LazyFile(selected(path), [].append)
    if when == "before it is read":
        lazy.seek(0, io.SEEK_END)
    path.unlink()
    if by == "link":
        path.symlink_to(secret)
    else:
        os.mkfifo(path)
    with pytest.raises(Unsendable, match="Another file took its place"):
        lazy.read() if when == "before it is read" else lazy.seek(0, io.SEEK_END)
