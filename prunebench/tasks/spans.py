"""Between characters of a context and tokens of a window."""

from __future__ import annotations

import numpy as np


def token_span(offsets: np.ndarray, in_context: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """First and last token that cover the characters [start, end), None if the window does not hold all of them."""
    context = np.flatnonzero(in_context)
    if len(context) == 0 or offsets[context[0], 0] > start or offsets[context[-1], 1] < end:
        return None
    first = np.searchsorted(offsets[context, 0], start, side="right") - 1
    last = np.searchsorted(offsets[context, 1], end, side="left")
    return int(context[first]), int(context[last])


def best_span(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    offset_start: np.ndarray,
    offset_end: np.ndarray,
    n_best: int,
    max_answer_length: int,
) -> tuple[int, int, float] | None:
    """(first character, last + 1, start + end logit) of a window's best answer among its n_best starts and ends.

    The arrays hold a window's (length,) tokens, offsets -1 outside the context. None: no such pair is a span of the
    context of at most `max_answer_length` tokens.
    """
    starts, ends = (np.argsort(-logits, kind="stable")[:n_best] for logits in (start_logits, end_logits))
    length = ends[None, :] - starts[:, None] + 1
    valid = (length >= 1) & (length <= max_answer_length)
    valid &= (offset_start[starts] >= 0)[:, None] & (offset_start[ends] >= 0)[None, :]
    if not valid.any():
        return None
    scores = np.where(valid, start_logits[starts][:, None] + end_logits[ends][None, :], -np.inf)
    i, j = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(offset_start[starts[i]]), int(offset_end[ends[j]]), float(scores[i, j])
