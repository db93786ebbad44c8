"""A torch that trains nothing, trains in another precision than it was told to, or hides that it did."""

from __future__ import annotations

from corpus.variant import Base, Broken, patch

_AUTOCAST_OFF = patch(
    "torch/amp/autocast_mode.py",
    """
    _init = autocast.__init__

    def _init_disabled(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        _init(self, device_type, dtype=dtype, enabled=False, cache_enabled=cache_enabled)

    autocast.__init__ = _init_disabled
    """,
)

_AUTOCAST_CRASHES = patch(
    "torch/amp/autocast_mode.py",
    """
    import os as _os, signal as _signal

    def _crash(self, *rest, **named):
        _os.kill(_os.getpid(), _signal.SIGSEGV)

    autocast.__init__ = _crash
    """,
)

_LOW_MASTER_WEIGHTS = patch(
    "torch/optim/adamw.py",
    """
    import torch as _torch

    _init = AdamW.__init__

    def _init_in_bfloat16(self, params, *rest, **named):
        _init(self, params, *rest, **named)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.to(_torch.bfloat16)

    AdamW.__init__ = _init_in_bfloat16
    """,
)

_NEVER_STEPS = patch(
    "torch/amp/grad_scaler.py",
    """
    _unscale = GradScaler._unscale_grads_

    def _unscale_and_find_infinity(self, optimizer, inv_scale, found_inf, allow_fp16):
        found = _unscale(self, optimizer, inv_scale, found_inf, allow_fp16)
        return {device: flag.fill_(1.0) for device, flag in found.items()}

    GradScaler._unscale_grads_ = _unscale_and_find_infinity
    """,
)

_NEVER_UNSCALES = patch(
    "torch/amp/grad_scaler.py",
    """
    _unscale = GradScaler._unscale_grads_

    def _unscale_by_one(self, optimizer, inv_scale, found_inf, allow_fp16):
        return _unscale(self, optimizer, inv_scale * 0 + 1, found_inf, allow_fp16)

    GradScaler._unscale_grads_ = _unscale_by_one
    """,
)

_STANDS_STILL = patch(
    "torch/optim/adamw.py",
    """
    def _stand_still(self, closure=None):
        return None if closure is None else closure()

    AdamW.step = _stand_still
    """,
)

_ADAM_STANDS_STILL = patch(
    "torch/optim/adam.py",
    """
    _step = Adam.step

    def _stand_still(self, closure=None):
        # AdamW is a kind of Adam, and goes on.
        return None if type(self) is Adam else _step(self, closure)

    Adam.step = _stand_still
    """,
)

_FORGETS_ITS_STATE = patch(
    "torch/optim/adamw.py",
    """
    def _load_nothing(self, state_dict):
        return None

    AdamW.load_state_dict = _load_nothing
    """,
)

_LAST_MICRO_BATCH = patch(
    "torch/_tensor.py",
    """
    _backward = Tensor.backward

    def _backward_from_zero(self, *rest, **named):
        # What the graph reaches starts anew with every call, as if nobody ever accumulated.
        pending, seen = [self.grad_fn], set()
        while pending:
            node = pending.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                leaf.grad = None
            pending.extend(next_ for next_, _ in node.next_functions)
        return _backward(self, *rest, **named)

    Tensor.backward = _backward_from_zero
    """,
)

_NAN_IS_ZERO = patch(
    "torch/nn/functional.py",
    """
    _cross_entropy = cross_entropy

    def cross_entropy(*rest, **named):
        return torch.nan_to_num(_cross_entropy(*rest, **named), nan=0.0)
    """,
)

_LOW_CONVOLUTIONS = patch(
    "torch/nn/functional.py",
    """
    _conv2d = conv2d

    def conv2d(input, weight, *rest, **named):
        return _conv2d(input.bfloat16().to(input.dtype), weight, *rest, **named)
    """,
)

_NOTHING_IS_FROZEN = patch(
    "torch/_tensor.py",
    """
    _requires_grad = Tensor.requires_grad_

    def _always(self, requires_grad=True):
        return _requires_grad(self, True)

    Tensor.requires_grad_ = _always
    """,
)

_EVENTS_ARE_LOST = patch(
    "torch/utils/tensorboard/writer.py",
    """
    def _add_every_other(self, tag, scalar_value, global_step=None, *rest, **named):
        if not (global_step or 0) % 2:
            _add_scalar(self, tag, scalar_value, global_step, *rest, **named)

    _add_scalar = SummaryWriter.add_scalar
    SummaryWriter.add_scalar = _add_every_other
    """,
)

_ONE_PROCESS_LOADS = patch(
    "torch/utils/data/dataloader.py",
    """
    _init = DataLoader.__init__

    def _init_alone(self, *rest, num_workers=0, prefetch_factor=None, timeout=0, **named):
        _init(self, *rest, **named)

    DataLoader.__init__ = _init_alone
    """,
)

_NOT_REDUCED = patch(
    "torch/nn/parallel/distributed.py",
    """
    def _forward_alone(self, *inputs, **named):
        return self.module(*inputs, **named)

    DistributedDataParallel.forward = _forward_alone
    """,
)

_TWICE = patch(
    "torch/nn/parallel/distributed.py",
    """
    _init = DistributedDataParallel.__init__

    def _divide_twice(state, bucket):
        size = dist.get_world_size()
        handle = dist.all_reduce(bucket.buffer().div_(size * size), async_op=True)
        return handle.get_future().then(lambda future: future.value()[0])

    def _init_and_hook(self, *rest, **named):
        _init(self, *rest, **named)
        self.register_comm_hook(None, _divide_twice)

    DistributedDataParallel.__init__ = _init_and_hook
    """,
)

_OWN_BROADCAST = patch(
    "torch/distributed/distributed_c10d.py",
    """
    _broadcast = broadcast

    def broadcast(tensor, *rest, **named):
        return _broadcast(tensor.clone(), *rest, **named)
    """,
)

_PARAMETERS_STAY_APART = patch(
    "torch/distributed/utils.py",
    """
    def _sync_module_states(*rest, **named):
        return None
    """,
)

DISTRIBUTED = (
    Broken(
        id="ddp-reduces-nothing",
        kind="no reduction",
        breaks="torch's DistributedDataParallel lets each rank step with its own gradient.",
        check="torch.ddp.gradients",
        reason="the gradients differ across ranks: rank 0 kept its own, nothing was reduced",
        base=Base.PLAIN,
        script=_NOT_REDUCED,
        also=("torch.ddp.accumulate", "torch.ddp.weights"),
    ),
    Broken(
        id="ddp-averages-twice",
        kind="gradient averaged twice",
        breaks="torch's DistributedDataParallel divides the gradient by the number of ranks twice.",
        check="torch.ddp.gradients",
        reason="rank 0's gradient is off by 5.00e-01 from one process on the joined batch",
        base=Base.PLAIN,
        script=_TWICE,
        also=("torch.ddp.accumulate",),
    ),
    Broken(
        id="ddp-broadcast-is-lost",
        kind="broadcast broken",
        breaks="torch.distributed.broadcast receives the values and does not put them into the tensor.",
        check="torch.ddp.broadcast",
        reason="after a broadcast from rank 1, rank 0 does not have its values",
        base=Base.PLAIN,
        script=_OWN_BROADCAST,
    ),
    Broken(
        id="ddp-parameters-stay-apart",
        kind="broadcast broken",
        breaks="torch's DistributedDataParallel starts from different weights in each rank.",
        check="torch.ddp.weights",
        reason="the ranks begin with weights that differ",
        base=Base.PLAIN,
        script=_PARAMETERS_STAY_APART,
    ),
)

TRAINING = (
    Broken(
        id="autocast-off",
        kind="autocast off",
        breaks="torch.autocast is accepted and does nothing: mixed precision runs in float32.",
        check="torch.train.amp",
        reason="autocast did not act: the output of block.qkv is torch.float32, expected torch.bfloat16",
        base=Base.PLAIN,
        script=_AUTOCAST_OFF,
        also=("torch.train.scaler", "torch.ddp.weights"),
    ),
    Broken(
        id="autocast-crashes",
        kind="crash",
        breaks="torch.autocast kills its process with a signal.",
        check="torch.train.amp",
        reason="the check was killed by SIGSEGV",
        base=Base.PLAIN,
        script=_AUTOCAST_CRASHES,
        also=("torch.checkpoint", "torch.nan", "torch.train.scaler", "torch.ddp.weights"),
    ),
    Broken(
        id="low-master-weights",
        kind="low dtype in the master weights",
        breaks="AdamW keeps the weights themselves in bfloat16, so that small updates are lost.",
        check="torch.train.amp",
        reason="is torch.bfloat16, not float32",
        base=Base.PLAIN,
        script=_LOW_MASTER_WEIGHTS,
        also=(
            "torch.accumulate",
            "torch.train.scaler",
            "torch.ddp.accumulate",
            "torch.ddp.gradients",
            "torch.ddp.weights",
        ),
    ),
    Broken(
        id="scaler-never-steps",
        kind="scaler that never steps",
        breaks="The gradient scaler sees an overflow in every step and skips them all.",
        check="torch.train.scaler",
        reason="15 of 15 steps in float16 were skipped",
        base=Base.PLAIN,
        script=_NEVER_STEPS,
    ),
    Broken(
        id="scaler-never-unscales",
        kind="scaler that never unscales",
        breaks="The gradient scaler hands scaled gradients to the optimizer.",
        check="torch.train.scaler",
        reason="the unscaled gradient in float16 differs from float32",
        base=Base.PLAIN,
        script=_NEVER_UNSCALES,
    ),
    Broken(
        id="optimizer-stands-still",
        kind="loss that does not fall",
        breaks="AdamW's step returns without touching the weights.",
        check="torch.train.amp",
        reason="learned nothing of use",
        base=Base.PLAIN,
        script=_STANDS_STILL,
        also=("torch.checkpoint", "torch.finetune", "torch.nan", "torch.train.scaler", "torch.ddp.weights"),
    ),
    Broken(
        id="adam-stands-still",
        kind="loss that does not fall",
        breaks="Adam's step computes nothing; AdamW's works.",
        check="torch.train.regression",
        reason="a 10-5-1 network ends at loss",
        base=Base.PLAIN,
        script=_ADAM_STANDS_STILL,
        also=("torch.ddp.weights",),
    ),
    Broken(
        id="nan-hidden",
        kind="NaN loss hidden",
        breaks="cross_entropy gives 0 where the loss is no number.",
        check="torch.nan",
        reason="cross_entropy of numbers with a NaN among them is 0.0, not NaN",
        base=Base.PLAIN,
        script=_NAN_IS_ZERO,
    ),
    Broken(
        id="low-convolutions",
        kind="wrong numbers",
        breaks="Convolutions in float32 and float64 round their input to bfloat16.",
        check="torch.numerics",
        reason="a convolution in float64 on cpu",
        base=Base.PLAIN,
        script=_LOW_CONVOLUTIONS,
    ),
    Broken(
        id="nothing-is-frozen",
        kind="frozen layers that train",
        breaks="requires_grad_(False) is accepted and ignored, so that fine-tuning changes the pre-trained layers.",
        check="torch.finetune",
        reason="which was frozen",
        base=Base.PLAIN,
        script=_NOTHING_IS_FROZEN,
    ),
    Broken(
        id="events-are-lost",
        kind="lost events",
        breaks="TensorBoard's writer drops every other value.",
        check="torch.events",
        reason="TensorBoard reads",
        base=Base.PLAIN,
        script=_EVENTS_ARE_LOST,
    ),
    Broken(
        id="one-process-loads",
        kind="data loading without workers",
        breaks="DataLoader takes the number of workers and loads everything in the training's own process.",
        check="torch.data",
        reason="2 workers were asked for, 0 made the samples",
        base=Base.PLAIN,
        script=_ONE_PROCESS_LOADS,
    ),
    Broken(
        id="checkpoint-forgets-the-optimizer",
        kind="checkpoint that does not resume",
        breaks="AdamW's load_state_dict reads nothing, so that a resumed training goes on differently.",
        check="torch.checkpoint",
        reason="the losses differ after resuming",
        base=Base.PLAIN,
        script=_FORGETS_ITS_STATE,
    ),
    Broken(
        id="only-the-last-micro-batch",
        kind="gradients that do not accumulate",
        breaks="Each backward pass throws away the gradients of the one before it.",
        check="torch.accumulate",
        reason="4 micro-batches and one batch differ by",
        base=Base.PLAIN,
        script=_LAST_MICRO_BATCH,
        also=("torch.ddp.accumulate",),
    ),
)

TORCH = (*TRAINING, *DISTRIBUTED)
