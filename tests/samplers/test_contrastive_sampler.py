"""Contrastive search as a sampler: arguments."""

from __future__ import annotations

import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError


def test_config_round_trip_and_defaults():
    sampler = samplers.ContrastiveSampler(3, 0.2, temperature=0.5)
    assert samplers.get(samplers.serialize(sampler)).get_config() == sampler.get_config()
    assert type(samplers.get("contrastive")) is samplers.ContrastiveSampler
    defaults = samplers.Contrastive().get_config()
    assert defaults == {"k": 5, "alpha": 0.6, "temperature": 1.0}


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 33}, {"alpha": 1.1}, {"temperature": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(InvalidArgumentError):
        samplers.ContrastiveSampler(**wrong)
