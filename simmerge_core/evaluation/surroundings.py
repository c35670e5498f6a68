"""What lm-eval and its libraries touch beside their results: log lines, progress bars, random states, the network."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
from collections.abc import Iterator
from types import ModuleType

_LOGGERS = ("lm_eval", "lm-eval", "datasets", "transformers", "huggingface_hub")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let through errors only, and draw no progress bars: the caller reports progress itself."""
    import datasets
    import lm_eval.api.task
    from transformers.utils import logging as transformers_logging

    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars, weight_bars = datasets.are_progress_bars_disabled(), transformers_logging.is_progress_bar_enabled()
    # `build_all_requests` draws a bar that no option turns off.
    bar = lm_eval.api.task.tqdm
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
        lm_eval.api.task.tqdm = functools.partial(bar, disable=True)
        yield
    finally:
        lm_eval.api.task.tqdm = bar
        if weight_bars:
            transformers_logging.enable_progress_bar()
        if not bars:
            datasets.enable_progress_bars()
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def isolated_random() -> Iterator[None]:
    """Give the caller's random states back afterwards: lm-eval and sampled generation use the global ones."""
    import numpy
    import torch

    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)


@contextlib.contextmanager
def network(*, allowed: bool) -> Iterator[None]:
    """Keep the Hugging Face libraries from reaching out, unless `allowed`."""
    if allowed:
        yield
        return
    import datasets.config
    import huggingface_hub.constants

    # The libraries read their environment variables once, at import: what they read is set instead.
    places: tuple[tuple[ModuleType, str], ...] = (
        (huggingface_hub.constants, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_DATASETS_OFFLINE"),
    )
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


@contextlib.contextmanager
def code_execution(*, allowed: bool) -> Iterator[None]:
    """Set the consent variable that code-executing metrics ask for, only while it is given."""
    if not allowed:
        yield
        return
    before = os.environ.get("HF_ALLOW_CODE_EVAL")
    os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_ALLOW_CODE_EVAL"]
        else:
            os.environ["HF_ALLOW_CODE_EVAL"] = before
