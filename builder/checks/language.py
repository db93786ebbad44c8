# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A grammar whose entropy is known, and a small transformer that can learn it.

The grammar: the first two symbols of a text are uniform over 64; symbol i is `5 s + 17` with probability 3/4 and
`5 s + 1` with probability 1/4 (modulo 64), where s is the symbol *two* places back. From that follows exactly:

- Both maps are permutations of the 64 symbols (5 is odd), so every symbol is uniform: the unigram entropy is ln 64 =
  4.159 nats. No model that ignores the context can have a smaller expected loss.
- Neighbours are independent, so a model that sees only the last symbol (one without working attention) is held to
  4.159 nats as well.
- Given the symbol two back, the entropy is H = -(3/4 ln 3/4 + 1/4 ln 1/4) = 0.562 nats. No causal model can have a
  smaller expected loss; one that has sees its own target.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

SYMBOLS = 64
CONTEXT = 32
LAG = 2
LIKELY = 0.75

#: Nats per symbol: of the symbols alone, and given the symbol two back.
UNIGRAM_ENTROPY = math.log(SYMBOLS)
ENTROPY = -(LIKELY * math.log(LIKELY) + (1 - LIKELY) * math.log(1 - LIKELY))
#: Standard deviation of -ln p of one symbol under the grammar: two values that lie ln(p / (1 - p)) apart.
SURPRISE_DEVIATION = math.sqrt(LIKELY * (1 - LIKELY)) * math.log(LIKELY / (1 - LIKELY))
#: Predictions per text that the grammar determines: all but those of the first `LAG` symbols.
PREDICTIONS = CONTEXT + 1 - LAG

#: A trained model has used at least half of the information that the context offers.
LEARNED = (UNIGRAM_ENTROPY + ENTROPY) / 2

WIDTH = 64
HEADS = 4
#: Roundings on the longest path from the embedding to the logits when autocast is on: input, weight and output of
#: qkv; probabilities and output of the attention; weight and output of proj; input, weight and output of up; gelu;
#: weight and output of down; input, weight and output of head. LayerNorm and the residual sums stay float32.
ROUNDINGS = 16


def texts(count: int, seed: int, device: str = "cpu") -> torch.Tensor:
    """`count` texts of `CONTEXT` + 1 symbols, the same ones on every machine and device."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.empty(count, CONTEXT + 1, dtype=torch.long)
    symbols[:, :LAG] = torch.randint(SYMBOLS, (count, LAG), generator=generator)
    for place in range(LAG, CONTEXT + 1):
        likely = (torch.rand(count, generator=generator) < LIKELY).long()
        symbols[:, place] = (symbols[:, place - LAG] * 5 + 1 + 16 * likely) % SYMBOLS
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
