import dataclasses

import numpy as np
import pytest
import torch

from actors.policy import Entry, LoraSnapshot, PolicyVersion, WeightsError, digest, pack


def weights() -> dict[str, torch.Tensor]:
    return {"down.A": torch.arange(6.0).view(2, 3), "down.B": torch.ones(3, 2)}


def test_a_snapshot_gives_back_what_was_packed():
    snapshot = pack(PolicyVersion(3), weights())
    assert snapshot.manifest == (Entry("down.A", (2, 3), 0), Entry("down.B", (3, 2), 6))
    for name, tensor in snapshot.tensors().items():
        assert torch.equal(tensor, weights()[name])


def test_the_digest_sees_values_names_and_shapes_but_not_the_version():
    base = pack(PolicyVersion(0), weights()).digest
    assert pack(PolicyVersion(9), weights()).digest == base
    renamed = {name.replace("down", "up"): tensor for name, tensor in weights().items()}
    reshaped = {**weights(), "down.A": weights()["down.A"].view(3, 2)}
    changed = weights()
    changed["down.B"][0, 0] += 1e-7
    assert len({base, *(digest(other) for other in (renamed, reshaped, changed))}) == 4


def test_one_flipped_bit_on_the_way_is_noticed():
    snapshot = pack(PolicyVersion(0), weights())
    damaged = snapshot.buffer.copy()
    damaged.view(np.uint32)[4] ^= 1
    with pytest.raises(WeightsError, match="corrupted"):
        dataclasses.replace(snapshot, buffer=damaged).tensors()


def test_an_adapter_bound_to_no_module_cannot_be_a_snapshot():
    with pytest.raises(WeightsError, match="bound to no module"):
        pack(PolicyVersion(0), {})


def test_a_buffer_must_fit_its_manifest():
    snapshot = pack(PolicyVersion(0), weights())
    with pytest.raises(WeightsError, match="does not fit"):
        LoraSnapshot(snapshot.version, snapshot.digest, snapshot.manifest, snapshot.buffer[:-1])
