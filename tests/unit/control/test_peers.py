"""The kernel says who is there; the configured groups decide."""

import grp
import os
import socket

from pra_agent.control.peers import Access, Peer, Role, peer_of
from pra_agent.control.settings import ControlSettings

GROUP = grp.getgrall()[-1]


def access(run: tuple[str, ...] = (), read: tuple[str, ...] = ()) -> Access:
    return Access(ControlSettings(run=run, read=read))


def test_a_socket_pair_is_this_process() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)

    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.gids == {os.getegid(), *os.getgroups()}


def test_root_and_the_daemons_own_user_may_all() -> None:
    for uid in (0, os.geteuid()):
        assert access().roles(Peer(1, uid, frozenset())) == {Role.RUN, Role.READ}


def test_others_may_nothing_by_default() -> None:
    assert not access().roles(Peer(1, 12345, frozenset((0, GROUP.gr_gid))))


def test_a_group_may_what_it_was_given() -> None:
    member = Peer(1, 12345, frozenset((GROUP.gr_gid,)))

    assert access(run=(GROUP.gr_name,)).roles(member) == {Role.RUN}
    assert access(read=(GROUP.gr_name,)).roles(member) == {Role.READ}
    assert access(run=(GROUP.gr_name,)).groups == {GROUP.gr_gid}


def test_an_unknown_group_gives_nothing() -> None:
    assert not access(run=("no-such-group-here",)).groups
