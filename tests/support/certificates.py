"""An authority of the tests, and TLS servers' certificates with the flaws asked for."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority(NamedTuple):
    """A certificate authority of the tests."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    file: Path


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    signer: tuple[x509.Name, ec.EllipticCurvePrivateKey],
    *,
    host: str | None,
    days: int,
) -> bytes:
    """Return a PEM certificate; for no host it is an authority's, and negative days have passed already."""
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    )
    if host is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(signer[1], hashes.SHA256()).public_bytes(Encoding.PEM)


def new_authority(folder: Path) -> Authority:
    """Make an authority whose file a client can be told to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of the tests")])
    file = folder / "ca.pem"
    file.write_bytes(_certificate(key, name, (name, key), host=None, days=30))
    return Authority(name, key, file)


def server_context(
    folder: Path, authority: Authority, *, host: str = "localhost", days: int = 30, own: bool = False
) -> ssl.SSLContext:
    """Return a server's context with a certificate for `host`, signed by the authority or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    signer = (name, key) if own else (authority.name, authority.key)
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + _certificate(key, name, signer, host=host, days=days)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
