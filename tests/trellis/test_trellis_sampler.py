"""The sampler takes the original's steps, with a closed form and with the tiny networks."""

from itertools import pairwise

import pytest
import torch
from helpers.parity import Parity

from onelook.nn.condition import Condition
from onelook.nn.flow import flow_times, sample_flow, straight_sample
from onelook.nn.voxels import Voxels
from trellis_backend.networks import NETWORKS
from trellis_backend.sampler import (
    Guidance,
    SamplerParams,
    guided_velocity,
    latent_velocities,
    model_time,
    structure_velocities,
    take_turns,
)


def closed_form(x, t, conditions):
    """The recorded cases' stand-in for a network."""
    means = [0.5 * condition.tokens.mean(1) for condition in conditions]
    return [t * torch.tanh(x) + mean[:, :, None, None, None] for mean in means]


def trajectory(velocity, noise, times):
    """x after each step, and the sample predicted in each."""
    states, samples = [], []

    def noting(x, t):
        v = velocity(x, t)
        samples.append(straight_sample(x, v, t))
        return v

    sample_flow(noting, noise, times, lambda _number, x: states.append(x))
    return torch.stack(states), torch.stack(samples)


def test_schedule(load_case):
    case = Parity(load_case("trellis/sampler_schedule"))
    for name in case.case.arrays:
        steps, rescale_t = name.removeprefix("model_t_").split("_")
        times = flow_times(int(steps), float(rescale_t))
        assert times[-1] == 0
        case.check(name, torch.cat([model_time(t, torch.zeros(1)) for t in times[:-1]]))


def test_official_settings_guide_19_of_25_steps():
    guidance = Guidance(5.0, (0.5, 1.0))
    assert [guidance.applies(t) for t in flow_times(25, 3.0)[:-1]] == [True] * 19 + [False] * 6


@pytest.mark.parametrize("steps, rescale_t", [(0, 1.0), (5, 0.0), (5, float("nan"))])
def test_impossible_schedules(steps, rescale_t):
    with pytest.raises(ValueError, match="steps|rescale_t"):
        flow_times(steps, rescale_t)


@pytest.mark.parametrize("run", ["plain", "cfg", "interval", "interval_mid"])
def test_trajectories(load_case, run):
    case = Parity(load_case("trellis/sampler_closed_form"))
    numbers = case.config["runs"][run]
    guidance = Guidance(
        numbers.get("cfg_strength", 0.0), tuple(numbers.get("cfg_interval", (0.0, 1.0)))
    )
    velocity = guided_velocity(
        closed_form,
        take_turns([Condition(case["cond"])], "stochastic"),
        Condition(case["neg_cond"]),
        guidance,
    )
    times = flow_times(numbers["steps"], numbers["rescale_t"])
    states, samples = trajectory(velocity, case["noise"], times)
    case.check(f"{run}_x_t", states)
    case.check(f"{run}_x_0", samples)
    case.check(f"{run}_samples", states[-1])


@pytest.mark.parametrize("mode", ["stochastic", "multidiffusion"])
def test_several_pictures(load_case, mode):
    case = Parity(load_case("trellis/sampler_multi_image"))
    config = case.config
    conditions = [Condition(row[None]) for row in case["cond"]]
    velocity = guided_velocity(
        closed_form,
        take_turns(conditions, mode),
        Condition(case["neg_cond"]),
        Guidance(config["cfg_strength"], tuple(config["cfg_interval"])),
    )
    states, _ = trajectory(
        velocity, case["noise"], flow_times(config["steps"], config["rescale_t"])
    )
    case.check(f"{mode}_x_t", states)


def test_unknown_mode():
    with pytest.raises(ValueError, match="stochastic, multidiffusion, got 'both'"):
        take_turns([], "both")


@torch.inference_mode()
@pytest.mark.parametrize("shortcut", [True, False])
def test_structure_model(load_case, shortcut):
    """Both with all zeros as they are and with the shortcut for them."""
    case = Parity(load_case("trellis/sampler_tiny_model"))
    model = case.seed(NETWORKS["SparseStructureFlowModel"](case.config["model"]))
    velocity, times = guided(case, structure_velocities(model), shortcut)
    states, _ = trajectory(velocity, case["noise"], times)
    case.check("x_t", states)


@torch.inference_mode()
@pytest.mark.parametrize("shortcut", [True, False])
def test_latent_model(load_case, shortcut):
    case = Parity(load_case("trellis/slat_sampler_tiny"))
    model = case.seed(NETWORKS["SLatFlowModel"](case.config["model"]))
    velocities = latent_velocities(model, Voxels(case["coords"]))
    velocity, times = guided(case, velocities, shortcut)
    states, _ = trajectory(velocity, case["noise"], times)
    case.check("x_t", states)
    mean, std = (torch.tensor(case.config[name]) for name in ("mean", "std"))
    case.check("slat", states[-1] * std + mean)


@torch.inference_mode()
def test_nothing_unconditional_outside_the_interval():
    asked = []

    def velocities(x, t, conditions):
        asked.append(len(conditions))
        return [x] * len(conditions)

    one, two, free = (Condition(torch.zeros(1, 2, 3)) for _ in range(3))
    times = flow_times(6, 1.0)  # 1, 5/6, 2/3, 1/2, 1/3, 1/6
    for turns, wanted in [
        (take_turns([one], "stochastic"), [1, 2, 2, 2, 1, 1]),
        (take_turns([one, two], "multidiffusion"), [2, 3, 3, 3, 2, 2]),
    ]:
        asked.clear()
        velocity = guided_velocity(velocities, turns, free, Guidance(3.0, (0.5, 0.9)))
        sample_flow(velocity, torch.ones(1), times)
        assert asked == wanted


def guided(case, velocities, shortcut):
    params = SamplerParams(**case.config["sampler"])
    zeros = torch.zeros_like(case["cond"])
    velocity = guided_velocity(
        velocities,
        take_turns([Condition(case["cond"])], "stochastic"),
        Condition.zero(zeros) if shortcut else Condition(zeros),
        params.guidance,
    )
    times = flow_times(params.steps, params.rescale_t)
    assert all(t > t_next for t, t_next in pairwise(times))
    return velocity, times
