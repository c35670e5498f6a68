"""The stacked networks against autograd and against networks trained one by one."""

from __future__ import annotations

import numpy as np
import torch

from simmerge_core.selector.members import Recipe, _initial, _network, fit_members, forward, loss_gradient


def test_gradient_equals_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    stack = _initial(5, 7, 3, torch.tensor([7, 4]), generator)
    weights = tuple(v.double().requires_grad_() for v in stack.views)
    x, y = (torch.randn(2, 6, n, generator=generator, dtype=torch.float64) for n in (5, 3))
    row_weight = torch.rand(2, 6, generator=generator, dtype=torch.float64)
    masks = tuple((torch.rand(2, 6, 7, generator=generator) > 0.3).double() / 0.7 for _ in range(2))
    w1, b1, w2, b2, w3, b3 = weights
    h = torch.relu(x @ w1 + b1) * masks[0]
    h = torch.relu(h @ w2 + b2) * masks[1]
    loss = ((h @ w3 + b3 - y).square().mean(dim=2) * row_weight).sum()
    expected = torch.autograd.grad(loss, weights)
    found = tuple(torch.zeros_like(w) for w in weights)
    loss_gradient(x, y, row_weight, tuple(w.detach() for w in weights), found, (masks[0], masks[1]))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_numpy_forward_equals_torch_and_unused_units_stay_zero() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.normal(size=(60, 2))
    recipes = [Recipe(8, 1e-2, 0.1), Recipe(4, 1e-3, 0.0)]
    held_out = np.zeros((2, 60), dtype=bool)
    held_out[:, :12] = True
    fit = fit_members(
        x, y, recipes=recipes, held_out=held_out, batch_size=16, epochs=5, patience=5, weight_decay=0.1, seed=0
    )
    layers = tuple(torch.from_numpy(fit.weights[n]) for n in ("w1", "b1", "w2", "b2", "w3", "b3"))
    theirs = _network(torch.from_numpy(x.astype(np.float32)).expand(2, -1, -1), layers)
    np.testing.assert_allclose(forward(fit.weights, x), theirs.numpy(), atol=1e-5)
    assert not fit.weights["w1"][1, :, 4:].any()
    assert not fit.weights["w3"][1, 4:].any()


def test_held_out_rows_are_never_fitted() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4))
    y = x[:, :1] + 0.1 * rng.normal(size=(50, 1))
    held_out = np.zeros((1, 50), dtype=bool)
    held_out[0, ::5] = True
    moved_x, moved_y = x.copy(), y.copy()
    moved_x[held_out[0]] += 1e-3
    moved_y[held_out[0]] += 1e-3
    fits = [
        fit_members(
            a,
            b,
            recipes=[Recipe(8, 1e-2, 0.0)],
            held_out=held_out,
            batch_size=16,
            epochs=4,
            patience=9,
            weight_decay=0.0,
            seed=3,
        )
        for a, b in ((x, y), (moved_x, moved_y))
    ]
    assert fits[0].epoch[0] == fits[1].epoch[0] == 4
    assert fits[0].loss[0] != fits[1].loss[0]
    for layer in fits[0].weights:
        np.testing.assert_array_equal(fits[0].weights[layer], fits[1].weights[layer])


def test_pure_noise_falls_back_to_the_zero_prediction_or_nearly() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(80, 30)), rng.normal(size=(80, 2))
    held_out = np.zeros((3, 80), dtype=bool)
    held_out[:, :20] = True
    fit = fit_members(
        x,
        y,
        recipes=[Recipe(16, 1e-2, 0.0)] * 3,
        held_out=held_out,
        batch_size=16,
        epochs=20,
        patience=20,
        weight_decay=0.0,
        seed=0,
    )
    assert (fit.loss <= np.mean(y[:20] ** 2) + 1e-6).all()
