"""Pictures from noise: the denoiser's steps over latents, text encoders before them, the decoder to pixels behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, model_validator

from hermes_sim.core.rng import stream
from hermes_sim.core.schema import Description, Dtype, Fraction, NonNegativeInt, PositiveInt, one_of
from hermes_sim.models.diffusion_model import DiffusionModel
from hermes_sim.models.network import repeated
from hermes_sim.models.operator import Operator
from hermes_sim.stages.count import COUNTS, Count, number_or_law
from hermes_sim.stages.stage import FloatArray, IntArray, Models, NetworkKind, Stage
from hermes_sim.workload.requests import RequestTable

NUM_QUANTILES = 1000
"""Points at which a law of skipped steps is averaged."""


class PictureCache(Description):
    """Finished pictures of similar prompts: noise is added to one that is found, and the first steps are left out
    (Nirvana, arXiv 2312.04429)."""

    hit_frac: Fraction
    """Chance that a similar picture is found."""
    skipped_steps: Annotated[Count, one_of(COUNTS, "count kind"), BeforeValidator(number_or_law)]
    """Of the request's steps, where one is found: more, the more similar it is."""
    small_model: bool = False
    """What is left is the small model's work (MoDM, arXiv 2503.11972)."""


class Diffusion(Stage):
    """Makes pictures of one size from the prompt. Units: passes of the large model over one latent, by their FLOPs.

    Pictures of a batch go through the steps together. A picture's passes are those of its own steps, twice as many with
    guidance; those of a small model count by its FLOPs over the large one's.
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"
    NETWORKS: ClassVar[Mapping[str, NetworkKind]] = {"model": "diffusion_model", "small_model": "diffusion_model"}

    kind: Literal["diffusion"] = "diffusion"
    model: DiffusionModel
    """A diffusion model of the library by its name, or one that is described here."""
    dtype: Dtype | None = None
    """Precision it runs in; the model's own if not given."""
    width: PositiveInt
    """Pixels of a picture."""
    height: PositiveInt
    num_images: PositiveInt = 1
    """Of one request."""
    num_steps: PositiveInt
    guidance: bool = True
    """Classifier-free guidance (arXiv 2207.12598): every step runs with and without the prompt, in one batch."""
    small_model: DiffusionModel | None = None
    """Cheaper, for the later steps (a mixture over steps), or for what a cache leaves to do."""
    num_large_steps: NonNegativeInt | None = None
    """The first steps, which the large model does; all if not given."""
    cache: PictureCache | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Diffusion:
        for model in (self.model, self.small_model):
            if model is not None and (self.width % model.pixel_multiple or self.height % model.pixel_multiple):
                raise ValueError(
                    f"{model.name} makes pictures of whole multiples of {model.pixel_multiple} pixels, "
                    f"not {self.width} x {self.height}"
                )
        uses_small = self.num_large_steps is not None or (self.cache is not None and self.cache.small_model)
        if uses_small != (self.small_model is not None):
            raise ValueError("small_model goes with num_large_steps, or with small_model in the cache")
        if (self.num_large_steps or 0) > self.num_steps:
            raise ValueError(f"num_large_steps {self.num_large_steps} is more than num_steps {self.num_steps}")
        return self

    def units(self, num_prompt_tokens: IntArray) -> FloatArray:
        """Of requests that find nothing in the cache."""
        large, small = self._steps(np.zeros(1, np.int64), np.zeros(1, bool))
        return np.full(len(num_prompt_tokens), self._units(large, small)[0])

    def units_of(self, requests: RequestTable, seed: int) -> FloatArray:
        return self._units(*self.steps_of(requests, seed))

    def steps_of(self, requests: RequestTable, seed: int) -> tuple[IntArray, IntArray]:
        """[num_requests] steps of the large and of the small model, for each picture of a request."""
        if self.cache is None:
            return self._steps(np.zeros(requests.num_requests, np.int64), np.zeros(requests.num_requests, bool))
        uniforms = stream(seed, f"picture cache {self.name}").random((requests.num_requests, 2))
        is_hit = uniforms[:, 0] < self.cache.hit_frac
        skipped = self.cache.skipped_steps.quantiles(uniforms[:, 1], requests.num_output_tokens)
        return self._steps(np.where(is_hit, skipped, 0), is_hit)

    def most_units(self, requests: RequestTable, seed: int) -> float:
        return float(self.units_of(requests, seed).max(initial=self.units(np.zeros(1, np.int64))[0]))

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        """A batch of pictures that all have the mean of the batch's steps."""
        if total_units <= 0.0:
            return ()
        num_requests = max(1, round(total_units / units_per_job))
        pictures = num_requests * self.num_images
        passes = pictures * (2 if self.guidance else 1)
        each = total_units / passes  # passes of the large model, by FLOPs
        large_frac, small_frac = self._mixture
        large, small = (max(0, round(each * frac)) for frac in (large_frac, small_frac))
        if large + small == 0:
            large, small = (1, 0) if large_frac >= small_frac else (0, 1)
        found = [
            *self.model.text_operators(num_requests * (2 if self.guidance else 1), self.dtype),
            *repeated(self.model.step_operators(passes, self.width, self.height, self.dtype), large),
            *self.model.decode_operators(pictures, self.width, self.height, self.dtype),
        ]
        if self.small_model is not None:
            found += repeated(self.small_model.step_operators(passes, self.width, self.height, self.dtype), small)
        return tuple(found)

    def one_pass(self, models: Models) -> tuple[Operator, ...]:
        size = (self.width, self.height, self.dtype)
        found = [
            *self.model.text_operators(1, self.dtype),
            *self.model.step_operators(1, *size),
            *self.model.decode_operators(1, *size),
        ]
        if self.small_model is not None:
            found += self.small_model.step_operators(1, *size)
        return tuple(found)

    def resident_bytes(self, models: Models) -> float:
        small = self.small_model.resident_bytes(self.dtype) if self.small_model is not None else 0.0
        return self.model.resident_bytes(self.dtype) + small

    @property
    def small_cost_frac(self) -> float:
        """FLOPs of the small model's pass over those of the large one's."""
        if self.small_model is None:
            return 0.0
        flops = [
            sum(operator.total_flops for operator in model.step_operators(1.0, self.width, self.height, None))
            for model in (self.small_model, self.model)
        ]
        return flops[0] / flops[1]

    def _steps(
        self, skipped: IntArray, is_hit: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> tuple[IntArray, IntArray]:
        """[num_requests] steps of the large and of the small model; a picture that is found still takes one."""
        first_small = self.num_steps if self.num_large_steps is None else self.num_large_steps
        skipped = np.minimum(skipped, self.num_steps - 1)
        large = np.maximum(first_small - skipped, 0)
        if self.cache is not None and self.cache.small_model:
            large = np.where(is_hit, 0, large)
        return large, self.num_steps - skipped - large

    def _units(self, large: IntArray, small: IntArray) -> FloatArray:
        passes = self.num_images * (2 if self.guidance else 1)
        return np.asarray(passes * (large + self.small_cost_frac * small), np.float64)

    @property
    def _mixture(self) -> tuple[float, float]:
        """Steps of the large and of the small model for one unit, in the mean over all requests."""
        if self.small_model is None:
            return 1.0, 0.0
        large, small = self._steps(np.zeros(1, np.int64), np.zeros(1, bool))
        means = np.array([large[0], small[0]], np.float64)
        if self.cache is not None:
            uniforms = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
            skipped = self.cache.skipped_steps.quantiles(uniforms, np.zeros(NUM_QUANTILES, np.int64))
            on_hit = self._steps(skipped, np.ones(NUM_QUANTILES, bool))
            means += self.cache.hit_frac * (np.array([steps.mean() for steps in on_hit]) - means)
        cost = means[0] + self.small_cost_frac * means[1]
        return float(means[0] / cost), float(means[1] / cost)
