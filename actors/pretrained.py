"""A pretrained diffusers pipeline as a policy: loading, LoRA, text encoding, decoding. The only user of diffusers."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from jaxtyping import Float, Int, UInt8
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from actors.config import ModelConfig
from actors.ddim import Latents, PredictionType
from actors.model_path import resolve_model
from actors.policy import LoraSnapshot, PolicyVersion, WeightsError, digest, pack
from actors.schedule import DdimSchedule, ddim_schedule

log = logging.getLogger(__name__)

DECODE_BATCH = 8
"""Images decoded at once: bounds memory at 512 px, and a fixed composition keeps equal runs equal."""


class PretrainedPolicy:
    """A frozen Stable Diffusion with a LoRA adapter on its UNet; also a `Denoiser`."""

    def __init__(self, config: ModelConfig, device: str, lora_seed: int, with_decoder: bool = True) -> None:
        """Load the model and attach a fresh adapter (its initial values depend on `lora_seed` alone).

        Raises:
            ValueError: no such model, an unsupported one, or no module for LoRA to adapt.
        """
        self.device = torch.device(pick_device(device))
        self.dtype: torch.dtype = getattr(torch, config.dtype)
        pipeline = _load(config, with_decoder)
        self._tokenizer: Any = pipeline.tokenizer
        self._text_encoder: Any = pipeline.text_encoder.to(self.device).requires_grad_(False)
        self._vae: Any = pipeline.vae.to(self.device).requires_grad_(False) if with_decoder else None
        self.unet: Any = pipeline.unet.to(self.device).requires_grad_(False).eval()
        self.scheduler = ddim_scheduler(pipeline.scheduler)
        self.prediction: PredictionType = self.scheduler.config["prediction_type"]
        _attach_lora(self.unet, config, lora_seed)
        self.lora: dict[str, torch.nn.Parameter] = {
            name: parameter for name, parameter in self.unet.named_parameters() if parameter.requires_grad
        }
        self._embeddings: dict[str, Tensor] = {}

    @property
    def storage(self) -> torch.dtype:
        """Latents are kept in this dtype (NumPy knows no bfloat16)."""
        return torch.float32 if self.dtype == torch.float32 else torch.float16

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    def schedule(self, num_steps: int, eta: float) -> DdimSchedule:
        """The denoising steps as the pipeline's own scheduler spaces them, on this policy's device."""
        self.scheduler.set_timesteps(num_steps)
        final = float(self.scheduler.final_alpha_cumprod)
        return ddim_schedule(self.scheduler.alphas_cumprod, self.scheduler.timesteps, final, eta).to(self.device)

    def predict(
        self, latents: Latents, timesteps: Int[Tensor, " batch"], embeddings: Float[Tensor, "batch token feature"]
    ) -> Latents:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.unet(latents.to(self.dtype), timesteps, embeddings, return_dict=False)[0]
        return output.float()

    @torch.inference_mode(mode=False)  # what is cached here may be used in training too
    @torch.no_grad()
    def embed(self, prompts: tuple[str, ...]) -> Float[Tensor, "batch token feature"]:
        """Text embeddings; each prompt is encoded once, by itself, so its value never depends on its neighbours."""
        for prompt in prompts:
            if prompt not in self._embeddings:
                tokens = self._tokenizer(
                    prompt,
                    padding="max_length",
                    max_length=self._tokenizer.model_max_length,
                    truncation=True,
                    return_tensors="pt",
                )
                self._embeddings[prompt] = self._text_encoder(tokens.input_ids.to(self.device))[0][0]
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    @torch.inference_mode()
    def decode(self, latents: Latents) -> UInt8[Tensor, "batch 3 image_height image_width"]:
        scaled = (latents / self._vae.config.scaling_factor).to(self.dtype)
        pixels = torch.cat([self._vae.decode(part, return_dict=False)[0] for part in scaled.split(DECODE_BATCH)])
        return (pixels.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)

    def snapshot(self, version: PolicyVersion) -> LoraSnapshot:
        return pack(version, self.lora)

    @torch.no_grad()
    def apply(self, snapshot: LoraSnapshot) -> str:
        """Take over a snapshot's weights; returns the digest of the network's own tensors afterwards.

        Raises:
            WeightsError: the snapshot is corrupt, or not of this adapter's modules and shapes.
        """
        tensors = snapshot.tensors()
        mine = {name: tuple(parameter.shape) for name, parameter in self.lora.items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if mine != theirs:
            raise WeightsError(
                f"version {snapshot.version} has LoRA weights for other modules than this model's adapter"
            )
        for name, parameter in self.lora.items():
            parameter.copy_(tensors[name])
        return digest(self.lora)

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter as diffusers loads it (`pipeline.load_lora_weights(folder)`)."""
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.unet))
        StableDiffusionLoraLoaderMixin.save_lora_weights(
            folder, unet_lora_layers=layers, unet_lora_adapter_metadata=self.unet.peft_config["default"].to_dict()
        )

    def load_adapter(self, folder: Path) -> None:
        """Replace the fresh adapter by a saved one of any rank."""
        self.unet.delete_adapters("default")
        loaded: Any = StableDiffusionLoraLoaderMixin.lora_state_dict(str(folder), return_lora_metadata=True)
        state, alphas, metadata = loaded
        StableDiffusionLoraLoaderMixin.load_lora_into_unet(
            state, alphas, self.unet, adapter_name="default", metadata=metadata
        )
        self.lora = {name: parameter for name, parameter in self.unet.named_parameters() if "lora_" in name}


def pick_device(device: str) -> str:
    """`auto` becomes CUDA where there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device}: this process sees no CUDA device; reserve one (num_gpus) or use `auto`")
    return device


def ddim_scheduler(scheduler: Any) -> DDIMScheduler:
    """DDIM from a pipeline's own scheduler, since the chain needs a step with a density."""
    if not isinstance(scheduler, DDIMScheduler):
        log.info("the model's %s is replaced by DDIM built from its configuration", type(scheduler).__name__)
    config = {**scheduler.config, "clip_sample": False, "thresholding": False}
    ddim = cast(DDIMScheduler, DDIMScheduler.from_config(config))
    if ddim.config["prediction_type"] not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(
            f"model.path: its scheduler predicts {ddim.config['prediction_type']!r}, which DDIM does not know"
        )
    return ddim


def _load(config: ModelConfig, with_decoder: bool) -> Any:
    path = resolve_model(config.path)
    unused: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    if not with_decoder:
        unused["vae"] = None
    try:
        with warnings.catch_warnings():
            # diffusers 0.42 deprecates this name, 0.41 (the last for Python 3.10) knows no other
            warnings.simplefilter("ignore", FutureWarning)
            return StableDiffusionPipeline.from_pretrained(
                path,
                torch_dtype=getattr(torch, config.dtype),
                use_safetensors=True,
                requires_safety_checker=False,
                **unused,
            )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"model.path: {config.path} cannot be loaded ({reason}); give a folder or a reachable hub id"
        ) from error


def _attach_lora(unet: Any, config: ModelConfig, seed: int) -> None:
    alpha = config.lora_alpha if config.lora_alpha is not None else config.lora_rank
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=cast(int, alpha),
        init_lora_weights="gaussian",
        target_modules=list(config.lora_targets),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            unet.add_adapter(adapter)
        except ValueError as error:
            raise ValueError(f"model.lora_targets {list(config.lora_targets)} match no module of the UNet") from error
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
