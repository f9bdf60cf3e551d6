import subprocess
import sys

import pytest

from edge.cloud.aws import AwsConnection
from edge.config import ConnectionSettings
from edge.errors import ConfigError
from edge.messages import Message, Properties, Reading
from edge.metrics import Metrics


def test_without_the_sdk_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "awscrt.mqtt5", None)
    with pytest.raises(ConfigError, match=r"pip install 'edgeloop\[aws\]'") as raised:
        AwsConnection(ConnectionSettings(host="cloud.test"), Metrics(), file="gateway.toml")
    assert (raised.value.file, raised.value.field) == ("gateway.toml", "cloud.implementation")


def test_importing_the_module_does_not_import_the_sdk() -> None:
    code = "import sys, edge.cloud.aws; sys.exit('awscrt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_message_says_of_its_name_gives_way_to_what_the_gateway_says() -> None:
    connection = AwsConnection(ConnectionSettings(host="cloud.test"), Metrics())
    own = Properties(user=(("thing", "b9"), ("unit", "C"), ("seq", "99"), ("t", "999")))
    message = Message("dt/x", b"p", 1, properties=own, reading=Reading("t", 1, 2))
    found = [(one.name, one.value) for one in connection._packet(message).user_properties]
    assert found == [("unit", "C"), ("thing", "t"), ("boot", "1"), ("seq", "2")]
