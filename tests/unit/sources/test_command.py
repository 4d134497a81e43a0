"""Child processes: what they get, how they end, and that nothing of them stays."""

import io
import os
import sys
import time
from pathlib import Path
from threading import Event, Timer

import pytest

from pra_agent.errors import CommandError, Interrupted
from pra_agent.sources.command import Terms, run, stream


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie that its new parent has not reaped yet counts)."""
    for _ in range(3000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def test_output_and_status():
    done = run(["sh", "-c", "echo out; echo err >&2"], timeout=30)
    assert (done.status, done.stdout, done.stderr, done.text) == (0, b"out\n", "err", "out\n")


def test_more_than_a_pipe_holds_in_both_directions():
    data = os.urandom(1 << 20)
    assert run(["cat"], timeout=30, input=data).stdout == data
    assert run(["cat"], timeout=30, stdin=io.BytesIO(data)).stdout == data


def test_no_input_is_the_end_of_input():
    assert run(["cat"], timeout=30).stdout == b""


def test_a_failure_tells_status_and_the_last_lines():
    script = "for n in 1 2 3 4 5 6 7; do echo line $n >&2; done; exit 7"
    with pytest.raises(CommandError, match=r"exit status 7: line 3 \| line 4 \| line 5 \| line 6 \| line 7$"):
        run(["sh", "-c", script], timeout=30)


def test_other_statuses_may_be_success():
    assert run(["sh", "-c", "exit 3"], Terms(30, ok=(0, 3))).status == 3


def test_a_signal_is_named():
    with pytest.raises(CommandError, match="killed by SIGTERM"):
        run(["sh", "-c", "kill -TERM $$"], timeout=30)


def test_a_program_that_is_not_there():
    with pytest.raises(CommandError, match="pra-agent-no-such-program: cannot be started: No such file"):
        run(["pra-agent-no-such-program"], timeout=30)


def test_no_shell_sees_the_arguments():
    assert run(["echo", "$HOME; echo x", "`id`"], timeout=30).text == "$HOME; echo x `id`\n"


def test_secrets_of_the_environment_are_blotted_out():
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "echo login with $SECRET failed >&2; exit 1"], timeout=30, env={"SECRET": "hunter22"})
    assert "hunter22" not in str(caught.value)
    assert "login with *** failed" in str(caught.value)


def test_arguments_are_not_in_messages():
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "exit 1", "data of somebody"], timeout=30)
    assert "data of somebody" not in str(caught.value)


def test_the_environment_of_the_agent_stays_here(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for children")
    environment = run(["env"], timeout=30, env={"MYSQL_PWD": "for this child"}).text
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert "MYSQL_PWD=for this child" in environment
    assert "PATH=" in environment


def test_no_descriptors_are_inherited(tmp_path):
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        listed = run(["ls", "/proc/self/fd"], timeout=30).text.split()
    assert set(listed) <= {"0", "1", "2", "3"}  # 3 is what ls reads


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(CommandError, match=r"it took longer than 0\.5 s"):
        run(["sh", "-c", f'sleep 1000 & echo $! > "{note}"; wait'], timeout=0.5)
    assert gone(int(note.read_text()))


def test_what_a_command_leaves_behind_is_ended(tmp_path):
    note = tmp_path / "pid"
    done = run(["sh", "-c", f'sleep 1000 & echo $! > "{note}"; echo done'], timeout=60)
    assert done.stdout == b"done\n"
    assert gone(int(note.read_text()))


def test_too_much_output():
    with pytest.raises(CommandError, match="it says more than 1000 bytes"):
        run(["cat", "/dev/zero"], Terms(30, max_output=1000))


def test_cancelled():
    stop = Event()
    timer = Timer(0.2, stop.set)
    timer.start()
    with pytest.raises(Interrupted):
        run(["sleep", "1000"], Terms(60, cancelled=stop))
    timer.join()


def test_an_error_of_the_input_is_raised():
    class Broken:
        def read(self, size: int = -1, /) -> bytes:  # noqa: ARG002 - the contract
            raise ValueError("the input broke")

    with pytest.raises(ValueError, match="the input broke"):
        run(["cat"], timeout=30, stdin=Broken())


def test_a_stream_gives_all():
    with stream(["head", "-c", "1000000", "/dev/zero"], timeout=30) as output:
        assert output.read() == bytes(1_000_000)


@pytest.mark.parametrize("script", ["echo all; exit 1", "echo all; kill -9 $$"])
def test_a_stream_that_failed_is_not_the_whole(script):
    with pytest.raises(CommandError), stream(["sh", "-c", script], timeout=30) as output:
        assert output.read() == b"all\n"


def test_a_stream_that_was_not_read_to_its_end():
    with pytest.raises(CommandError, match="was not read to the end"), stream(["yes"], timeout=30) as output:
        output.read(10)


def test_a_stream_that_hangs():
    with (
        pytest.raises(CommandError, match="took longer"),
        stream(["sh", "-c", "echo x; sleep 1000"], timeout=0.5) as output,
    ):
        assert output.read() == b"x\n"


def test_a_stream_that_is_cancelled():
    stop = Event()
    with pytest.raises(Interrupted), stream(["sh", "-c", "echo x; sleep 1000"], Terms(60, cancelled=stop)) as output:
        assert output.read(2) == b"x\n"
        stop.set()
        output.read()


def test_an_exception_in_the_context_goes_on_and_ends_the_command(tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(KeyError), stream(["sh", "-c", f'echo $$ > "{note}"; echo x; sleep 1000'], timeout=60) as output:
        output.read(2)
        raise KeyError("ours")
    assert gone(int(note.read_text()))


def test_a_command_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("pra_agent.sources.command._GRACE", 0.2)
    note = tmp_path / "pid"
    with (
        pytest.raises(KeyError),
        stream(["sh", "-c", f"trap '' TERM; echo $$ > '{note}'; echo x; sleep 1000"], timeout=60) as output,
    ):
        output.read(2)
        raise KeyError("ours")
    assert gone(int(note.read_text()))


def test_a_stream_can_be_fed():
    with stream(["tr", "a-z", "A-Z"], timeout=30, stdin=io.BytesIO(b"text")) as output:
        assert output.read() == b"TEXT"


def test_a_timeout_is_needed():
    with pytest.raises(ValueError, match="needs a timeout"):
        run(["true"])


def test_no_ambient_capabilities_reach_a_child():
    """A child of a thread that has one is asked; the thread is another process's, so that nothing of it stays here."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    code = """
import ctypes, struct
from pra_agent.sources.command import Terms, run
libc = ctypes.CDLL(None)
header = struct.pack("<Ii", 0x20080522, 0)
data = bytearray(24)
h = ctypes.create_string_buffer(header); d = ctypes.create_string_buffer(24)
assert libc.capget(h, d) == 0
words = list(struct.unpack("<6I", d.raw)); words[2] |= 1 << 2
assert libc.capset(h, ctypes.create_string_buffer(struct.pack("<6I", *words), 24)) == 0
assert libc.prctl(47, 2, 2, 0, 0) == 0
show = ["grep", "CapAmb", "/proc/self/status"]
print(run(show, timeout=30).text.split()[1], run(show, Terms(30, capabilities=True)).text.split()[1])
print(open("/proc/self/status").read().split("CapAmb:")[1].split()[0])
"""
    done = run(
        [sys.executable, "-c", code],
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    without, with_, own = done.text.split()
    assert int(without, 16) == 0
    assert int(with_, 16) == int(own, 16) == 1 << 2
