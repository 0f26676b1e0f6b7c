"""The processes of one training: who this one is, and what all of them must agree upon.

A process that was not started by torchrun is a world of one: nothing here then costs anything
or imports ``torch.distributed``. In a larger world every decision that changes the training goes
through ``agree``, ``sum`` or ``told``, so that no two processes ever take different roads.

What is said between processes is numbers in tensors and text in bytes; objects are never sent,
since ``torch.distributed`` would pickle them.
"""

from __future__ import annotations

import atexit
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from modelwright.errors import MachineError, ModelwrightError
from modelwright.training.parallel.vigil import AGAIN, Vigil
from modelwright.types import Columns, rows_in, take

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

POLL = 0.2  # seconds between two looks at what the first process has said
LATER = 15  # seconds more for NCCL: of it the vigil must know first, Gloo tells the main thread


@dataclass(eq=False)
class World:
    """The processes of one training, and this one's place among them.

    ``data_size`` groups of processes have rows of their own. Within one, ``context`` processes
    have positions of their own in these rows, or ``tensor`` processes together hold one copy of a
    layer: ``size`` = ``data_size`` * ``context`` * ``tensor``. ``timeout`` is how many seconds a
    process waits for the others before it names the one that is missing.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    tensor: int = 1
    context: int = 1
    timeout: float = 600.0
    mesh: DeviceMesh | None = None
    store: Store | None = None
    control: ProcessGroup | None = None  # over the CPU: waits for no accelerator
    context_group: ProcessGroup | None = None  # those that share this one's rows
    vigil: Vigil | None = None
    _said: int = field(default=0, repr=False)

    # Beginning and end ----------------------------------------------------------------------

    @classmethod
    def join(cls) -> World:
        """The world that torchrun's environment describes, or a world of one.

        Only the store is opened, so the first process may prepare data for hours while the others
        wait in ``told``; ``connect`` makes the groups.

        Raises:
            MachineError: the environment is not complete, or the others cannot be reached.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            store, rank, size = _store()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MachineError(
                f"the other processes cannot be reached ({reason}); start with torchrun"
            ) from error
        return cls(rank, size, int(os.environ.get("LOCAL_RANK", rank)), store=store)

    def connect(self, *, shard: str, tensor: int, timeout: float, context: int = 1) -> None:
        """Make the groups and the mesh: once, before the first ``agree``.

        Args:
            shard: "none", "fsdp" or "hybrid" (shards within a machine, copies across machines).
            tensor: processes that share every layer.
            timeout: seconds to wait for the others.
            context: processes that share every row, each with positions of its own.

        Raises:
            ModelwrightError: the processes cannot be divided so, or a GPU is missing.
        """
        local = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        _check(self.size, local, shard, tensor, context)
        if self.alone or self.control is not None:
            return
        try:
            self._connect(local, shard, tensor, timeout)
            self._divide(context)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise MachineError(
                f"rank {self.rank} cannot be connected with the others ({reason}); {AGAIN}"
            ) from error

    def _connect(self, local: int, shard: str, tensor: int, timeout: float) -> None:
        import torch.distributed as dist  # noqa: PLC0415
        from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415

        self.tensor, self.timeout = tensor, timeout
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        if kind == "cuda":
            if self.local_rank >= torch.cuda.device_count():
                raise ModelwrightError(
                    f"process {self.local_rank} of this machine has no GPU: there are "
                    f"{torch.cuda.device_count()}; start one process a GPU"
                )
            torch.cuda.set_device(self.local_rank)
        patience = timedelta(seconds=timeout + (LATER if kind == "cuda" else 0))
        dist.init_process_group(
            "nccl" if kind == "cuda" else "gloo",
            store=self.store,
            rank=self.rank,
            world_size=self.size,
            timeout=patience,
            device_id=torch.device(kind, self.local_rank) if kind == "cuda" else None,
        )
        self.control = (
            dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
            if kind == "cuda"
            else dist.group.WORLD
        )
        shape: dict[str, int] = {"shard": self.size // tensor, "tensor": tensor}
        if shard == "hybrid":
            within = local // tensor
            shape = {"replicate": self.size // local, "shard": within, "tensor": tensor}
        self.mesh = init_device_mesh(
            kind, tuple(shape.values()), mesh_dim_names=tuple(shape.keys())
        )
        own = _store()[0]  # a connection that no waiting call can block
        self.vigil = Vigil(own, self.rank, self.size, timeout)
        self.vigil.start()
        atexit.register(self.vigil.stop)  # a thread inside the store would end the process hard

    def _divide(self, context: int) -> None:
        """Make the groups of processes that share their rows: neighbours, on one machine if any."""
        import torch.distributed as dist  # noqa: PLC0415

        self.context = context
        if context > 1:  # every process makes all groups
            later = LATER if torch.cuda.is_available() else 0
            patience = timedelta(seconds=self.timeout + later)
            own, _ = dist.new_subgroups(context, timeout=patience)  # type: ignore[no-untyped-call]
            self.context_group = own

    def close(self) -> None:
        """Leave in peace: the others are not told that this process was lost."""
        if self.vigil is not None:
            self.vigil.stop()
            self.vigil = None
        if self.control is not None:
            import torch.distributed as dist  # noqa: PLC0415

            dist.destroy_process_group()
            self.control = self.mesh = self.context_group = None

    # Who ------------------------------------------------------------------------------------

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs, says, samples and seals."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """How many processes, or groups of them, have rows of their own."""
        return self.size // (self.tensor * self.context)

    @property
    def data_rank(self) -> int:
        """Whose rows this process works on; those that share a layer or a text share the rows."""
        return self.rank // (self.tensor * self.context)

    @property
    def parts(self) -> int:
        """In how many parts a step's loss is made: by rows, and by positions within them."""
        return self.size // self.tensor

    @property
    def part(self) -> int:
        """Which of the ``parts`` is made here."""
        return self.rank // self.tensor

    # The rows of a step ---------------------------------------------------------------------

    def share(self, columns: Columns) -> tuple[Columns, bool]:
        """This process's rows of a micro-batch of the whole step, and whether they count.

        Rows are cut into ``data_size`` runs of almost equal length, in order, so that the samples
        of a step and their order are the same however many processes there are. One that gets no
        row works on the first row with weight 0, since the others wait for its gradient.
        """
        if self.data_size == 1:
            return columns, True
        import numpy as np  # noqa: PLC0415

        mine = np.array_split(np.arange(rows_in(columns)), self.data_size)[self.data_rank]
        return (take(columns, mine), True) if len(mine) else (take(columns, np.arange(1)), False)

    # What all must know ---------------------------------------------------------------------

    def sum(self, *numbers: float) -> list[float]:
        """Each number summed over the processes that make a part of the loss, in float64.

        Counts below 2^53 stay exact. All processes get the same bits.
        """
        if self.alone:
            return list(numbers)
        mine = numbers if self.rank % self.tensor == 0 else [0.0] * len(numbers)
        return self._reduced(mine, "SUM")

    def agree(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag if self.alone else bool(self._reduced([float(flag)], "MAX")[0])

    def gather(self, text: str) -> list[str]:
        """What every process says, by rank; every process gets all of it."""
        if self.alone:
            return [text]
        import torch.distributed as dist  # noqa: PLC0415

        content = torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
        with self._waiting("gather"):
            lengths = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(content)]), group=self.control)
            longest = max(int(n) for n in lengths)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(content)] = content
            every = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(every, padded, group=self.control)
        heard = zip(every, lengths, strict=True)
        return [bytes(t[: int(n)].tolist()).decode().strip() for t, n in heard]

    def told(self, text: str | None) -> str:
        """What the first process says, however long the others must wait for it.

        Only the first gives ``text``. This needs no group, and so no timeout.
        """
        if self.alone or self.store is None:
            return text or ""
        key = f"told/{self._said}"
        self._said += 1
        if self.is_main:
            self.store.set(key, text or "")
            return text or ""
        while not self.store.check([key]):
            time.sleep(POLL)
        said: str = self.store.get(key).decode()
        return said

    def _reduced(self, numbers: Sequence[float], how: str) -> list[float]:
        import torch.distributed as dist  # noqa: PLC0415

        values = torch.tensor(numbers, dtype=torch.float64)
        with self._waiting(how.lower()):
            dist.all_reduce(values, getattr(dist.ReduceOp, how), group=self.control)
        reduced: list[float] = values.tolist()
        return reduced

    def _waiting(self, what: str) -> Any:
        if self.vigil is None:
            raise MachineError("the processes are not connected; call World.connect first")
        return self.vigil.waiting(what)

    def lost(self, error: BaseException) -> MachineError:
        """The error of a broken connection as one line that names who is missing.

        Where the wait was in vain, not cut off, it also shows where this process waited.
        """
        reason = " ".join(str(error).split())[:160]
        if "imed out" in reason:
            traceback.print_exception(error)
        if self.vigil is None:
            return MachineError(f"the connection between processes broke ({reason}); run it again")
        return MachineError(f"{self.vigil.missing()} ({reason})")


SERIAL = World()


def _store() -> tuple[Store, int, int]:
    """A connection to the store of this start of the processes; rank and size.

    torchrun keeps one store over all restarts: what an earlier start has left there, such as the
    addresses of its processes, must not be taken for this one's.
    """
    from torch._C._distributed_c10d import PrefixStore  # noqa: PLC0415 - one process does without
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415

    store, rank, size = next(rendezvous("env://"))
    start = f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-of-{size}"
    return PrefixStore(start, store), rank, size


def is_connection_error(error: BaseException) -> bool:
    """Whether ``torch.distributed`` lost a peer, rather than the program being at fault."""
    import torch.distributed as dist  # noqa: PLC0415

    words = ["Connection closed", "Connection reset", "Timed out", "timed out", "Broken pipe"]
    words += ["gloo", "NCCL", "Socket", "recvBytes", "sendBytes"]
    return isinstance(error, dist.DistError) or any(w in str(error) for w in words)


def _check(size: int, local: int, shard: str, tensor: int, context: int) -> None:
    if tensor > 1 and context > 1:
        raise ModelwrightError(
            f"parallel: tensor={tensor} and context={context} exclude each other; choose one"
        )
    if size > 1 and size % context:
        raise ModelwrightError(
            f"parallel.context: {context} does not divide the {size} processes; choose a divisor"
        )
    if size % tensor:
        raise ModelwrightError(
            f"parallel.tensor: {tensor} does not divide the {size} processes; choose a divisor"
        )
    if tensor > 1 and shard == "none" and size > tensor:
        raise ModelwrightError(
            f"parallel.shard: {size} processes with tensor={tensor} need shard: fsdp or hybrid"
        )
    if shard == "hybrid" and (size % local or local % tensor):
        raise ModelwrightError(
            f"parallel.shard: hybrid needs machines of equal size, a multiple of tensor={tensor}"
        )
