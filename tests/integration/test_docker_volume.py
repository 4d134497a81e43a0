"""Docker volumes on a real engine: quiesced, captured, put back, and left as they were whatever happens."""

import json
import threading
from pathlib import Path

import pytest

from pra_agent.cli.app import run
from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.docker_volume import DockerVolumeSettings
from pra_agent.sources.source import CaptureContext
from tests.support.agent import Agent
from tests.support.captures import MemoryState, put_back, take
from tests.support.docker_engine import Dockerd
from tests.support.process import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(300)]
WRITER = "i=0; while :; do i=$((i+1)); for f in a b; do echo $i >/data/t; mv /data/t /data/$f; done; done"


def _settings(dockerd: Dockerd, **more: object) -> DockerVolumeSettings:
    return DockerVolumeSettings.model_validate({"docker": dockerd.url, "stop_timeout": "1s", **more})


@pytest.fixture
def volume(dockerd: Dockerd):
    name = dockerd.docker("volume", "create", "--label", "tier=gold")
    dockerd.docker("volume", "inspect", name)
    yield name
    dockerd.remove(*dockerd.docker("ps", "-aq", "--filter", f"volume={name}").split())
    dockerd.docker("volume", "rm", "-f", name)


@pytest.fixture
def writer(dockerd: Dockerd, base_image: str, volume: str):
    return dockerd.run(
        base_image, "sh", "-c", WRITER, options=("-v", f"{volume}:/data", "-e", "DB_PASSWORD=hunter2hunter2")
    )


def _state(dockerd: Dockerd, name: str) -> str:
    return dockerd.docker("inspect", "-f", "{{.State.Status}}", name)


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_a_still_volume_is_consistent_and_its_user_comes_back(dockerd, volume, writer, tmp_path, how):
    state = MemoryState()
    for round_ in range(3):
        take(_settings(dockerd, volume=volume, quiesce=how).build(), tmp_path / str(round_), state=state)
        data = tmp_path / str(round_) / "docker/volumes" / volume
        # Two files written one after the other are at most one apart when nobody writes.
        assert int((data / "a").read_text()) - int((data / "b").read_text()) in (0, 1)
        assert _state(dockerd, writer) == "running"
    assert state.history
    assert not state.pending()
    facts = (tmp_path / "0/docker/facts.json").read_text()
    assert "hunter2" not in facts
    told = json.loads(facts)
    assert told["containers"][0]["name"] == writer
    assert told["places"][0]["facts"]["Labels"] == {"tier": "gold"}
    assert told["containers"][0]["image"]["built_here"] is True


def test_who_stood_still_before_is_left_alone(dockerd, volume, writer, tmp_path):
    dockerd.docker("pause", writer)
    take(_settings(dockerd, volume=volume, quiesce="stop").build(), tmp_path)
    assert _state(dockerd, writer) == "paused"
    dockerd.docker("unpause", writer)
    dockerd.docker("stop", "-t", "0", writer)
    take(_settings(dockerd, label="tier=gold", quiesce="pause").build(), tmp_path / "2")
    assert _state(dockerd, writer) == "exited"


def test_containers_never_wait_longer_than_the_limit(dockerd, volume, writer, tmp_path):
    source = _settings(dockerd, volume=volume, quiesce="pause", quiesce_limit="500ms").build()
    waited = threading.Event()
    state = MemoryState()
    context = CaptureContext(run="r", job="j", node="n", state=state)
    with source.capture(context) as capture:
        assert _state(dockerd, writer) == "paused"
        for _ in range(200):
            if _state(dockerd, writer) == "running":
                break
            waited.wait(0.1)
        list(capture.entries())
        with pytest.raises(SourceError, match="stood still"):
            capture.verify()
    assert not state.pending()


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_a_crash_is_undone_at_the_next_start(dockerd, volume, writer, tmp_path, how):
    state = MemoryState()
    source = _settings(dockerd, volume=volume, quiesce=how).build()
    entered = source.capture(CaptureContext(run="r", job="j", node="n", state=state))
    entered.__enter__()
    assert _state(dockerd, writer) in ("paused", "exited")
    left = MemoryState()
    left.now = dict(state.pending())
    _settings(dockerd, volume=volume, quiesce=how).build().undo(left)
    assert _state(dockerd, writer) == "running"
    assert not left.pending()
    entered.__exit__(None, None, None)


def test_put_back_into_a_live_service(dockerd, base_image, volume, tmp_path):
    command = "test -f /data/good && exec sleep infinity; exit 9"
    dockerd.docker(
        "run", "--rm", "-v", f"{volume}:/data", base_image, "sh", "-c", "echo 1 >/data/good; ln -s good /data/l"
    )
    service = dockerd.run(base_image, "sh", "-c", command, options=("-v", f"{volume}:/data"))
    source = _settings(dockerd, volume=volume).build()
    take(source, tmp_path)
    dockerd.docker("exec", service, "sh", "-c", "echo 2 >/data/good; echo x >/data/later")
    with pytest.raises(RefusedError, match="something in it"):
        put_back(source, tmp_path)
    assert any("would replace" in line for line in put_back(source, tmp_path, force=True, dry_run=True))
    done = put_back(source, tmp_path, force=True)
    assert any("running again" in line for line in done)
    assert dockerd.docker("exec", service, "sh", "-c", "cat /data/good /data/l; ls /data").split() == [
        "1",
        "1",
        "good",
        "l",
    ]


def test_what_does_not_recover_is_rolled_back(dockerd, base_image, volume, tmp_path):
    command = "test -f /data/good && exec sleep infinity; exit 9"
    bad = tmp_path / "bad"
    source = _settings(dockerd, volume=volume).build()
    take(source, bad)  # an empty volume
    dockerd.docker("run", "--rm", "-v", f"{volume}:/data", base_image, "sh", "-c", "echo 1 >/data/good")
    service = dockerd.run(base_image, "sh", "-c", command, options=("-v", f"{volume}:/data"))
    state = MemoryState()
    with pytest.raises(SourceError, match="do not recover"):
        put_back(source, bad, force=True, state=state)
    assert dockerd.docker("exec", service, "cat", "/data/good") == "1"
    assert not state.pending()
    where = dockerd.docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume)
    assert not [path.name for path in Path(where).parent.iterdir() if "pra-" in path.name]


def test_a_crash_amid_an_exchange_is_undone(dockerd, base_image, volume, tmp_path, monkeypatch):
    dockerd.docker("run", "--rm", "-v", f"{volume}:/data", base_image, "sh", "-c", "echo old >/data/f")
    service = dockerd.run(base_image, "sleep", "infinity", options=("-v", f"{volume}:/data"))
    source = _settings(dockerd, volume=volume).build()
    take(source, tmp_path)
    (tmp_path / "docker/volumes" / volume / "f").write_text("new")
    state = MemoryState()

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    # The process dies between the two renames' end and the service's start: nothing of its own clean-up runs.
    monkeypatch.setattr("pra_agent.sources.docker_volume.exchange._Containers.start", crash)
    monkeypatch.setattr("pra_agent.sources.exchange._roll_back", crash)
    with pytest.raises(Crash):
        put_back(source, tmp_path, force=True, state=state)
    monkeypatch.undo()
    assert _state(dockerd, service) == "exited"
    source.undo(state)
    assert not state.pending()
    assert dockerd.docker("exec", service, "cat", "/data/f") == "old"


def test_into_a_new_volume(dockerd, base_image, volume, writer, tmp_path):
    source = _settings(dockerd, volume=volume).build()
    take(source, tmp_path)
    fresh = f"{volume[:20]}-copy"
    try:
        put_back(source, tmp_path, options={"volume": volume, "as": fresh})
        seen = dockerd.docker("run", "--rm", "-v", f"{fresh}:/data", base_image, "ls", "/data")
        assert {"a", "b"} <= set(seen.split())
    finally:
        dockerd.docker("volume", "rm", "-f", fresh)


@pytest.mark.parametrize("name", ["../x", "/etc", "a b", "-rf", ""])
def test_dangerous_names_are_refused(name):
    with pytest.raises(ValueError, match=r"volume|exactly one"):
        DockerVolumeSettings.model_validate({"volume": name})


def test_what_is_not_there(dockerd, tmp_path):
    with pytest.raises(SourceError, match="not found"):
        take(_settings(dockerd, volume="no-such-volume").build(), tmp_path)
    with pytest.raises(SourceError, match="no Docker volume has the label"):
        take(_settings(dockerd, project="no-such-project").build(), tmp_path)


def test_what_no_job_protects_is_named_and_counted(dockerd, base_image, volume, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own-state"))
    lost = dockerd.docker("volume", "create")
    bind = tmp_path / "bind"
    bind.mkdir()
    options = ("-v", f"{lost}:/data", "-v", f"{bind}:/bind", "-v", "/etc/localtime:/etc/localtime:ro")
    user = dockerd.run(base_image, "sleep", "infinity", options=options)
    agent = Agent(tmp_path / "host")
    source = {"type": "docker_volume", "volume": volume, "docker": dockerd.url}
    agent.configure(jobs={"v": {"source": source}}, unprotected_ok=["[0-9a-f]*-none"])
    agent.init()
    try:
        run(["--config", str(agent.config), "--direct", "doctor"])
        said = " ".join(capsys.readouterr().out.split())
        assert f"volume {lost} is protected by no job" in said
        assert f"bind {bind} is protected by no job" in said
        assert f"volume: {lost}" in said.replace('"', "")
        assert f"volume {volume} is" not in said
        assert "localtime" not in said
        agent.configure(unprotected_ok=[lost])
        agent.start()

        def numbers() -> dict[str, float]:
            with agent.journal() as journal:
                return dict(journal.gauges("unprotected_resources"))

        wait_until(lambda: numbers() != {}, "the daemon's survey")
        assert numbers() == {"volume": 0, "bind": 1}
    finally:
        agent.stop()
        dockerd.remove(user)
        dockerd.docker("volume", "rm", "-f", lost)
