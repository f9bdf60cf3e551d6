"""Fixtures that many parts share: a private CA and real mosquittos; and the choice of the board, `--board`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from edge_tools.mosquitto import THING_ACL, Mosquitto, user_acl
from edge_tools.pki import Authority, Credential, issue_client, issue_server, make_ca
from tests.hil.options import pytest_addoption, pytest_collection_modifyitems, pytest_configure

# A shell starts what it runs in the background with SIGINT ignored, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A run that decides about a change tries the same examples each time; everybody else's tries new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One private CA for the whole run."""
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def server_credential(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Credential:
    """Of a server that is called localhost and 127.0.0.1."""
    return issue_server(authority, tmp_path_factory.mktemp("server"), ["localhost", "127.0.0.1"])


@pytest.fixture(scope="session")
def thing_credential(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Credential:
    """Of the thing `gateway-1`, which the cloud_broker fixture's ACL lets use `+/gateway-1/#`."""
    return issue_client(authority, tmp_path_factory.mktemp("thing"), "gateway-1")


@pytest.fixture(scope="session")
def observer_credential(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Credential:
    """Of `observer`, which the cloud_broker fixture's ACL lets see and publish everything."""
    return issue_client(authority, tmp_path_factory.mktemp("observer"), "observer")


@pytest.fixture
def plain_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A mosquitto on loopback that lets everybody do everything."""
    with Mosquitto(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def cloud_broker(tmp_path: Path, server_credential: Credential) -> Iterator[Mosquitto]:
    """A mosquitto that stands for the cloud: mutual TLS only (`tls_port`), ACL by thing, persistent sessions."""
    acl = (*user_acl("observer", "readwrite #", "readwrite $aws/#"), *THING_ACL)
    with Mosquitto(tmp_path / "cloud", plain=False, tls=server_credential, acl=acl, persistent=True) as broker:
        yield broker
