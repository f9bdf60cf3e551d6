"""Certificates and keys, from files to a TLS context. Read again for every connection, so that a renewed one counts."""

import os
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge.cloud.certificate import validity
from edge.config import ConnectionSettings
from edge.errors import ConfigError, ConnectionFailed

AWS_HOST_TAIL = ".amazonaws.com"
AWS_ALPN = "x-amzn-mqtt-ca"  # certificates over port 443 (AWS IoT developer guide, protocols)
HTTPS_PORT = 443


class _Finding(msgspec.Struct, frozen=True):
    cause: str
    field: str
    problem: str
    fix: str


class _Found(Exception):
    def __init__(self, cause: str, field: str, problem: str, fix: str) -> None:
        self.finding = _Finding(cause, field, problem, fix)


def check_credentials(settings: ConnectionSettings, file: str, section: str, now: datetime | None = None) -> None:
    """For the start and for `check-config`. Raises ConfigError, by the gateway file and its section: a file that is
    missing, not what it should be, or open to others; a key that does not match; a certificate past its end. A
    certificate not valid yet is let pass: then the clock is wrong, and the network may set it."""
    finding = _examine(settings, now or datetime.now(UTC))
    if finding is not None and finding.cause != "clock_wrong":
        raise ConfigError(file, f"{section}.{finding.field}", finding.problem, finding.fix)


def read_password(settings: ConnectionSettings) -> bytes | None:
    """Raises ConnectionFailed."""
    if not settings.password_file:
        return None
    try:
        return Path(settings.password_file).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        problem = f"the password file {settings.password_file} cannot be read: {error.strerror}"
        raise ConnectionFailed("credentials_unusable", problem, "Put it back.") from None


def alpn_of(settings: ConnectionSettings) -> str:
    """What to ask for; AWS wants its own name where MQTT shares the port with HTTPS."""
    if settings.alpn or settings.port != HTTPS_PORT or not settings.host.endswith(AWS_HOST_TAIL):
        return settings.alpn
    return AWS_ALPN


def open_context(settings: ConnectionSettings, now: datetime | None = None) -> ssl.SSLContext | None:
    """From the files as they are now; None without TLS. Raises ConnectionFailed."""
    require_usable(settings, now)
    return _context(settings) if settings.tls else None


def require_usable(settings: ConnectionSettings, now: datetime | None = None) -> None:
    """Raises ConnectionFailed when the files as they are now can open no connection."""
    finding = _examine(settings, now or datetime.now(UTC))
    if finding is not None and finding.cause != "open_to_others":  # said at the start; no reason to stay away
        raise ConnectionFailed(finding.cause, f"{finding.field} {finding.problem}", finding.fix)


def _context(settings: ConnectionSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca:
        context.load_verify_locations(settings.ca)
    else:
        context.load_default_certs()
    if settings.certificate:
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")  # never ask at a terminal
    if alpn := alpn_of(settings):
        context.set_alpn_protocols([alpn])
    return context


def _examine(settings: ConnectionSettings, now: datetime) -> _Finding | None:
    try:
        if settings.tls:
            for field in ("ca", "certificate", "key"):
                _check_pem(field, getattr(settings, field))
            _check_chain(settings)
            if settings.certificate:
                _check_dates(settings.certificate, now)
        for field in ("key", "password_file"):
            _check_mode(field, getattr(settings, field))
    except _Found as found:
        return found.finding
    return None


def _check_pem(field: str, path: str) -> None:
    if not path:
        return
    try:
        text = Path(path).read_bytes().decode("ascii", "replace")
    except OSError as error:
        problem = f"names {path}, which cannot be read: {error.strerror}"
        raise _Found("credentials_unusable", field, problem, "Put the file there, readable by the gateway.") from None
    wanted = "PRIVATE KEY-----" if field == "key" else "-----BEGIN CERTIFICATE-----"
    if wanted not in text:
        what = "private key" if field == "key" else "certificate"
        raise _Found("credentials_unusable", field, f"names {path}, which holds no PEM {what}", "Give it in PEM form.")
    if "ENCRYPTED" in text and field == "key":
        fix = "Store it without a passphrase, mode 0600."
        raise _Found("credentials_unusable", field, f"names {path}, which needs a passphrase", fix)


def _check_chain(settings: ConnectionSettings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ca:
        try:
            context.load_verify_locations(settings.ca)
        except (ssl.SSLError, OSError) as error:
            problem = f"names {settings.ca}, which is damaged: {_reason(error)}"
            raise _Found("credentials_unusable", "ca", problem, "Copy the CA's certificate again.") from None
    if settings.certificate:
        try:
            context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            if "MISMATCH" in _reason(error):
                problem = f"names {settings.key}, which is not the key of {settings.certificate}"
                raise _Found(
                    "credentials_unusable", "key", problem, "Use the key the certificate was made for."
                ) from None
            problem = f"names {settings.certificate}, which cannot be used with its key: {_reason(error)}"
            raise _Found("credentials_unusable", "certificate", problem, "Make key and certificate again.") from None


def _check_dates(path: str, now: datetime) -> None:
    try:
        not_before, not_after = validity(Path(path).read_text())
    except (ValueError, OSError) as error:
        problem = f"names {path}, which cannot be read: {error}"
        raise _Found("credentials_unusable", "certificate", problem, "Copy the certificate again.") from None
    if now > not_after:
        problem = f"names {path}, which expired at {not_after:%Y-%m-%d %H:%M:%S} UTC"
        fix = "Renew it in place; the next try uses it."
        raise _Found("certificate_expired", "certificate", problem, fix)
    if now < not_before:
        problem = f"names {path}, which is valid only from {not_before:%Y-%m-%d %H:%M:%S} UTC"
        fix = f"Set this machine's clock: it shows {now:%Y-%m-%d %H:%M:%S} UTC."
        raise _Found("clock_wrong", "certificate", problem, fix)


def _check_mode(field: str, path: str) -> None:
    if not path:
        return
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        problem = f"names {path}, which cannot be read: {error.strerror}"
        raise _Found("credentials_unusable", field, problem, "Put the file there.") from None
    if mode & 0o077:
        problem = f"names {path}, which others may read (mode {mode:04o})"
        raise _Found("open_to_others", field, problem, f"chmod 600 {path}")


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
