"""Horovod that trains two models where one was asked for, or one that is wrong."""

from __future__ import annotations

from corpus.variant import Broken, patch

_NOT_REDUCED = patch(
    "horovod/torch/__init__.py",
    """
    import contextlib as _contextlib

    def DistributedOptimizer(optimizer, *rest, **named):
        optimizer.synchronize = lambda: None
        optimizer.skip_synchronize = _contextlib.nullcontext
        return optimizer
    """,
)

_OWN_VALUES = patch(
    "horovod/torch/mpi_ops.py",
    """
    _really_allreduce_async = _allreduce_async

    def _allreduce_async(tensor, output, *rest):
        output.copy_(tensor.detach())
        scratch = tensor.detach().clone()
        handle = _really_allreduce_async(scratch, scratch, *rest)
        _handle_map[handle] = (scratch, output)
        return handle
    """,
)

_OWN_BROADCAST = patch(
    "horovod/torch/mpi_ops.py",
    """
    _really_broadcast_async = _broadcast_async

    def _broadcast_async(tensor, output, *rest):
        output.copy_(tensor.detach())
        scratch = tensor.detach().clone()
        handle = _really_broadcast_async(scratch, scratch, *rest)
        _handle_map[handle] = (scratch, output)
        return handle
    """,
)

_OWN_PARAMETERS = patch(
    "horovod/torch/__init__.py",
    """
    def broadcast_parameters(params, root_rank, *rest, **named):
        return None
    """,
)

_TWICE = patch(
    "horovod/torch/optimizer.py",
    """
    _synchronize = _DistributedOptimizer.synchronize

    def _synchronize_and_average(self):
        _synchronize(self)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad /= size()

    _DistributedOptimizer.synchronize = _synchronize_and_average
    """,
)

_ONE_RANK_SHORT = patch(
    "horovod/torch/mpi_ops.py",
    """
    def size():
        return 1
    """,
)

_CRASH_AT_THE_END = patch(
    "horovod/torch/__init__.py",
    """
    import os as _os, signal as _signal

    def shutdown():
        _os.kill(_os.getpid(), _signal.SIGSEGV)
    """,
)

HOROVOD = (
    Broken(
        id="optimizer-reduces-nothing",
        kind="no reduction",
        breaks="Horovod's DistributedOptimizer steps with each rank's own gradient and raises nothing.",
        check="horovod.gradients",
        reason="the gradients differ across ranks: rank 0 kept its own, nothing was reduced",
        script=_NOT_REDUCED,
        also=("horovod.accumulate", "horovod.compression", "horovod.weights"),
    ),
    Broken(
        id="allreduce-returns-its-input",
        kind="no reduction",
        breaks="Horovod's allreduce waits for the other rank and gives back what it was given.",
        check="horovod.allreduce",
        reason="gave rank 0 its own values, nothing was reduced",
        script=_OWN_VALUES,
        also=("horovod.accumulate", "horovod.compression", "horovod.gradients", "horovod.weights"),
    ),
    Broken(
        id="broadcast-returns-its-input",
        kind="broadcast broken",
        breaks="Horovod's broadcast leaves every rank with its own values.",
        check="horovod.broadcast",
        reason="after a broadcast from rank 1, rank 0 does not have its values",
        script=_OWN_BROADCAST,
        also=("horovod.weights",),
    ),
    Broken(
        id="parameters-stay-apart",
        kind="broadcast broken",
        breaks="Horovod's broadcast_parameters does nothing, so that the ranks start from different weights.",
        check="horovod.weights",
        reason="the ranks begin with weights that differ",
        script=_OWN_PARAMETERS,
    ),
    Broken(
        id="gradient-averaged-twice",
        kind="gradient averaged twice",
        breaks="The gradient is divided by the number of ranks once more after it was averaged.",
        check="horovod.gradients",
        reason="rank 0's gradient is off by 5.00e-01 from one process on the joined batch",
        script=_TWICE,
        also=("horovod.accumulate", "horovod.compression"),
    ),
    Broken(
        id="each-rank-alone",
        kind="no reduction",
        breaks="Each of two Horovod processes believes to be the only one.",
        check="horovod.ranks",
        reason="the size is 1 in process 0, expected 2",
        script=_ONE_RANK_SHORT,
        # What divides or waits by the number of ranks.
        also=("horovod.accumulate", "horovod.compression", "horovod.gradients", "horovod.weights"),
    ),
    Broken(
        id="ranks-crash-at-the-end",
        kind="crash",
        breaks="Horovod crashes when it shuts down, after the training is done.",
        check="horovod.ranks",
        reason="both ranks did their work, but horovodrun ended with exit code",
        script=_CRASH_AT_THE_END,
    ),
)
