# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with torch promises: it trains, in mixed precision too, and what it saves it can resume."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import struct
import tempfile
from pathlib import Path
from typing import Any

from builder.checks.contract import Group, Measured, NotRun, expect, fail


def _prepare() -> tuple[Any, Measured]:
    """Imports torch; a torch that cannot be imported fails the group, one that is not there leaves it not run."""
    if importlib.util.find_spec("torch") is None:
        raise NotRun("torch is not installed")
    import torch

    threads = torch.get_num_threads()
    # One thread: on a busy machine the threads of so small a model wait for each other longer than they work.
    torch.set_num_threads(1)
    facts = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cxx11_abi": bool(torch.compiled_with_cxx11_abi()),
        "num_threads": threads,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cuda_available": torch.cuda.is_available(),
        "arch_list": torch.cuda.get_arch_list(),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return torch, {"torch": facts}


GROUP = Group("torch", prepare=_prepare, deadline=180)


@GROUP.check(
    "torch.import",
    level="cpu",
    deadline=30,
    catches="A torch whose metadata says another version than its code, or whose kernels do not load.",
)
def _import(torch: Any) -> Measured:
    metadata = importlib.metadata.version("torch")
    expect(
        str(torch.__version__) == metadata,
        f"torch says it is {torch.__version__}, its metadata says {metadata}",
    )
    product = torch.arange(6.0).reshape(2, 3) @ torch.arange(3.0)
    expect(product.tolist() == [5.0, 14.0], f"a product of matrices gave {product.tolist()}")
    return {"version": metadata}


@GROUP.check(
    "torch.train.regression",
    level="cpu",
    deadline=60,
    catches="Autograd or Adam that does not work at all: the smallest network there is does not fit a line.",
)
def _regression(torch: Any) -> Measured:
    torch.manual_seed(0)
    inputs = torch.randn(64, 10)
    targets = inputs @ torch.linspace(-1, 1, 10).reshape(10, 1)
    net = torch.nn.Sequential(torch.nn.Linear(10, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    # The best constant has the variance of the targets as its loss; a tenth of it needs the inputs.
    bound = float(targets.var(unbiased=False).item()) / 10
    loss = targets.new_tensor(0.0)
    for _ in range(300):
        loss = torch.nn.functional.mse_loss(net(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = float(loss.item())
    expect(0 <= found < bound, f"a 10-5-1 network ends at loss {found:.4f}, bound {bound:.4f}")
    return {"loss": found, "bound": bound}


@GROUP.check(
    "torch.train.amp",
    level="cpu",
    deadline=120,
    catches="Mixed precision that is silently off or wrong, and a transformer that does not learn.",
)
def _amp(torch: Any) -> Measured:
    from builder.checks import training

    return training.train_mixed("cpu", torch.bfloat16)


@GROUP.check(
    "torch.train.scaler",
    level="cpu",
    deadline=120,
    catches="A gradient scaler that skips every step, diverges, never unscales, or lets an overflow into the weights.",
)
def _scaler(torch: Any) -> Measured:
    from builder.checks import training

    if not hasattr(torch.amp, "GradScaler"):
        raise NotRun(f"torch {torch.__version__} has no gradient scaler for the CPU")
    return training.train_scaled("cpu", torch.amp.GradScaler("cpu"))


@GROUP.check(
    "torch.accumulate",
    level="cpu",
    deadline=60,
    catches="Gradients of micro-batches that do not add up to the gradient of the whole batch.",
)
def _accumulate(torch: Any) -> Measured:
    from builder.checks import language, training

    parts = 4
    batch = language.texts(training.BATCH, 7)
    whole = training.new_training(3)
    whole.loss(batch).backward()
    expected = training.gradient(whole.model)

    accumulated = training.new_training(3)
    norms, before = 0.0, torch.zeros_like(expected)
    for part in batch.chunk(parts):
        (accumulated.loss(part) / parts).backward()
        now = training.gradient(accumulated.model)
        norms, before = norms + float((now - before).norm()), now
    error = training.relative_error(before, expected)
    bound = training.summation_bound(training.BATCH, norms / float(expected.norm()))
    expect(
        error <= bound,
        f"{parts} micro-batches and one batch differ by {error:.2e} of the gradient, bound {bound:.2e}",
    )
    return {"error": error, "bound": bound, "micro_batches": parts}


@GROUP.check(
    "torch.checkpoint",
    level="cpu",
    deadline=60,
    catches="A checkpoint from which training does not go on exactly as if it had not been interrupted.",
)
def _checkpoint(torch: Any) -> Measured:
    from builder.checks import training

    half = 6
    first = training.new_training(4, dtype=torch.bfloat16)
    first.run(0, half)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint.pt"
        state = {"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}
        torch.save(state, path)
        size = path.stat().st_size
        saved = torch.load(path, weights_only=True)
    through = first.run(half, 2 * half)

    second = training.new_training(5, dtype=torch.bfloat16)  # another seed: all must come from the file
    second.model.load_state_dict(saved["model"])
    second.optimizer.load_state_dict(saved["optimizer"])
    resumed = second.run(half, 2 * half)
    expect(through == resumed, f"the losses differ after resuming: {through} and {resumed}")
    left, right = training.weights(first.model), training.weights(second.model)
    difference = float((left - right).abs().max())
    expect(torch.equal(left, right), f"the weights differ by {difference:.2e} after resuming")

    # The same without the optimizer's state must differ, or the comparison above proves nothing.
    third = training.new_training(5, dtype=torch.bfloat16)
    third.model.load_state_dict(saved["model"])
    if third.run(half, 2 * half) == through:
        fail("training goes on alike with and without the optimizer's state: nothing was compared")
    return {"bytes": size, "steps": half, "parameters": left.numel()}


@GROUP.check(
    "tensorboard.events",
    level="cpu",
    deadline=90,
    catches="Event files that torch cannot write or TensorBoard cannot read.",
)
def _events(torch: Any) -> Measured:
    if importlib.util.find_spec("tensorboard") is None:
        raise NotRun("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    from builder.checks import training

    losses = training.new_training(6).run(0, 5)
    # Events hold float32; what is read back must be those bits.
    expected = [(step, struct.unpack("f", struct.pack("f", loss))[0]) for step, loss in enumerate(losses)]
    with tempfile.TemporaryDirectory() as directory:
        with SummaryWriter(directory) as writer:
            for step, loss in enumerate(losses):
                writer.add_scalar("loss", loss, step)
            writer.add_histogram("losses", torch.tensor(losses), 0)
        events = EventAccumulator(directory).Reload()
        found = [(event.step, event.value) for event in events.Scalars("loss")]
        count = events.Histograms("losses")[0].histogram_value.num
    expect(found == expected, f"TensorBoard reads {found} where {expected} was written")
    expect(count == len(losses), f"TensorBoard reads a histogram of {count}, not {len(losses)} values")
    return {"scalars": len(found)}


def _need_gpu(torch: Any) -> None:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "torch.cuda.is_available() is False" if built else "torch is built without CUDA"
        raise NotRun(f"no GPU was given to the check: {why}")


@GROUP.check(
    "torch.gpu.train.amp",
    level="gpu",
    deadline=180,
    catches="A GPU image that trains on no GPU, or for whose device it has no kernels.",
)
def _gpu_amp(torch: Any) -> Measured:
    from builder.checks import training

    _need_gpu(torch)
    return {**training.train_mixed("cuda", torch.bfloat16), "device": torch.cuda.get_device_name(0)}


@GROUP.check(
    "torch.gpu.train.scaler",
    level="gpu",
    deadline=180,
    catches="Training in float16 on the GPU that overflows or never steps.",
)
def _gpu_scaler(torch: Any) -> Measured:
    from builder.checks import training

    _need_gpu(torch)
    return training.train_scaled("cuda", torch.amp.GradScaler("cuda"))
