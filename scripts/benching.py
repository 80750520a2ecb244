"""What the benchmarks of the distributed mode stand on: NATS, Redis and PostgreSQL in folders of their own, Wharf's
processes on them, and what the system says of their CPU and memory. Standard library only, so it speaks the few words
of each server's protocol itself.
"""

import json
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECRET = "bench_app_secret_0123456789"
TOKEN = "bench_admin_token_0123456789"
TENANTS = int(os.environ.get("WHARF_BENCH_TENANTS", "10"))
NUMBERS = ",".join(f"30011122233300{n}:77700011122200{n}" for n in range(TENANTS))
# PostgreSQL refuses to run as root.
NOBODY = 65534
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A process with a log in the folder; what it leaves running is stopped with it."""

    def __init__(self, name, command, folder, environment=None, **options):
        self.name, self.log = name, Path(folder) / f"{name}.log"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder, **options,
            )

    def until(self, ready, seconds=60):
        """Waits until it is ready; ends the benchmark with its log if it does not come up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.popen.poll() is None:
            try:
                if ready():
                    return self
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(0.02)
        sys.exit(f"{self.name} did not come up:\n{self.log.read_text(errors='replace')[-4000:]}")

    def pids(self):
        """It and its children, for PostgreSQL."""
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        return [self.popen.pid, *map(int, children)]

    def cpu(self):
        """Seconds of CPU, user and system, of it and its children, also of those that have ended."""
        total = 0
        for pid in self.pids() if self.popen.poll() is None else []:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except FileNotFoundError:
                continue
            total += sum(map(int, fields[11:15] if pid == self.popen.pid else fields[11:13]))
        return total / TICKS

    def memory(self):
        """Resident MiB."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def send(self, number):
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        # What is frozen does not end.
        self.send(signal.SIGCONT)
        self.send(number)
        try:
            self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Servers:
    """The three servers, migrated, with ten tenants of a number each; and what is started on them. A context."""

    def __init__(self, options, lazy=False):
        self.options, self.lazy = options, lazy
        self.folder = Path(tempfile.mkdtemp(prefix="wharf-bench-", dir=options.folder))
        # PostgreSQL runs as somebody else below it.
        self.folder.chmod(0o755)
        self.running = []
        self.ports = {}

    def __enter__(self):
        try:
            for name in ("nats", "nats-monitor", "redis", "postgres"):
                self.ports[name] = free_port()
            self.start_nats()
            self.start_redis()
            self.start_postgres()
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # Last in, first out: the servers go when nobody needs them any more. Nothing on them is kept.
        for process in reversed(self.running):
            process.stop(signal.SIGQUIT if process.name == "postgres" else signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name, command, environment=None, **options):
        process = Process(name, command, self.folder, environment, **options)
        self.running.append(process)
        return process

    def stop(self, process, number=signal.SIGTERM):
        process.stop(number)
        self.running.remove(process)

    def start_nats(self):
        sync = "" if self.lazy else "sync_interval: always"
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.ports["nats"]}"\nhttp: "127.0.0.1:{self.ports["nats-monitor"]}"\n'
            f'max_payload: 8MB\njetstream {{\n  store_dir: "{self.folder}/jetstream"\n  {sync}\n}}\n'
        )
        self.nats = self.start("nats", [program("nats-server"), "--config", config])
        self.nats.until(lambda: self.bus("$JS.API.INFO") is not None)

    def start_redis(self):
        self.redis = self.start("redis", [
            program("redis-server", "valkey-server"), "--bind", "127.0.0.1", "--port", self.ports["redis"],
            "--save", "", "--appendonly", "no", "--dir", self.folder,
        ])
        self.redis.until(lambda: self.flush_redis())

    def start_postgres(self):
        """With its own defaults, so every commit is synced."""
        programs, data = postgres_folder(), self.folder / "postgres"
        data.mkdir()
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if user:
            os.chown(data, NOBODY, NOBODY)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
        subprocess.run(
            [programs / "initdb", "-D", data, "--username=wharf", "--auth=trust", "--encoding=UTF8", "--locale=C"],
            env=environment, cwd=data, stdout=subprocess.DEVNULL, check=True, **user,
        )
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=on", "timezone=UTC"]
        flags = [part for setting in settings for part in ("-c", setting)]
        self.postgres = self.start(
            "postgres", [programs / "postgres", "-D", data, "-p", self.ports["postgres"], *flags], environment, **user
        )
        self.postgres.until(lambda: Postgres(self.ports["postgres"], "postgres"))
        Postgres(self.ports["postgres"], "postgres").query("CREATE DATABASE wharf")
        self.database = Postgres(self.ports["postgres"], "wharf")

    def prepare(self):
        """Streams, tables, keys; tenants and numbers through the API."""
        wharf = self.options.binaries / "wharf"
        migrated = subprocess.run([wharf, "migrate"], env=self.environment(), capture_output=True, text=True, check=False)
        if migrated.returncode:
            sys.exit(f"wharf migrate failed:\n{migrated.stdout}{migrated.stderr}")
        document = self.folder / "import.json"
        numbers = [number.split(":") for number in NUMBERS.split(",")]
        document.write_text(json.dumps({
            "tenants": [{"id": f"tenant-{n}"} for n in range(TENANTS)],
            "apps": [{"id": "app", "secrets": [SECRET], "verify_tokens": ["verify"]}],
            "numbers": [
                {"waba_id": waba, "phone_number_id": number, "app": "app", "tenant": f"tenant-{n}"}
                for n, (waba, number) in enumerate(numbers)
            ],
        }))
        api = self.wharf("api")
        url = f"http://127.0.0.1:{self.ports['api']}"
        subprocess.run(
            [wharf, "tenants", "import", document, "--api-url", url, "--token", TOKEN],
            check=True, stdout=subprocess.DEVNULL, env=self.environment(),
        )
        # What it wrote goes to the gateways over the bus.
        time.sleep(1)
        self.stop(api)

    def environment(self, **more):
        """Wharf's settings: as in production (which refuses lazy NATS), all limits on, but so high that they refuse nothing."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("WHARF", "WHATSAPP"))}
        return own | {
            "WHARF_MODE": "development" if self.lazy else "production",
            "WHARF_DATA_DIR": str(self.folder / "data"),
            "WHARF_ADMIN_TOKEN": TOKEN,
            "WHARF__BACKEND__KIND": "distributed",
            "WHARF__NATS__URL": self.nats_url(),
            "WHARF__NATS__MONITOR_URL": f"http://127.0.0.1:{self.ports['nats-monitor']}",
            "WHARF__NATS__UNSAFE_LAZY_SYNC": str(self.lazy).lower(),
            "WHARF__REDIS__URL": f"redis://127.0.0.1:{self.ports['redis']}",
            "WHARF__POSTGRES__URL": self.postgres_url(),
            "WHARF__INGRESS__GLOBAL_LIMIT_PER_SECOND": "10000000",
            "WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND": "10000000",
            "WHARF__INGRESS__SENDER_LIMIT_MAX": "10000000",
            "LOG_FORMAT": "json",
        } | more

    def nats_url(self):
        return f"nats://127.0.0.1:{self.ports['nats']}"

    def postgres_url(self):
        return f"postgres://wharf@127.0.0.1:{self.ports['postgres']}/wharf"

    def wharf(self, job, **settings):
        """Starts `gateway`, `normalizer` or `api` and waits until it is ready."""
        admin, listen = free_port(), free_port()
        flags = ["--admin-listen", f"127.0.0.1:{admin}"]
        if job != "normalizer":
            self.ports[job] = listen
            flags += ["--listen", f"127.0.0.1:{listen}"]
        process = self.start(job, [self.options.binaries / job, *flags], self.environment(**settings))
        return process.until(lambda: answers(f"http://127.0.0.1:{admin}/health/ready"))

    def bare_gateway(self):
        self.ports["bare"] = free_port()
        address = f"127.0.0.1:{self.ports['bare']}"
        process = self.start("bare", [self.options.examples / "bare_gateway", address, self.nats_url()])
        return process.until(lambda: connects(self.ports["bare"]))

    def bus(self, subject, payload=b""):
        """The answer to a request, on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.ports["nats"]), timeout=10) as connection:
            stream = connection.makefile("rb")
            stream.readline()
            hello = b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.bench 1\r\n'
            connection.sendall(hello + f"PUB {subject} _INBOX.bench {len(payload)}\r\n".encode() + payload + b"\r\n")
            for line in stream:
                if line.startswith(b"MSG "):
                    return json.loads(stream.read(int(line.split()[-1])))
                if line.startswith(b"PING"):
                    connection.sendall(b"PONG\r\n")
        return None

    def messages(self, stream):
        return self.bus(f"$JS.API.STREAM.INFO.{stream}")["state"]["messages"]

    def empty(self, *streams):
        """Nothing may be left over from a run: envelopes and records on the bus, and what Redis remembers of them."""
        for stream in streams:
            self.bus(f"$JS.API.STREAM.PURGE.{stream}")
        self.flush_redis()

    def flush_redis(self):
        with socket.create_connection(("127.0.0.1", self.ports["redis"]), timeout=10) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            return connection.recv(16).startswith(b"+OK")

    def admissions(self):
        """Calls so far in which Redis was asked about updates. Those of several webhooks go together."""
        with socket.create_connection(("127.0.0.1", self.ports["redis"]), timeout=10) as connection:
            connection.sendall(b"INFO commandstats\r\nQUIT\r\n")
            said = connection.makefile("rb").read().decode()
        return sum(map(int, re.findall(r"cmdstat_(?:evalsha|mget):calls=(\d+)", said)))

    def feed(self):
        """Events in the feed."""
        return int(self.database.query("SELECT head FROM feed")[0][0])


class Postgres:
    """A connection that sends simple queries and returns rows of texts."""

    def __init__(self, port, database):
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.stream = self.connection.makefile("rb")
        hello = struct.pack("!I", 196_608) + f"user\0wharf\0database\0{database}\0\0".encode()
        self.connection.sendall(struct.pack("!I", len(hello) + 4) + hello)
        self.rows()

    def query(self, text):
        body = text.encode() + b"\0"
        self.connection.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
        return self.rows()

    def rows(self):
        """Reads up to the moment when the server is ready for a query."""
        rows = []
        while True:
            kind, length = struct.unpack("!cI", self.stream.read(5) or b"E\0\0\0\4")
            body = self.stream.read(length - 4)
            if kind == b"E":
                raise OSError(f"PostgreSQL: {body!r}")
            if kind == b"Z":
                return rows
            if kind == b"D":
                row, at = [], 2
                for _ in range(struct.unpack_from("!H", body)[0]):
                    size, at = struct.unpack_from("!i", body, at)[0], at + 4
                    row.append(None if size < 0 else body[at : at + size].decode())
                    at += max(size, 0)
                rows.append(row)


class Usage:
    """What the processes used between two moments, and what the rest of the machine did meanwhile."""

    def __init__(self, *processes):
        self.processes = processes
        self.before, self.busy, self.begun = self.now(), machine_cpu(), time.monotonic()

    def now(self):
        """By name; `load` is what ended children of this script used, so the load generators."""
        own = os.times()
        used = {process.name: process.cpu() for process in self.processes}
        return used | {"load": own.children_user + own.children_system, "script": own.user + own.system}

    def end(self):
        now, busy = self.now(), machine_cpu()
        self.seconds = time.monotonic() - self.begun
        self.cpu = {name: now[name] - before for name, before in self.before.items()}
        others = busy - self.busy - sum(self.cpu.values())
        # Share of the whole machine that somebody else took: figures with much of it do not count.
        self.others = max(others, 0.0) / self.seconds / os.cpu_count()
        return self


def machine_cpu():
    """Seconds of CPU of all processes; interrupts belong to nobody and are left out."""
    return sum(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:4])) / TICKS


def program(*names):
    for name in names:
        for found in (shutil.which(name), ROOT / ".cache" / "servers" / "bin" / name):
            if found and Path(found).is_file():
                return found
    sys.exit(f"{names[0]} is missing: run scripts/get-servers")


def postgres_folder():
    """Distributions keep PostgreSQL's server out of PATH."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin"):
        # The newest first.
        folders += sorted(Path("/").glob(pattern), key=lambda folder: re.sub(r"\D", "", str(folder)), reverse=True)
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    sys.exit("PostgreSQL is missing: run scripts/get-servers")


def versions():
    """The servers', for the line above the tables."""
    commands = {
        "NATS": [program("nats-server"), "--version"],
        "Redis": [program("redis-server", "valkey-server"), "--version"],
        "PostgreSQL": [postgres_folder() / "postgres", "--version"],
    }
    said = []
    for name, command in commands.items():
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        said.append(f"{name} " + re.search(r"\d+(?:\.\d+)+", output)[0])
    return ", ".join(said)


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} × {name}, Linux {platform.release().split('-')[0]}, load {os.getloadavg()[0]:.1f} before"


def answers(url):
    with urllib.request.urlopen(url, timeout=5):
        return True


def connects(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
