"""Runs the router under test as a process of its own, as a user would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Coroutine, Mapping, TypeVar

from myelin_quic import Credentials

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 20.0
"""Usually well below a second; on a loaded machine the last closes linger, and draining is bounded by 30 s anyway."""
TEST_TIMEOUT_S = 9.5
COMMAND_TIMEOUT_S = 60.0

T = TypeVar("T")


def run(test: Coroutine[object, object, T], timeout_s: float = TEST_TIMEOUT_S) -> T:
    """Runs a test's coroutine, bounded in time."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout_s):
            return await test

    return asyncio.run(bounded())


def binary() -> str:
    """The router's binary; that it is missing is a failure, never a reason to skip."""
    path = os.environ.get("MYELIN_BIN")
    assert path, "MYELIN_BIN must be the path of the router's binary, for example target/debug/myelin"
    assert os.access(path, os.X_OK), f"MYELIN_BIN is {path}, which cannot be run: build it by `cargo build -p myelin`"
    return path


def output(command: subprocess.Popen[str]) -> str:
    """What a command prints; asserts that it ends well."""
    try:
        out, err = command.communicate(timeout=COMMAND_TIMEOUT_S)
    finally:
        command.kill()
    assert command.returncode == 0, f"exit code {command.returncode}:\n{out}\n{err}"
    return out


class Router:
    """A running `myelin serve`: with `--dev`, or with the certificates in `tls`; `variables` are further keys of the
    configuration, such as MYELIN_NODE__SITE."""

    def __init__(self, directory: Path, *, tls: Credentials | None = None,
                 variables: Mapping[str, str] | None = None) -> None:
        self._log = directory / "router.log"
        ready = directory / "ready.json"
        data = directory / "data"
        command = [binary(), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                   "--data-dir", str(data), "--ready-file", str(ready)]
        environment = dict(os.environ) | dict(variables or {})
        if tls is None:
            command.append("--dev")
        else:
            environment |= {"MYELIN_TLS__CERT": str(tls.certificate), "MYELIN_TLS__KEY": str(tls.key),
                            "MYELIN_TLS__CA": str(tls.ca),
                            "MYELIN_ADMIN__IDENTITIES": "spiffe://python.test/service/ops"}
            # The site of the certificates that tests issue.
            environment.setdefault("MYELIN_NODE__SITE", "hamburg")
            # What clients can do is tested here, not who may; `variables` can say otherwise.
            environment.setdefault("MYELIN_POLICY__DEFAULT", "allow")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
                                            env=environment)
        try:
            told = self._wait_ready(ready)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        host, port = told["client_addr"].rsplit(":", 1)
        self.address = (host.strip("[]"), int(port))
        self.admin = told["admin_addr"]
        self._data = data
        self.certificates = data / "dev"
        self.credentials = Credentials(self.certificates / "ca.pem", self.certificates / "client.pem",
                                       self.certificates / "client-key.pem")

    def _wait_ready(self, ready: Path) -> dict[str, str]:
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            assert self.process.poll() is None, f"the router ended at its start:\n{self.log()}"
            try:
                return json.loads(ready.read_text())
            except (FileNotFoundError, json.JSONDecodeError):  # not there, or half written
                time.sleep(0.02)
        raise AssertionError(f"the router was not ready in {START_TIMEOUT_S} s:\n{self.log()}")

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command of `myelin` at this router."""
        environment = os.environ | {"MYELIN_ADMIN": f"http://{self.admin}", "MYELIN_NODE__DATA_DIR": str(self._data),
                                    "MYELIN_ADDR": "{}:{}".format(*self.address)}
        return subprocess.Popen([binary(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=environment)

    def myelin(self, *arguments: str) -> str:
        """Runs such a command, asserts that it went well, and returns what it printed."""
        return output(self.command(*arguments))

    def get(self, path: str) -> str:
        """Asks the admin API of a router with `--dev`."""
        # Straight there, whatever proxy the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.admin}{path}", timeout=COMMAND_TIMEOUT_S) as answer:
            return answer.read().decode()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ends the router as an operator would and asserts that it went well."""
        try:
            assert self.process.poll() is None, f"the router is gone, with {self.process.returncode}:\n{self.log()}"
            self.terminate()
            assert self.process.wait(STOP_TIMEOUT_S) == 0, f"exit code {self.process.returncode}:\n{self.log()}"
            assert "panicked" not in self.log(), self.log()
        finally:
            self.process.kill()
            self.process.wait()
