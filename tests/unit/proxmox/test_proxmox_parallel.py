# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Threads of one run: order, errors, interruption; ids for new machines."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Exists,
    HostingError,
    InvalidInput,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Answer, Client, Transient
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import Row
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired, own_tags
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parallel import Parallel, Stopped
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.vmids import Ids, parse_range


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_their_order_and_errors_their_item(workers: int) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise Exists("there")
        if number == 3:
            raise KeyError("defect")
        return number * 10

    results = list(Parallel(workers).each(range(6), work))
    assert [one for one in results if isinstance(one, int)] == [0, 10, 40, 50]
    assert (type(results[2]), type(results[3])) == (Exists, BackendError)
    assert "unexpected KeyError: 'defect'" in str(results[3])


def test_work_is_done_at_the_same_time() -> None:
    barrier = threading.Barrier(4)
    assert len({*Parallel(4).each(range(4), lambda _number: barrier.wait(30))}) == 4


def test_an_interrupted_caller_waits_for_what_is_under_way_and_begins_nothing_new() -> None:
    parallel = Parallel(2)
    begun: list[int] = []
    ended: list[type[HostingError]] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            return
        try:
            parallel.sleep(60)
        except Stopped as error:
            ended.append(type(error))
            raise

    results = parallel.each(range(20), work)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert ended == [Stopped] * (len(begun) - 1)
    assert len(begun) < 20


WEB = VmDesired("web")


def client(*next_ids: int) -> Client:
    left = list(next_ids)

    def transport(_method: str, path: str, _params: Any) -> Answer:
        assert path == "/cluster/nextid"
        return Answer(200, "OK", str(left.pop(0)))

    return Client(transport, "pve1", "a@pve", sleep=lambda _seconds: None)


def ids(*looks: Sequence[Row], allowed: range | None = None) -> Ids:
    left = list(looks)
    return Ids(lambda _client, _desired: left.pop(0), allowed)


def guest(vmid: int, tags: frozenset[str] = frozenset()) -> Row:
    return Row(vmid, "pve1", "qemu", tags)


def test_the_lowest_free_id_is_used_without_another_look() -> None:
    found = ids()
    found.view([guest(100)])
    assert found.claim(client(101), WEB, lambda vmid: vmid)[0] == 101


def test_a_higher_id_than_the_lowest_free_one_needs_another_look() -> None:
    found = ids([guest(100, own_tags("web"))])
    with pytest.raises(Transient, match="another client has just made this machine"):
        found.claim(client(101), WEB, lambda vmid: vmid)
    assert ids([guest(100)]).claim(client(101), WEB, lambda vmid: vmid)[0] == 101


def test_an_id_that_a_clone_is_just_taking_is_not_given_twice() -> None:
    found = ids()
    shared = client(100, 100, 100, 101)
    assert found.claim(shared, WEB, lambda vmid: vmid)[0] == 100
    assert found.claim(shared, VmDesired("other"), lambda vmid: vmid)[0] == 101


def test_an_id_taken_by_others_is_followed_by_a_look() -> None:
    def send(vmid: int) -> int:
        if vmid < 5002:
            raise Exists("taken")
        return vmid

    found = ids([guest(5000)], [guest(5000), guest(5001)], allowed=range(5000, 5010))
    assert found.claim(client(), WEB, send)[0] == 5002


@pytest.mark.parametrize("text", ["5000", "a-b", "6000-5000", "5-200", "100-1000000000"])
def test_bad_ranges_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="vmid_range"):
        parse_range(text)
    assert parse_range("5000-5002") == range(5000, 5003)
    assert parse_range(None) is None
