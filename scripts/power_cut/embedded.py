"""The power of the machine that runs `wharf up`."""

import secrets
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

from . import load
from .common import CACHE, ROOT, Failure, build, say, stop, table, tail
from .guest import Guest, prepare

# In the guest: the public listener, and the API, which stays on the loopback address and is handed through.
PUBLIC, API, API_RELAY = 8080, 8081, 9081

SCRIPT = f"""
. /app/environment
nc -ll -p {API_RELAY} -e nc 127.0.0.1 {API} &
wharf up --listen 0.0.0.0:{PUBLIC} --data-dir /data/wharf"""

HEAD = ["cut", "acked before it", "acked so far", "missing after recovery", "acked with retries", "missing"]


def build_broken():
    """Builds a copy of the tree in which SQLite does not sync."""
    tree, target = CACHE / "broken" / "tree", CACHE / "broken" / "target"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")
    shutil.rmtree(tree, ignore_errors=True)
    for name in names:
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    source = tree / "crates" / "backend-embedded" / "src" / "sqlite.rs"
    text = source.read_text()
    if text.count("SqliteSynchronous::Full") != 1:
        raise Failure("there is not exactly one SqliteSynchronous::Full to break: adapt build_broken()")
    source.write_text(text.replace("SqliteSynchronous::Full", "SqliteSynchronous::Off"))
    say("building a copy with synchronous=OFF")
    return build(["wharf"], tree, target)


def answers(guest):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{guest.ports[PUBLIC]}/health/ready", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def run(binary, options):
    """Returns whether everything acknowledged was there after every cut."""
    work = CACHE / ("broken" if options.broken else "run")
    work.mkdir(parents=True, exist_ok=True)
    for old in work.glob("*.log"):
        old.unlink()
    secret, token = secrets.token_hex(16), secrets.token_hex(16)
    environment = {
        "WHARF_MODE": "development",
        "WHARF_ADMIN_TOKEN": token,
        "WHATSAPP_APP_SECRET": secret,
        "WHATSAPP_VERIFY_TOKEN": "verify",
        "WHARF__INGRESS__GLOBAL_LIMIT_PER_SECOND": "1000000",
        "WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND": "1000000",
        "WHARF__INGRESS__SENDER_LIMIT_MAX": "1000000",
    }
    exports = "".join(f"export {name}='{value}'\n" for name, value in environment.items())
    prepare(work, "wharf", binary, {"environment": exports}, SCRIPT)
    guest, rows = Guest(work, [PUBLIC, API_RELAY], answers), []
    try:
        say(f"guest up after {guest.boot():.1f} s")
        for cut in range(1, options.cuts + 1):
            rows.append(cut_once(guest, binary, work, cut, options, secret, token))
        good = all(row[-1] == 0 and row[-2] == 0 for row in rows)
    except Failure as failure:
        # What goes wrong before the first cut is no loss, but a fault of this test.
        if not options.broken or guest.boots < 2:
            raise
        say(f"after the cut: {failure}")
        good = False
    finally:
        guest.cut()
        (work / "disk.img").unlink(missing_ok=True)
    print(table([*HEAD, "more than once"], rows) + "\n")
    return good


def cut_once(guest, binary, work, cut, options, secret, token):
    """Load, the cut, the next boot, and what is there then: a row of the table."""
    log, output = work / "acknowledged.log", work / f"sender-{cut}.log"
    url, api = (f"http://127.0.0.1:{guest.ports[port]}" for port in (PUBLIC, API_RELAY))
    before_round = len(load.acknowledged(log, owner))
    sender = load.send(binary, f"{url}/webhooks/meta", secret, log, output, options, "--retry-scale", "0.02")
    try:
        time.sleep(options.seconds)
        if sender.poll() is not None:
            raise Failure(f"the sender ended by itself:\n{tail(output)}")
        guest.cut()
        # What was answered is in the log within 100 ms; nothing can be answered any more.
        time.sleep(0.5)
        before_cut = load.acknowledged(log, owner)
        if len(before_cut) == before_round:
            raise Failure(f"nothing was acknowledged before cut {cut}:\n{tail(output)}")
        say(f"cut {cut}: {len(before_cut)} acknowledged so far")
        took = guest.boot()
        # The sender is still there and retries what was not answered.
        time.sleep(2)
    finally:
        stop(sender, signal.SIGINT)
    everything = set(load.acknowledged(log, owner))
    seen = load.wait_for(everything, api, token)
    lost = everything - seen.keys()
    say(f"guest up again after {took:.1f} s; {len(everything)} acknowledged, {len(lost)} of them missing")
    lost_before = len(lost.intersection(before_cut))
    before = (len(before_cut) - before_round, len(before_cut), lost_before)
    return (cut, *before, len(everything), len(lost), load.twice(seen))


def owner(_number):
    """One tenant has every number."""
    return "default"
