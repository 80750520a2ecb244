"""Redis and PostgreSQL, on this machine: what `gateway` and the others need beside NATS. Their power stays."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from .common import ROOT, Failure, clean_environment, free_port, stop, tail, wait_until

NOBODY = 65534


def find():
    """The servers' programs by name, and what scripts/get-servers says of those that are missing."""
    said = subprocess.run([ROOT / "scripts" / "get-servers", "--check"], capture_output=True, text=True, check=False)
    found = re.findall(r"^(\w+) +\S+ +(/.*)$", said.stdout, re.M)
    return {name: Path(path) for name, path in found}, said.stderr.strip().splitlines()


class Servers:
    """Both, in a folder of their own, without syncing. To be used as a context."""

    def __init__(self):
        self.programs = find()[0]
        self.folder = Path(tempfile.mkdtemp(prefix="wharf-power-cut-"))
        self.folder.chmod(0o755)
        self.processes = []

    def __enter__(self):
        try:
            redis, postgres = free_port(), free_port()
            self.start_redis(redis)
            self.start_postgres(postgres)
        except BaseException:
            self.__exit__()
            raise
        self.redis_url = f"redis://127.0.0.1:{redis}"
        self.postgres_url = f"postgres://wharf@127.0.0.1:{postgres}/postgres"
        return self

    def __exit__(self, *_error):
        for process in reversed(self.processes):
            # To PostgreSQL it means: at once, and with its children.
            stop(process, signal.SIGQUIT, 10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_redis(self, port):
        command = [self.programs["redis"], "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        self.start("redis", [*command, "--appendonly", "no", "--dir", self.folder])
        self.wait_for("redis", lambda: ask(port, b"PING\r\n").startswith(b"+PONG"))

    def start_postgres(self, port):
        """As an ordinary user: it refuses to run as root."""
        other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        home = self.folder / "postgres"
        home.mkdir()
        if other:
            os.chown(home, NOBODY, NOBODY)
        program, data = self.programs["postgres"], home / "data"
        initdb = [program.with_name("initdb"), "-D", data, "--username=wharf", "--auth=trust", "--no-sync"]
        made = subprocess.run(
            [*initdb, "--encoding=UTF8", "--locale=C"],
            cwd=home, env=clean_environment(), capture_output=True, text=True, check=False, **other,
        )
        if made.returncode != 0:
            raise Failure(f"initdb failed:\n{made.stderr}")
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=50"]
        options = [word for setting in settings for word in ("-c", setting)]
        self.start("postgres", [program, "-D", data, "-p", str(port), *options], cwd=home, **other)
        words = b"user\0wharf\0database\0postgres\0\0"
        hello = (len(words) + 8).to_bytes(4, "big") + (196_608).to_bytes(4, "big") + words
        self.wait_for("postgres", lambda: ask(port, hello).startswith(b"R"))

    def start(self, name, command, **how):
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=clean_environment(), **how)
            )

    def wait_for(self, name, answers):
        process = self.processes[-1]
        if not wait_until(lambda: process.poll() is not None or answers(), 30) or process.poll() is not None:
            raise Failure(f"{name} does not start:\n{tail(self.folder / f'{name}.log')}")


def ask(port, question):
    """What a server answers first; nothing if it does not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(question)
            return connection.recv(64)
    except OSError:
        return b""
