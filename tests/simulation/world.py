"""Time, contents, and the mount of the node."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.offload.evict.space import Use

SECOND: Final = 1_000_000_000  # ns
START_NS: Final = 1_893_456_000 * SECOND  # Tuesday, 1 January 2030
FIRST_WEEKDAY: Final = 1
INODES: Final = 2_000_000

Name = tuple[str, str]  # container, blob


@dataclass(slots=True)
class Clock:
    """Seconds since the start of the simulation."""

    seconds: float = 0.0

    @property
    def ns(self) -> int:
        """ns since 1970."""
        return START_NS + int(self.seconds * SECOND)

    @property
    def hour(self) -> float:
        """Of the day, from 0 to 24."""
        return self.seconds / 3_600 % 24

    @property
    def day(self) -> int:
        """Since the start."""
        return int(self.seconds // 86_400)

    @property
    def workday(self) -> bool:
        """Monday to Friday."""
        return (self.day + FIRST_WEEKDAY) % 7 < 5

    def on(self, until: float) -> None:
        """Go on to a time; never back."""
        self.seconds = max(self.seconds, until)


class Away(NamedTuple):
    """What a stub says: where its bytes are."""

    cloud_etag: str
    name: str


@dataclass(slots=True)
class File:
    """A blob on the mount. `content` is the number of the bytes that it stands for, `away` is set for a stub."""

    etag: str
    content: int
    size: int
    modified_ns: int
    away: Away | None = None


@dataclass(slots=True)
class Disk:
    """The mount: files by name, and how much of it they take."""

    all_bytes: int
    files: dict[Name, File] = field(default_factory=dict)
    used: int = 0
    _made: int = 0

    @property
    def use(self) -> Use:
        """What the space modes look at."""
        return Use(self.used, self.all_bytes, len(self.files), INODES)

    def write(self, name: Name, content: int, size: int, now: int) -> None:
        """A new version, with an ETag of its own."""
        self.delete(name)
        self._made += 1
        self.files[name] = File(f"0x{self._made:x}", content, size, now)
        self.used += size

    def delete(self, name: Name) -> None:
        """The blob goes, if it is there."""
        file = self.files.pop(name, None)
        if file is not None and file.away is None:
            self.used -= file.size

    def evict(self, name: Name, etag: str, away: Away) -> bool:
        """Put a stub there, if it still is that version."""
        file = self.files.get(name)
        if file is None or file.etag != etag or file.away is not None:
            return False
        file.away = away
        self.used -= file.size
        return True

    def bring_back(self, name: Name) -> None:
        """A verified file takes the place of the stub."""
        file = self.files[name]
        assert file.away is not None
        file.away = None
        self.used += file.size

    def plant(self, name: Name, content: int, size: int, now: int, away: Away) -> str:
        """A stub of somebody else's version takes the place of what is there. Returns its ETag."""
        self.delete(name)
        self._made += 1
        self.files[name] = File(f"0x{self._made:x}", content, size, now, away)
        return self.files[name].etag
