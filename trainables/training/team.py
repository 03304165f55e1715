"""Several devices of one machine that train one trial together: a process for each of them.

The first is that of the trial. It tells the others what to do, call by call, through a pipe to each,
and their gradients are added up by torch.distributed (NCCL between GPUs; gloo on CPUs, and for
members that share a GPU). Nobody listens beyond this machine. They are processes of the trial's own,
and no workers of Ray's, so that a fault ends all of them together: a member that is lost ends the
first one, which Ray replaces like any that died, and the first one that is gone ends the others.
"""

import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore  # type: ignore[attr-defined]

from trainables.text import redacted

log = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0  # for the others to end by themselves
LOOK_SECONDS = 1.0  # until those that a lost member takes along have ended, too
LOST = 70  # exit status of the first process when another one is lost


class Ranks:
    """Which of how many members a process is; what every member does the same way.

    rank: 0 … size − 1. By itself, a process is a team of one.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def share(self, n: int, rank: int | None = None) -> slice:
        """The part of `n` things that is this member's, or that of another: all are nearly equal."""
        rank = self.rank if rank is None else rank
        return slice(rank * n // self.size, (rank + 1) * n // self.size)

    def add_up(self, values: Tensor) -> None:
        """Makes `values`, of the same shape on every member, the sum over them, in place."""
        if self.size > 1:
            dist.all_reduce(values)


ALONE = Ranks()


class Member(Ranks):
    """One of a team, with its device, and whatever it was told to hold."""

    def __init__(self, rank: int, devices: Sequence[torch.device]) -> None:
        super().__init__(rank, len(devices))
        self.device = devices[rank]
        has_own_gpus = self.device.type == "cuda" and len(set(devices)) == len(devices)
        self.backend = "nccl" if has_own_gpus else "gloo"
        self.held: dict[str, Any] = {}

    def meet(self, directory: str) -> None:
        """Waits until all are there."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
        dist.init_process_group(
            self.backend,
            store=FileStore(str(Path(directory, "store")), self.size),
            rank=self.rank,
            world_size=self.size,
        )


# what a member does: it is given itself and the arguments, and is imported by its name
Work = Callable[..., Any]


class Team(Member):
    """The first member, and the only one that knows what is to be done.

    `lost` is called, with the reason if there is one, when another member ends; it does not return.
    One team at a time.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        super().__init__(0, devices)
        self.let_go()
        self.is_closed = False
        self.directory = tempfile.mkdtemp(prefix="emm-team-")  # mode 0700
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Any] = []
        self.others: list[Any] = []
        threads = torch.get_num_threads()
        for rank in range(1, self.size):
            ours, theirs = context.Pipe()
            arguments = (rank, list(devices), self.directory, theirs, threads)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.others.append(process)
        threading.Thread(target=self._watch, daemon=True).start()
        self.meet(self.directory)

    def let_go(self) -> None:
        """Of what this process holds of a trial that has ended: its memory is wanted by the next.
        The others hold theirs until they are told to build that one."""
        self.held.clear()
        self.lost: Callable[[str], None] = lambda reason: None

    def tell(self, work: Work, *arguments: Any) -> None:
        """All others do `work`, while this one goes on."""
        for pipe in self.pipes:
            pipe.send_bytes(pickle.dumps((work, arguments, False)))

    def ask(self, work: Work, arguments: Sequence[Sequence[Any]]) -> list[Any]:
        """What each member's `work` returns for its own arguments, in the order of the ranks."""
        with self.unless_lost():
            for pipe, of_other in zip(self.pipes, arguments[1:], strict=True):
                pipe.send_bytes(pickle.dumps((work, of_other, True)))
            try:
                own = work(self, *arguments[0])
            finally:  # else the next question would get what was answered to this one
                answers = [pickle.loads(pipe.recv_bytes()) for pipe in self.pipes]
            return [own, *answers]

    @contextmanager
    def unless_lost(self) -> Iterator[None]:
        """For all that others take part in: an error that comes of a lost one is not the trial's.
        `_watch` ends this process then, and this waits for it."""
        try:
            yield
        except (EOFError, OSError, RuntimeError):
            lost = connection.wait([process.sentinel for process in self.others], LOOK_SECONDS)
            if lost and not self.is_closed:
                threading.Event().wait()
            raise

    def close(self) -> None:
        """Ends the others."""
        self.is_closed = True
        for pipe in self.pipes:
            pipe.close()
        for process in self.others:
            process.join(CLOSE_SECONDS)
            process.kill()
        dist.destroy_process_group()
        self._remove()

    def _watch(self) -> None:
        connection.wait([process.sentinel for process in self.others])
        if self.is_closed:
            return
        time.sleep(LOOK_SECONDS)  # one that was killed makes the others fail: all are looked at
        reasons = sorted(Path(self.directory).glob("reason-*"), key=lambda p: p.stat().st_mtime_ns)
        was_killed = any((process.exitcode or 0) < 0 for process in self.others)
        reason = reasons[0].read_text() if reasons and not was_killed else ""
        log.error("a process of this trial was lost (%s): it ends", reason or "no reason known")
        try:
            self.lost(reason)
        finally:
            self._remove()
            os._exit(LOST)

    def _remove(self) -> None:
        """The directory, when nobody can write his reason into it any more."""
        for process in self.others:
            process.kill()
            process.join(CLOSE_SECONDS)
        shutil.rmtree(self.directory, ignore_errors=True)


def _serve(
    rank: int, devices: list[torch.device], directory: str, pipe: Any, threads: int
) -> NoReturn:
    """The life of another member: it ends with the pipe, or with the first process."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the first one decides when this one ends
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_first, args=(directory,), daemon=True).start()
    torch.set_num_threads(threads)
    member = Member(rank, devices)
    try:
        member.meet(directory)
        while True:
            # plain pickles: torch's own would go by shared memory, of which containers have little
            work, arguments, is_asked = pickle.loads(pipe.recv_bytes())
            result = work(member, *arguments)
            if is_asked:
                pipe.send_bytes(pickle.dumps(result))
    except (EOFError, ConnectionError):
        _end(directory)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the first one is to say it
        if connection.wait([_first()], LOOK_SECONDS):  # it is because that one is gone
            _end(directory)
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        part = Path(directory, f"part-{rank}")
        part.write_text(reason)
        part.rename(Path(directory, f"reason-{rank}"))
        os._exit(1)


def _first() -> int:
    """What is ready when the first process is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    return parent.sentinel


def _end_with_first(directory: str) -> None:
    """However it ends: in a sum of gradients that never comes, nobody reads a pipe."""
    connection.wait([_first()])
    _end(directory)


_ending = threading.Lock()


def _end(directory: str) -> NoReturn:
    with _ending:  # for good: of two threads, one
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)
