"""List prices: one dated file, every row with its source. Pure but for `load`.

A row is `{sku, region, unit, usd, source, date}`, with `above` when it holds for what a month has
beyond that quantity. A sku without a row has no price, and whoever asks is told so: never 0.
A region without rows of its own may be priced as another one (`sameAs`), which is an assumption
that every line resting on it says.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from runtime.errors import Invalid

BUILT_IN = Path(__file__).parent / "prices" / "us.json"


@dataclass(frozen=True)
class Price:
    """`usd` for one `unit`, of what a month has beyond `above` units."""

    sku: str
    region: str
    unit: str
    usd: float
    source: str
    date: str
    above: float = 0.0

    def document(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "sku": self.sku,
            "region": self.region,
            "unit": self.unit,
            "usd": self.usd,
        }
        if self.above:
            row["above"] = self.above
        return {**row, "source": self.source, "date": self.date}


@dataclass(frozen=True)
class SameAs:
    """`region` is priced as `other`, for the reason that `source` gives."""

    region: str
    other: str
    source: str
    date: str


class Prices:
    """The rows of a file. Raises `Invalid` for tiers that do not begin at 0 or do not rise."""

    def __init__(self, rows: Sequence[Price], same_as: Sequence[SameAs] = ()) -> None:
        self.rows = tuple(rows)
        self.same_as = {each.region: each for each in same_as}
        self._tiers: dict[tuple[str, str], list[Price]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.above):
            self._tiers[row.sku, row.region].append(row)
        for (sku, region), tiers in self._tiers.items():
            rises = all(one.above < two.above for one, two in pairwise(tiers))
            if tiers[0].above != 0 or not rises:
                raise Invalid(f"The price tiers of {sku} in {region} do not rise from 0.")

    def tiers(self, sku: str, region: str) -> tuple[Price, ...]:
        """The rows of a sku in a region or the one that it is priced as; none: there is no price.

        What is sold worldwide has its rows under the region "global".
        """
        other = self.same_as[region].other if region in self.same_as else region
        for place in (region, other, "global"):
            if (sku, place) in self._tiers:
                return tuple(self._tiers[sku, place])
        return ()

    @property
    def oldest(self) -> str:
        return min((row.date for row in self.rows), default="")

    @property
    def newest(self) -> str:
        return max((row.date for row in self.rows), default="")


def load(path: Path = BUILT_IN) -> Prices:
    """The prices in a file. Raises `Invalid`, naming the file and the row."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [_row(each) for each in document["prices"]]
        same = [
            SameAs(each["region"], each["as"], each["source"], each["date"])
            for each in document.get("sameAs", ())
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{path} is no price file: {error!r}.", hint=f"such as {BUILT_IN}") from error
    return Prices(rows, same)


def _row(given: Mapping[str, Any]) -> Price:
    price = Price(
        sku=given["sku"],
        region=given["region"],
        unit=given["unit"],
        usd=float(given["usd"]),
        source=given["source"],
        date=given["date"],
        above=float(given.get("above", 0.0)),
    )
    if not price.source or not price.date or price.usd < 0:
        raise ValueError(f"a price without source, date or with a negative amount: {given}")
    return price


def text(document: Mapping[str, Any]) -> str:
    """A price file as it is kept: one row a line, so that a refresh is a readable diff."""
    head = {key: value for key, value in document.items() if key != "prices"}
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in document["prices"])
    before = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{before},\n "prices": [\n{rows}\n ]\n}}\n'
