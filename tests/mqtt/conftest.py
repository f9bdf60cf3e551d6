"""Real brokers with settings of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tools.mosquitto import Mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """Its window is 4."""
    with Mosquitto(tmp_path / "broker", options=["max_inflight_messages 4", "message_size_limit 4000000"]) as broker:
        yield broker


@pytest.fixture
def mosquitto_of_others(tmp_path: Path) -> Iterator[Mosquitto]:
    """It takes only clients whose names we do not have."""
    with Mosquitto(tmp_path / "broker", options=["clientid_prefixes others-"]) as broker:
        yield broker
