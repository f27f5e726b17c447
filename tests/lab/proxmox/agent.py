# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu/ID/agent: commands passed through to the guest's own qemu-ga (PVE/API2/Qemu/Agent.pm)."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from pathlib import Path
from typing import Any

from . import power
from .config import agent_enabled
from .errors import ApiError
from .routes import Call, endpoint

NOT_RUNNING = "QEMU guest agent is not running"
READ_BLOCK = 1 << 20  # bytes per guest-file-read


class Agent:
    """One connection to qemu-ga; it serves one client at a time and answers in lines of JSON."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def command(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """What the guest returns; ApiError with the guest's own text when it refuses."""
        answer = await self._exchange({"execute": name, **({"arguments": arguments} if arguments else {})})
        if error := answer.get("error"):
            raise ApiError(f"Agent error: {error.get('desc', error)}")
        return answer.get("return")

    async def synchronise(self) -> None:
        """Skips whatever an earlier client left unread."""
        token = secrets.randbelow(1 << 31)
        answer = await self._exchange({"execute": "guest-sync", "arguments": {"id": token}})
        while answer.get("return") != token:
            answer = json.loads(await self._reader.readline() or "{}")

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        self._writer.write(json.dumps(request).encode() + b"\n")
        await self._writer.drain()
        line = await self._reader.readline()
        if not line:
            raise ConnectionError("the guest agent hung up")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # the guest is gone: nothing is left to close


async def connect(socket: Path, patience: float) -> Agent:
    """A synchronised connection; 500 when nobody answers within `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=8 * READ_BLOCK)
            agent = Agent(reader, writer)
            try:
                await asyncio.wait_for(agent.synchronise(), max(end - time.monotonic(), 0.1))
            except BaseException:
                writer.close()
                raise
            return agent
        except (OSError, ValueError, TimeoutError):
            if time.monotonic() > end:
                raise ApiError(NOT_RUNNING) from None
            await asyncio.sleep(0.1)


async def ask(call: Call, name: str, arguments: dict[str, Any] | None = None) -> Any:
    """One command to the guest of the path, after the server's own checks."""
    agent = await _of(call)
    try:
        return await asyncio.wait_for(agent.command(name, arguments), 60)
    except (OSError, TimeoutError):
        raise ApiError(f"VM {call.params['vmid']} qmp command '{name}' failed - got timeout") from None
    finally:
        await agent.close()


async def _of(call: Call) -> Agent:
    vm, cluster = call.vm(), call.cluster
    if not agent_enabled(vm.config):
        raise ApiError("No QEMU guest agent configured")
    if cluster.power(vm) == "stopped":
        raise ApiError(f"VM {vm.vmid} is not running")
    if cluster.faults.strike(f"agent:{vm.vmid}", ("agent",)):
        await asyncio.sleep(cluster.timing.agent)
        raise ApiError(NOT_RUNNING)
    power.show_hardware(cluster, vm)
    return await connect(cluster.guests(vm).agent_socket(vm.guest), cluster.timing.agent)


def _simple(method: str, command: str) -> None:
    @endpoint(method, f"/nodes/{{node}}/qemu/{{vmid}}/agent/{command}")
    async def handler(call: Call) -> object:
        name = f"guest-{command}"
        return {"result": _numbers(await ask(call, name))}


def _numbers(value: object) -> object:
    """JSON booleans as the server sends them: 1 and 0."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value


for _command in (
    *("get-fsinfo", "get-host-name", "get-memory-block-info", "get-memory-blocks", "get-osinfo", "get-time"),
    *("get-timezone", "get-users", "get-vcpus", "info", "network-get-interfaces"),
):
    _simple("GET", _command)
for _command in (
    *("ping", "fsfreeze-freeze", "fsfreeze-status", "fsfreeze-thaw", "fstrim"),
    *("shutdown", "suspend-disk", "suspend-hybrid", "suspend-ram"),
):
    _simple("POST", _command)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/agent/set-user-password")
async def set_password(call: Call) -> object:
    password = base64.b64encode(call.params["password"].encode()).decode()
    arguments = {"username": call.params["username"], "password": password}
    await ask(call, "guest-set-user-password", arguments | {"crypted": bool(call.params.get("crypted"))})
    return {"result": {}}


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/agent/exec")
async def run(call: Call) -> object:
    path, *rest = call.params["command"]
    arguments = {"path": path, "arg": rest, "capture-output": True}
    if text := call.params.get("input-data"):
        arguments["input-data"] = base64.b64encode(text.encode()).decode()
    return await ask(call, "guest-exec", arguments)


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/agent/exec-status")
async def run_status(call: Call) -> object:
    answer = await ask(call, "guest-exec-status", {"pid": call.params["pid"]})
    for key in ("out-data", "err-data"):
        if key in answer:
            answer[key] = base64.b64decode(answer[key]).decode("utf-8", "replace")
    return _numbers(answer)


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/agent/file-read")
async def read_file(call: Call) -> object:
    """Up to `count` bytes of a file from `offset`; `truncated` when there is more."""
    agent = await _of(call)
    count = call.params.get("count", 16 << 20)
    content = b""
    try:
        handle = await agent.command("guest-file-open", {"path": call.params["file"], "mode": "r"})
        if offset := call.params.get("offset"):
            await agent.command("guest-file-seek", {"handle": handle, "offset": offset, "whence": 0})
        ended = False
        while len(content) < count and not ended:
            size = min(READ_BLOCK, count - len(content))
            part = await agent.command("guest-file-read", {"handle": handle, "count": size})
            content += base64.b64decode(part["buf-b64"])
            ended = part["eof"] or not part["count"]
        await agent.command("guest-file-close", {"handle": handle})
    finally:
        await agent.close()
    decode = call.params.get("decode", 1)
    text = content.decode("utf-8", "replace") if decode else base64.b64encode(content).decode()
    return {"content": text, "bytes-read": len(content)} | ({} if ended else {"truncated": 1})


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/agent/file-write")
async def write_file(call: Call) -> object:
    """The content as text, or with `encode=0` as base64."""
    text = call.params["content"]
    encoded = base64.b64encode(text.encode()).decode() if call.params.get("encode", 1) else text
    agent = await _of(call)
    try:
        handle = await agent.command("guest-file-open", {"path": call.params["file"], "mode": "wb"})
        await agent.command("guest-file-write", {"handle": handle, "buf-b64": encoded})
        await agent.command("guest-file-close", {"handle": handle})
    finally:
        await agent.close()
    return None
