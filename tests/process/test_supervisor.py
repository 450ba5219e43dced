"""The supervisor over small real processes. A process is ready once it made its `.ready` file."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_cli.failure import Failure
from raglan_cli.mesh import Program
from raglan_cli.supervisor import Backoff, State, Supervisor

SERVE = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
DIE = "import sys; sys.exit('The model x is not there.')"
LIMIT_S = 90


@pytest.fixture
def program(tmp_path):
    def make(code, service="embedder"):
        number = len(list(tmp_path.glob("*.made"))) + 1
        (tmp_path / f"{number}.made").touch()
        return Program(
            service=service,
            replica=number,
            address=str(tmp_path / f"{number}.ready"),
            argv=(sys.executable, "-c", code, str(tmp_path / f"{number}.ready")),
            env=dict(os.environ),
            log=tmp_path / f"{service}-{number}.log",
        )

    return make


async def made_its_file(program):
    return os.path.exists(program.address)  # noqa: ASYNC240, PTH110


async def until(condition):
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def supervise():
    supervisors = []

    def make(*programs, **options):
        options.setdefault("backoff", lambda: Backoff(first_s=0.01))
        supervisor = Supervisor(programs, is_ready=made_its_file, **options)
        supervisors.append(supervisor)
        return supervisor

    yield make
    for supervisor in supervisors:
        supervisor.kill()
        await supervisor.stop()


def pids(supervisor):
    return [process.child.pid for process in supervisor.processes]


def ended(process):
    """Whether nothing is left of it, or only what its parent has to reap."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_the_start_is_over_when_every_process_is_ready(supervise, program):
    supervisor = supervise(program(SERVE), program(SERVE))
    await supervisor.start(limit_s=LIMIT_S)
    assert [p.state for p in supervisor.processes] == [State.READY, State.READY]
    assert all(map(psutil.pid_exists, pids(supervisor)))


async def test_a_process_that_dies_during_the_start_fails_it_with_its_own_words(supervise, program):
    supervisor = supervise(program(SERVE), program(DIE, "reranker"))
    with pytest.raises(Failure, match=r"The reranker ended.*\nThe model x is not there\."):
        await supervisor.start(limit_s=LIMIT_S)


async def test_a_program_that_is_not_there_fails_the_start(supervise, program):
    supervisor = supervise(replace(program(SERVE), argv=("/no/such/python",)))
    with pytest.raises(Failure, match="The embedder ended during the start"):
        await supervisor.start(limit_s=LIMIT_S)


async def test_a_process_that_is_late_is_named(supervise, program):
    supervisor = supervise(program("import time; time.sleep(600)", "generator"), program(SERVE))
    with pytest.raises(Failure, match=r"Not ready after 0\.3 s: generator-1"):
        await supervisor.start(limit_s=0.3)


async def test_a_crashed_process_is_started_again_and_said_to_be(supervise, program):
    seen = []
    supervisor = supervise(program(SERVE), on_change=lambda p: seen.append(p.state))
    await supervisor.start(limit_s=LIMIT_S)
    (process,) = supervisor.processes
    first = process.child.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: process.restarts == 1 and process.state is State.READY)
    assert process.child.pid != first
    assert seen == [
        State.STARTING,
        State.READY,
        State.RESTARTING,
        State.STARTING,
        State.READY,
    ]
    assert "SIGKILL" in process.reason


async def test_a_crash_takes_along_what_the_process_had_started(supervise, program, tmp_path):
    child_pid = tmp_path / "child.pid"
    spawn = (
        "import subprocess; child = subprocess.Popen(['sleep', '600']); "
        f"open({str(child_pid)!r}, 'w').write(str(child.pid)); "
    )
    supervisor = supervise(program(spawn + SERVE))
    await supervisor.start(limit_s=LIMIT_S)
    grandchild = psutil.Process(int(child_pid.read_text()))
    assert not ended(grandchild)
    os.kill(pids(supervisor)[0], signal.SIGKILL)
    await until(lambda: ended(grandchild))


async def test_a_stop_ends_everything(supervise, program):
    supervisor = supervise(program(SERVE), program(SERVE))
    await supervisor.start(limit_s=LIMIT_S)
    before = pids(supervisor)
    await supervisor.stop()
    assert not any(map(psutil.pid_exists, before))
    assert {p.state for p in supervisor.processes} == {State.STOPPED}


async def test_a_process_that_does_not_listen_is_killed_after_the_grace(supervise, program):
    supervisor = supervise(replace(program(DEAF), grace_s=0.2))
    await supervisor.start(limit_s=LIMIT_S)
    (process,) = supervisor.processes
    await supervisor.stop()
    assert process.child.returncode == -signal.SIGKILL


async def test_callers_end_before_those_they_call(supervise, program):
    order = []

    def note(process):
        if process.state is State.STOPPED:
            order.append(process.program.service)

    services = ("embedder", "gateway", "retriever", "ingester")
    supervisor = supervise(*(program(SERVE, s) for s in services), on_change=note)
    await supervisor.start(limit_s=LIMIT_S)
    await supervisor.stop()
    assert set(order[:2]) == {"gateway", "ingester"}
    assert set(order[2:]) == {"embedder", "retriever"}


async def test_the_log_of_the_run_before_is_kept(supervise, program):
    one = program(f"print('hello', flush=True); {SERVE}")
    one.log.write_text("the run before\n")
    supervisor = supervise(one)
    await supervisor.start(limit_s=LIMIT_S)
    assert one.log.read_text() == "hello\n"
    assert one.log.with_name(f"{one.log.name}.1").read_text() == "the run before\n"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path):
    script = textwrap.dedent(
        f"""
        import asyncio, os, pathlib, sys
        from raglan_cli.mesh import Program
        from raglan_cli.supervisor import Supervisor

        async def ready(program):
            return pathlib.Path(program.address).exists()

        async def main():
            ready_file = {str(tmp_path / "ready")!r}
            program = Program("embedder", 1, ready_file,
                (sys.executable, "-c", {DEAF!r}, ready_file),
                dict(os.environ), pathlib.Path({str(tmp_path / "x.log")!r}))
            supervisor = Supervisor([program], is_ready=ready)
            await supervisor.start(limit_s=20)
            print(supervisor.processes[0].child.pid, flush=True)
            await supervisor.watch()

        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as supervisor:
        child = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
        supervisor.wait()
        until_s = time.monotonic() + LIMIT_S
        while not ended(child):
            assert time.monotonic() < until_s, "the child outlived its supervisor"
            time.sleep(0.01)


def test_the_wait_doubles_from_a_second_to_thirty():
    backoff = Backoff()
    assert [backoff.after_crash(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_process_that_ran_well_for_a_minute_is_forgiven():
    backoff = Backoff()
    for _ in range(4):
        backoff.after_crash(0.1)
    assert backoff.after_crash(61) == 1
    assert backoff.after_crash(0.1) == 2


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_backoff_stays_between_first_and_ceiling(runs):
    """A wait is never shorter than the first nor longer than the ceiling."""
    backoff = Backoff()
    assert all(1 <= backoff.after_crash(ran_s) <= 30 for ran_s in runs)
