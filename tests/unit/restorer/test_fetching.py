"""A bad blob costs only itself, whether the reader names it or not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest

from pra_agent.errors import DamagedError, StorageError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.snapshots import Snapshot
from pra_agent.restorer.fetching import fetch

HANDLES = [BlobHandle(BlobType.DATA, bytes([number]) * 32) for number in range(40)]


class Reader:
    """Gives each handle's first byte, and breaks at the bad ones; forgets the lost ones."""

    def __init__(self, bad: Iterable[BlobHandle] = (), *, named: bool = True, lost: Iterable[BlobHandle] = ()) -> None:
        self.bad, self.lost, self.named = set(bad), set(lost), named
        self.given: list[BlobHandle] = []
        self.open = 0

    def snapshots(self) -> Sequence[Snapshot]:
        return []

    def sizes(self, handles: Iterable[BlobHandle]) -> Mapping[BlobHandle, int]:
        return dict.fromkeys(handles, 1)

    def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        self.open += 1
        try:
            for handle in sorted(handles):
                if handle in self.bad:
                    raise DamagedError(f"blob {handle} in pack {'0' * 64}: broken" if self.named else "broken")
                if handle not in self.lost:
                    self.given.append(handle)
                    yield handle, handle.id[:1]
        finally:
            self.open -= 1


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("bad", [[], [0], [39], [3, 4, 5, 20], list(range(40))])
def test_the_good_come_and_the_bad_are_told(bad: list[int], named: bool):
    reader = Reader([HANDLES[number] for number in bad], named=named)
    got = list(fetch(reader, HANDLES))
    assert sorted(handle for handle, _ in got) == HANDLES
    assert {handle.id[0] for handle, data in got if isinstance(data, DamagedError)} == set(bad)
    assert len(reader.given) == len(set(reader.given)) == 40 - len(bad)


def test_what_is_not_delivered_is_damage():
    got = dict(fetch(Reader(lost=HANDLES[:2]), HANDLES[:4]))
    assert [isinstance(got[handle], DamagedError) for handle in HANDLES[:4]] == [True, True, False, False]


def test_giving_up_in_the_middle_ends_the_read():
    reader = Reader()
    blobs = fetch(reader, HANDLES)
    next(blobs)
    assert reader.open == 1
    blobs.close()
    assert reader.open == 0


def test_other_errors_pass():
    class Broken(Reader):
        def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:  # noqa: ARG002 - the contract
            raise StorageError("the store is gone")

    with pytest.raises(StorageError):
        list(fetch(Broken(), HANDLES))
