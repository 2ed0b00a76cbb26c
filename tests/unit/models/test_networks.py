"""Encoders and diffusion models of the library: parameters and FLOPs as published, and by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from hermes_sim.models.diffusion_model import DiffusionModel
from hermes_sim.models.media_encoder import MediaEncoder, Patches, Spectrogram
from hermes_sim.models.operator import Operator
from hermes_sim.models.picture_size import RESOLUTIONS, OwnResolution, TiledResolution

WORKLOADS = Path(__file__).resolve().parents[3] / "workloads"
KINDS = ("gemm", "attention")


@cache
def encoders() -> dict[str, MediaEncoder]:
    files = sorted((WORKLOADS / "encoders").glob("*.yaml"))
    return {path.stem: MediaEncoder.model_validate(yaml.safe_load(path.read_text())) for path in files}


@cache
def diffusion_models() -> dict[str, DiffusionModel]:
    files = sorted((WORKLOADS / "diffusion_models").glob("*.yaml"))
    return {path.stem: DiffusionModel.model_validate(yaml.safe_load(path.read_text())) for path in files}


def flops(operators: tuple[Operator, ...], *kinds: str) -> float:
    return sum(operator.total_flops for operator in operators if operator.kind in (kinds or KINDS))


def without_projector(encoder: MediaEncoder) -> MediaEncoder:
    return encoder.model_copy(update={"projector": type(encoder.projector)()})


@pytest.mark.parametrize("name", [*encoders(), *diffusion_models()])
def test_files_are_whole(name: str) -> None:
    network = (encoders() | diffusion_models())[name]
    assert network.name == name
    assert network.hugging_face_ids
    assert "architecture" in network.sources
    assert ("published_num_parameters" in network.sources) == (network.published_num_parameters is not None)


class TestParameters:
    def test_vision_towers(self) -> None:
        towers = {name: without_projector(encoder).num_parameters() for name, encoder in encoders().items()}
        # HF counts CLIP's tower without the 1024 x 768 projection that OpenCLIP's 304.29 M have.
        assert towers["clip_vit_l14_336"] == encoders()["clip_vit_l14_336"].published_num_parameters == 303_507_456
        assert towers["clip_vit_l14_336"] + 1024 * 768 == pytest.approx(304.29e6, rel=2e-5)
        # OpenCLIP's have an attention pooling head: query, 4 matrices, a feed-forward, two norms.
        head = 1152 + 4 * 1152 * 1153 + 2 * 1152 * 4304 + 4304 + 1152 + 2 * 1152
        assert towers["siglip_so400m_p14_384"] + head == pytest.approx(428.23e6, rel=2e-5)
        assert towers["internvit_6b"] == pytest.approx(5.54e9, rel=1e-3)

    @pytest.mark.parametrize(("name", "tolerance"), [("qwen2_vl_vit", 0.002), ("gemma_3_vision", 0.015)])
    def test_towers_that_are_published_with_their_projector(self, name: str, tolerance: float) -> None:
        encoder = encoders()[name]
        projector = encoder.num_parameters() - without_projector(encoder).num_parameters()
        counted = encoder.num_parameters() - (projector if name == "gemma_3_vision" else 0)
        assert counted == pytest.approx(encoder.published_num_parameters, rel=tolerance)

    def test_whisper_by_hand(self) -> None:
        layer = 4 * 1280**2 + 3 * 1280 + 2 * 1280 * 5120 + 5120 + 1280 + 4 * 1280
        convolutions = 3 * 128 * 1280 + 1280 + 3 * 1280 * 1280 + 1280
        by_hand = 32 * layer + convolutions + 1500 * 1280 + 2 * 1280
        assert without_projector(encoders()["whisper_large_v3"]).num_parameters() == by_hand == 636_968_960

    @pytest.mark.parametrize(
        ("name", "tolerance"),
        [("sd_1_5", 0.0), ("dit_xl_2", 0.0), ("sdxl", 2e-4), ("flux_1_dev", 2e-4), ("sd3_medium", 0.015)],
    )
    def test_denoisers(self, name: str, tolerance: float) -> None:
        model = diffusion_models()[name]
        table = 36864 * 1536 if name == "sd3_medium" else 0  # stored, not learned: the 2 B leave it out
        assert model.num_parameters() - table == pytest.approx(model.published_num_parameters, rel=tolerance, abs=0.0)

    def test_latent_decoder_and_text_encoder(self) -> None:
        """onnx-tool's model zoo counts 49.49 M and 123.13 M for Stable Diffusion 1.4."""
        model = diffusion_models()["sd_1_5"]
        assert model.decoder.decode(1.0, 64.0, 64.0, "fp16").num_parameters == 49_490_199
        assert model.text_encoders[0].transformer.num_parameters() == pytest.approx(123.13e6, rel=1e-3)
        assert model.resident_bytes(None) == 2.0 * (859_520_964 + 49_490_199 + 123_060_480)


class TestFlops:
    @pytest.mark.parametrize(
        ("name", "num_patches", "gflops"), [("clip_vit_l14_336", 576, 381.92), ("siglip_so400m_p14_384", 729, 670.35)]
    )
    def test_vision_towers(self, name: str, num_patches: int, gflops: float) -> None:
        """OpenCLIP's model profile, two a multiply-add; SigLIP's with the pooling head."""
        found = flops(without_projector(encoders()[name]).operators(1.0, num_patches, None)) / 1e9
        assert found == pytest.approx(gflops, rel=1e-4 if name.startswith("clip") else 0.01)

    def test_dit_xl_2_at_256(self) -> None:
        """118.64 Gflops in arXiv 2212.09748, table 4, which counts a multiply-add as one."""
        assert flops(diffusion_models()["dit_xl_2"].step_operators(1.0, 256, 256, None)) / 2e9 == pytest.approx(
            118.64, rel=3e-4
        )

    def test_stable_diffusion(self) -> None:
        """onnx-tool's model zoo: 888.87 GMACs of the U-Net for two latents and 1271.96 of the decoder, elementwise
        operations included; 94% of the U-Net's are convolutions and products."""
        model = diffusion_models()["sd_1_5"]
        assert flops(model.step_operators(2.0, 512, 512, None)) / 2e9 == pytest.approx(0.94 * 888.87, rel=0.05)
        assert flops(model.decode_operators(1.0, 512, 512, None)) / 2e9 == pytest.approx(1271.96, rel=0.02)
        assert flops(model.text_operators(1, None)) / 2e9 == pytest.approx(6.782, rel=0.03)

    def test_flux_by_hand(self) -> None:
        """Matrices met by every token of each stream, attention over both; vectors of a picture are nothing."""
        hidden, picture, text = 3072, 4096, 512
        joint = 19 * 12 * hidden**2 * (picture + text)
        single = 38 * 12 * hidden**2 * (picture + text)
        attention = (19 + 38) * 2 * (picture + text) ** 2 * hidden
        found = flops(diffusion_models()["flux_1_dev"].step_operators(1.0, 1024, 1024, None)) / 2.0
        assert found == pytest.approx(joint + single + attention, rel=2e-3)

    @pytest.mark.parametrize("name", diffusion_models())
    def test_latents_of_a_batch_share_nothing_but_weights(self, name: str) -> None:
        model, side = diffusion_models()[name], 256 if name == "dit_xl_2" else 1024
        one, four = (model.step_operators(float(number), side, side, None) for number in (1, 4))
        assert flops(four) == pytest.approx(4 * flops(one), rel=1e-12)
        assert sum(o.total_bytes for o in four) < 4 * sum(o.total_bytes for o in one)

    def test_pictures_of_a_batch_do_not_see_each_other(self) -> None:
        encoder = encoders()["qwen2_vl_vit"]
        one, three = (flops(encoder.operators(number, 1024.0, None), "attention") for number in (1.0, 3.0))
        assert three == pytest.approx(3 * one)
        assert one == 32 * 4 * 1024 * 1024 * 1280


def sizes(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    width, height = zip(*pairs, strict=True)
    return np.array(width), np.array(height)


class TestResolutions:
    def test_fixed(self) -> None:
        rule = RESOLUTIONS["fixed"].model_validate({"size": 336})
        found = rule.patches(*sizes((10, 20), (4000, 3000)), 14)
        assert found.num_sequences.tolist() == [1, 1]
        assert found.patches_per_sequence.tolist() == [576, 576]

    def test_own_size(self) -> None:
        """Sides in multiples of 28: 1024 x 768 is 37 x 27. 20 x 10 is stretched to 56 x 28 = 2 x 1 > 1568 pixels, two
        by two patches each. 8000 x 6000 shrinks by sqrt(48e6 / 12,845,056) to 147 x 110."""
        rule = OwnResolution(multiple=28, min_pixels=1568, max_pixels=12_845_056)
        found = rule.patches(*sizes((1024, 768), (20, 10), (8000, 6000)), 14)
        assert found.num_sequences.tolist() == [1, 1, 1]
        assert found.patches_per_sequence.tolist() == [4 * 37 * 27, 4 * 2 * 1, 4 * 147 * 110]

    def test_tiles(self) -> None:
        """Nearest shape; the largest grid of that shape that the picture fills half; a thumbnail beside several."""
        rule = TiledResolution(size=448, max_tiles=12)
        pairs = [(448, 448), (896, 448), (1344, 896), (1200, 1200), (500, 500), (448, 5000)]
        # 1x1; 2x1; 3x2; square: 3x3 of 1344 is 1.8 M pixels, 1.44 M fill half; 500: 2x2 would be filled by 31%; 1x11
        assert rule.patches(*sizes(*pairs), 14).num_sequences.tolist() == [1, 3, 7, 10, 1, 12]
        assert TiledResolution(size=448, max_tiles=12, thumbnail=False).patches(*sizes((896, 448)), 14)[0][0] == 2

    def test_tokens(self) -> None:
        """1024 patches of a tile are 256 tokens (arXiv 2404.16821); 4096 of Gemma 3 are 256 as well."""
        assert encoders()["internvit_6b"].tokens_of(np.array([1024])).tolist() == [256]
        assert encoders()["gemma_3_vision"].tokens_of(np.array([4096])).tolist() == [256]
        assert encoders()["qwen2_vl_vit"].tokens_of(np.array([4 * 37 * 27])).tolist() == [37 * 27]

    def test_chunks_of_sound(self) -> None:
        front_end = encoders()["whisper_large_v3"].front_end
        assert isinstance(front_end, Spectrogram)
        assert front_end.positions_per_chunk == 1500
        assert front_end.num_chunks(np.array([0.1, 30.0, 30.1, 61.0])).tolist() == [1, 1, 2, 3]

    def test_patches_must_fit(self) -> None:
        own = {"kind": "own", "multiple": 30, "min_pixels": 3136, "max_pixels": 10000}
        with pytest.raises(ValueError, match="multiple 30 is not a multiple of patch_size 14"):
            Patches.model_validate({"patch_size": 14, "resolution": own})
