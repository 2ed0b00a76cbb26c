"""The two stacks of an encoder-decoder model (T5, arXiv 1910.10683; BART, arXiv 1910.13461).

The fields of a ModelArchitecture describe its decoder, which has cross-attention in every layer; the encoder has the
same widths and its own number of layers.
"""

from __future__ import annotations

from hermes_sim.models.architecture import ModelArchitecture


def encoder_stack(model: ModelArchitecture) -> ModelArchitecture:
    """The encoder alone, as a model of the family `encoder`."""
    alone = {"family": "encoder", "num_layers": model.num_encoder_layers, "num_encoder_layers": 0}
    return model.model_copy(update={**alone, "lm_head_bias": False, "tied_embeddings": False})


def decoder_stack(model: ModelArchitecture) -> ModelArchitecture:
    """The decoder without its cross-attention, as a model of the family `decoder`."""
    return model.model_copy(update={"family": "decoder", "num_encoder_layers": 0})
