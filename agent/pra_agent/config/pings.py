"""Where a job tells from outside that it runs: a dead man's switch in the manner of healthchecks."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _address(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError(f"{value!r} is no address; write it like https://ping.example.org/ID")
    return value.rstrip("/")


Address = Annotated[str, BeforeValidator(_address)]


class PingSettings(BaseModel):
    """Addresses that are asked (POST) when a backup begins and ends. `url` alone stands for all three."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Address | None = Field(default=None, description="The check's address; start and fail are below it.")
    start: Address | None = Field(default=None, description="When a run begins; `url`/start when left out.")
    success: Address | None = Field(default=None, description="After a good run; `url` when left out.")
    fail: Address | None = Field(default=None, description="After any other; `url`/fail when left out.")

    @property
    def at_start(self) -> str | None:
        """What to ask when a run begins."""
        return self.start or self._below("/start")

    @property
    def at_success(self) -> str | None:
        """What to ask after a run whose data counts."""
        return self.success or self._below("")

    @property
    def at_failure(self) -> str | None:
        """What to ask after any other run."""
        return self.fail or self._below("/fail")

    def _below(self, path: str) -> str | None:
        return f"{self.url}{path}" if self.url is not None else None
