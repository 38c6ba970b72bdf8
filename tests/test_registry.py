"""The classes that vLLM serves are the yardstick: each is modelled or refused with the reason."""

from __future__ import annotations

import pytest

from multigpu.errors import ModelError
from multigpu.model.architecture.families import KNOWN
from tests.machines import dense, hf
from tests.public_models import PUBLIC
from tests.registry import MODELLED, NOT_GENERATIVE, NOT_MODELLED, OLDER


@pytest.mark.parametrize("name", sorted(MODELLED))
def test_a_served_class_has_a_family_that_is_modelled(name: str) -> None:
    assert MODELLED[name] in KNOWN


@pytest.mark.parametrize("model_type", OLDER)
def test_a_family_that_older_runtimes_serve_is_modelled(model_type: str) -> None:
    assert model_type in KNOWN


@pytest.mark.parametrize("model_type", [*NOT_GENERATIVE, *(t for t, _ in NOT_MODELLED.values())])
def test_what_is_not_modelled_is_refused_by_its_name(model_type: str) -> None:
    with pytest.raises(ModelError, match=f"{model_type}.*(known|encoder|generates)"):
        hf(dense(model_type=model_type))


def test_most_classes_of_the_registry_are_modelled() -> None:
    assert len(MODELLED) >= 0.85 * (len(MODELLED) + len(NOT_MODELLED))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_nesting_changes_nothing_but_the_name_of_the_whole(name: str) -> None:
    config = PUBLIC[name].config
    if "text_config" in config:
        pytest.skip("nested already")
    whole = {"model_type": "wrapper", "text_config": config}
    assert hf(whole).layers == hf(config).layers
    assert hf(whole).layers_mib == hf(config).layers_mib
