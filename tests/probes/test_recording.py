"""What a record holds, against a plain forward pass of one unpadded prompt at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from simmerge_core.catalog import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.probes import ProbeRecord, probe_bytes, record_probes


def _tensors(record: ProbeRecord) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


@torch.no_grad()
def _plain(model: Any, tokenizer: Any, prompt: str) -> dict[str, Any]:
    """Log-probabilities (T, V), residual streams (l, T, d) and attention (l, h, T, T) in float64, block by block."""
    model.set_attn_implementation("eager")
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    hidden = model.model.embed_tokens(ids)
    positions = torch.arange(ids.shape[1])[None]
    rotary = model.model.rotary_emb(hidden, positions)
    mask = torch.full((ids.shape[1],) * 2, torch.finfo(torch.float32).min).triu(1)[None, None]
    residuals, patterns = [], []
    for block in model.model.layers:
        normed = block.input_layernorm(hidden)
        _, pattern = block.self_attn(normed, position_embeddings=rotary, attention_mask=mask)
        patterns.append(pattern[0])
        hidden = block(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
        residuals.append(hidden[0])
    logits = model.lm_head(model.model.norm(hidden))[0].double()
    logprobs = (logits - logits.logsumexp(-1, keepdim=True)).numpy()
    return {
        "ids": ids[0].numpy(),
        "logprobs": logprobs,
        "hidden": torch.stack(residuals).double().numpy(),
        "attention": torch.stack(patterns).double().numpy(),
    }


def test_full_record_holds_what_a_plain_forward_gives(model: Any, tokenizer: Any, prompts: list[str]) -> None:
    record = record_probes(model, tokenizer, prompts, batch_size=3)
    assert record.layers == (0, 1, 2)
    for number, (prompt, place) in enumerate(zip(prompts, record.slices, strict=True)):
        plain = _plain(model, tokenizer, prompt)
        length = len(plain["ids"])
        np.testing.assert_allclose(record.logprobs[place.rows], plain["logprobs"], atol=1e-4)
        for layer in range(3):
            expected = plain["hidden"][layer] / np.sqrt(np.mean(plain["hidden"][layer] ** 2))
            np.testing.assert_allclose(record.hidden[layer, place.rows], expected, atol=2e-5)
            lower = plain["attention"][layer][:, np.tri(length, dtype=bool)]
            # Scores are float32, and kernels differ by processor.
            np.testing.assert_allclose(record.attention[layer, :, place.packed], lower, atol=2e-5)
        entropies = -(np.exp(plain["logprobs"]) * plain["logprobs"]).sum(-1)
        nll = -np.mean([plain["logprobs"][j, plain["ids"][j + 1]] for j in range(length - 1)]) if length > 1 else 0.0
        assert record.nll[number].item() == pytest.approx(nll, abs=1e-5)
        assert record.entropy[number].item() == pytest.approx(entropies.mean(), abs=1e-5)
        assert record.last_entropy[number].item() == pytest.approx(entropies[-1], abs=1e-5)


def test_last_block_is_taken_before_the_final_norm(model: Any, tokenizer: Any) -> None:
    with torch.no_grad():
        model.model.norm.weight.copy_(torch.linspace(1, 3, 16))
    try:
        record = record_probes(model, tokenizer, ["abc"])
        plain = _plain(model, tokenizer, "abc")["hidden"][-1]
    finally:
        with torch.no_grad():
            model.model.norm.weight.fill_(1.0)
    np.testing.assert_allclose(record.hidden[-1], plain / np.sqrt(np.mean(plain**2)), atol=2e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batch_size_and_padding_do_not_matter(model: Any, tokenizer: Any, prompts: list[str], batch_size: int) -> None:
    one, other = (record_probes(model, tokenizer, prompts, batch_size=size) for size in (4, batch_size))
    for name, tensor in _tensors(one).items():
        torch.testing.assert_close(getattr(other, name), tensor, atol=2e-5, rtol=1e-4)


def test_same_bytes_at_any_number_of_threads(model: Any, tokenizer: Any, prompts: list[str]) -> None:
    records = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        records.append(record_probes(model, tokenizer, prompts))
        assert torch.get_num_threads() == threads
    for record in records[1:]:
        for name, tensor in _tensors(records[0]).items():
            assert torch.equal(getattr(record, name), tensor), name


def test_bounded_record_is_the_end_of_the_full_one(model: Any, tokenizer: Any, prompts: list[str]) -> None:
    full = record_probes(model, tokenizer, prompts)
    settings = ProbeSettings(last_positions=3, every_layer=2)
    few = record_probes(model, tokenizer, prompts, settings=settings)
    assert few.layers == (0, 2)
    assert full.logprobs is not None
    assert few.logprobs is not None
    for whole, part, length in zip(full.slices, few.slices, full.lengths.tolist(), strict=True):
        kept = min(3, length)
        torch.testing.assert_close(few.logprobs[part.rows], full.logprobs[whole.rows][-kept:])
        for index, layer in enumerate(few.layers):
            expected = full.hidden[layer, whole.rows][-kept:]
            torch.testing.assert_close(few.hidden[index, part.rows], expected / expected.square().mean().sqrt())
            entries = length * (length + 1) // 2 - (length - kept) * (length - kept + 1) // 2
            torch.testing.assert_close(
                few.attention[index, :, part.packed], full.attention[layer, :, whole.packed][:, -entries:]
            )
    # Self signals are over all positions whatever is kept.
    assert torch.equal(few.nll, full.nll)
    assert torch.equal(few.entropy, full.entropy)


def test_top_tokens_and_the_mass_of_the_rest(model: Any, tokenizer: Any, prompts: list[str]) -> None:
    full = record_probes(model, tokenizer, prompts)
    few = record_probes(model, tokenizer, prompts, settings=ProbeSettings(top_logits=5))
    assert full.logprobs is not None
    assert few.logprobs is None
    assert few.top_ids is not None
    assert few.top_logprobs is not None
    assert few.tail_logprobs is not None
    masses = full.logprobs.double().exp().numpy()
    for row in range(len(masses)):
        ids = few.top_ids[row].numpy()
        assert sorted(ids) == list(ids)
        assert set(ids) == set(np.argsort(-masses[row], kind="stable")[:5])
        np.testing.assert_allclose(few.top_logprobs[row].exp(), masses[row, ids], rtol=1e-5)
        rest = np.delete(masses[row], ids).sum()
        assert few.tail_logprobs[row].exp().item() == pytest.approx(rest, rel=1e-4)


def test_float16_record_is_close(model: Any, tokenizer: Any, prompts: list[str]) -> None:
    full = record_probes(model, tokenizer, prompts)
    half = record_probes(model, tokenizer, prompts, settings=ProbeSettings(precision="float16"))
    assert half.hidden.dtype == torch.float16
    torch.testing.assert_close(half.hidden.float(), full.hidden, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(half.attention.float(), full.attention, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        ProbeSettings(count=4),
        ProbeSettings(count=4, last_positions=2),
        ProbeSettings(count=4, every_layer=2, precision="float16"),
        ProbeSettings(count=4, last_positions=4, top_logits=7, precision="float16"),
        ProbeSettings(count=4, top_logits=10_000),
    ],
)
def test_size_formula_counts_every_byte(model: Any, tokenizer: Any, settings: ProbeSettings) -> None:
    record = record_probes(model, tokenizer, ["12+34=", "56+78=", "abcdef", "abc de"], settings=settings)
    assert record.bytes == probe_bytes(settings, layers=3, width=16, heads=4, vocabulary=record.vocabulary, tokens=6)


def test_size_of_a_7b_model_is_as_documented() -> None:
    shape = {"layers": 32, "width": 4096, "heads": 32, "vocabulary": 32_000, "tokens": 128}
    full = probe_bytes(ProbeSettings(), **shape)
    bounded = probe_bytes(ProbeSettings(last_positions=16, every_layer=4, precision="float16", top_logits=256), **shape)
    assert probe_bytes.__doc__ is not None
    assert f"{full:,}" in probe_bytes.__doc__
    assert f"{bounded:,}" in probe_bytes.__doc__


def test_count_limits_the_prompts(model: Any, tokenizer: Any, prompts: list[str]) -> None:
    assert record_probes(model, tokenizer, prompts, settings=ProbeSettings(count=3)).prompts == 3


def test_prompts_are_encoded_as_lm_eval_encodes_contexts(model: Any, tokenizer: Any) -> None:
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    for prompt in ("12+3=", "{a 1;b 2}a ", "<|end|>12+3="):
        expected = harness.tok_encode(prompt)
        assert record_probes(model, tokenizer, [prompt]).tokens.tolist() == expected


def test_a_tokenizer_that_adds_a_beginning_adds_it_once(model: Any, tokenizer: Any) -> None:
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = type(tokenizer._tokenizer).from_str(tokenizer._tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    adding = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>")
    harness = HFLM(pretrained=model, tokenizer=adding, batch_size=1)
    for prompt in ("12+3=", "<|end|>12+3="):
        tokens = record_probes(model, adding, [prompt]).tokens.tolist()
        assert tokens == harness.tok_encode(prompt)
        assert tokens.count(0) == 1


def test_a_long_prompt_loses_its_beginning(model: Any, tokenizer: Any) -> None:
    record = record_probes(model, tokenizer, ["a" * 30 + "b" * 64])
    assert record.lengths.tolist() == [64]
    assert record.tokens.tolist() == tokenizer("b" * 64)["input_ids"]


def test_attention_implementation_is_put_back(make_model: Callable[..., Any], tokenizer: Any) -> None:
    model = make_model(1)
    model.set_attn_implementation("sdpa")
    record_probes(model, tokenizer, ["abc"])
    assert model.config._attn_implementation == "sdpa"


def test_other_architectures(tokenizer: Any, prompts: list[str]) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    size = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0}
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=32, **size))
    neox = GPTNeoXForCausalLM(
        GPTNeoXConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, **size)
    )
    for model in (gpt2, neox):
        record = record_probes(model, tokenizer, prompts)
        assert record.hidden.shape[0] == 2
        assert record.attention.shape[:2] == (2, 2)
        # Row j of a causal pattern sums to 1: each prompt's packed entries sum to its number of rows.
        for place in record.slices:
            sums = record.attention[:, :, place.packed].sum(-1)
            torch.testing.assert_close(sums, torch.full_like(sums, place.rows.stop - place.rows.start))


def test_progress_reaches_one(model: Any, tokenizer: Any, prompts: list[str]) -> None:
    seen: list[float] = []
    record_probes(model, tokenizer, prompts, batch_size=3, progress=lambda _, fraction: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_not_finite_weights_name_checkpoint_and_task(make_model: Callable[..., Any], tokenizer: Any) -> None:
    for spoil in ("lm_head.weight", "model.layers.1.mlp.up_proj.weight"):
        model = make_model(2)
        with torch.no_grad():
            dict(model.named_parameters())[spoil].view(-1)[3] = torch.nan
        with pytest.raises(ProbeError, match=r"'math-03' on task 'rag' are not finite"):
            record_probes(model, tokenizer, ["abc"], checkpoint="math-03", task="rag")


def test_no_prompts_and_empty_prompts_are_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ProbeError, match="no prompts for checkpoint 'c' on task 't'"):
        record_probes(model, tokenizer, [], checkpoint="c", task="t")
    with pytest.raises(ProbeError, match=r"Prompt 1 .* is empty"):
        record_probes(model, tokenizer, ["abc", ""], checkpoint="c", task="t")
