"""What the C library and the kernel offer and Python does not: a few calls, by ctypes. Linux only."""

import ctypes
import os
from functools import cache

_PR_SET_PDEATHSIG = 1
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, signal: int) -> None:
    """Have the kernel send `signal` to this process when the thread that forked it ends.

    `parent` is the pid that forked us: when it is gone already, this raises ProcessLookupError. Raises OSError.
    """
    _prctl(_PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        raise ProcessLookupError(parent)


def drop_ambient_capabilities() -> None:
    """Take the ambient capabilities from the calling thread, and so from programs that it starts. Raises OSError."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def trim_memory() -> None:
    """Give free memory of the C library's heap back to the system, where the C library can do that."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    if _libc().prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
