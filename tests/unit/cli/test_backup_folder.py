"""The folder of a backup: whole, cut short, or not a backup at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from raglan.v1 import backup_pb2
from raglan_cli import backup_folder
from raglan_cli.backup_folder import MANIFEST, BackupWriter, UnitReader, verify
from raglan_cli.failure import Failure

Record = backup_pb2.BackupRecord


def row(number: int) -> Record:
    return Record(row=backup_pb2.BackupRow(table="documents", json=f'{{"id": "d{number}"}}'))


def end(cursor: str) -> backup_pb2.BackupEnd:
    return backup_pb2.BackupEnd(cursor=cursor, documents=1)


def write_unit(writer: BackupWriter, number: int, cursor: str) -> None:
    writer.begin_unit()
    writer.write(row(number))
    writer.write(Record(end=end(cursor)))
    writer.end_unit(end(cursor))


def write_all(folder: Path, units: int = 3) -> None:
    writer = BackupWriter(folder)
    for number in range(units):
        write_unit(writer, number, str(number + 1) if number + 1 < units else "")
    assert writer.is_whole
    writer.finish()
    writer.close()


def read_all(folder: Path) -> list[list[Record]]:
    contents = verify(folder)
    reader = UnitReader(folder, contents)
    units = []
    for _ in range(contents.units):
        units.append(list(reader.records()))
        reader.advance()
    return units


@pytest.mark.parametrize("part_bytes", [1, 64 * 1024 * 1024])
def test_units_come_back_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(backup_folder, "_PART_BYTES", part_bytes)
    write_all(tmp_path / "b")
    units = read_all(tmp_path / "b")
    assert [unit[0] for unit in units] == [row(number) for number in range(3)]
    assert all(unit[-1].HasField("end") and len(unit) == 2 for unit in units)
    assert len(verify(tmp_path / "b").parts) == (3 if part_bytes == 1 else 1)


def test_a_unit_that_is_skipped_or_half_read_is_stepped_over(tmp_path: Path) -> None:
    write_all(tmp_path)
    reader = UnitReader(tmp_path, verify(tmp_path))
    reader.advance()
    assert next(reader.records()) == row(1)
    reader.advance()
    assert next(reader.records()) == row(2)


def test_a_backup_that_was_cut_short_goes_on_after_its_last_whole_unit(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    writer = BackupWriter(folder)
    write_unit(writer, 0, "1")
    writer.begin_unit()
    writer.write(row(99))
    writer.close()  # as a kill leaves it: half a unit, no manifest
    with pytest.raises(Failure, match="cut short; finish it with: raglan backup"):
        verify(folder)

    writer = BackupWriter(folder)
    assert writer.is_resumed
    assert writer.contents.cursor == "1"
    write_unit(writer, 1, "")
    writer.finish()
    writer.close()
    assert [unit[0] for unit in read_all(folder)] == [row(0), row(1)]


def test_a_unit_that_is_asked_for_again_replaces_its_beginning(tmp_path: Path) -> None:
    writer = BackupWriter(tmp_path / "b")
    writer.begin_unit()
    writer.write(row(99))
    write_unit(writer, 0, "")
    writer.finish()
    writer.close()
    assert [unit[0] for unit in read_all(tmp_path / "b")] == [row(0)]


def test_a_flipped_bit_is_found_before_anything_is_read(tmp_path: Path) -> None:
    write_all(tmp_path)
    part = tmp_path / "part-00001"
    data = bytearray(part.read_bytes())
    data[10] ^= 1
    part.write_bytes(data)
    with pytest.raises(Failure, match="does not match its checksum"):
        verify(tmp_path)


def test_a_changed_manifest_is_damaged(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace('"units": 3', '"units": 2'))
    with pytest.raises(Failure, match="is damaged, or not one of a backup"):
        verify(tmp_path)


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2, "more": 1}))
    with pytest.raises(Failure, match="newer version of Raglan"):
        verify(tmp_path)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="holds no backup"):
        verify(tmp_path)
    file = tmp_path / "file.txt"
    file.write_text("x")
    with pytest.raises(Failure, match="holds no backup"):
        verify(file)
    with pytest.raises(Failure, match=r"holds other files \(file.txt\)"):
        BackupWriter(tmp_path)


def test_a_whole_backup_is_never_written_over(tmp_path: Path) -> None:
    write_all(tmp_path)
    with pytest.raises(Failure, match="holds a whole backup"):
        BackupWriter(tmp_path)


def test_two_writers_of_one_folder_exclude_each_other(tmp_path: Path) -> None:
    writer = BackupWriter(tmp_path)
    with pytest.raises(Failure, match="Another `raglan backup`"):
        BackupWriter(tmp_path)
    writer.close()
    BackupWriter(tmp_path).close()


def test_a_part_that_was_changed_behind_a_cut_off_backup_ends_it(tmp_path: Path) -> None:
    writer = BackupWriter(tmp_path)
    write_unit(writer, 0, "1")
    writer.close()
    (tmp_path / "part-00001").write_bytes(b"")
    with pytest.raises(Failure, match="cannot go on; delete"):
        BackupWriter(tmp_path)
