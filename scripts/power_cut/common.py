"""What every part needs."""

import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "power-cut"


class Failure(Exception):
    """The run cannot go on, or what it shows is wrong."""


def say(text):
    print(f"power cut: {text}", flush=True)


def tool(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def tail(path, lines=15):
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def build(packages, tree=ROOT, target=None):
    """Builds the release of the packages; the path of `wharf`, beside which the others are."""
    target = target or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    command = ["cargo", "build", "--release", "--locked"]
    for package in packages:
        command += ["--package", package]
    subprocess.run(command, cwd=tree, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=True)
    return target / "release" / "wharf"


def free_port():
    """Not one that the system gives to clients: while the guest is down its port must stay free."""
    while True:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def clean_environment(**more):
    """Nothing of the caller's that a program of ours or a client would heed."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return kept | more


def stop(process, number, patience=30):
    """Sends the signal and waits; kills it if that does not help. Whether it ended by itself and well."""
    if not process:
        return True
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode == 0


def wait_until(holds, patience, pause=0.1):
    """Whether it came to hold."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > patience:
            return False
        time.sleep(pause)
    return True


def table(head, rows):
    lines = ["", f"| {' | '.join(head)} |", "|---:" * len(head) + "|"]
    return "\n".join(lines + [f"| {' | '.join(str(value) for value in row)} |" for row in rows])
