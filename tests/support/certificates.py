"""An authority of the tests, and TLS servers' certificates with the flaws asked for."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path
from typing import Final, NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

KEY_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class Authority(NamedTuple):
    """A certificate authority of the tests.

    Attributes:
        file: its certificate, by which a client trusts it.
    """

    issuer: trustme.CA
    file: Path


def new_authority(folder: Path) -> Authority:
    """Make an authority that a client can trust by its file."""
    authority = Authority(trustme.CA(), folder / "ca.pem")
    authority.issuer.cert_pem.write_to_path(authority.file)
    return authority


def careless_context(folder: Path, authority_file: Path) -> ssl.SSLContext:
    """Return a server's context with a certificate of an authority that leaves the key identifiers out, as many do.

    Args:
        folder: where the server's certificate and key are written.
        authority_file: where the authority's certificate is written.
    """
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A careless authority")])
    usage = x509.KeyUsage(*(flag == "key_cert_sign" for flag in KEY_USAGES))

    def signed(subject: x509.Name, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
        builder = x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), now - dt.timedelta(days=1),
            now + dt.timedelta(days=30),
        )  # fmt: skip
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    authority_file.write_bytes(signed(issuer, (x509.BasicConstraints(ca=True, path_length=None), True), (usage, True)))
    file = folder / "careless.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + signed(name, (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def server_context(
    folder: Path, authority: Authority, *, host: str = "localhost", days: int = 30, unknown: bool = False
) -> ssl.SSLContext:
    """Return a server's context with a certificate for a host.

    Args:
        folder: where the certificate and its key are written.
        authority: who signs it.
        host: whom it is for.
        days: how long it is valid; a negative number has passed already.
        unknown: True to have it signed by an authority that nobody knows.
    """
    now = dt.datetime.now(dt.UTC)
    issuer = trustme.CA() if unknown else authority.issuer
    leaf = issuer.issue_cert(host, not_before=now - dt.timedelta(days=30), not_after=now + dt.timedelta(days=days))
    file = folder / "server.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
