# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Pre-training on one grammar, fine-tuning on another: how most models come about."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from builder.checks import language, training
from builder.checks.contract import expect

PRETRAINING = 60
FINE_TUNING = 40
#: Added to every symbol of the second grammar.
SHIFT = 7


def finetune(device: str) -> dict[str, Any]:
    """Pre-trains, saves, loads the body under a new head into a model of another seed, and trains the head alone.

    The second grammar names the successors of a symbol differently (`SHIFT` is added to each). So the pre-trained
    head with its rows renamed would be as good on it as it was on the first, and what the body, frozen, tells the head
    is enough to come as low; a head alone is a convex problem. Both trainings are held against `language.LEARNED`.
    """
    first = training.new_training(8, device)
    first.run(0, PRETRAINING)
    before = first.evaluate(None)[0]
    training.expect_learned(before, f"pre-training on {device}")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.pt"
        torch.save(first.model.state_dict(), path)
        saved = torch.load(path, map_location=device, weights_only=True)
    for name, value in first.model.state_dict().items():
        expect(torch.equal(value, saved[name]), f"{name} differs after it was saved and loaded")

    body = {name: value for name, value in saved.items() if not name.startswith("head.")}
    second = training.new_training(9, device)
    second.shift = SHIFT
    missing, unexpected = second.model.load_state_dict(body, strict=False)
    expect(
        sorted(missing) == ["head.bias", "head.weight"] and not unexpected,
        f"loading the body reports {sorted(missing)} as missing and {sorted(unexpected)} as unexpected",
    )
    for name, parameter in second.model.named_parameters():
        if name in body:
            expect(torch.equal(parameter, body[name]), f"{name} is not what was saved after it was loaded")
        parameter.requires_grad_(name.startswith("head."))
    head = [parameter for parameter in second.model.parameters() if parameter.requires_grad]
    second.optimizer = torch.optim.AdamW(head, lr=training.RATE)
    start = second.evaluate(None)[0]
    losses = second.run(0, FINE_TUNING)
    training.expect_finite(losses, f"fine-tuning on {device}")
    for name, parameter in second.model.named_parameters():
        if name in body:
            expect(torch.equal(parameter, body[name]), f"fine-tuning of the head changed {name}, which was frozen")
            expect(parameter.grad is None, f"{name} was frozen and got a gradient")
    after = second.evaluate(None)[0]
    training.expect_learned(after, f"fine-tuning on {device}")
    return {
        "loss_pretrained": before,
        "loss_start": start,
        "loss_finetuned": after,
        "loss_required": language.LEARNED,
        "steps": FINE_TUNING,
        "frozen": len(body),
        "series": {
            "pretraining_loss": first.series["loss"],
            "loss": losses,
            "step_seconds": second.series["step_seconds"],
        },
    }
