"""A private certificate authority for a fleet, a demo or a test: ECDSA P-256, SHA-256, X.509 version 3.

Each key is made in the folder where it will be used and never copied; every file is mode 0600 and replaced in one step.
"""

import contextlib
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_VALID_DAYS = 3650
VALID_DAYS = 365
CLOCK_SKEW = timedelta(hours=1)  # a board or gateway whose clock is a little behind still accepts what was just issued


class Credential(msgspec.Struct, frozen=True):
    """One end of a mutual TLS connection, as files. ca: what the other end is checked by."""

    certificate: Path
    key: Path
    ca: Path


class _Validity(NamedTuple):
    not_before: datetime
    not_after: datetime


class Authority(msgspec.Struct, frozen=True):
    """The CA as files. Whoever holds `key` can issue."""

    certificate: Path
    key: Path


def make_ca(
    directory: Path,
    *,
    name: str = "EdgeLoop private CA",
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Authority:
    """Make `ca.pem` and `ca.key` in the folder, or open the ones that are there: an authority is made once."""
    authority = Authority(certificate=directory / "ca.pem", key=directory / "ca.key")
    if authority.certificate.exists() and authority.key.exists():
        return authority
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), _validity(not_before, not_after, CA_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(issues=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_private(authority.key, _key_pem(key))
    _write_private(authority.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def issue_server(
    authority: Authority,
    directory: Path,
    names: Sequence[str],
    *,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Credential:
    """Make `server.key` and `server.pem` for these host names and addresses; the first is the common name."""
    return _issue(
        authority,
        directory,
        "server",
        common_name=names[0],
        alternatives=[_alternative(name) for name in names],
        usage=ExtendedKeyUsageOID.SERVER_AUTH,
        validity=_validity(not_before, not_after, VALID_DAYS),
    )


def issue_client(
    authority: Authority,
    directory: Path,
    name: str,
    *,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Credential:
    """Make `NAME.key` and `NAME.pem`, common name = the thing's name, which a broker takes for its user name."""
    return _issue(
        authority,
        directory,
        name,
        common_name=name,
        alternatives=[],
        usage=ExtendedKeyUsageOID.CLIENT_AUTH,
        validity=_validity(not_before, not_after, VALID_DAYS),
    )


def _issue(
    authority: Authority,
    directory: Path,
    stem: str,
    *,
    common_name: str,
    alternatives: Sequence[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    validity: _Validity,
) -> Credential:
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    issuer_key = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{authority.key}: an ECDSA key is expected")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, issuer.subject, key.public_key(), validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(issues=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    credential = Credential(
        certificate=directory / f"{stem}.pem", key=directory / f"{stem}.key", ca=authority.certificate
    )
    _write_private(credential.key, _key_pem(key))
    _write_private(credential.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return credential


def _validity(not_before: datetime | None, not_after: datetime | None, valid_days: int) -> _Validity:
    now = datetime.now(UTC)
    return _Validity(not_before or now - CLOCK_SKEW, not_after or now + timedelta(days=valid_days))


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, validity: _Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    """Mode 0600 from the first byte; a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
