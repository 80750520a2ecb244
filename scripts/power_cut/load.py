"""The load, what was acknowledged of it, and what came out in the feed."""

import collections
import json
import subprocess
import time
import urllib.error
import urllib.request

from .common import Failure, clean_environment


def send(binary, url, secret, log, output, options, *more):
    """`wharf simulate send` without an end."""
    with output.open("wb") as said:
        return subprocess.Popen(
            [binary, "simulate", "send", "--url", url, "--secret", secret, "--count", "100000000"]
            + ["--connections", str(options.connections), "--duplicates", "0.05", "--timeout", "5"]
            + ["--acknowledged-log", log, *more],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
        )


def acknowledged(log, tenant_of):
    """The updates that were answered 200, in the order in which they were so first: tenant, kind, id, status."""
    text, updates = log.read_text() if log.exists() else "", {}
    # The last line may still be being written.
    for line in text[: text.rfind("\n") + 1].splitlines():
        kind, number, update, status = line.split("\t")
        updates[tenant_of(number), kind, update, status] = None
    return list(updates)


def update_of(event):
    """The update that an event is about."""
    tenant, data = event["tenant"], event["data"]
    if event["type"] == "wharf.message.received":
        return (tenant, "message", data["messageId"], "")
    if event["type"] == "wharf.message.status":
        return (tenant, "status", data["messageId"], data["status"])
    return (tenant, "other", event["id"], "")


def feed(api, token):
    """How often each update came out."""
    seen, cursor = collections.Counter(), "0"
    while True:
        request = urllib.request.Request(
            f"{api}/v1/events?limit=1000&after={cursor}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            page = json.load(answer)
        seen.update(map(update_of, page["events"]))
        cursor = page["next"]
        if len(page["events"]) < 1000:
            return seen


def wait_for(expected, api, token, patience=20):
    """Reads the feed until everything expected is in it, or nothing more comes out of it for a while."""
    last, since, problem = -1, time.monotonic(), None
    while True:
        try:
            seen = feed(api, token)
        except (urllib.error.URLError, OSError, ValueError) as error:
            seen, problem = None, error
        if seen is not None:
            if expected <= seen.keys():
                return seen
            if len(seen) != last:
                last, since = len(seen), time.monotonic()
        if time.monotonic() - since > patience:
            if seen is None:
                raise Failure(f"the feed cannot be read: {problem}")
            return seen
        time.sleep(0.5)


def twice(seen):
    return sum(1 for count in seen.values() if count > 1)
