"""A grammar whose entropy is known, and the bounds that follow from it and from the formats of numbers. No framework.

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

from builder.checks.contract import expect

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

#: The transformer that learns it.
WIDTH = 64
HEADS = 4

#: Sequences of a step, steps that suffice (the loss is near the entropy after about 60), and the rate of AdamW.
BATCH = 32
STEPS = 100
RATE = 1e-2
HELD_OUT = 64
HELD_OUT_SEED = 1_000_000

#: Half of the distance from 1 to the next number: the largest relative error of one rounding to nearest.
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def next_symbol(two_back: int, likely: int) -> int:
    """The symbol that follows; `likely` is 1 or 0. Works on arrays as well."""
    return (two_back * 5 + 1 + 16 * likely) % SYMBOLS


def expect_learned(loss: float, what: str, predictions: int = HELD_OUT * PREDICTIONS) -> None:
    """Fails unless a held-out loss lies where only a causal model that learned the grammar can have it.

    Above: see `LEARNED`. On N = 64 · 31 predictions a model without context cannot come near it by luck: its loss is
    at least the entropy of the sample's own symbol frequencies, which falls short of ln 64 by a chi-square of 63
    degrees over 2N, 0.016 on average and above 0.04 in less than one of a million draws.
    Below: five standard deviations of the sample's mean surprise under the entropy.
    """
    floor = ENTROPY - 5 * SURPRISE_DEVIATION / math.sqrt(predictions)
    expect(math.isfinite(loss), f"{what}: the loss is {loss}")
    expect(
        loss < LEARNED,
        f"{what} learned nothing of use: its loss is {loss:.3f} nats, required is less than {LEARNED:.3f} "
        f"(without context {UNIGRAM_ENTROPY:.3f})",
        loss=loss,
    )
    expect(
        loss > floor,
        f"{what}: the loss {loss:.3f} is below the entropy of the text, {ENTROPY:.3f}: "
        "the model sees what it is to predict",
        loss=loss,
    )


def loss_bound(largest: float, unit: float, roundings: int) -> float:
    """How far the loss in a low precision may be from the float32 loss at the same weights.

    K = `roundings`, each a relative error of at most u = `unit`, lie between embedding and logits; LayerNorm passes a
    relative error on as it is, and errors of independent roundings add in quadrature: a logit is off by about
    sqrt(K) u |z|, and |z| is at most the largest logit of its prediction, whose mean is `largest`. The cross-entropy
    of a prediction changes by at most twice the largest change of its logits: once through the target's own, once
    through the normaliser.
    """
    return 2 * math.sqrt(roundings) * unit * largest


def gradient_bound(unit: float, roundings: int) -> float:
    """How far, relative to its norm, a gradient in a low precision may be from the float32 gradient at these weights.

    A weight's gradient is a product of a forward activation (up to K roundings) and a backward signal (K forward and
    up to K backward ones): 3K roundings in quadrature, sqrt(3K) u as the expected size; four times that is allowed.
    """
    return 4 * math.sqrt(3 * roundings) * unit


def summation_bound(sequences: int, roundings: int, condition: float) -> float:
    """How far two float32 gradients of the same batch may be apart, relative to their norm, if only the order differs.

    Summing n numbers in any order has a relative error of at most n u of the sum of their magnitudes. Here n is the
    number of predictions in the batch, and for the dot products inside the model K times the width. `condition` is
    (sum of the norms) / (norm of the sum) of the parts' gradients; two results make twice the error.
    """
    terms = sequences * PREDICTIONS + roundings * WIDTH
    return 2 * terms * UNIT_ROUNDOFF["float32"] * condition
