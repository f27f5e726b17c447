# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the Proxmox VE and Garage simulators inside the supervisor, with the certificates they need."""

from __future__ import annotations

import datetime
import ipaddress

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.garage.server import serve_garage
from lab.hosts import Hosts
from lab.identity import Secrets
from lab.paths import State, write_private
from lab.proxmox.server import serve_proxmox
from lab.services import CONTROLLER, GARAGE_ADMIN_PORT, PROXMOX_PORT

_SERVER_NAMES = ("pve1.lab.test", "garage.lab.test")


async def serve(state: State, hosts: Hosts, secrets: Secrets) -> list[web.AppRunner]:
    """Both simulators, listening; they live as long as the event loop."""
    certificate, key = state.root / "server.pem", state.root / "server.key"
    write_certificates(state)
    return [
        await serve_proxmox(
            hosts=hosts, state=state.proxmox, host=CONTROLLER, port=PROXMOX_PORT,
            certificate=certificate, key=key, access_log=state.proxmox / "access.log",
        ),
        await serve_garage(
            state=state.garage / "tables.json", host=CONTROLLER, port=GARAGE_ADMIN_PORT,
            admin_token=secrets.garage_admin_token, access_log=state.garage / "access.log",
        ),
    ]  # fmt: skip


def write_certificates(state: State) -> None:
    """A certificate authority (its key is not kept) and a server certificate for the controller's address."""
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab CA")])
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _SERVER_NAMES[0])])
    alternatives = [*map(x509.DNSName, _SERVER_NAMES), x509.IPAddress(ipaddress.ip_address(CONTROLLER))]
    identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        _builder(server_name, ca_name, server_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    state.ca.write_bytes(ca.public_bytes(pem))
    (state.root / "server.pem").write_bytes(server.public_bytes(pem))
    private = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(state.root / "server.key", private.decode("ascii"))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
