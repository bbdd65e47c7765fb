"""The sampler takes the original's steps, with a closed form and with the tiny networks."""

import pytest
import torch
from helpers.parity import Parity

from onelook.nn.condition import Condition
from onelook.nn.flow import flow_times, sample_flow, straight_sample
from onelook.nn.voxels import Voxels
from trellis2_backend.networks import NETWORKS
from trellis2_backend.sampler import (
    SamplerParams,
    guided_velocity,
    latent_velocities,
    spread_of_grids,
    spread_of_rows,
    structure_velocities,
)

RUNS = ["official_ss", "official_shape", "official_tex", "no_rescale", "zero_strength"]


def trajectory(velocity, noise, times):
    """x after each step, and the sample predicted in each."""
    states, samples = [], []

    def noting(x, t):
        v = velocity(x, t)
        samples.append(straight_sample(x, v, t))
        return v

    sample_flow(noting, noise, times, lambda _number, x: states.append(x))
    return torch.stack(states), torch.stack(samples)


@pytest.mark.parametrize("run", RUNS)
def test_trajectories(load_case, run):
    """And the times that the network is asked at: every call of the original, no more."""
    case = Parity(load_case("trellis2/sampler_closed_form"))
    params = SamplerParams(**case.config[run])
    asked = []

    def velocities(x, t, conditions):
        asked.extend([1000 * t] * len(conditions))
        return [0.7 * x - condition.tokens + 0.3 * t for condition in conditions]

    conditions = Condition(case["cond"]), Condition(case["neg_cond"])
    velocity = guided_velocity(velocities, *conditions, params, spread_of_grids)
    times = flow_times(params.steps, params.rescale_t)
    states, samples = trajectory(velocity, case["noise"], times)
    case.check(f"{run}.pred_x_t", states)
    case.check(f"{run}.pred_x_0", samples)
    case.check(f"{run}.samples", states[-1])
    case.check(f"{run}.t_calls", torch.tensor(asked, dtype=torch.float64))


def test_the_ninth_step_of_the_shape_is_guided():
    """It lies on the interval's edge exactly, in float64 and by this formula."""
    params = SamplerParams(12, 7.5, 0.5, (0.6, 1.0), 3.0)
    times = flow_times(params.steps, params.rescale_t)
    assert times[8] == 0.6
    strengths = [params.strength_at(t) for t in times[:-1]]
    assert strengths == [7.5] * 9 + [1.0] * 3


def test_trajectory_on_voxels(load_case):
    case = Parity(load_case("trellis2/sampler_sparse_closed_form"))
    params, voxels = SamplerParams(**case.config), Voxels(case["coords"])
    spread = spread_of_rows(voxels)
    item = voxels.coords[:, 0].long()
    case.check("std_of_noise", spread(case["noise"])[[0, -1]])

    def velocities(x, t, conditions):
        return [0.7 * x - condition.tokens[item] + 0.3 * t for condition in conditions]

    conditions = Condition(case["cond"]), Condition(case["neg_cond"])
    velocity = guided_velocity(velocities, *conditions, params, spread)
    times = flow_times(params.steps, params.rescale_t)
    states, samples = trajectory(velocity, case["noise"], times)
    case.check("pred_x_t", states)
    case.check("pred_x_0", samples)
    case.check("samples", states[-1])


@torch.inference_mode()
@pytest.mark.parametrize("shortcut", [True, False])
def test_structure_model(load_case, shortcut):
    """Both with all zeros as they are and with the shortcut for them."""
    case = Parity(load_case("trellis2/sampler_tiny_model"))
    model = case.seed(NETWORKS["SparseStructureFlowModel"](case.config["model"]))
    params = SamplerParams(**case.config["sampler"])
    velocities = structure_velocities(model)
    velocity = guided_velocity(velocities, *both(case, shortcut), params, spread_of_grids)
    states, _ = trajectory(velocity, case["noise"], flow_times(params.steps, params.rescale_t))
    case.check("pred_x_t", states)
    case.check("samples", states[-1])


@torch.inference_mode()
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("run, out", [("sampler", "samples"), ("sampler_guided", "samples_guided")])
def test_texture_model(load_case, run, out, shortcut):
    case = Parity(load_case("trellis2/slat_flow_tex_tiny"))
    model = case.seed(NETWORKS["SLatFlowModel"](case.config["model"]))
    params, voxels = SamplerParams(**case.config[run]), Voxels(case["coords"])
    velocities = latent_velocities(model, voxels, case["shape_slat"])
    velocity = guided_velocity(velocities, *both(case, shortcut), params, spread_of_rows(voxels))
    case.check(out, sample_flow(velocity, case["x"], flow_times(params.steps, params.rescale_t)))


def both(case, shortcut):
    zeros = torch.zeros_like(case["cond"])
    return Condition(case["cond"]), Condition.zero(zeros) if shortcut else Condition(zeros)
