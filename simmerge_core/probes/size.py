"""How much a probe record keeps, and what that weighs."""

from __future__ import annotations

from simmerge_core.catalog.model import ProbeSettings


def kept_layers(settings: ProbeSettings, layers: int) -> tuple[int, ...]:
    """The blocks that are kept: every `every_layer`-th counted back from the last, in ascending order."""
    return tuple(layer for layer in range(layers) if (layers - 1 - layer) % settings.every_layer == 0)


def kept_positions(settings: ProbeSettings, tokens: int) -> int:
    """How many positions, counted from the end, are kept of a prompt of `tokens` tokens."""
    return tokens if settings.last_positions is None else min(settings.last_positions, tokens)


def packed_attention(settings: ProbeSettings, tokens: int) -> int:
    """Entries kept of one head's causal attention pattern: the kept rows, each up to its own diagonal.

    The rest of a row is zero and adds nothing to an inner product.
    """
    rows = kept_positions(settings, tokens)
    return rows * tokens - rows * (rows - 1) // 2


def probe_bytes(settings: ProbeSettings, *, layers: int, width: int, heads: int, vocabulary: int, tokens: int) -> int:
    """Bytes of the tensors of one probe record (one checkpoint on one task), all prompts having `tokens` tokens.

    With c = `settings.count` prompts, T = `tokens`, n = min(T, last_positions), l = ⌈layers / every_layer⌉ and
    f = 4 or 2 bytes a number (`precision`)::

        c · [ f·l·n·width                          hidden states
            + f·l·heads·(n·T − n·(n − 1)/2)        attention patterns, causal part
            + f·n·vocabulary                       log-probabilities (all tokens), or
              n·(k·(4 + f) + f)                    the k = top_logits most probable and the rest's mass
            + 4·T + 4 + 3·8 ]                      token ids, length, self signals

    For a 7B model (32 layers, width 4096, 32 heads, vocabulary 32,000) and 64 prompts of 128 tokens this is
    7,507,838,720 bytes (7.5 GB) with everything in float32, and 131,895,040 bytes (132 MB) with
    ``last_positions=16, every_layer=4, precision="float16", top_logits=256``.

    Parameters
    ----------
    layers, width, heads, vocabulary
        Transformer blocks, hidden size, attention (query) heads, logits per position.
    tokens
        Tokens of each prompt.
    """
    number = 2 if settings.precision == "float16" else 4
    kept, positions = len(kept_layers(settings, layers)), kept_positions(settings, tokens)
    if settings.top_logits is None or settings.top_logits >= vocabulary:
        distribution = number * positions * vocabulary
    else:
        distribution = positions * (settings.top_logits * (4 + number) + number)
    hidden = number * kept * positions * width
    attention = number * kept * heads * packed_attention(settings, tokens)
    return settings.count * (hidden + attention + distribution + 4 * tokens + 4 + 3 * 8)
