"""Credentials as files, and real TLS handshakes that fail: the cause, the remedy, and recovery without a restart."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.cloud.certificate import validity
from edge.cloud.codec import CodecConnection
from edge.cloud.tls import alpn_of, check_credentials, open_context
from edge.config import ConnectionSettings
from edge.errors import ConfigError
from edge.metrics import Metrics
from edge_tools.mosquitto import Mosquitto
from edge_tools.pki import Authority, Credential, issue_client, issue_server, make_ca
from tests.cloud.worlds import running, until
from tests.fakes.broker import FakeBroker

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
LAST_WEEK = YESTERDAY - timedelta(days=6)
TOMORROW = datetime.now(UTC) + timedelta(days=1)


def settings_of(credential: Credential, **changes: Any) -> ConnectionSettings:
    given = {
        "host": "localhost",
        "client_id": "gateway-1",
        "ca": str(credential.ca),
        "certificate": str(credential.certificate),
        "key": str(credential.key),
        "backoff_s_min": 0.02,
        "backoff_s_max": 0.05,
        **changes,
    }
    return ConnectionSettings(**given)


@contextlib.asynccontextmanager
async def tls_broker(broker: FakeBroker, credential: Credential, port: int = 0) -> AsyncIterator[int]:
    """The fake broker behind real mutual TLS on loopback; yields its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(credential.ca))
    context.load_cert_chain(credential.certificate, credential.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["mqtt", "x-amzn-mqtt-ca"])
    server = await asyncio.get_running_loop().create_server(broker.make_client, "127.0.0.1", port, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def cause_of(settings: ConnectionSettings) -> str:
    """The cause of the first failure, which comes with a remedy."""
    connection = CodecConnection(settings, Metrics())
    async with running(connection):
        await until(lambda: connection.state.failures > 0)
        assert connection.state.remedy
        return connection.state.cause


def test_mutual_tls_connects_and_the_context_is_strict(
    server_credential: Credential, thing_credential: Credential
) -> None:
    async def main() -> None:
        broker = FakeBroker()
        async with tls_broker(broker, server_credential) as port:
            connection = CodecConnection(settings_of(thing_credential, port=port, alpn="mqtt"), Metrics())
            async with running(connection):
                await until(lambda: connection.state.connected)

    asyncio.run(main())
    context = open_context(settings_of(thing_credential))
    assert context is not None
    assert (context.minimum_version, context.verify_mode) == (ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED)
    assert context.check_hostname


def test_a_server_of_another_ca_is_not_trusted(server_credential: Credential, tmp_path: Path) -> None:
    async def main() -> str:
        stranger = issue_client(make_ca(tmp_path, name="another CA"), tmp_path, "gateway-1")
        async with tls_broker(FakeBroker(), server_credential) as port:
            return await cause_of(settings_of(stranger, port=port))

    assert asyncio.run(main()) == "wrong_ca"


def test_a_server_of_another_ca_of_the_same_name_is_not_trusted(server_credential: Credential, tmp_path: Path) -> None:
    async def main() -> str:
        stranger = issue_client(make_ca(tmp_path), tmp_path, "gateway-1")
        async with tls_broker(FakeBroker(), server_credential) as port:
            return await cause_of(settings_of(stranger, port=port))

    assert asyncio.run(main()) == "wrong_ca"


@pytest.mark.parametrize(
    ("names", "start", "end", "cause"),
    [
        (["localhost"], LAST_WEEK, YESTERDAY, "certificate_expired"),
        (["localhost"], TOMORROW, TOMORROW + timedelta(days=9), "clock_wrong"),
        (["cloud.example"], None, None, "host_name_mismatch"),
        (["192.0.2.1"], None, None, "host_name_mismatch"),
    ],
)
def test_a_server_certificate_that_will_not_do_is_named(
    names: list[str],
    start: datetime | None,
    end: datetime | None,
    cause: str,
    authority: Authority,
    thing_credential: Credential,
    tmp_path: Path,
) -> None:
    async def main() -> str:
        server = issue_server(authority, tmp_path, names, not_before=start, not_after=end)
        async with tls_broker(FakeBroker(), server) as port:
            return await cause_of(settings_of(thing_credential, port=port))

    assert asyncio.run(main()) == cause


def test_a_foreign_certificate_is_turned_down_and_the_right_one_in_its_place_needs_no_restart(
    authority: Authority, cloud_broker: Mosquitto, tmp_path: Path
) -> None:
    async def main() -> None:
        other = issue_client(make_ca(tmp_path / "other", name="another CA"), tmp_path, "gateway-1")
        settings = settings_of(other, ca=str(authority.certificate), port=cloud_broker.tls_port)
        connection = CodecConnection(settings, Metrics())
        async with running(connection):
            await until(lambda: connection.state.failures > 0)
            assert connection.state.cause == "certificate_foreign"
            issue_client(authority, tmp_path, "gateway-1")
            await until(lambda: connection.state.connected)

    asyncio.run(main())


def test_a_certificate_that_only_the_broker_finds_expired_is_named(
    authority: Authority, cloud_broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.cloud.tls._check_dates", lambda *_: None)  # as if the clock here were behind
    old = issue_client(authority, tmp_path, "gateway-1", not_before=LAST_WEEK, not_after=YESTERDAY)
    assert asyncio.run(cause_of(settings_of(old, port=cloud_broker.tls_port))) == "certificate_expired"


def test_an_expired_certificate_is_named_and_its_renewal_needs_no_restart(
    authority: Authority, server_credential: Credential, tmp_path: Path
) -> None:
    async def main() -> None:
        old = issue_client(authority, tmp_path, "gateway-1", not_before=LAST_WEEK, not_after=YESTERDAY)
        async with tls_broker(FakeBroker(), server_credential) as port:
            connection = CodecConnection(settings_of(old, port=port), Metrics())
            async with running(connection):
                await until(lambda: connection.state.failures > 0)
                assert connection.state.cause == "certificate_expired"
                issue_client(authority, tmp_path, "gateway-1")
                await until(lambda: connection.state.connected)

    asyncio.run(main())


def test_a_port_that_speaks_no_tls_is_named(thing_credential: Credential) -> None:
    async def main() -> str:
        def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            return await cause_of(settings_of(thing_credential, port=server.sockets[0].getsockname()[1]))

    assert asyncio.run(main()) == "tls_failed"


def test_a_client_without_tls_is_told_that_the_broker_may_want_it(cloud_broker: Mosquitto) -> None:
    async def main() -> None:
        port = cloud_broker.tls_port
        plain = ConnectionSettings(host="127.0.0.1", port=port, tls=False, client_id="g", backoff_s_min=0.02)
        connection = CodecConnection(plain, Metrics())
        async with running(connection):
            await until(lambda: connection.state.failures > 0)
            assert (connection.state.cause, "tls = true" in connection.state.remedy) == ("broker_closed", True)

    asyncio.run(main())


@pytest.mark.parametrize("host", ["localhost", "no-such-host.invalid"])
def test_nobody_there_is_unreachable(host: str, thing_credential: Credential) -> None:
    async def main() -> str:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await cause_of(settings_of(thing_credential, host=host, port=port))

    assert asyncio.run(main()) == "unreachable"


def test_good_credentials_pass(thing_credential: Credential) -> None:
    check_credentials(settings_of(thing_credential), "gateway.toml", "cloud")


@pytest.mark.parametrize("field", ["ca", "certificate", "key"])
@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read"), ("not PEM", "holds no PEM"), ("", "holds no PEM")]
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    field: str, content: str | None, problem: str, thing_credential: Credential, tmp_path: Path
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=problem) as raised:
        check_credentials(settings_of(thing_credential, **{field: str(path)}), "gateway.toml", "cloud")
    assert (raised.value.file, raised.value.field) == ("gateway.toml", f"cloud.{field}")
    assert raised.value.fix


def test_a_damaged_certificate_is_named(thing_credential: Credential, tmp_path: Path) -> None:
    path = tmp_path / "cut.pem"
    lines = thing_credential.certificate.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[-1]]))
    for field in ("ca", "certificate"):
        with pytest.raises(ConfigError, match=field):
            check_credentials(settings_of(thing_credential, **{field: str(path)}), "gateway.toml", "cloud")


def test_the_key_of_another_certificate_is_named(thing_credential: Credential, observer_credential: Credential) -> None:
    wrong = settings_of(thing_credential, key=str(observer_credential.key))
    with pytest.raises(ConfigError, match="which is not the key of") as raised:
        check_credentials(wrong, "gateway.toml", "cloud")
    assert raised.value.field == "cloud.key"


def test_a_key_that_others_may_read_is_named_with_the_command_that_mends_it(
    authority: Authority, tmp_path: Path
) -> None:
    credential = issue_client(authority, tmp_path, "open")
    credential.key.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640") as raised:
        check_credentials(settings_of(credential), "gateway.toml", "cloud")
    assert raised.value.fix == f"chmod 600 {credential.key}"


def test_an_expired_certificate_is_named_at_the_start(authority: Authority, tmp_path: Path) -> None:
    old = issue_client(authority, tmp_path, "old", not_before=LAST_WEEK, not_after=YESTERDAY)
    with pytest.raises(ConfigError, match="expired at"):
        check_credentials(settings_of(old), "gateway.toml", "cloud")


def test_a_certificate_not_valid_yet_is_a_matter_of_the_clock_and_keeps_no_gateway_from_starting(
    authority: Authority, tmp_path: Path
) -> None:
    early = issue_client(authority, tmp_path, "early", not_before=TOMORROW)
    check_credentials(settings_of(early), "gateway.toml", "cloud")
    assert asyncio.run(cause_of(settings_of(early))) == "clock_wrong"


def test_a_key_with_a_passphrase_is_named_and_nobody_is_asked(thing_credential: Credential, tmp_path: Path) -> None:
    path = tmp_path / "locked.key"
    path.write_text(thing_credential.key.read_text().replace("PRIVATE", "ENCRYPTED PRIVATE"))
    with pytest.raises(ConfigError, match="passphrase"):
        check_credentials(settings_of(thing_credential, key=str(path)), "gateway.toml", "cloud")


def test_aws_on_the_https_port_is_asked_for_by_its_own_protocol_name() -> None:
    def alpn(**given: Any) -> str:
        return alpn_of(ConnectionSettings(**{"host": "abc-ats.iot.eu-west-1.amazonaws.com", **given}))

    assert alpn(port=443) == "x-amzn-mqtt-ca"
    assert alpn(port=443, alpn="mqtt") == "mqtt"
    assert alpn(port=8883) == ""
    assert alpn(port=443, host="cloud.example") == ""


def test_validity_is_read_before_and_after_2050(authority: Authority, tmp_path: Path) -> None:
    start, end = datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
    credential = issue_client(authority, tmp_path, "long", not_before=start, not_after=end)
    assert validity(credential.certificate.read_text()) == (start, end)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"])
def test_validity_of_what_is_no_certificate_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="certificate"):
        validity(text)
