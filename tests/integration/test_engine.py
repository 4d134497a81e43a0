"""Commands inside containers: what ended well, and what only looks so."""

import threading
import time

import pytest

from pra_agent.errors import CommandError, Interrupted, SourceError
from pra_agent.sources.engine import Engine
from tests.support.docker_engine import Dockerd

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def container(dockerd, base_image):
    name = dockerd.run(base_image, "sleep", "infinity")
    yield name
    dockerd.remove(name)


@pytest.fixture
def engine(dockerd):
    with Engine(dockerd.url) as opened:
        yield opened


def test_output_and_exit_code(engine: Engine, container: str):
    ended = engine.run(container, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (ended.code, ended.stdout, ended.stderr) == (3, b"out\n", "err")


def test_the_first_bytes_are_never_lost(engine: Engine, container: str):
    for _ in range(20):
        assert engine.run(container, ["echo", "at once"]).stdout == b"at once\n"


def test_a_long_stream_is_whole(engine: Engine, container: str):
    with engine.stream(container, ["head", "-c", "50000000", "/dev/zero"]) as stream:
        assert sum(len(piece) for piece in iter(lambda: stream.read(1 << 18), b"")) == 50_000_000


def test_a_command_that_fails_after_its_output(engine: Engine, container: str):
    with (
        pytest.raises(CommandError, match="ended with 7: sorry"),
        engine.stream(container, ["sh", "-c", "echo half; echo sorry >&2; exit 7"]) as stream,
    ):
        assert stream.read() == b"half\n"


def test_a_name_is_never_a_command(engine: Engine, container: str):
    ended = engine.run(container, ["printf", "%s", "a; rm -rf / $(id) `id`"])
    assert ended.stdout == b"a; rm -rf / $(id) `id`"


def test_feeding_and_its_failures(engine: Engine, container: str, dockerd: Dockerd):
    with engine.feed(container, ["sh", "-c", "cat > /tmp/fed"]) as to:
        for _ in range(40):
            to.write(b"x" * 100_000)
    assert dockerd.docker("exec", container, "wc", "-c", "/tmp/fed").split()[0] == "4000000"
    with pytest.raises(CommandError), engine.feed(container, ["sh", "-c", "head -c 10 >/dev/null; exit 4"]) as to:
        for _ in range(100):
            to.write(b"y" * 1_000_000)


def test_left_early_the_command_is_ended(engine: Engine, container: str, dockerd: Dockerd):
    with pytest.raises(ValueError, match="enough"), engine.stream(container, ["cat", "/dev/zero"]) as stream:
        stream.read(1000)
        raise ValueError("enough")
    for _ in range(100):
        if "cat" not in dockerd.docker("exec", container, "ps", "-eo", "comm"):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the command goes on inside the container")


def test_hung_and_cancelled(engine: Engine, container: str):
    with (
        pytest.raises(CommandError, match="no byte"),
        engine.stream(container, ["sleep", "600"], idle_limit=1) as stream,
    ):
        stream.read()
    stop = threading.Event()
    stop.set()
    with (
        pytest.raises(Interrupted, match="stopped"),
        engine.stream(container, ["sleep", "600"], cancelled=stop) as stream,
    ):
        stream.read()


@pytest.mark.parametrize("victim", ["process", "container"])
def test_killed_in_mid_stream_is_never_a_whole(engine: Engine, dockerd: Dockerd, base_image: str, victim: str):
    name = dockerd.run(base_image, "sleep", "infinity")
    slow = ["sh", "-c", "while :; do head -c 10000 /dev/zero; sleep 0.05; done"]
    try:
        with pytest.raises(CommandError), engine.stream(name, slow) as stream:
            assert stream.read(20_000)
            if victim == "container":
                dockerd.docker("kill", name)
            else:
                dockerd.docker("exec", name, "pkill", "-9", "-f", "while :")
            while stream.read(1 << 16):
                pass
    finally:
        dockerd.remove(name)


def test_what_is_not_there(engine: Engine):
    with pytest.raises(SourceError, match="not found"):
        engine.inspect("no-such-container")
    with pytest.raises(SourceError, match="does not answer"):
        Engine("unix:///nonexistent/docker.sock")
