# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The grammar of `grammar` in torch, and a small transformer that can learn it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from builder.checks.grammar import CONTEXT as CONTEXT
from builder.checks.grammar import ENTROPY as ENTROPY
from builder.checks.grammar import HEADS as HEADS
from builder.checks.grammar import LAG as LAG
from builder.checks.grammar import LEARNED as LEARNED
from builder.checks.grammar import LIKELY as LIKELY
from builder.checks.grammar import PREDICTIONS as PREDICTIONS
from builder.checks.grammar import SURPRISE_DEVIATION as SURPRISE_DEVIATION
from builder.checks.grammar import SYMBOLS as SYMBOLS
from builder.checks.grammar import UNIGRAM_ENTROPY as UNIGRAM_ENTROPY
from builder.checks.grammar import WIDTH as WIDTH

#: Roundings on the longest path from the embedding to the logits when autocast is on: input, weight and output of
#: qkv; probabilities and output of the attention; weight and output of proj; input, weight and output of up; gelu;
#: weight and output of down; input, weight and output of head. LayerNorm and the residual sums stay float32.
ROUNDINGS = 16


def texts(count: int, seed: int, device: str = "cpu", shift: int = 0) -> torch.Tensor:
    """`count` texts of `CONTEXT` + 1 symbols, the same ones on every machine and device.

    `shift` is added to both maps, modulo 64: another grammar with the entropies of this one.
    """
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.empty(count, CONTEXT + 1, dtype=torch.long)
    symbols[:, :LAG] = torch.randint(SYMBOLS, (count, LAG), generator=generator)
    for place in range(LAG, CONTEXT + 1):
        likely = (torch.rand(count, generator=generator) < LIKELY).long()
        symbols[:, place] = (symbols[:, place - LAG] * 5 + 1 + 16 * likely + shift) % SYMBOLS
    return symbols.to(device)


class Block(nn.Module):
    """Causal self-attention and an MLP, each behind a LayerNorm and beside a residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.before_mlp = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, length, width = hidden.shape
        qkv = self.qkv(self.before_attention(hidden))
        query, key, value = qkv.view(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return hidden + self.down(functional.gelu(self.up(self.before_mlp(hidden))))


class LanguageModel(nn.Module):
    """Predicts the next symbol; about 62,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.block = Block()
        self.before_head = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        places = torch.arange(symbols.shape[1], device=symbols.device)
        hidden = self.symbols(symbols) + self.places(places)
        return self.head(self.before_head(self.block(hidden)))


def new_model(seed: int, device: str = "cpu") -> LanguageModel:
    """A model whose weights depend on the seed alone; they are drawn on the CPU."""
    torch.manual_seed(seed)
    return LanguageModel().to(device)


def loss_of(logits: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the symbols that the grammar determines, computed in float32."""
    logits = logits[:, LAG - 1 :].float()
    return functional.cross_entropy(logits.reshape(-1, SYMBOLS), symbols[:, LAG:].reshape(-1))
