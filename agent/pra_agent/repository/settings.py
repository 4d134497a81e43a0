"""Settings of a repository that an operator may change; the rest is the format's."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

MIB = 1 << 20


class ScryptCost(BaseModel):
    """What opening a key slot costs; the default is about half a second and 32 MiB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(default=1 << 15, ge=128, description="scrypt's N, a power of two")
    r: int = Field(default=8, ge=1)
    p: int = Field(default=6, ge=1)

    @field_validator("n")
    @classmethod
    def _is_power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two")
        return value


class Settings(BaseModel):
    """How packs and indexes are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pack_size: int = Field(default=16 * MIB, ge=4 * MIB, le=128 * MIB, description="size at which a pack is closed")
    open_packs: int = Field(default=2, ge=1, le=8, description="data packs filled at random side by side")
    compression: int = Field(default=3, ge=1, le=19, description="zstd level (with 2 or 3, blobs up to 64 KiB take 1)")
    index_blobs: int = Field(default=50_000, ge=1, description="blobs after which an index file is written")
    index_seconds: float = Field(default=300.0, gt=0, description="seconds after which an index file is written")
    upload_memory: int = Field(default=48 * MIB, ge=16 * MIB, description="bytes of finished packs under way")
    read_memory: int = Field(default=64 * MIB, ge=16 * MIB, description="bytes of ranges read ahead")
    cache_size: int = Field(default=1 << 30, ge=0, description="bytes of index, snapshot and tree files kept locally")
    scrypt: ScryptCost = ScryptCost()
