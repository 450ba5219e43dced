"""Logs of services are kept to a size while they are written to."""

import pytest
from raglan_cli import log_files, reason
from raglan_cli.failure import UsageFailure


def test_the_writer_goes_on_at_the_new_end(tmp_path):
    log = tmp_path / "embedder-1.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(4):
            writer.write(b"%d\n" % number)
            log_files.rotate(log)
        writer.write(b"last\n")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {
        "embedder-1.log": "last\n",
        "embedder-1.log.1": "3\n",
        "embedder-1.log.2": "2\n",
    }


def test_a_log_that_cannot_be_copied_is_emptied_all_the_same(tmp_path, monkeypatch):
    log = tmp_path / "embedder-1.log"
    log.write_text("x" * 100)
    log.with_name("embedder-1.log.1").symlink_to("/dev/full")
    monkeypatch.setattr(log_files, "_OLDER", 1)  # so that the link stays where it is
    log_files.rotate(log)
    assert log.read_text() == ""


def test_a_new_mesh_keeps_what_the_one_before_it_wrote(tmp_path):
    log = tmp_path / "logs" / "embedder-1.log"
    for number in range(3):
        log_files.begin(log)
        log.write_text(f"{number}")
    assert (log.with_name("embedder-1.log.1")).read_text() == "1"
    assert (log.with_name("embedder-1.log.2")).read_text() == "0"


def test_why_a_service_ended_is_found_in_a_log_that_was_rotated_meanwhile(tmp_path):
    log = tmp_path / "embedder-1.log"
    log.write_text("The model 'x' is not on this machine.\n")
    assert reason.exit_reason(1, log, since=10_000) == "The model 'x' is not on this machine."


@pytest.mark.parametrize(("told", "most"), [("", 50_000_000), ("0", 0), ("0.5", 500_000)])
def test_the_limit_is_a_variable(told, most):
    assert log_files.max_bytes({log_files.VARIABLE: told}) == most


@pytest.mark.parametrize("told", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(told):
    with pytest.raises(UsageFailure, match=f"RAGLAN_LOG_MAX_MB is '{told}'"):
        log_files.max_bytes({log_files.VARIABLE: told})
