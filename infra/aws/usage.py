"""What a month is assumed to bring: requests, bytes, rows. Pure but for `load`.

A plan says how many servers there are and nothing of how much they are used; what depends on use
is priced for these assumptions, which every estimate shows. `--usage FILE` has others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from runtime.errors import Invalid

HOURS = 730.0
"""Hours of a month, as AWS' own estimates count them."""
SECONDS = HOURS * 3600


@dataclass(frozen=True)
class Usage:
    """Averages over a month; a busy hour is several times as much.

    The default is a tenth of the 10 000 requests a second that 100 000 users make at their peak,
    on average through day and night. Gigabytes of databases and of what AWS charges for their
    backups (beyond the free copy) are of each global database in each region, those of objects,
    images and the control plane's database of all together.
    """

    requests_per_second: float = 1000.0
    response_kilobytes: float = 4.0
    written_share: float = 0.1
    database_gigabytes: float = 100.0
    database_ios_per_request: float = 1.0
    written_kilobytes: float = 8.0
    object_gigabytes: float = 500.0
    backup_gigabytes: float = 300.0
    control_gigabytes: float = 5.0
    image_gigabytes: float = 5.0
    log_bytes_per_request: float = 300.0
    outside_kilobytes_per_write: float = 4.0
    uncached_share: float = 0.9

    @property
    def requests(self) -> float:
        """Millions in a month."""
        return self.requests_per_second * SECONDS / 1e6

    @property
    def writes(self) -> float:
        """Millions of requests in a month that write."""
        return self.requests * self.written_share

    def document(self) -> dict[str, Any]:
        return {_camel(name): value for name, value in asdict(self).items()}


def load(path: Path) -> Usage:
    """The assumptions in a YAML file; what it leaves out is as usual. Raises `Invalid`."""
    names = {_camel(field.name): field.name for field in fields(Usage)}
    hint = f"known: {', '.join(names)}"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Invalid(f"{path} cannot be read: {error}.", hint=hint) from error
    if not isinstance(given, dict) or not names.keys() >= given.keys():
        raise Invalid(f"{path} has other things than assumptions about use.", hint=hint)
    wrong = [key for key, value in given.items() if type(value) not in (int, float) or value < 0]
    if wrong:
        raise Invalid(f"{path}: {', '.join(wrong)} must be a number, 0 or more.", hint=hint)
    return Usage(**{names[key]: float(value) for key, value in given.items()})


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
