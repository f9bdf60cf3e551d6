"""The cloud's shadow service in memory, pure: as much of it as the gateway can tell from AWS IoT's."""

import json
from typing import Any

_BYTES_MAX = 8192


class FakeShadows:
    """documents: by thing and name. silent: requests are not answered. rejects: this code, if not 0."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.silent = False
        self.rejects = 0

    def answer(self, topic: str, payload: bytes) -> tuple[str, bytes] | None:
        """Where the answer goes, and what it says."""
        levels = topic.split("/")
        if levels[:2] != ["$aws", "things"] or levels[3] != "shadow" or levels[-1] in {"accepted", "rejected"}:
            return None
        if self.silent:
            return None
        asked = json.loads(payload)
        key = (levels[2], levels[5] if levels[4] == "name" else "")
        said = self._act(levels[-1], key, asked)
        if "clientToken" in asked:
            said["clientToken"] = asked["clientToken"]
        return f"{topic}/{'rejected' if 'code' in said else 'accepted'}", json.dumps(said).encode()

    def _act(self, action: str, key: tuple[str, str], asked: dict[str, Any]) -> dict[str, Any]:
        document = self.documents.get(key)
        if self.rejects:
            return {"code": self.rejects, "message": "as wished"}
        if action == "update":
            if len(json.dumps(asked.get("state"))) > _BYTES_MAX:
                return {"code": 413, "message": "The payload exceeds the maximum size allowed"}
            version = document["version"] if document else 0
            if asked.get("version", version) != version:
                return {"code": 409, "message": "Version conflict"}
            merged = _merge((document or {"state": {}})["state"], asked["state"])
            self.documents[key] = {"state": merged, "version": version + 1}
            return {"state": asked["state"], "version": version + 1, "timestamp": 1_700_000_000}
        if document is None:
            return {"code": 404, "message": f"No shadow exists with name: '{key[0]}'"}
        if action == "delete":
            del self.documents[key]
            return {"version": document["version"], "timestamp": 1_700_000_000}
        return {**document, "metadata": {}, "timestamp": 1_700_000_000}


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    merged = {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in merged.items() if value is not None}
