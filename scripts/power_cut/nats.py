"""The power of the machine that runs nats-server, under a `gateway` that stays up."""

import json
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from . import load, servers
from .common import CACHE, ROOT, Failure, clean_environment, free_port, say, stop, table, tail, wait_until
from .guest import PATIENCE, Guest, prepare

CLIENTS, MONITOR, SYNC = 4222, 8222, 9
CONFIG = ROOT / "deploy" / "nats.conf"
DURABLE = "sync_interval: always"
USERS = ("gateway", "normalizer", "api", "migrate", "consumer")

# A connection to the second port syncs the whole disk.
SCRIPT = f"""
. /app/environment
nc -ll -p {SYNC} -e sync &
nats-server --config /app/nats.conf"""

# Who owns which number. An update that comes out under another tenant is missing from its own.
TENANTS = {"777000111222333": "north", "777000111222444": "south"}
WABA = "300111222333444"

# Webhooks a second, retries included: what is refused while the machine is down is answered in no time.
RATE = 600
PACKAGES = ["wharf", "wharf-gateway", "wharf-normalizer", "wharf-api"]

HEAD = ["cut", "acked before it", "NATS up after s", "first 200 after s", "missing of those"]


def missing():
    """What this needs beside the guest and this machine does not have."""
    return servers.find()[1]


class Jobs:
    """The programs, as processes on this machine, with their configuration."""

    def __init__(self, folder, work, guest, host, passwords, lazy):
        self.folder, self.work, self.processes = folder, work, {}
        self.passwords, self.nats = passwords, f"127.0.0.1:{guest.ports[CLIENTS]}"
        self.ports = {name: free_port() for name in ("gateway", "api")}
        self.token, self.secret = secrets.token_hex(16), secrets.token_hex(16)
        self.environment = clean_environment(
            WHARF_MODE="development" if lazy else "production",
            WHARF_DATA_DIR=str(host.folder / "wharf"),
            WHARF_ADMIN_TOKEN=self.token,
            WHARF__BACKEND__KIND="distributed",
            WHARF__NATS__MONITOR_URL=f"http://127.0.0.1:{guest.ports[MONITOR]}",
            WHARF__NATS__UNSAFE_LAZY_SYNC=str(lazy).lower(),
            WHARF__REDIS__URL=host.redis_url,
            WHARF__POSTGRES__URL=host.postgres_url,
            WHARF__INGRESS__GLOBAL_LIMIT_PER_SECOND="1000000",
            WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND="1000000",
            WHARF__INGRESS__SENDER_LIMIT_MAX="1000000",
        )

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"

    def environment_of(self, user):
        return self.environment | {"WHARF__NATS__URL": f"nats://{user}:{self.passwords[user]}@{self.nats}"}

    def command(self, *arguments):
        """A command of `wharf`, to its end."""
        done = subprocess.run(
            [self.folder / "wharf", *arguments],
            env=self.environment_of("migrate"), capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise Failure(f"wharf {arguments[0]} failed:\n{done.stdout}{done.stderr}")

    def start(self, name):
        """Starts one and waits until it is ready."""
        admin = free_port()
        flags = ["--admin-listen", f"127.0.0.1:{admin}"]
        if name in self.ports:
            flags += ["--listen", f"127.0.0.1:{self.ports[name]}"]
        log = self.work / f"{name}.log"
        with log.open("ab") as said:
            process = subprocess.Popen(
                [self.folder / name, *flags], env=self.environment_of(name), stdout=said, stderr=subprocess.STDOUT
            )
        self.processes[name] = process
        ready = wait_until(
            lambda: process.poll() is not None or get(f"http://127.0.0.1:{admin}/health/ready") is not None, 60
        )
        if not ready or process.poll() is not None:
            raise Failure(f"{name} is not ready:\n{tail(log)}")

    def stop(self, name):
        return stop(self.processes.pop(name, None), signal.SIGTERM)

    def stop_all(self):
        for name in list(self.processes):
            self.stop(name)

    def register(self):
        """Two tenants, each with a number, of one app. Through `api`, which is there only for that."""
        tenants = [{"id": tenant} for tenant in TENANTS.values()]
        app = {"id": "app", "secrets": [self.secret], "verify_tokens": ["verify"]}
        numbers = [
            {"phone_number_id": number, "waba_id": WABA, "app": "app", "tenant": tenant,
             "valid_from": "1970-01-01T00:00:00Z"}
            for number, tenant in TENANTS.items()
        ]
        document = self.work / "import.json"
        document.write_text(json.dumps({"tenants": tenants, "apps": [app], "numbers": numbers}))
        self.start("api")
        self.command("tenants", "import", document, "--api-url", self.url("api"))
        self.stop("api")


def configuration(lazy):
    """The delivered one; if lazy, without the line that makes it sync."""
    text = CONFIG.read_text()
    if text.count(DURABLE) != 1:
        raise Failure(f"there is not exactly one `{DURABLE}` in {CONFIG.relative_to(ROOT)}")
    return text.replace(DURABLE, "") if lazy else text


def get(url):
    """The body, if the answer is 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.read()
    except (urllib.error.URLError, OSError):
        return None


def answers(guest):
    """Whether NATS has read its streams."""
    return get(f"http://127.0.0.1:{guest.ports[MONITOR]}/healthz") is not None


def waiting(guest):
    """Envelopes on the bus; `None` if the server does not say in time."""
    body = get(f"http://127.0.0.1:{guest.ports[MONITOR]}/jsz?streams=true") or b"{}"
    accounts = json.loads(body).get("account_details") or []
    streams = [stream for account in accounts for stream in account.get("stream_detail") or []]
    return next((stream["state"]["messages"] for stream in streams if stream["name"] == "inbound_live"), None)


def sync_disk(guest):
    """So that a run without syncing loses messages, not the streams themselves and the test's sense with them."""
    with socket.create_connection(("127.0.0.1", guest.ports[SYNC]), timeout=30) as connection:
        connection.recv(1)


def run(binary, options):
    """Returns whether everything acknowledged came out."""
    work = CACHE / ("nats-lazy" if options.lazy else "nats")
    work.mkdir(parents=True, exist_ok=True)
    for old in work.glob("*.log"):
        old.unlink()
    program = servers.find()[0]["nats"]
    for name in ("gateway", "normalizer", "api"):
        if not (binary.parent / name).exists():
            raise Failure(f"there is no {name} beside {binary}")
    passwords = {user: "p" + secrets.token_hex(16) for user in USERS}
    exports = {f"NATS_{user.upper()}_PASSWORD": password for user, password in passwords.items()}
    exports |= {
        "NATS_LISTEN": f"0.0.0.0:{CLIENTS}",
        "NATS_MONITOR_LISTEN": f"0.0.0.0:{MONITOR}",
        "NATS_STORE_DIR": "/data/nats",
    }
    environment = "".join(f"export {name}={value}\n" for name, value in exports.items())
    files = {"nats.conf": configuration(options.lazy), "environment": environment}
    prepare(work, "nats-server", program, files, SCRIPT)
    guest = Guest(work, [CLIENTS, MONITOR, SYNC], answers)
    with servers.Servers() as host:
        jobs = Jobs(binary.parent, work, guest, host, passwords, options.lazy)
        try:
            say(f"NATS up after {guest.boot():.1f} s")
            jobs.command("migrate")
            jobs.register()
            if options.lazy:
                sync_disk(guest)
            jobs.start("gateway")
            moments = cut_under_load(guest, jobs, work, options)
            return compare(guest, jobs, moments, work / "acknowledged.log")
        finally:
            jobs.stop_all()
            guest.cut()
            (work / "disk.img").unlink(missing_ok=True)


def cut_under_load(guest, jobs, work, options):
    """All cuts, under one load and one gateway. Of each: how many were acknowledged before, and the seconds from the
    machine's start until NATS was up, and until the first 200."""
    log, output = work / "acknowledged.log", work / "sender.log"
    numbers = [word for number in TENANTS for word in ("--number", f"{WABA}:{number}")]
    more = ["--rate", str(RATE), "--retry-scale", "0.005", *numbers]
    url = f"{jobs.url('gateway')}/webhooks/meta"
    sender = load.send(jobs.folder / "wharf", url, jobs.secret, log, output, options, *more)
    moments = []
    try:
        for cut in range(1, options.cuts + 1):
            # Every other cut meets acknowledgements and purges too. Without syncs the normalizer would hide the loss: what
            # it has stored is not missed.
            if cut % 2 == 0 and not options.lazy:
                jobs.start("normalizer")
            under_load(options.seconds, jobs, sender, log, output)
            guest.cut()
            # What was answered is in the log within 100 ms; nothing can be answered any more.
            time.sleep(0.5)
            before = len(load.acknowledged(log, TENANTS.get))
            say(f"cut {cut}: {before} acknowledged so far")
            up, first = recover(guest, jobs, log, before)
            if "normalizer" in jobs.processes and not jobs.stop("normalizer"):
                raise Failure(f"the normalizer did not end in order:\n{tail(jobs.work / 'normalizer.log')}")
            say(f"NATS up again after {up:.1f} s, first 200 after {first:.1f} s; on the bus: {waiting(guest)}")
            moments.append((before, up, first))
        under_load(min(options.seconds, 3), jobs, sender, log, output)
    finally:
        stop(sender, signal.SIGINT)
    return moments


def under_load(seconds, jobs, sender, log, output):
    before = len(load.acknowledged(log, TENANTS.get))
    time.sleep(seconds)
    if sender.poll() is not None:
        raise Failure(f"the sender ended by itself:\n{tail(output)}")
    if jobs.processes["gateway"].poll() is not None:
        raise Failure(f"the gateway ended by itself:\n{tail(jobs.work / 'gateway.log')}")
    if len(load.acknowledged(log, TENANTS.get)) == before:
        raise Failure(f"nothing was acknowledged within {seconds} s:\n{tail(jobs.work / 'gateway.log')}")


def recover(guest, jobs, log, before):
    """Boots; seconds until NATS was up, and until the same gateway took something new."""
    guest.start()
    begun, up = time.monotonic(), None
    while time.monotonic() - begun < PATIENCE and guest.runs():
        if up is None and answers(guest):
            up = time.monotonic() - begun
        if len(load.acknowledged(log, TENANTS.get)) > before:
            first = time.monotonic() - begun
            return up or first, first
        time.sleep(0.1)
    if up is None:
        raise Failure(f"NATS did not come up; {guest.last_words()}")
    raise Failure(f"no 200 since NATS is up, for {PATIENCE - up:.0f} s:\n{tail(jobs.work / 'gateway.log')}")


def compare(guest, jobs, moments, log):
    """Drains the bus and compares, per tenant. Whether nothing is missing; an update that came out twice is a fault in
    any case."""
    if not jobs.stop("gateway"):
        raise Failure(f"the gateway did not end in order:\n{tail(jobs.work / 'gateway.log')}")
    updates = load.acknowledged(log, TENANTS.get)
    say(f"{len(updates)} acknowledged, on the bus: {waiting(guest)}; draining it")
    begun = time.monotonic()
    jobs.start("api")
    jobs.start("normalizer")
    if not wait_until(lambda: waiting(guest) == 0, 300, pause=0.5):
        raise Failure(f"the bus is not drained:\n{tail(jobs.work / 'normalizer.log')}")
    load.wait_for(set(updates), jobs.url("api"), jobs.token)
    # Whatever should come twice has had its time.
    time.sleep(2)
    seen = load.feed(jobs.url("api"), jobs.token)
    say(f"drained after {time.monotonic() - begun:.1f} s")
    lost = set(updates) - seen.keys()
    rows, start = [], 0
    for cut, (before, up, first) in enumerate([*moments, (len(updates), None, None)], 1):
        times = ["" if value is None else f"{value:.1f}" for value in (up, first)]
        missing_here = len(lost.intersection(updates[start:before]))
        rows.append((cut if up else "end", before - start, *times, missing_here))
        start = before
    print(table(HEAD, rows))
    rows = []
    for tenant in sorted(TENANTS.values()):
        mine = {update for update in updates if update[0] == tenant}
        events = {update: count for update, count in seen.items() if update[0] == tenant}
        found, unanswered = len(mine & events.keys()), len(events.keys() - mine)
        rows.append((tenant, len(mine), found, len(mine) - found, load.twice(events), unanswered))
    print(table(["tenant", "acknowledged", "found", "missing", "twice", "stored, 200 lost"], rows) + "\n")
    if load.twice(seen):
        raise Failure("updates came out more than once")
    return not lost
