"""A judged load run as JUnit XML: a suite for the SLO file, a case for each gate. Pure."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

JSON = Mapping[str, Any]
# XML 1.0 has no characters for these at all.
UNSPEAKABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(run: JSON) -> str:
    """A gate that is not met is a failure, one that cannot be judged an error; and so is the case
    `measurement` of an invalid run."""
    suite = TestSuite(_clean(f"load.{run['profile']}.{run.get('slo') or 'no-gates'}"))
    suite.timestamp = run["startedAt"]
    measurement = TestCase("measurement", suite.name)
    measurement.time = float(run["plan"]["seconds"])
    if not run["validity"]["valid"]:
        because = _clean("; ".join(run["validity"]["because"]))
        measurement.result = [Error(because, "MeasurementVoid")]
    suite.add_testcase(measurement)
    for gate in run["gates"]:
        where = "".join(f" {key}={value}" for key, value in gate["where"].items())
        case = TestCase(_clean(f"{gate['metric']}{where}"), suite.name)
        if gate["met"] is None:
            case.result = [Error(_clean(gate["because"]), "TooLittleMeasured")]
        elif not gate["met"]:
            case.result = [Failure(_clean(gate["because"]), "SloBreach")]
        suite.add_testcase(case)
    document = JUnitXml("regionctl load")
    document.add_testsuite(suite)
    out = io.BytesIO()
    document.write(out, pretty=True)
    return out.getvalue().decode()


def _clean(text: str) -> str:
    return UNSPEAKABLE.sub("\ufffd", text)
