"""When a certificate is valid, read from its DER (RFC 5280, 4.1.2.5); the standard library tells it of peers only."""

import ssl
from datetime import UTC, datetime

_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def validity(pem: str) -> tuple[datetime, datetime]:
    """Not before and not after, of the first certificate of a PEM file. Raises ValueError when there is none."""
    start = pem.find(_BEGIN)
    end = pem.find(_END, start)
    if start < 0 or end < 0:
        raise ValueError("no PEM certificate")
    der = ssl.PEM_cert_to_DER_cert(pem[start : end + len(_END)])
    try:
        _, certificate, _ = _element(der)
        _, rest, _ = _element(certificate)
        tag, _, after = _element(rest)
        if tag == _VERSION:
            rest = after
        for _ in ("serial number", "signature", "issuer"):
            _, _, rest = _element(rest)
        _, dates, _ = _element(rest)
        tag, not_before, dates = _element(dates)
        tag_after, not_after, _ = _element(dates)
        return _time(tag, not_before), _time(tag_after, not_after)
    except IndexError:
        raise ValueError("a certificate cut short") from None


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The first element's tag and content, and what follows it (X.690, 8.1)."""
    tag, size, start = der[0], der[1], 2
    if size & 0x80:
        start = 2 + (size & 0x7F)
        size = int.from_bytes(der[2:start], "big")
    if start + size > len(der):
        raise IndexError
    return tag, der[start : start + size], der[start + size :]


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280, 4.1.2.5.1: 50 and above means 19xx
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"no time has the tag {tag:#x}")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
