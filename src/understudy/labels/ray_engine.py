"""The teacher pass on many processes or machines: Ray Data hands out the numbers of shards.

Nothing but numbers travels. Every worker builds its own teacher, reads its own rows and writes its
shards to the place itself. A shard is a pure function of its number, so a worker that is lost costs
the shard it was at, and one that is written twice is the same.
"""

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from importlib.util import find_spec
from typing import Any

from understudy import errors
from understudy.allocator import keep_freed_memory
from understudy.contracts import Teacher
from understudy.errors import MissingExtraError, RunError, UnderstudyError
from understudy.labels.place import LocalPlace, Place
from understudy.labels.portions import Order, Portions, shard_name, shard_pieces
from understudy.labels.ray_session import session
from understudy.labels.remote_place import RemotePlace

Make = Callable[[], tuple[Teacher, Portions]]
Row = Mapping[str, Any]


class RayEngine:
    """Shards by workers of Ray, on this machine or on a cluster.

    Where Ray is not running in this process, one is started on this machine and stopped at the
    end; where it is (`ray.init(...)`), or the variable RAY_ADDRESS names a cluster, that one is
    used. Then every machine must have this package, the rows and the place.

    Example:
        ```python
        engine = RayEngine(make, workers=8, gpus=1)
        record(engine=engine, rows=portions.rows, keep=keep, place=place, fingerprints={...})
        ```
    """

    def __init__(
        self,
        make: Make,
        *,
        workers: int = 2,
        cpus: int = 1,
        gpus: float | int = 0,
        tries: int = 4,
        object_store: int = 200_000_000,
    ) -> None:
        """Set the size of the crew.

        Args:
            make: builds the teacher and the portions; called once in every worker, so it must
                be something that can be pickled.
            workers: processes, each with a teacher of its own.
            cpus: per worker that has no GPU; PyTorch computes with as many threads.
            gpus: per worker; may be a fraction.
            tries: how often a shard is begun before it is held to be what kills its workers.
            object_store: bytes of shared memory of a Ray that is started here. Only numbers and
                what codecs share go through it.

        Raises:
            MissingExtraError: Ray is not installed.
            ValueError: a number that makes no sense.
        """
        for name, value in {"workers": workers, "cpus": cpus, "tries": tries}.items():
            if value < 1:
                raise ValueError(f"`{name} >= 1` must hold, but got {value}: use {name}: 1")
        if gpus < 0:
            raise ValueError(f"`gpus >= 0` must hold, but got {gpus}: use gpus: 0")
        if find_spec("ray") is None:
            raise MissingExtraError("ray", "ray")
        self._make, self._workers, self._tries = make, workers, tries
        self._cpus, self._gpus, self._object_store = cpus, gpus, object_store

    def __call__(
        self, numbers: list[int], *, order: Order, place: Place, done: Callable[[int], None]
    ) -> None:
        """Write these shards.

        Raises:
            UnderstudyError: what a worker raised, as it raised it.
            RunError: a shard kills every worker that begins it, no machine has room for a worker,
                or what the workers wrote cannot be seen from here.
        """
        if not numbers:
            return
        place = _everywhere(place)
        with (
            session(cpus=self._workers * self._cpus, object_store=self._object_store),
            closing(self._rows(numbers, order, place)) as rows,
        ):
            for row in rows:
                if row["error"]:
                    raise _error(row["error"], row["text"])
                _see(place, row)
                done(int(row["number"]))
        if isinstance(place, LocalPlace | RemotePlace):
            place.sweep()

    def _rows(self, numbers: list[int], order: Order, place: Place) -> Generator[Row, None, None]:
        """What workers say of each shard, as it comes."""
        import ray
        import ray.data

        self._check_room()
        visits = ray.remote(num_cpus=0)(_Visits).remote()
        # One block per number: a block is what a lost worker has to do again.
        data = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            _Worker,
            fn_constructor_args=(self._make, order, place, visits, self._tries),
            batch_size=1,
            # One at a time: a shard that waits for a busy worker could be at an idle one.
            compute=ray.data.ActorPoolStrategy(
                size=min(self._workers, len(numbers)), max_tasks_in_flight_per_actor=1
            ),
            # Ray Data wants one or the other.
            num_cpus=None if self._gpus else self._cpus,
            num_gpus=self._gpus or None,
        )
        data.context.enable_progress_bars = False
        data.context.raise_original_map_exception = True
        # A shard may take as long as it likes.
        data.context.execution_no_progress_timeout_s = -1
        told = data.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy")
        # Closed at once after an error: else the crew goes on until somebody forgets the error.
        with closing(iter(told)) as batches:
            for batch in batches:
                for index in range(len(batch["number"])):
                    yield {name: column[index] for name, column in batch.items()}

    def _check_room(self) -> None:
        """Ray would wait without a word for a machine that may never come."""
        import ray

        name, wanted = ("GPU", self._gpus) if self._gpus else ("CPU", self._cpus)
        most = max(node["Resources"].get(name, 0) for node in ray.nodes() if node["Alive"])
        if most < wanted:
            raise RunError(
                f"a worker needs {name} {wanted:g}, but no machine of this Ray has more than "
                f"{most:g}: ask for less, or add a machine that has it before the pass begins"
            )


class _Visits:
    """How often each shard was begun; lives longer than the workers."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Which time this is, from 1."""
        self._seen[number] += 1
        return self._seen[number]


class _Worker:
    """One process of the crew. Ray Data builds it once and calls it for one number at a time."""

    def __init__(self, make: Make, order: Order, place: Place, visits: Any, tries: int) -> None:
        keep_freed_memory()
        self._make, self._order, self._place = make, order, place
        self._visits, self._tries = visits, tries
        self._made: tuple[Teacher, Portions] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Write the shards of these numbers, and tell of each."""
        told = [self._one(int(number)) for number in batch["item"]]
        return {name: [row[name] for row in told] for name in told[0]}

    def _one(self, number: int) -> Row:
        try:
            size, error, text = self._write(number), "", ""
        except UnderstudyError as raised:
            size, text = -1, str(raised)
            # Of a user's own subclass the nearest that the other side knows.
            known = [kind for kind in type(raised).__mro__ if kind.__module__ == errors.__name__]
            error = known[0].__name__
        return {"number": number, "bytes": size, "error": error, "text": text}

    def _write(self, number: int) -> int:
        import ray

        visit = ray.get(self._visits.begin.remote(number))
        if visit > self._tries:
            raise RunError(
                f"shard {number} was begun {self._tries} times, and its worker died each time: "
                "most often memory is full, so use a smaller `batch_size` or fewer `workers`; "
                "shards that were written stay"
            )
        if self._made is None:
            self._made = self._make()
        teacher, portions = self._made
        content = shard_pieces(
            number, order=self._order, teacher=teacher, batches=portions.batches(number)
        )
        self._place.write(shard_name(number), content)
        return sum(piece.nbytes for piece in content)


def _everywhere(place: Place) -> Place:
    """The same place for a process that stands in another folder."""
    return LocalPlace(place.folder.resolve()) if isinstance(place, LocalPlace) else place


def _see(place: Place, row: Row) -> None:
    """Whether what a worker wrote is what this process will read."""
    name = shard_name(int(row["number"]))
    try:
        size = place.size(name)
    except (OSError, UnderstudyError):
        size = None
    if size != int(row["bytes"]):
        found = "is not there" if size is None else f"has {size} bytes"
        raise RunError(
            f"a worker wrote {name} with {row['bytes']} bytes, but in {place.name} it {found}: "
            "name a folder or a URL that is the same for every machine"
        )


def _error(name: str, text: str) -> UnderstudyError:
    """An error by the name of its class; some take other arguments than their text."""
    kind: type[UnderstudyError] = getattr(errors, name)
    error = kind.__new__(kind, text)
    error.args = (text,)
    return error
