"""Encoders. Keys of config.json to fields of ModelArchitecture."""

from __future__ import annotations

from hermes_sim.models.families.keys import Config, Fields, decoder, required


def bert(config: Config) -> Fields:
    """Encoder; the head follows from `architectures`: a pooler, or labels of a classification."""
    architecture = str((config.get("architectures") or ["Model"])[0])
    roberta = str(config.get("model_type")) != "bert"
    classifier = architecture.endswith("ForSequenceClassification")
    positions = int(required(config, "max_position_embeddings"))
    return {
        **decoder(config),
        "family": "encoder",
        "tied_embeddings": False,
        # RoBERTa's position ids start after the padding index.
        "max_model_len": positions - 2 if roberta else positions,
        "learned_positions": positions,
        "token_types": int(config.get("type_vocab_size", 2)),
        "embedding_norm": True,
        "final_norm": False,
        "gated_mlp": False,
        "norm": "layer",
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        # RoBERTa's classification head has a dense layer of its own in place of the pooler.
        "pooler": architecture.endswith("Model") or classifier,
        "num_labels": len(config.get("id2label") or (0, 1)) if classifier else 0,
    }
