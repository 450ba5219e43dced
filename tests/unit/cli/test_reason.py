import json
import signal

from raglan_cli import reason


def test_the_reason_of_the_last_error_event_is_told():
    log = "\n".join(
        [
            json.dumps({"level": "info", "event": "loading"}),
            json.dumps({"level": "error", "event": "cannot start", "reason": "No such model: x."}),
        ]
    )
    assert reason.reason_in(log) == "No such model: x."


def test_sentences_about_settings_are_told_whole():
    log = "RAGLAN_EMBEDDER_X is set, but there is no such setting.\nRAGLAN_EMBEDDER_PORT: too big."
    assert reason.reason_in(log) == log


def test_of_a_traceback_only_the_last_line_is_told():
    log = 'Traceback (most recent call last):\n  File "x.py", line 1\nImportError: no module y\n'
    assert reason.reason_in(log) == "ImportError: no module y"


def test_of_an_event_with_an_exception_its_type_and_text_are_told():
    event = {
        "level": "error",
        "event": "unexpected",
        "exception": [{"exc_type": "KeyError", "exc_value": "'a'", "frames": []}],
    }
    assert reason.reason_in(json.dumps(event)) == "KeyError: 'a'"


def test_a_silent_end_is_told_by_its_status(tmp_path):
    log = tmp_path / "x.log"
    log.write_text('{"level": "info", "event": "serving"}\n')
    assert "status 3" in reason.exit_reason(3, log)
    assert "SIGKILL" in reason.exit_reason(-signal.SIGKILL, log)
    assert "SIGSEGV" in reason.exit_reason(-signal.SIGSEGV, log)


def test_what_an_earlier_run_said_is_not_the_reason(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("An old reason.\n")
    assert "status 1" in reason.exit_reason(1, log, since=log.stat().st_size)


def test_notes_of_the_grpc_library_are_no_reason():
    log = (
        "No such model.\nI1121 10:13:27.734986   24713 fork_posix.cc:71] skipping fork() handlers\n"
    )
    assert reason.reason_in(log) == "No such model."


def test_a_conversion_is_told_while_it_is_the_last_word_of_the_log(tmp_path):
    log = tmp_path / "embedder.log"
    assert reason.stage_of_start(log) == ""
    converting = {"event": "converting", "stage": "exporting to ONNX"}
    log.write_text(
        json.dumps({"event": "converting the model, once"}) + "\n" + json.dumps(converting)
    )
    assert reason.stage_of_start(log) == "exporting to ONNX"
    with log.open("a") as file:
        file.write("\n" + json.dumps({"event": "model converted"}) + "\n")
    assert reason.stage_of_start(log) == ""


def test_a_service_that_waits_for_another_says_for_what(tmp_path):
    log = tmp_path / "log"
    log.write_text('{"event": "waiting", "level": "warning", "reason": "Qdrant is not up."}\n')
    assert reason.stage_of_start(log) == "Qdrant is not up."
