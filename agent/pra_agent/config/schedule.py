"""When a job is due: a cron expression, or an interval; and how often everything is read again."""

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema, field_validator, model_validator

from pra_agent.config.cron import Cron
from pra_agent.units import Duration, format_duration

MIN_INTERVAL = timedelta(minutes=1)


def check_timezone(name: str) -> str:
    """Return a known zone's name. Raises ValueError."""
    if name not in available_timezones():
        raise ValueError(f"unknown time zone {name!r}; write it like UTC or Europe/Paris")
    return name


class Schedule(BaseModel):
    """Exactly one of `cron` and `every`. `timezone` belongs to cron; None means the configuration's zone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str | None = None
    every: Duration | None = None
    timezone: str | None = None

    @field_validator("cron")
    @classmethod
    def _cron_is_good(cls, value: str | None) -> str | None:
        if value is not None:
            Cron.parse(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, value: str | None) -> str | None:
        return value if value is None else check_timezone(value)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise ValueError('write either a cron expression ("0 * * * *") or {every: 1h}')
        if self.every is not None and self.every < MIN_INTERVAL:
            raise ValueError(f"an interval of at least {format_duration(MIN_INTERVAL)}")
        return self

    def next_after(self, instant: datetime, zone: str = "UTC") -> datetime:
        """The first fire strictly after an instant, in UTC; an interval counts from the instant itself."""
        if self.every is not None:
            return instant + self.every
        return Cron.parse(self.cron or "").next_after(instant, ZoneInfo(self.timezone or zone))

    def largest_gap(self, zone: str = "UTC") -> timedelta:
        """The longest time between two fires."""
        if self.every is not None:
            return self.every
        return Cron.parse(self.cron or "").largest_gap(ZoneInfo(self.timezone or zone))

    def __str__(self) -> str:
        if self.every is not None:
            return f"every {format_duration(self.every)}"
        return f"{self.cron} ({self.timezone})" if self.timezone else str(self.cron)


def _schedule(value: object) -> object:
    return Schedule(cron=value) if isinstance(value, str) else value


ScheduleField = Annotated[
    Schedule,
    BeforeValidator(_schedule),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": ["0 * * * *", "@daily"]},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "cron": {"type": "string"},
                        "every": {"type": "string", "examples": ["1h"]},
                        "timezone": {"type": "string", "examples": ["Europe/Paris"]},
                    },
                },
            ]
        }
    ),
]

Full = Literal["always", "daily", "weekly", "monthly", "never"]
_FULL_EVERY = {
    "always": timedelta(0),
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
    "monthly": timedelta(days=30),
    "never": None,
}


def full_every(full: Full) -> timedelta | None:
    """How old the newest run that read every byte may be; None: metadata is always trusted."""
    return _FULL_EVERY[full]
