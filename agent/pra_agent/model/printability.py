"""Which characters Go calls printable (strconv.IsPrint): the Unicode 15 of Go 1.21 to 1.26.

Python's `str.isprintable` asks the same question of another Unicode version in each release, and names in a tree must
not depend on the interpreter, so the answer is carried along: the code points at which it changes, as differences in
7-bit groups (the lowest first, the high bit says that more follow), deflated, base64.
"""

import base64
import zlib
from bisect import bisect_right
from functools import cache

_CHANGES = (
    "eNpVVFuIVVUY5vvXvy577X32njNz5pwz5z7DXPScuTiOzowz06SZ03hJCkuTQoM0oR7yQQiKJETyIQuiKCgwIumhh7CXSiGR6AJZ"
    "4INJDxUSUU9FT1Jv/esMRq291/Vf//df9vfv1uGhBF9rMmwBFPCSwihtJIU5V2WTL+IKsIEW6Wi6SNOUoUZArJvRLrwDOCIqQhQV"
    "UyRrdmCCpgHRN7wmo/CIkpa9UrAM2LxXiKCwJtfkZa0IGVNiraxv4wZZwFVWdXF7PcEICMtlgJQAqoR1OBEB0n6dE+0Seiigs6WA"
    "SkzeFrvnPuCtSQyJjthNgsYMgr89VJG5V5XFN5CVa0asOONJJQtcHwk2NcoylkjLaOGJW6sY5jEMI0Nu5MvuDfo7YId0Mq2XPvjv"
    "LsMWGbdTS1XMfnHheY2aOmiLUTkqdB2h5BB5402K2By0Hb3im0g4Yag26XicKyZWy7QNdYrDLWpO36umcMItqUwt2Q7FrqNfZ0Ee"
    "le6w1pq0WbxLyaBPvkuUL7upPFEVOTWYDWZnwW/ogbj/tZRa+JH0RDeEeUtpObL4/3NyqIKDyQ1UEn0n9tMx3cEhPJBM4fdfoOai"
    "H6jwCdxVSXLIQ3lReTPvVlxiTsQNtRcxD2IuSsnTsXLNG/HQdC0s8UkJ+vyBpMTTp+/6g+iJUZtoXUFIcqDPcz2fKpq1aLXNDPrA"
    "rHEGfBmqiyEkEJQcUYKKSIVGlA49qxVPqIckRkxNnkJdTWc1Ho4auqMbGOG0fQ5ic5iHeZ3bFCeSn8C2eG3e/jFFRe/KBm1EO4Qp"
    "GBeygUpYddEGMaEHVVVj6zwXaKPsnHy5Oin2NrJbW2OcRLOqTlVdsZzY+3bOzeRm7KTz71FTABXR7o5rFyujtUIp2itOLUPnBqw3"
    "m9HrxqJHUYh7MbXcZYz4E5tF7Q3/tyaEd1ITgfHaCk/1i3gEurEqFjBLo0M7Ym9yfQvGz1Yp49JFLB3ZlzhJpBPlhhRjEvkVR5MU"
    "V1fdvtxO628J4yeQ+rpqiY10Z7AyrkLyI+eNkXlEurH+IxqweaxXtf3INubeso8/BR1/jm8Kj+UuuJ7i+82v+OL2i2yb8Hw/vGmQ"
    "8Svei9v9uu+Cfvjobt5i81t1TOlfU+5G1I5+28HdoN6V4qhLTCm7s+p075M6pyIr9XVzeJJK0YmlW/BjtMsd7195ppAUkgPRwBk8"
    "iHvCryX8eJB0C3KblJeTuSapE/YIMa4TnSe6rDON7JprGvOdiPPUzaNeHsTxCSWMZLpCzfyCxjXV/lVb0RYa4QtQz/o9LNJXzN17"
    "7vhMjqsiCK+XtTSzNiGUbvf8dgu7EBh3L3jktRKH8pvoZRrnI0km0WYY8R9gvp4b50iqzbyJ7y3nVU49zYeNlHyW8Lxkf51rEO29"
    "TklKISWTsC4Vhci+CsyN+BfczW+pdallfgKdmkg/XHi7fI5/jq+O6puta5c6f+IfBA2NZA=="
)


@cache
def _changes() -> list[int]:
    changes: list[int] = []
    at = value = shift = 0
    for byte in zlib.decompress(base64.b64decode(_CHANGES)):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            at += value
            changes.append(at)
            value = shift = 0
    return changes


def is_printable(char: str) -> bool:
    """Tell whether Go's strconv.Quote leaves this character as it is."""
    return bisect_right(_changes(), ord(char)) % 2 == 1
