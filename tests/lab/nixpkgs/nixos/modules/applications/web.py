# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's stand-in for an application: one page that says what the application was given, and proves it.

Usage: web.py FACTS.json with
``{"application", "listen": port or socket path, "database": {host, port, name, user}, "password": source,
"storage": {endpoint, buckets, accessKeyId}, "secrets": {name: source}}``; a source is ``{"file": path}`` or
``{"variable": name}``. The page is HTML, or JSON under ``/.well-known/fediversity-lab.json`` and with ``?format=json``.
Its status is 200 when the login to the database works, else 503.
"""

from __future__ import annotations

import html
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

DESCRIPTIONS = Path("/etc/fediversity/instances")
CURRENT_SYSTEM = "/run/current-system"
JSON_PATH = "/.well-known/fediversity-lab.json"
LOGIN_SECONDS = 5
LOGIN_QUERY = "SELECT current_user, current_database(), current_setting('server_version')"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } .note { background: #fff3cd; padding: .5rem 1rem; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
border-bottom: 1px solid #ddd; overflow-wrap: anywhere; white-space: pre-wrap; } th { width: 13rem; font-weight: 600; }
.bad { color: #b00020; }
"""


def read_secret(source: Mapping[str, str | None]) -> str:
    """The secret of a source.

    :raises OSError: its file cannot be read.
    :raises KeyError: its variable is not set.
    """
    if source.get("file"):
        return Path(str(source["file"])).read_text(encoding="utf-8").rstrip("\n")
    return os.environ[str(source["variable"])]


def secret_state(source: Mapping[str, str | None]) -> str:
    """Whether the secret is there and how long it is; never the secret."""
    try:
        return f"readable, {len(read_secret(source).encode())} bytes"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    except KeyError:
        return "not given"


def login(database: Mapping[str, Any], password: Mapping[str, str | None]) -> dict[str, Any]:
    """Logs in to the database with the delivered secret: {ok, user, database, server_version} or {ok, error}."""
    try:
        secret = read_secret(password)
    except (OSError, KeyError) as error:
        return {"ok": False, "error": f"no password: {error}"}
    environment = {
        "PATH": "/usr/bin:/bin",
        "PGHOST": str(database["host"]),
        "PGPORT": str(database["port"]),
        "PGDATABASE": str(database["name"]),
        "PGUSER": str(database["user"]),
        "PGPASSWORD": secret,
        "PGCONNECT_TIMEOUT": "3",
    }
    command = ["psql", "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "-F", "\t", "-c", LOGIN_QUERY]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LOGIN_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"ok": False, "error": f"psql: {type(error).__name__}"}
    if done.returncode != 0:
        return {"ok": False, "error": done.stderr.strip()}
    user, name, version = done.stdout.strip("\n").split("\t")
    return {"ok": True, "user": user, "database": name, "server_version": version}


def description(application: str) -> dict[str, Any]:
    """The public description of the application instance on this machine; empty when there is none."""
    for path in sorted(DESCRIPTIONS.glob("*.json")):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.get("application") == application:
            return found
    return {}


def report(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page shows."""
    return {
        "standIn": True,
        "application": facts["application"],
        "instance": description(facts["application"]),
        "database": login(facts["database"], facts["password"]),
        "storage": facts["storage"],
        "secrets": {name: secret_state(source) for name, source in facts["secrets"].items()},
        "system": os.path.realpath(CURRENT_SYSTEM),
        "hostName": socket.gethostname(),
    }


def rows(values: Mapping[str, Any]) -> str:
    """Table rows; every text is escaped."""
    cells = []
    for name, value in values.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        cells.append(f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(shown)}</td></tr>")
    return f"<table>{''.join(cells)}</table>"


def page(data: Mapping[str, Any]) -> str:
    """The report as HTML."""
    instance = data["instance"]
    title = str(instance.get("settings", {}).get("title") or instance.get("domain") or data["application"])
    database = data["database"]
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(str(instance.get('operatorDisplayName', '')))}</p>"
        f"<p class=note>This is a stand-in of the lab for {html.escape(str(data['application']))}: "
        "it is not the application, and it shows what the application would have been given.</p>"
        f"<h2>Settings</h2>{rows(instance.get('settings', {}))}"
        f"<h2{'' if database['ok'] else ' class=bad'}>Database</h2>{rows(database)}"
        f"<h2>Object storage</h2>{rows(data['storage'])}"
        f"<h2>Secrets</h2>{rows(data['secrets'])}"
        f"<h2>Machine</h2>{rows({'host': data['hostName'], 'system': data['system']})}"
        "</body></html>\n"
    )


class UnixServer(ThreadingHTTPServer):
    """HTTP over a unix socket that its group may use."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        path = str(self.server_address)
        Path(path).unlink(missing_ok=True)
        self.socket.bind(path)
        Path(path).chmod(0o660)
        self.server_name, self.server_port = "localhost", 0


def handler(facts: Mapping[str, Any]) -> type[BaseHTTPRequestHandler]:
    """A request handler class that answers every path with the report."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = report(facts)
            url = urlsplit(self.path)
            as_json = url.path == JSON_PATH or parse_qs(url.query).get("format") == ["json"]
            text = json.dumps(data, ensure_ascii=False) if as_json else page(data)
            body = text.encode("utf-8", "surrogateescape")
            self.send_response(200 if data["database"]["ok"] else 503)
            self.send_header("Content-Type", f"{'application/json' if as_json else 'text/html'}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def address_string(self) -> str:
            return "client"

    return Handler


def notify_ready() -> None:
    """Tells systemd that the socket listens (sd_notify(3))."""
    target = os.environ.get("NOTIFY_SOCKET")
    if target:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + target[1:] if target.startswith("@") else target)
            channel.sendall(b"READY=1")


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    listen = facts["listen"]
    server: ThreadingHTTPServer
    if isinstance(listen, int):
        server = ThreadingHTTPServer(("127.0.0.1", listen), handler(facts))
    else:
        server = UnixServer(listen, handler(facts))
    notify_ready()
    server.serve_forever()


if __name__ == "__main__":
    main()
