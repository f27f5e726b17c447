# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Domain names: from text with letters beyond ASCII (IDNA 2008) and back."""

from __future__ import annotations

import re
from functools import cache

try:
    import dns.exception
    import dns.name

except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

# labels that are shown as they are
PLAIN = re.compile(rb"[a-z0-9_*.-]+")
A_LABEL = b"xn--"


@cache
def codec() -> dns.name.IDNACodec:
    """Letters are mapped as in UTS 46, and labels like ``_sip`` may stand beside A-labels."""
    return dns.name.IDNA2008Codec(uts_46=True, allow_pure_ascii=True)


def parse_name(text: str, where: str, origin: dns.name.Name | None = None) -> dns.name.Name:
    """A complete name in lower case; relative ones belong to *origin*, by default to the root.

    :raises InvalidInput: labels or name are too long, empty or no domain name of IDNA 2008.
    """
    try:
        name = dns.name.from_text(text, origin or dns.name.root, codec())
    except (dns.exception.DNSException, UnicodeError) as error:
        raise InvalidInput(
            f"{text!r} is no domain name: {error}",
            where=where,
            hint="Labels have 1 to 63 bytes, the whole name at most 255 (RFC 1035, 2.3.4)",
        ) from None
    return name if text.islower() and "\\" not in text else name.canonicalize()


def shown_labels(labels: tuple[bytes, ...]) -> str:
    """An absolute name for people: without the final dot, A-labels as U-labels."""
    plain = b".".join(labels[:-1])
    if PLAIN.fullmatch(plain) and A_LABEL not in plain:
        return plain.decode("ascii")
    name = dns.name.Name(labels)
    try:
        return name.to_unicode(omit_final_dot=True, idna_codec=codec())
    except dns.exception.DNSException:
        # what looks like an A-label and is none
        return ascii_name(name)


def shown_name(name: dns.name.Name) -> str:
    """The same for a name of dnspython."""
    return shown_labels(name.labels)


def ascii_name(name: dns.name.Name) -> str:
    """For programs: without the final dot, with A-labels."""
    return name.to_text(omit_final_dot=True)
