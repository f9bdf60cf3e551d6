"""How long topics may be: brokers end the connection of a client that publishes to longer ones, for everybody. Pure."""

from typing import Final

import msgspec

from edge.topics import TOPIC_BYTES_MAX

LEVELS_MAX: Final = 128  # mosquitto takes 200
AWS_LEVELS_MAX: Final = 8  # AWS IoT Core quotas: 7 slashes and 256 bytes of UTF-8, without the prefix of a basic ingest
AWS_BYTES_MAX: Final = 256
_AWS_OWN: Final = "$aws/"
_INGEST: Final = "$aws/rules/"


class TopicBounds(msgspec.Struct, frozen=True):
    """is_aws: topics of AWS IoT Core's own have lengths of their own."""

    levels_max: int = LEVELS_MAX
    bytes_max: int = TOPIC_BYTES_MAX
    is_aws: bool = False

    def wrong(self, topic: str) -> tuple[str, str] | None:
        """(a word for it, the same for people); None where a topic that is valid otherwise is within the bounds."""
        levels_max, bytes_max = self.levels_max, self.bytes_max
        if self.is_aws and topic.startswith(_AWS_OWN):
            if topic.startswith(_INGEST):
                topic = topic.split("/", 3)[-1]
            else:
                levels_max, bytes_max = LEVELS_MAX, TOPIC_BYTES_MAX
        if (levels := topic.count("/") + 1) > levels_max:
            return "topic_levels", f"{levels} levels, at most {levels_max}"
        if (size := len(topic.encode(errors="surrogatepass"))) > bytes_max:
            return "topic_bytes", f"{size} bytes, at most {bytes_max}"
        return None

    def refuses(self, sender: str, topic: str) -> str:
        """As the router asks who does not take whatever it is given."""
        wrong = self.wrong(topic)
        return wrong[0] if wrong is not None else ""


GENERAL: Final = TopicBounds()
