"""All errors on one page: a class is a kind of trouble, its exit code and its advice.

    PraError (1)
    |- UsageError (2)
    |  `- ConfigError (2)       file, line, key and a suggestion
    |     `- SecretError (2)    a secret that a reference names cannot be had
    |- PartialError (3)
    |- StorageError (1)
    |  |- NotFound (1)          the object is not there
    |  |- AlreadyExists (1)     an object of that name is there, and differs
    |  |- AccessDenied (1)      credentials or policy; trying again is no use
    |  |- StorageFull (1)
    |  `- TransientStorageError (1)  worth another try; what is left when retries end
    |     `- Throttled (1)    the store asks for fewer requests
    |- NoRepository (10)
    |- RepositoryExists (1)
    |- Locked (11)
    |  `- LockLost (11)
    |- WrongKey (12)
    |- DamagedError (1)         bytes that are not what they should be
    |- IdentityError (1)        the repository belongs to another host
    |- SourceError (1)          a source could not be captured or put back
    |  `- CommandError (1)      a child process failed, hung or could not be started
    |- SkippedError (0)         another agent does it
    |- RefusedError (1)         a guard said no; --force or another option would say yes
    |- RestoreError (1)
    |- DaemonUnreachable (1)    nobody listens at the socket
    `- Interrupted (130)        SIGINT or SIGTERM

The message is one line: what, where. `advice` is one sentence: what to do.
"""

from datetime import datetime


class PraError(Exception):
    """Something that the operator is told in one line, with an exit code and advice."""

    exit_code: int = 1
    advice: str = ""

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        if advice is not None:
            self.advice = advice

    @property
    def message(self) -> str:
        """The one line: what is wrong, and where."""
        return str(self.args[0]) if self.args else type(self).__name__


class UsageError(PraError):
    """The command line asks for what cannot be."""

    exit_code = 2
    advice = "See pra-agent --help."


class ConfigError(UsageError):
    """The configuration is wrong; the message starts with file:line."""

    advice = "Run pra-agent config check after the change."


class SecretError(ConfigError):
    """A secret that the configuration refers to cannot be read."""

    advice = "Check that the file or credential exists and that only its owner can read it."


class PartialError(PraError):
    """The run was completed, but some files are missing from it."""

    exit_code = 3
    advice = "See the list of files that failed; the snapshot has all the others."


class StorageError(PraError):
    """The store of the repository did not do what was asked."""

    advice = "Check the store (disk, network, credentials) and try again."


class NotFound(StorageError):
    """The object is not in the store."""


class AlreadyExists(StorageError):
    """Another object with that name is in the store."""


class AccessDenied(StorageError):
    """The store refuses these credentials, or its policy refuses the request."""

    advice = "Check the credentials and the policy of the store."


class StorageFull(StorageError):
    """The store has no room left."""

    advice = "Free some room (forget, prune) or enlarge the store, then run it again."


class TransientStorageError(StorageError):
    """The store failed in a way that may pass."""

    advice = "The store did not answer well, also after retries; try again later."


class Throttled(TransientStorageError):
    """The store asks for fewer requests."""

    advice = "Lower repository.limits.connections, or raise the store's own limits."


class NoRepository(PraError):
    """There is no repository at that place."""

    exit_code = 10
    advice = "Check the URL, or create the repository with pra-agent init."


class RepositoryExists(PraError):
    """There is a repository at that place already."""

    advice = "Use it as it is, or give another URL; nothing was changed."


class Locked(PraError):
    """Another process works on the repository."""

    exit_code = 11
    advice = "Wait until it has finished; pra-agent unlock clears locks of dead processes."


class LockLost(Locked):
    """Our own lock is gone, so the work stopped before anything was written under it."""

    advice = "Run it again; see who removed the lock (unlock, or another host)."


class WrongKey(PraError):
    """No key slot opens with this password."""

    exit_code = 12
    advice = "Check the password's file or credential; pra-agent key list shows the slots."


class DamagedError(PraError):
    """Stored bytes are not what they should be."""

    advice = "Run pra-agent check; pra-agent repair saves what can be saved."


class IdentityError(PraError):
    """The repository belongs to another host."""

    advice = "Use pra-agent adopt to take it over, or --as-node to read it."


class SourceError(PraError):
    """What a job protects could not be captured, or not be put back."""

    advice = "See the message of the source; the state before was put back."


class CommandError(SourceError):
    """A child process failed, hung, or could not be started."""

    advice = "Run the command by hand as the same user to see why."


class SkippedError(PraError):
    """Another agent does what was asked; `instant` is what its newest success stands for, None if it has none."""

    exit_code = 0

    def __init__(self, message: str, *, instant: datetime | None = None) -> None:
        super().__init__(message)
        self.instant = instant


class RefusedError(PraError):
    """A guard refused, so that nothing is lost by accident."""

    advice = "Read what would be lost; if that is wanted, say so with the option named above."


class RestoreError(PraError):
    """Something could not be restored."""

    advice = "Nothing that was restored before is lost; run the same command again to go on."


class DaemonUnreachable(PraError):
    """Nobody listens at the control socket."""

    advice = "Start it (systemctl start pra-agent), or use --direct to work without it."


class Interrupted(PraError):
    """The process was asked to stop."""

    exit_code = 130
    advice = "Run it again; finished work is kept."
