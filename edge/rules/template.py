"""The topic of a rule's rows: a template such as `agg/${board}`, filled from a row."""

import re
from typing import Any

from edge.errors import InputRejected
from edge.topic_bounds import GENERAL
from edge.topics import check_topic


class Template:
    """text: `${column}` stands for a field of the row."""

    def __init__(self, text: str) -> None:
        self._parts = re.split(r"\$\{([^}]*)\}", text)
        self.fixed = text if len(self._parts) == 1 else ""
        """The topic of all rows, where it is one."""

    def topic(self, row: Any) -> str:
        """Raises InputRejected where a row's field is no level of a topic."""
        if self.fixed:
            return self.fixed
        text = ""
        for at, part in enumerate(self._parts):
            if at % 2:
                value = row.get(part) if isinstance(row, dict) else None
                part = value if isinstance(value, str) else str(value) if value.__class__ in {int, bool} else ""
                if not part or "/" in part:
                    raise InputRejected("row_topic", f"${{{self._parts[at]}}} gives no level of a topic")
            text += part
        check_topic(text)
        if (wrong := GENERAL.wrong(text)) is not None:
            raise InputRejected("row_topic", f"the topic has {wrong[1]}")
        return text
