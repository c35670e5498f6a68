"""The first prompts of a record are the record of the first prompts."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from simmerge_core.catalog import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.probes import ProbeRecord, record_probes

BOUNDED = {
    "full": ProbeSettings(),
    "last positions": ProbeSettings(last_positions=3),
    "every second layer": ProbeSettings(every_layer=2),
    "top logits": ProbeSettings(top_logits=5),
    "all bounds": ProbeSettings(last_positions=2, every_layer=2, top_logits=4, precision="float16"),
}


def _same(first: ProbeRecord, second: ProbeRecord) -> None:
    for field in fields(ProbeRecord):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if isinstance(theirs, torch.Tensor):
            assert ours.dtype == theirs.dtype, field.name
            assert torch.equal(ours, theirs), field.name
        else:
            assert ours == theirs, field.name


@pytest.mark.parametrize("name", BOUNDED)
def test_equal_to_recording_the_first_prompts_alone(model: Any, tokenizer: Any, prompts: list[str], name: str) -> None:
    settings = BOUNDED[name]
    # One prompt per pass: another batch would change the last bits.
    whole = record_probes(model, tokenizer, prompts, settings=settings, batch_size=1)
    for count in range(1, len(prompts) + 1):
        alone = record_probes(model, tokenizer, prompts[:count], settings=settings, batch_size=1)
        part = whole.first(count)
        _same(part, alone)
        assert part.prompts == count
        assert part.slices == alone.slices == whole.slices[:count]
        assert part.bytes == alone.bytes


def test_a_part_of_a_saved_record_has_no_keys_and_is_saved_again(
    model: Any, tokenizer: Any, prompts: list[str], tmp_path: Path
) -> None:
    whole = record_probes(model, tokenizer, prompts, batch_size=1).save(
        tmp_path / "whole", fingerprint="f", probe_key="k"
    )
    part = whole.first(3)
    assert (part.fingerprint, part.probe_key) == ("", "")
    assert (whole.prompts, whole.fingerprint, whole.probe_key) == (len(prompts), "f", "k")
    part.save(tmp_path / "part", fingerprint="f", probe_key="other")
    again = ProbeRecord.load(tmp_path / "part", fingerprint="f", probe_key="other")
    alone = record_probes(model, tokenizer, prompts[:3], batch_size=1)
    _same(again.first(3), alone)
    assert (tmp_path / "part").stat().st_size < (tmp_path / "whole").stat().st_size


@pytest.mark.parametrize("count", [0, -1, 9])
def test_none_or_more_than_there_are_is_refused(model: Any, tokenizer: Any, prompts: list[str], count: int) -> None:
    record = record_probes(model, tokenizer, prompts, settings=ProbeSettings(last_positions=1))
    with pytest.raises(ProbeError, match=f"8 prompts has no first {count}: ask for 1 to 8"):
        record.first(count)
