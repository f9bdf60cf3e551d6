"""Why a connection failed, in one stable word, and what a person can do about it."""

import socket
import ssl

from edge.config import ConnectionSettings
from edge.errors import ConnectionFailed

# X.509 verification results (OpenSSL, x509_vfy.h), as ssl.SSLCertVerificationError.verify_code gives them.
_NOT_YET_VALID, _EXPIRED = 9, 10
_CHAIN_UNKNOWN = frozenset({2, 7, 18, 19, 20, 21, 24, 30})
_NAME_MISMATCH = frozenset({62, 64})

# TLS alerts with which a server turns down our certificate (RFC 8446, 6.2), as OpenSSL names them.
_FOREIGN = (
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_REQUIRED",
    "UNSUPPORTED_CERTIFICATE",
    "ACCESS_DENIED",
    "DECRYPT_ERROR",
)

_CLOSED = "See the broker's log: it restarted, or does not allow something that this gateway publishes."

_CONNACK: dict[int, tuple[str, str]] = {
    0x84: ("protocol_version_refused", "Set protocol to the version that the broker speaks."),
    0x85: ("client_id_refused", "Choose a client_id that the broker allows."),
    0x86: ("bad_credentials", "Correct username and password_file."),
    0x87: ("refused_not_authorized", "Allow this certificate or user to connect with this client_id."),
    0x88: ("server_unavailable", "Nothing to do here: the broker says that it is not ready."),
    0x89: ("server_busy", "Nothing to do here: the broker says that it is busy."),
    0x8A: ("banned", "Ask the broker's administrator to lift the ban."),
    0x8C: ("bad_credentials", "Use the authentication method that the broker asks for."),
    0x95: ("packet_too_large", "Raise the broker's limit on packets."),
    0x97: ("quota_exceeded", "Raise the broker's quota for this client."),
    0x9C: ("server_moved", "Set host to the server that the broker names."),
    0x9D: ("server_moved", "Set host to the server that the broker names."),
    0x9F: ("connection_rate_exceeded", "Nothing to do here: the next tries come more slowly."),
}

_DISCONNECT: dict[int, tuple[str, str]] = {
    **dict.fromkeys((0x81, 0x82, 0x83, 0x90, 0x99, 0x9A, 0x9B), ("packet_refused", "See the broker's log.")),
    0x87: ("refused_not_authorized", "Allow what this client does there."),
    0x89: ("server_busy", "Nothing to do here: the broker says that it is busy."),
    0x8B: ("broker_closed", "Nothing to do here: the broker is shutting down."),
    0x8D: ("keepalive_timeout", "See whether the line to the broker drops packets."),
    0x8E: ("session_taken_over", "Give each gateway a client_id of its own: another client uses this one."),
    0x95: ("packet_too_large", "Raise the broker's limit on packets."),
    0x97: ("quota_exceeded", "Raise the broker's quota for this client."),
    0x98: ("administrative_action", "Ask the broker's administrator."),
    0x9C: ("server_moved", "Set host to the server that the broker names."),
    0x9D: ("server_moved", "Set host to the server that the broker names."),
}


def refused(code: int, text: str = "") -> ConnectionFailed:
    """CONNACK with an error, as MQTT 5's reason code. text: the broker's own words or the code's name."""
    cause, remedy = _CONNACK.get(code, ("connect_refused", "See the broker's log."))
    return ConnectionFailed(cause, f"the broker refused the connection: {_said(code, text)}", remedy)


def disconnected(code: int, text: str = "") -> ConnectionFailed:
    """DISCONNECT from the broker."""
    cause, remedy = _DISCONNECT.get(code, ("protocol_error", "See the broker's log."))
    return ConnectionFailed(cause, f"the broker ended the connection: {_said(code, text)}", remedy)


def broke_standard(code: int, reason: str, text: str = "") -> ConnectionFailed:
    """What the session found wrong with what the broker did or did not send."""
    if reason == "connect_timeout":
        remedy = "See whether an MQTT broker listens there: it took the connection, and said no more."
        return ConnectionFailed("unreachable", "the broker sent no CONNACK", remedy)
    if reason == "keep_alive":
        return silent("the broker answered no ping")
    problem = f"the broker broke the MQTT standard: {_said(code, f'{reason} {text}'.strip())}"
    return ConnectionFailed("protocol_error", problem, "See that host and port are an MQTT broker's, and its version.")


def silent(problem: str) -> ConnectionFailed:
    """It neither answers nor ends the connection."""
    return ConnectionFailed("keepalive_timeout", problem, "See whether the broker runs and the line to it is up.")


def classify(error: BaseException | None, settings: ConnectionSettings, *, connected: bool) -> ConnectionFailed:
    """error: what ended the transport, None for its plain end. connected: whether CONNACK had come."""
    place = f"{settings.host}:{settings.port}"
    if isinstance(error, ConnectionFailed):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return _server_certificate(error, settings)
    if isinstance(error, ssl.SSLError):
        return _tls(error, settings)
    if isinstance(error, socket.gaierror):
        return ConnectionFailed(
            "unreachable", f"no address for {settings.host}: {error.strerror}", "Check host and DNS."
        )
    if isinstance(error, ConnectionRefusedError):
        return ConnectionFailed("unreachable", f"{place} refuses connections", "See whether the broker runs there.")
    if connected and (error is None or isinstance(error, ConnectionError)):
        return ConnectionFailed("broker_closed", "the broker closed the connection", _CLOSED)
    if error is None or isinstance(error, ConnectionError):
        hint = "See the broker's log: it may not accept this client_id or certificate"
        hint += "." if settings.tls else ", or expect TLS (tls = true)."
        return ConnectionFailed("broker_closed", f"{place} closed the connection before CONNACK", hint)
    if isinstance(error, TimeoutError):
        remedy = "Check host, port and the firewalls between."
        return ConnectionFailed("unreachable", f"{place} did not answer in time", remedy)
    if isinstance(error, OSError):
        problem = f"{place} cannot be reached: {error.strerror or error}"
        return ConnectionFailed("unreachable", problem, "Check the network, host and port.")
    return ConnectionFailed("internal_error", f"{type(error).__name__}: {error}", "Report this with the log.")


def _server_certificate(error: ssl.SSLCertVerificationError, settings: ConnectionSettings) -> ConnectionFailed:
    code = error.verify_code
    problem = f"the certificate of {settings.host} is not accepted: {error.verify_message}"
    if code == _EXPIRED:
        return ConnectionFailed(
            "certificate_expired", problem, "Renew the broker's certificate, or set the clock here."
        )
    if code == _NOT_YET_VALID:
        return ConnectionFailed("clock_wrong", problem, "Set this machine's clock: it seems to be behind.")
    if code in _NAME_MISMATCH:
        return ConnectionFailed("host_name_mismatch", problem, "Set host to a name that the certificate holds.")
    if code in _CHAIN_UNKNOWN:
        return ConnectionFailed("wrong_ca", problem, "Set ca to the certificate of the CA that issued the broker's.")
    return ConnectionFailed("certificate_unusable", problem, "Issue the broker another certificate.")


def _tls(error: ssl.SSLError, settings: ConnectionSettings) -> ConnectionFailed:
    reason = (error.reason or str(error)).upper()
    words = (error.reason or str(error)).replace("_", " ").lower()
    if "ALERT" in reason:
        problem = f"the broker turned down the TLS connection: {words}"
        if "CERTIFICATE_EXPIRED" in reason:
            return ConnectionFailed("certificate_expired", problem, "Renew this gateway's certificate in place.")
        if any(alert in reason for alert in _FOREIGN):
            remedy = "Use a certificate issued by the CA that the broker trusts."
            return ConnectionFailed("certificate_foreign", problem, remedy)
        return ConnectionFailed("tls_failed", problem, "Compare alpn and the TLS versions with the broker's.")
    problem = f"no TLS with {settings.host}:{settings.port}: {words}"
    return ConnectionFailed(
        "tls_failed", problem, "See that the port speaks TLS, or set tls = false for one that does not."
    )


def _said(code: int, text: str) -> str:
    return f"{text} (0x{code:02x})" if text else f"0x{code:02x}"
