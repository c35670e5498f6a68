"""The protocol holds what was fixed beforehand, and refuses what is not that."""

from __future__ import annotations

import pytest
from experiments_world import WorldData, catalog_of

from simmerge_core.catalog import Catalog
from simmerge_core.demo import PRESETS
from simmerge_core.demo.recipes import expert_recipes
from simmerge_core.errors import SelectionError
from simmerge_core.experiments.protocol import PROTOCOL_FILE, Least, protocol
from simmerge_core.labels import design, designed_configurations
from simmerge_core.labels.pairs import shares_of, split_of


def _full() -> Catalog:
    preset = PRESETS[protocol().catalog.preset]
    domains = {r.checkpoint: r.domain for r in expert_recipes(preset, seed=protocol().catalog.seed)}
    raw = catalog_of(domains, {}).model_dump(mode="json")
    return Catalog.model_validate({**raw, "labels": dict(preset.labels), "action_sets": {}})


def test_the_full_preset_gives_what_the_protocol_asks_for() -> None:
    catalog, least = _full(), protocol().catalog.least
    protocol().check(catalog)
    assert len(catalog.checkpoints) == protocol().catalog.experts >= 30
    pairs = design(catalog, catalog.checkpoint_ids)
    pairs = pairs.filter(pairs["kind"] == "expert_auxiliary")
    sizes = [len(members) for _, members in designed_configurations(catalog, catalog.checkpoint_ids)]
    found = Least(
        training_pairs=int((pairs["split"] != "test").sum()),
        test_pairs=int((pairs["split"] == "test").sum()),
        three_way=sizes.count(3),
        four_way=sizes.count(4),
    )
    protocol().check_extent(found)
    assert (least.training_pairs, least.test_pairs, least.three_way, least.four_way) == (240, 60, 100, 60)


def test_no_configuration_of_the_full_preset_holds_a_training_pair() -> None:
    catalog = _full()
    shares, salt = shares_of(catalog), catalog.labels.salt
    for _, (expert, *auxiliaries) in designed_configurations(catalog, catalog.checkpoint_ids):
        assert {split_of(expert, other, shares=shares, salt=salt) for other in auxiliaries} == {"test"}


@pytest.mark.parametrize(("name", "value"), [("salt", "other"), ("test_share", 0.3), ("validation_share", 0.1)])
def test_other_splits_are_refused_by_name(data: WorldData, name: str, value: object) -> None:
    labels = data.catalog.labels.model_copy(update={name: value})
    with pytest.raises(SelectionError, match=rf"labels\.{name} = {value}"):
        protocol().check(data.catalog.model_copy(update={"labels": labels}))


def test_too_small_a_catalog_is_refused_by_what_is_missing(data: WorldData) -> None:
    with pytest.raises(SelectionError, match="training pairs, and the experiments rest on at least 240"):
        protocol().check_extent(data.extent())


def test_unknown_settings_are_refused() -> None:
    text = PROTOCOL_FILE.read_text("utf-8")
    assert "bars:" in text
    with pytest.raises(ValueError, match="extra"):
        type(protocol()).model_validate({**protocol().model_dump(), "extra": 1})
