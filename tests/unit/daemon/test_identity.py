"""A repository belongs to one node on one machine, until another one adopts it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pra_agent.daemon import identity
from pra_agent.errors import IdentityError
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.host import this_host

T0 = datetime(2026, 3, 1, tzinfo=UTC)
US = replace(this_host("web-1"), machine_id="1" * 32)
CLONE = replace(US, machine_id="2" * 32)
OTHER = replace(US, node="web-2")


def snapshot(host=US, hours: int = 0, tags: tuple[str, ...] = ("pra-agent",)) -> Snapshot:
    return Snapshot(
        time=T0 + timedelta(hours=hours),
        tree=b"",
        paths=(),
        hostname=host.node,
        tags=(*tags, *identity.machine_tags(host)),
        id="ab" * 32,
    )


def test_the_machine_id_itself_is_not_told():
    assert US.machine_id not in identity.machine_of(US)
    assert identity.machine_of(US) == identity.machine_of(OTHER)
    assert identity.machine_of(US) != identity.machine_of(CLONE)
    assert identity.machine_tags(replace(US, machine_id="")) == ()


def test_ours_is_confirmed_and_remembered(tmp_path):
    assert not identity.confirmed(US, tmp_path)
    identity.confirm([snapshot()], US, tmp_path)
    assert identity.confirmed(US, tmp_path)
    assert not identity.confirmed(CLONE, tmp_path)


def test_an_empty_repository_is_ours(tmp_path):
    identity.confirm([], US, tmp_path)
    assert identity.confirmed(US, tmp_path)


def test_what_other_tools_made_tells_nothing(tmp_path):
    identity.confirm([snapshot(CLONE, tags=())], US, tmp_path)


@pytest.mark.parametrize("host", [CLONE, OTHER], ids=["clone", "other node"])
def test_a_repository_of_another_is_refused(tmp_path, host):
    with pytest.raises(IdentityError, match="is used by"):
        identity.confirm([snapshot(host)], US, tmp_path)
    assert not identity.confirmed(US, tmp_path)


@pytest.mark.parametrize("host", [CLONE, OTHER], ids=["clone", "other node"])
def test_a_state_directory_that_was_copied_is_refused(tmp_path, host):
    identity.confirm([snapshot()], US, tmp_path)
    with pytest.raises(IdentityError, match="state directory"):
        identity.confirm([snapshot()], host, tmp_path)


def test_who_adopts_it_is_at_home_and_the_one_before_is_not(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    identity.confirm([snapshot()], US, ours)
    identity.adopt(CLONE, theirs, T0 + timedelta(hours=1))
    identity.confirm([snapshot()], CLONE, theirs)
    after = [snapshot(), snapshot(CLONE, hours=2)]
    identity.confirm(after, CLONE, theirs)
    with pytest.raises(IdentityError):
        identity.confirm(after, US, ours)
    # The one before, alive still, saves once more: now the new one must look.
    with pytest.raises(IdentityError):
        identity.confirm([*after, snapshot(US, hours=3)], CLONE, theirs)


def test_a_broken_memory_is_none(tmp_path):
    (tmp_path / "identity.json").write_text("{")
    identity.confirm([snapshot()], US, tmp_path)
    assert identity.confirmed(US, tmp_path)
