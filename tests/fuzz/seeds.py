"""Writes the seed corpora, made from the vectors: `python tests/fuzz/seeds.py FOLDER` fills FOLDER/frames,
FOLDER/mqttsn and so on by target, one raw input a file, for the Python and the C fuzzers alike."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz import rules
from tests.fuzz.functions import LINES_SEEDS, WIRE_SEEDS
from tests.fuzz.mqtt import seed
from tests.mqtt import vectors as mqtt

VECTORS = Path(__file__).resolve().parents[1] / "vectors"


def seeds() -> dict[str, list[bytes]]:
    """Target to its inputs."""
    wire, mqttsn = (json.loads((VECTORS / f"{name}.json").read_bytes()) for name in ("wire", "mqttsn"))
    return {
        "frames": _raw(wire, "frame_hex", "frames") + _raw(wire, "stream_hex", "streams"),
        "mqttsn": _raw(mqttsn, "hex", "messages", "rejected", "encapsulated", "encapsulated_rejected"),
        "link": _raw(wire, "hex", "links", "links_rejected", "readings", "readings_rejected", "requests"),
        "mqtt": [seed(version, bytes.fromhex(text)) for version, text, _ in mqtt.VECTORS]
        + [seed(version, bytes.fromhex(text)) for _, _, version, text in mqtt.MALFORMED],
        "rules": rules.SEEDS,
        "function_wire": WIRE_SEEDS,
        "function_lines": LINES_SEEDS,
    }


def write_seeds(folder: Path, target: str) -> None:
    """Fill the folder, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds()[target]:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def _raw(vectors: dict[str, Any], field: str, *lists: str) -> list[bytes]:
    return [bytes.fromhex(vector[field]) for name in lists for vector in vectors[name]]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    for name in seeds():
        write_seeds(Path(sys.argv[1]) / name, name)
