"""A real SeaweedFS with the S3 API for tests, on free ports of the loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.ports import free_port

KEY, SECRET = "test-key", "test-secret"
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]


@dataclass
class Seaweed:
    """Master, volume, filer and S3 gateway in one process."""

    root: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        for folder in ("data", "etc"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        credentials = [{"accessKey": KEY, "secretKey": SECRET}]
        identity = {"name": "app", "credentials": credentials, "actions": ACTIONS}
        (self.root / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.root / "etc/master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        database = self.root / "data/filer.db"
        (self.root / "etc/filer.toml").write_text(
            f'[sqlite]\nenabled = true\ndbFile = "{database}"\n'
        )
        self._ports = [free_port() for _ in range(7)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers."""
        master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3_rpc = self._ports
        options = [
            f"-dir={self.root}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-master.port.grpc={master_rpc}", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false",
            "-master.electionTimeout=1s",
            f"-volume.port={volume}", f"-volume.port.grpc={volume_rpc}", "-volume.max=16",
            "-volume.preStopSeconds=0",
            "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_rpc}",
            f"-filer.localSocket={self.root}/filer.sock",
            "-s3", f"-s3.port={self.port}", f"-s3.port.grpc={s3_rpc}", "-s3.port.iceberg=0",
            "-s3.port.lance=0", f"-s3.config={self.root}/s3.json", "-s3.iam=false",
            f"-s3.localSocket={self.root}/s3.sock", "-s3.autoCreateBucket=false",
        ]  # fmt: skip
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "weed"), "-logtostderr=true",
                    f"-config_dir={self.root}/etc", "server", *options,
                ],
                stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "2"},
            )  # fmt: skip
        deadline = time.monotonic() + 40
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.root / "log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(20)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False, timeout=1).status_code == 200
        except httpx.HTTPError:
            return False
