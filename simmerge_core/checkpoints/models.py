"""A checkpoint as a live transformers model, refused unless every weight came from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simmerge_core.checkpoints.folder import open_checkpoint
from simmerge_core.errors import CheckpointError


def load_model(
    path: Path, *, device: str = "cpu", dtype: Any = None, attn_implementation: str | None = None
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer from a local folder; no network, no remote code, no pickles.

    Parameters
    ----------
    dtype
        torch dtype of the live weights; the stored one by default.
    attn_implementation
        As transformers names it; ``"eager"`` where attention patterns are wanted.

    Returns
    -------
    tuple[PreTrainedModel, PreTrainedTokenizerBase]
        The model in evaluation mode on `device`, and the tokenizer.

    Raises
    ------
    CheckpointError
        If the folder is unusable, a tensor is missing, unexpected or of another shape, or a weight is not finite.
    """
    folder = open_checkpoint(Path(path))  # says what is wrong before transformers is even imported
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from simmerge_core.checkpoints.finite import check_chunk

    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    options: dict[str, Any] = {"dtype": dtype if dtype is not None else "auto"}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # a library does not draw on its caller's terminal
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder.path),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **offline,
            **options,
        )
    except Exception as error:  # a damaged config fails in any place of the library, with errors of any kind
        raise CheckpointError(
            f"Checkpoint {folder.name!r} cannot be loaded as a causal language model: {_first_line(error)}"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    # Tensors that are missing would silently be random numbers.
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(k[0] if isinstance(k, tuple) else k) for k in info.get(kind) or ())
        if keys:
            raise CheckpointError(
                f"Checkpoint {folder.name!r} does not fit its config: {kind.split('_')[0]} tensor {keys[0]!r} "
                f"({len(keys)} in all): save it again from the model it belongs to."
            )
    for name, values in model.named_parameters():
        check_chunk(values.detach(), checkpoint=folder.name, tensor=name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder.path), **offline)
    except Exception as error:  # as above: what a damaged file makes the library raise is not documented
        raise CheckpointError(
            f"Checkpoint {folder.name!r} has no usable tokenizer ({_first_line(error)}): copy its base's tokenizer "
            "files."
        ) from error
    return model.to(device).eval(), tokenizer


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
