"""Labels that are read when the first of them is looked for: where each record is a request of its
own, none is spent on labels that no selector asks about."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Labels = Mapping[str, str]
else:
    Labels = object


class LazyLabels(Labels):
    """What `read` returns, which is called at most once; true whatever that is."""

    def __init__(self, read: Callable[[], Mapping[str, object]]) -> None:
        self._read = read
        self._found: Mapping[str, object] | None = None

    def load(self) -> Mapping[str, object]:
        """The labels, read if they were not. Raises as `read`."""
        if self._found is None:
            self._found = self._read()
        return self._found

    def __bool__(self) -> bool:
        return True

    def __contains__(self, label: object) -> bool:
        return label in self.load()

    def __getitem__(self, label: str) -> str:
        return str(self.load()[label])

    def __iter__(self) -> Iterator[str]:
        return iter(self.load())

    def __len__(self) -> int:
        return len(self.load())
