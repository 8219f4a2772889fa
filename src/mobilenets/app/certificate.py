"""Certificates that this machine makes for itself: of a server on its network, and of Android packages."""

from __future__ import annotations

import hashlib
import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mobilenets.infer.sealed import write_whole
from mobilenets.infer.weights import cache_dir

SERVER_DAYS, LEFT_DAYS = 365, 30
PACKAGE_DAYS = 365 * 30
BEGIN = b"-----BEGIN CERTIFICATE-----"
Extension = tuple[x509.ExtensionType, bool]
"""And whether it is critical."""


def of_server(address: str) -> Path:
    """A file with key and certificate for an address, kept in the cache, so that a phone is asked once."""
    place = cache_dir() / "app" / f"{address}.pem"
    if not (place.exists() and _lasts(place)):
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address(address))]
        extensions: list[Extension] = [
            (x509.SubjectAlternativeName(names), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ]
        _made(place, "mobilenets app on this network", SERVER_DAYS, extensions)
    return place


def of_packages(place: Path) -> tuple[Path, Path]:
    """Files in `place` with the key (PKCS #8) and the certificate (PEM) of this machine's Android packages.

    They are kept in the cache: a package takes the place of another that the same key has signed.
    """
    kept = cache_dir() / "app" / "android.pem"
    if not kept.exists():
        _made(kept, "mobilenets app", PACKAGE_DAYS, [])
    data = kept.read_bytes()
    key, certificate = place / "key.pk8", place / "certificate.pem"
    private = serialization.load_pem_private_key(data, None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate.write_bytes(data[data.index(BEGIN) :])
    return key, certificate


def fingerprint(place: Path) -> str:
    """SHA-256 of a certificate as browsers show it."""
    digest = hashlib.sha256(_der(place)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _made(place: Path, name: str, days: int, extensions: list[Extension]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )
    for extension, critical in extensions:
        made = made.add_extension(extension, critical)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    mask = os.umask(0o077)  # the key is nobody else's
    try:
        write_whole(place, text + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    finally:
        os.umask(mask)


def _der(place: Path) -> bytes:
    data = place.read_bytes()
    return ssl.PEM_cert_to_DER_cert(data[data.index(BEGIN) :].decode("ascii"))


def _lasts(place: Path) -> bool:
    try:
        found = x509.load_der_x509_certificate(_der(place))
    except ValueError:
        return False
    return found.not_valid_after_utc > datetime.now(UTC) + timedelta(days=LEFT_DAYS)
