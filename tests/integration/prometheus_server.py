"""The real Prometheus, on this host."""

import json
import shutil
import socket
import urllib.error
import urllib.parse
import urllib.request

import pytest

from mesh import HOST, OPTIONS, PATIENCE, wait_until
from supervisor.process import Process

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="deploy/packages.sh install --tests brings prometheus"
)


def scrapes(ports):
    """A configuration that has programs at `ports` of this host scraped each second."""
    scrape = {"job_name": "expertmesh", "static_configs": [{"targets": [f"{HOST}:{port}" for port in ports]}]}
    return {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]}


class Prometheus:
    """Use as a context manager. config: what its file says; paths in it are relative to `folder`."""

    def __init__(self, folder, config):
        self.folder, self._config = folder, config
        with socket.socket() as found:
            found.bind((HOST, 0))
            self.port = found.getsockname()[1]

    def __enter__(self):
        (self.folder / "prometheus.yml").write_text(json.dumps(self._config))
        argv = [
            "prometheus",
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address={HOST}:{self.port}",
            "--enable-feature=exemplar-storage",
        ]
        self._process = Process("prometheus", argv, self.folder / "prometheus.log", **OPTIONS)
        self._process.spawn()
        return self

    def __exit__(self, *_):
        self._process.kill()

    def ask(self, path, **arguments):
        """None while it does not answer. Fails where the question is wrong."""
        url = f"http://{HOST}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            assert error.code == 503, f"{arguments}: {error.read().decode()}"
            return None
        except (urllib.error.URLError, ConnectionError):
            return None

    def values(self, query):
        found = self.ask("query", query=query) or {"result": []}
        return [float(series["value"][1]) for series in found["result"]]

    def wait_up(self, count):
        """Returns when all `count` programs were scraped."""
        wait_until(lambda: self.values("up") == [1.0] * count, "Prometheus scrapes all programs")
        faults = [target["lastError"] for target in self.ask("targets", state="active")["activeTargets"]]
        assert not any(faults)
