# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before anything is written, because servers drop it or nobody could use it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.mail import check_texts
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dns_calls import actions, content, failed, messages, record_set, run, zone
from support.dns_server import DnsServer


def der(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes(3, "big").lstrip(b"\0")
    return bytes([tag]) + (size if len(content) < 128 else bytes([0x80 | len(size)]) + size) + content


def rsa_key(bits: int) -> str:
    """A key of any size, in a SubjectPublicKeyInfo; nobody has the private half."""
    modulus = (1 << (bits - 1) | 1).to_bytes(bits // 8 + 1, "big")
    key = der(0x30, der(2, modulus) + der(2, b"\1\0\1"))
    algorithm = der(0x30, bytes.fromhex("06092a864886f70d010101 0500"))
    return base64.b64encode(der(0x30, algorithm + der(3, b"\0" + key))).decode()


def real_key(form: PublicFormat) -> str:
    key = rsa.generate_private_key(65537, 1024).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, form)).decode()


def edwards_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


@pytest.mark.parametrize(
    "pointer",
    [
        record_set("x", "MX", "10 alias.fedi.test"),
        record_set("x", "SRV", "1 2 443 Alias.fedi.test."),
        record_set("x", "NS", "alias.fedi.test"),
    ],
)
def test_a_target_that_is_an_alias(server: DnsServer, pointer: dict[str, Any]) -> None:
    alias, good = record_set("alias", "CNAME", "www.fedi.test"), record_set("good", "A", "192.0.2.1")
    both = run(server, zone(alias, pointer, good))
    assert failed(both) == {"alias.fedi.test CNAME", f"x.fedi.test {pointer['type']}"}
    assert "is an alias" in messages(both)[f"x.fedi.test {pointer['type']}"]
    assert "leads to this name" in messages(both)["alias.fedi.test CNAME"]
    run(server, zone(alias))
    assert failed(run(server, zone(pointer))) == {f"x.fedi.test {pointer['type']}"}
    swapped = run(server, zone({**alias, "state": "absent"}, record_set("alias", "A", "192.0.2.2"), pointer))
    assert not swapped["failed"], swapped["msg"]
    # the name that something leads to cannot become an alias, whoever made that
    late = run(server, zone(alias, record_set("alias", "A", state="absent")))
    assert "leads to this name" in messages(late)["alias.fedi.test CNAME"]
    # and then the old records are not deleted to make room
    assert "for which it makes room, is refused" in messages(late)["alias.fedi.test A"]
    assert failed(run(server, zone(alias, pointer, purge=True))) >= set(failed(late))
    assert ("alias.fedi.test.", "A") in content(server)


def test_names_of_a_zone_that_is_given_away(server: DnsServer, administrator: Any) -> None:
    cut = record_set("child", "NS", "ns.child.fedi.test", "ns1.fedi.test")
    seen = [cut, record_set("child", "DS", "1 13 2 " + "ab" * 32), record_set("ns.child", "A", "192.0.2.53")]
    unseen = [
        *(record_set(name, "A", "192.0.2.1") for name in ("www.child", "child", "a.b.child", "*.child")),
        record_set("ns.child", "TXT", "x"),
        record_set("deep.child", "NS", "ns1.fedi.test"),
    ]
    together = run(server, zone(*seen, *unseen))
    assert len(failed(together)) == len(unseen)
    assert "give child.fedi.test to another zone" in messages(together)["www.child.fedi.test A"]
    assert set(actions(run(server, zone(*seen))).values()) == {"unchanged"}
    # whoever gives it away
    administrator(lambda update: update.add("theirs", 300, "NS", "ns1.fedi.test."))
    late = run(server, zone(record_set("www.theirs", "A", "192.0.2.1"), record_set("good", "A", "192.0.2.1")))
    assert failed(late) == {"www.theirs.fedi.test A"}
    # what comes back with the NS records
    back = run(server, zone(*(({**item, "state": "absent"}) for item in seen[:2]), *unseen[:4]))
    assert not back["failed"], back["msg"]


def test_two_spf_records(server: DnsServer) -> None:
    result = run(
        server, zone(record_set("", "TXT", "v=spf1 -all", "V=SPF1 mx -all", "v=spf10"), record_set("x", "TXT", "a"))
    )
    assert failed(result) == {"fedi.test TXT"}
    assert "2 SPF records" in messages(result)["fedi.test TXT"]
    assert actions(result)["x.fedi.test TXT"] == "create"


SELECTOR = (b"s1", b"_domainkey", b"fedi", b"test", b"")


def test_good_dkim_keys() -> None:
    for text in (
        f"v=DKIM1; k=rsa; p={real_key(PublicFormat.SubjectPublicKeyInfo)}",
        f"k=rsa; p={real_key(PublicFormat.PKCS1)}; t=y",
        f"p={rsa_key(1024)}",
        f"v = DKIM1 ; p = {rsa_key(4096)[:40]} {rsa_key(4096)[40:]}",
        f"v=DKIM1; k=ed25519; p={edwards_key()}",
        "v=DKIM1; p=",
        "v=DKIM1; k=future; p=AAAA",
    ):
        check_texts(SELECTOR, [text.encode()], "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"v=DKIM1; p={rsa_key(1024)[:-8]}", "cut off"),
        (f"v=DKIM1; p={rsa_key(1024)[:-1]}", "not base64"),
        ("v=DKIM1; k=rsa; p=AAAA", "no RSA public key"),
        (f"v=DKIM1; k=ed25519; p={rsa_key(1024)}", "Ed25519"),
        ("v=DKIM1; k=rsa", "missing"),
        ("k=rsa; v=DKIM1; p=", "not the first"),
        ("v=DKIM2; p=", "not DKIM1"),
        ("v=DKIM1; p=; p=", "twice"),
        ("something", "no tag"),
        (f"p={rsa_key(512)}", "512 bits"),
        (f"p={rsa_key(8192)}", "8192 bits"),
    ],
)
def test_bad_dkim_keys(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        check_texts(SELECTOR, [text.encode()], "s1._domainkey, value")
    assert caught.value.where == "s1._domainkey, value"
    check_texts((b"s1", b"fedi", b"test", b""), [text.encode()], "x")


def test_a_long_key_goes_there_and_back(server: DnsServer) -> None:
    wanted = zone(record_set("s1._domainkey", "TXT", f"v=DKIM1; k=rsa; p={rsa_key(4096)}"))
    result = run(server, wanted)
    assert not result["failed"], result["msg"]
    assert not run(server, wanted)["changed"]
    short = run(server, zone(record_set("s1._domainkey", "TXT", "v=DKIM1; k=rsa; p=AAAA")))
    assert "s1._domainkey.fedi.test TXT, value: no DKIM key" in messages(short)["s1._domainkey.fedi.test TXT"]


def test_name_servers_of_the_zone_only_when_allowed(server: DnsServer) -> None:
    wanted = zone(record_set("", "NS", "ns1.fedi.test", "ns2.example.org", ttl=300))
    assert "allow_apex_ns" in run(server, wanted)["msg"]
    assert "no mark of ours" in run(server, wanted, allow_apex_ns=True)["msg"]
    adopting = zone(record_set("", "NS", "ns1.fedi.test", "ns2.example.org", ttl=300, adopt=True))
    predicted = run(server, adopting, check=True, allow_apex_ns=True)
    done = run(server, adopting, allow_apex_ns=True)
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    assert content(server)["fedi.test.", "NS"] == (300, frozenset({"ns1.fedi.test.", "ns2.example.org."}))
    one = zone(record_set("", "NS", "ns2.example.org", ttl=300))
    done = run(server, one, allow_apex_ns=True)
    assert not done["failed"], done["msg"]
    assert content(server)["fedi.test.", "NS"] == (300, frozenset({"ns2.example.org."}))
    assert not run(server, zone(purge=True), allow_apex_ns=True)["changed"]
    gone = run(server, zone(record_set("", "NS", state="absent")), allow_apex_ns=True)
    assert "needs its NS records" in gone["msg"]


def test_what_is_too_big_is_refused_before_anything_is_written(server: DnsServer) -> None:
    big = record_set("big", "TXT", *(f"{number}" + "x" * 1000 for number in range(80)))
    huge = record_set("huge", "TXT", "x" * 70000)
    result = run(server, zone(big, huge, record_set("z", "A", "192.0.2.1")), check=True)
    assert failed(result) == {"big.fedi.test TXT", "huge.fedi.test TXT"}
    assert "big.fedi.test TXT, value: the record set is too big for one DNS message" in result["msg"]
    assert "70275 bytes" in messages(result)["huge.fedi.test TXT"]
