import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edge_tools.pki import issue_client, issue_server, make_ca


def test_every_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    authority = make_ca(tmp_path / "ca")
    issue_client(authority, tmp_path / "thing", "gateway-1")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["ca.key", "ca.pem", "gateway-1.key", "gateway-1.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_thing_certificate_carries_the_thing_name_and_a_p256_key(tmp_path: Path) -> None:
    credential = issue_client(make_ca(tmp_path), tmp_path, "gateway-1")
    certificate = x509.load_pem_x509_certificate(credential.certificate.read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=gateway-1"
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = make_ca(tmp_path)
    content = first.key.read_bytes()
    assert make_ca(tmp_path) == first
    assert first.key.read_bytes() == content


def test_dates_are_as_asked(tmp_path: Path) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    credential = issue_client(make_ca(tmp_path), tmp_path, "old", not_before=start, not_after=start + timedelta(days=1))
    certificate = x509.load_pem_x509_certificate(credential.certificate.read_bytes())
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (start, start + timedelta(days=1))


def test_python_accepts_the_chain_under_strict_rules(tmp_path: Path) -> None:
    authority = make_ca(tmp_path / "ca")
    server = issue_server(authority, tmp_path / "server", ["localhost", "127.0.0.1"])
    client = issue_client(authority, tmp_path / "client", "gateway-1")
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.ca))
    server_context.load_cert_chain(server.certificate, server.key)
    server_context.verify_mode = ssl.CERT_REQUIRED
    client_context = ssl.create_default_context(cafile=str(client.ca))
    client_context.load_cert_chain(client.certificate, client.key)
    for context in (server_context, client_context):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client_context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    other = server_context.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (one, other):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    peer = other.getpeercert()
    assert peer is not None
    assert peer["subject"] == ((("commonName", "gateway-1"),),)
