"""The topic tree ``<prefix>/1/<site>/<device>/...``."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from edge_app.messaging.settings import IDENTIFIER, MqttSettings

__all__ = ["TOPIC_RULES", "TREE_VERSION", "TopicRule", "Topics", "parse_topic"]

TREE_VERSION: Final = "1"
"""Major version of the tree: a change that an existing subscriber cannot read raises it."""


class TopicRule(NamedTuple):
    """Place and delivery of one kind of message."""

    suffix: str
    qos: int
    retain: bool


TOPIC_RULES: Final[Mapping[str, TopicRule]] = MappingProxyType(
    {
        "status": TopicRule("status", 1, True),
        "info": TopicRule("info", 1, True),
        "run": TopicRule("run", 1, True),
        "histogram": TopicRule("histogram", 1, False),
        "total": TopicRule("histogram/total", 1, True),
        "summary": TopicRule("summary", 1, True),
        "stats": TopicRule("stats", 0, False),
        "event": TopicRule("event", 1, False),
    }
)
"""Every kind of message: the whole tree below a device."""

_KIND_OF_SUFFIX = {rule.suffix: kind for kind, rule in TOPIC_RULES.items()}


@dataclass(frozen=True, kw_only=True)
class Topics:
    """Topics of one device.

    Raises
    ------
    ValueError
        If a name holds anything else than ``[a-z0-9-]``.

    Examples
    --------
    >>> Topics(site="lab", device="mfi-3").of("total")
    'mfi/1/lab/mfi-3/histogram/total'
    """

    site: str
    device: str
    prefix: str = "mfi"

    def __post_init__(self) -> None:
        for key in ("prefix", "site", "device"):
            if not IDENTIFIER.fullmatch(getattr(self, key)):
                raise ValueError(f"{key} is {getattr(self, key)!r}, must be made of a-z, 0-9 and -")

    @classmethod
    def from_settings(cls, settings: MqttSettings) -> "Topics":
        """The topics that the settings name."""
        return cls(site=settings.site, device=settings.device_id, prefix=settings.prefix)

    @property
    def root(self) -> str:
        """Root of every topic of the device."""
        return f"{self.prefix}/{TREE_VERSION}/{self.site}/{self.device}"

    def of(self, kind: str) -> str:
        """Topic of a kind of message (a key of ``TOPIC_RULES``)."""
        return f"{self.root}/{TOPIC_RULES[kind].suffix}"


def parse_topic(topic: str) -> tuple[str, str, str] | None:
    """Split a topic into site, device and kind; None for one that is not of this tree.

    Examples
    --------
    >>> parse_topic("mfi/1/lab/mfi-3/histogram/total")
    ('lab', 'mfi-3', 'total')
    >>> parse_topic("homeassistant/device/x/config") is None
    True
    """
    parts = topic.split("/", 4)
    if len(parts) != 5 or parts[1] != TREE_VERSION:
        return None
    kind = _KIND_OF_SUFFIX.get(parts[4])
    return None if kind is None else (parts[2], parts[3], kind)
