"""Zero123++ gives what the original gives: preparation, attention, schedule, whole sampling."""

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from helpers.parity import Parity
from PIL import Image

from instantmesh_backend.opening import build_text, build_unet, build_vae, build_vision
from instantmesh_backend.preparation import (
    PixelSettings,
    encoder_pixels,
    on_white,
    split_views,
)
from instantmesh_backend.reference_attention import (
    ReadPass,
    ReferenceBank,
    SharedAttention,
    WritePass,
    install,
    last_self_attention,
)
from instantmesh_backend.sampler import (
    Noise,
    Schedule,
    ancestral_step,
    guide,
    sample_views,
)
from instantmesh_backend.zero123plus import (
    ReferenceDenoiser,
    ViewCondition,
    Zero123Plus,
    Zero123Settings,
    unscale_image,
    unscale_latents,
)
from onelook.foreground.framing import resize_foreground

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def pixel_settings(side, clip):
    if clip:
        return PixelSettings(side, side, 3, CLIP_MEAN, CLIP_STD)
    return PixelSettings(side, side, 2, 0.5, 0.8)


def test_foregrounds_are_framed_to_the_byte(load_case):
    case = load_case("instantmesh/resize_foreground")
    names = [name for name in case.arrays if "_out_" in name]
    for name in names:
        subject, ratio = name.split("_out_")
        got = resize_foreground(case.arrays[f"{subject}_in"], float(ratio.replace("p", ".")))
        np.testing.assert_array_equal(got, case.arrays[name], err_msg=name)
    assert len(names) == len(case.info["config"]["ratio"]) * 4


def test_six_views_are_split_row_by_row(load_case):
    case = Parity(load_case("instantmesh/six_view_split"))
    case.check("views", torch.from_numpy(split_views(case["grid"].numpy())))


def test_pictures_are_prepared_for_both_encoders(load_case):
    case = Parity(load_case("instantmesh/z123_image_prep"))
    rgb = on_white(Image.fromarray(case["rgba"].numpy()))
    case.check("rgb_on_white", torch.from_numpy(np.array(rgb)))
    big = Image.fromarray(case["big_rgb"].numpy())
    outputs = [name for name in case.case.arrays if "_pixels_" in name]
    assert len(outputs) == 4
    for name in outputs:
        settings = pixel_settings(case[name].shape[-1], name.startswith("clip"))
        picture = big if name.endswith("_of_big") else rgb
        case.check(name, torch.from_numpy(encoder_pixels(picture, settings)))


def test_scaling(load_case):
    case = Parity(load_case("instantmesh/z123_scaling"))
    case.check("unscale_latents", unscale_latents(case["x"]))
    case.check("unscale_image", unscale_image(case["x"]))
    case.check("x", unscale_latents(case["scale_latents"]))
    case.check("x", unscale_image(case["scale_image"]))


def test_attention_writes_and_reads(load_case):
    case = Parity(load_case("instantmesh/z123_attn_proc"))
    layer = case.seed(Attention(**case.config))
    layer.set_processor(SharedAttention())
    bank = ReferenceBank()
    case.check("write_out", layer(case["ref_hidden"], reference=WritePass(bank)))
    for kept, projection in zip(bank.reference[layer], (layer.to_k, layer.to_v), strict=True):
        torch.testing.assert_close(kept, projection(case["stored"]))
    case.check("read_out", layer(case["hidden"], reference=ReadPass(bank)))
    case.check("plain_out", layer(case["hidden"]))


def test_steps_written_together_are_read_apart(load_case):
    """The bank holds the rows of several steps; each reads its own."""
    case = Parity(load_case("instantmesh/z123_attn_proc"))
    layer = case.seed(Attention(**case.config))
    layer.set_processor(SharedAttention())
    bank = ReferenceBank()
    several = torch.cat([case["ref_hidden"].flip(1) * 2, case["ref_hidden"]])
    layer(several, reference=WritePass(bank, steps=2))
    case.check("read_out", layer(case["hidden"], reference=ReadPass(bank, step=1)))


def test_schedule_and_walk(load_case):
    case = Parity(load_case("instantmesh/z123_scheduler"))
    counts = [int(name.split("_")[1]) for name in case.case.arrays if name.startswith("timesteps_")]
    for steps in counts:
        schedule = Schedule.of_config(case.config, steps)
        case.check(f"timesteps_{steps}", schedule.timesteps)
        case.check(f"sigmas_{steps}", schedule.sigmas)
        case.check(f"init_noise_sigma_{steps}", schedule.initial_sigma)
    walked = [name for name in case.case.arrays if name.startswith("walk_next_")]
    schedule = Schedule.of_config(case.config, len(walked))
    latents = case["walk_x0"]
    for step in range(len(walked)):
        case.check(f"walk_scaled_{step}", schedule.scale(latents, step))
        noised = schedule.noised(case["walk_cond"], case[f"walk_cond_noise_{step}"], step)
        case.check(f"walk_cond_scaled_{step}", noised)
        v, noise = case[f"walk_model_out_{step}"], case[f"walk_step_noise_{step}"]
        latents = ancestral_step(schedule, step, latents, v, noise)
        case.check(f"walk_next_{step}", latents)


def test_stored_spacing_is_replaced(load_case):
    config = load_case("instantmesh/z123_scheduler").info["config"]
    stored = {**config, "timestep_spacing": "linspace", "_class_name": "EulerDiscreteScheduler"}
    ours, wanted = (Schedule.of_config(one, 75) for one in (stored, config))
    assert torch.equal(ours.timesteps, wanted.timesteps)
    assert ours.timesteps[:4].tolist() == [999, 986, 972, 959] and ours.timesteps[-1] == 12
    with pytest.raises(ValueError, match="prediction_type must be v_prediction, got 'epsilon'"):
        Schedule.of_config({**config, "prediction_type": "epsilon"}, 4)


@pytest.mark.parametrize("steps", [61, 103, 75, 1])
def test_no_step_comes_before_the_first_the_network_knows(load_case, steps):
    schedule = Schedule.of_config(load_case("instantmesh/z123_scheduler").info["config"], steps)
    assert len(schedule) == steps and schedule.timesteps.min() >= 0
    assert schedule.sigmas[-1] == 0 and (schedule.sigmas.diff() < 0).all()


@pytest.mark.parametrize("together", [1, 2, 3])
def test_a_step_of_the_denoiser(load_case, together):
    """Both lanes read their own reference, however many steps are written at once."""
    case = Parity(load_case("instantmesh/z123_refonly_unet"))
    unet = case.seed(build_unet(case.config["unet"]))
    install(unet)
    schedule = Schedule.of_config(case.config["scheduler"], case.config["num_inference_steps"])
    step = schedule.timesteps.tolist().index(case["timestep"].item())
    noised = schedule.noised(case["cond_lat"], case["ref_noise"], step)
    case.check("noisy_cond_lat", noised)
    noise = torch.randn(len(schedule), *case["ref_noise"].shape)
    noise[step] = case["ref_noise"]
    condition = ViewCondition(case["encoder_hidden_states"], case["cond_lat"])
    denoiser = ReferenceDenoiser(unet, condition, schedule, noise, together)
    for earlier in range(step):
        denoiser(earlier, torch.zeros_like(case["sample"]))
    case.check("out", denoiser(step, case["sample"]))
    plain = unet(case["sample"], case["timestep"], case["encoder_hidden_states"]).sample
    case.check("out_without_reference", plain)


def test_all_steps_are_the_same_however_many_are_written_at_once(load_case):
    """Also where the last batch is a smaller one."""
    case = Parity(load_case("instantmesh/z123_refonly_unet"))
    unet = case.seed(build_unet(case.config["unet"]))
    install(unet)
    schedule = Schedule.of_config(case.config["scheduler"], 4)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(4, *case["ref_noise"].shape, generator=generator)
    condition = ViewCondition(case["encoder_hidden_states"], case["cond_lat"])
    one, three = (ReferenceDenoiser(unet, condition, schedule, noise, n) for n in (1, 3))
    outputs = [one(step, case["sample"]) for step in range(4)]
    for step, wanted in enumerate(outputs):
        torch.testing.assert_close(three(step, case["sample"]), wanted)
    assert not torch.allclose(outputs[0], outputs[1])


def test_every_layer_keeps_what_the_original_keeps(load_case):
    """Keys and values are projections of the tensors that the original stores."""
    case = Parity(load_case("instantmesh/z123_refonly_unet"))
    unet = case.seed(build_unet(case.config["unet"]))
    install(unet)
    schedule = Schedule.of_config(case.config["scheduler"], case.config["num_inference_steps"])
    step = schedule.timesteps.tolist().index(case["timestep"].item())
    scaled = schedule.noised(case["cond_lat"], case["ref_noise"], step)
    bank = ReferenceBank()
    pass_ = WritePass(bank, last=last_self_attention(unet))
    unet(
        scaled,
        case["timestep"],
        case["encoder_hidden_states"],
        cross_attention_kwargs={"reference": pass_},
    )
    layers = sorted((n, m) for n, m in unet.named_modules() if n.endswith(".attn1"))
    assert len(layers) == len(bank.reference) == sum(n.startswith("ref_") for n in layers_of(case))
    for number, (name, layer) in enumerate(layers):
        stored = case[f"ref_{number}"]
        for got, projection in zip(bank.reference[layer], (layer.to_k, layer.to_v), strict=True):
            torch.testing.assert_close(
                got, projection(stored), **case.case.info["tolerance"], msg=name
            )


def layers_of(case):
    return [name for name in case.case.arrays if name != "ref_noise"]


def make_zero123plus(case):
    config = case.config
    unet, vae, vision = (
        case.seed(build(config[name]))
        for build, name in [
            (build_unet, "unet"),
            (build_vae, "vae"),
            (build_vision, "vision_encoder"),
        ]
    )
    text = case.seed(build_text(config["text_encoder"]), prefix="text_model.")
    settings = Zero123Settings(
        ramp=tuple(case["ramping_coefficients"].tolist()),
        empty_prompt=tuple(case["input_ids"][0].tolist()),
        vae_pixels=pixel_settings(case["vae_pixels"].shape[-1], clip=False),
        clip_pixels=pixel_settings(case["clip_pixels"].shape[-1], clip=True),
        scheduler=config["scheduler"],
        height=config["height"],
        width=config["width"],
    )
    return Zero123Plus(unet, vae, vision, text, settings)


def recorded_noise(case):
    steps = range(case.config["num_inference_steps"])
    encoding = [case["noise_vae_cond"]]
    if "noise_vae_zero" in case.case.arrays:
        encoding.insert(0, case["noise_vae_zero"])
    return Noise(
        torch.cat(encoding),
        case["noise_latents"],
        torch.stack([case[f"noise_ref_{step}"] for step in steps]),
        torch.stack([case[f"noise_step_{step}"] for step in steps]),
    )


@pytest.mark.parametrize("name", ["z123_pipeline_tiny", "z123_pipeline_noguidance"])
def test_whole_sampling(load_case, name):
    case = Parity(load_case(f"instantmesh/{name}"))
    scale, steps = case.config["guidance_scale"], case.config["num_inference_steps"]
    zero123plus, noise = make_zero123plus(case), recorded_noise(case)
    drawn = zero123plus.draw_noise(1, steps, scale)
    shapes = [{k: v.shape for k, v in vars(one).items()} for one in (drawn, noise)]
    assert shapes[0] == shapes[1]

    picture = on_white(Image.fromarray(case["rgba"].numpy()))
    settings = zero123plus.settings
    for got, of in [("vae_pixels", settings.vae_pixels), ("clip_pixels", settings.clip_pixels)]:
        case.check(got, torch.from_numpy(encoder_pixels(picture, of)))
    case.check("text_embeds", zero123plus.empty_text)
    condition = zero123plus.condition(picture, noise)
    case.check("cond_lat", condition.latents)
    case.check("encoder_hidden_states", condition.tokens)

    schedule = zero123plus.schedule(steps)
    exact = zero123plus.denoiser(condition, schedule, noise)

    def denoiser(step, latents):
        case.check(f"timestep_{step}", schedule.timesteps[step])
        case.check(f"unet_in_{step}", latents.expand(len(condition.latents), -1, -1, -1))
        lanes = exact(step, latents)
        case.check(f"unet_out_{step}", lanes)
        case.check(f"guided_{step}", guide(lanes, scale))
        return lanes

    latents = sample_views(
        denoiser,
        schedule,
        noise,
        scale,
        lambda step, latents: case.check(f"latents_next_{step}", latents),
    )
    case.check("latents_unscaled", unscale_latents(latents))
    picture = zero123plus.decode(latents)
    difference = np.abs(picture.astype(int) - case["image_uint8"][0].numpy())
    assert difference.max() <= 1  # on rounding edges, as the case allows
