"""More rows without labels: from the paths or sources that `data.unlabelled` names."""

from collections.abc import Callable

from understudy.build.parts import source
from understudy.data.rows import Rows
from understudy.recipe import Entry, Source
from understudy.recipe.sections import DataSection

# A path alone is read as the file of `data.source` is, without what only that file has.
_OWN = {"path", "test_path", "target", "id_column", "classes", "task"}


def unlabelled_sources(section: DataSection) -> list[Entry]:
    """The sources that are named; a path is one of the kind of `data.source`."""
    return [_entry(named, section.source) for named in section.unlabelled]


def unlabelled(section: DataSection, place: Source) -> list[Callable[[], Rows]]:
    """What loads them."""
    return [source(entry, place) for entry in unlabelled_sources(section)]


def _entry(named: str | Entry, like: Entry) -> Entry:
    if isinstance(named, Entry):
        return named
    # What is wrong with a path beside another kind is told by `check`.
    kept = {name: value for name, value in like.parameters.items() if name not in _OWN}
    return Entry.model_validate({"kind": like.kind, "path": named, **kept})
