"""Hugging Face config.json to a model architecture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Dtype
from hermes_sim.models.architecture import ModelArchitecture, Part
from hermes_sim.models.families import FAMILIES, Fields
from hermes_sim.models.quantization import read_kv_dtype, read_quantization

_DTYPES: dict[str, Dtype] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_PARTS: tuple[Part, ...] = ("attention", "mlp", "experts", "shared_experts", "state_space", "lm_head")


def from_config(config: Mapping[str, Any], name: str) -> ModelArchitecture:
    """Architecture described by the content of a config.json; `name` is the name it gets here.

    The language model of a multimodal config (`text_config`) is read; vision towers are left out. ValueError names
    what is missing, the families that can be read, and the near match of an unknown one.
    """
    text = _language_model(config)
    model_type = _model_type(text)
    try:
        fields = FAMILIES[model_type]({**text, "model_type": model_type})
        return _architecture(fields, text, name)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError(f"config.json of family '{model_type}' gives a wrong shape: {wrong}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, re.error) as error:
        raise ValueError(f"config.json of family '{model_type}' is malformed: {error!r}") from error


def import_model(path: str | Path, name: str | None = None) -> str:
    """YAML text of a model file, from a config.json (and the hf_quant_config.json beside it, if there is one).

    The name defaults to the last part of the config's `_name_or_path`, else to the folder's name, in snake_case.
    Raises ConfigError if the file cannot be read or is no config.json of a known family.
    """
    path = Path(path)
    try:
        config = _read_json(path)
        quantization = path.parent / "hf_quant_config.json"
        if quantization.is_file() and not config.get("quantization_config"):
            config["quantization_config"] = {"quant_method": "modelopt", **_read_json(quantization)}
        origin = str(config.get("_name_or_path") or path.resolve().parent.name)
        return to_yaml(from_config(config, name or snake_case(origin.rsplit("/", 1)[-1])))
    except OSError as error:
        raise ConfigError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")]) from error
    except ValueError as error:
        raise ConfigError([Problem(str(path), None, "", str(error))]) from error


def to_yaml(model: ModelArchitecture) -> str:
    """YAML text of a model file: fields that differ from their default, in the order of the schema."""
    import yaml

    data = model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text: str = yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
    return text


def snake_case(title: str) -> str:
    """Name of a model file: lower case, every run of other characters one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return data


def _language_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text part of a multimodal config, with what only the outer level states."""
    inner = config.get("text_config")
    if not isinstance(inner, Mapping):
        return dict(config)
    shared = ("architectures", "quantization_config", "quantization", "torch_dtype", "dtype", "_name_or_path")
    outer = {key: config[key] for key in shared if key in config}
    return {"model_type": config.get("model_type"), **outer, **inner}


def _model_type(config: Mapping[str, Any]) -> str:
    model_type = config.get("model_type")
    if model_type is None and isinstance(config.get("ssm_cfg"), Mapping):
        layer = config["ssm_cfg"].get("layer", "Mamba1")
        model_type = "mamba2" if layer == "Mamba2" else str(layer).lower()
    if model_type is None:
        raise ValueError("config.json has no 'model_type'")
    model_type = str(model_type)
    if model_type not in FAMILIES:
        near = get_close_matches(model_type, FAMILIES, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"'{model_type}' is not a model family that can be read ({', '.join(FAMILIES)}).{hint}")
    return model_type


def _architecture(fields: Fields, config: Mapping[str, Any], name: str) -> ModelArchitecture:
    title = str(config.get("_name_or_path") or name)
    dtype = _DTYPES.get(str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch."))
    if dtype is None:
        raise ValueError(
            f"torch_dtype '{config.get('torch_dtype')}' is not a dtype of activations ({', '.join(_DTYPES)})"
        )
    where = f"config.json of {title}"
    source = {"title": "Hugging Face model repository", "where": where, "kind": "datasheet"}
    data = {
        "name": name,
        "title": title,
        "hugging_face_ids": (title,) if "/" in title else (),
        **fields,
        "weight_dtype": dtype,
        "activation_dtype": dtype,
        "kv_dtype": read_kv_dtype(config) or dtype,
        "sources": {"architecture": source},
    }
    plain = ModelArchitecture.model_validate(data)
    quantization = read_quantization(config, _present_parts(plain), _part_layers(plain, config), dtype)
    return plain.model_copy(update={"quantization": quantization})


def _present_parts(model: ModelArchitecture) -> list[Part]:
    present = {
        "attention": model.num_attention_layers > 0,
        "mlp": model.num_dense_layers > 0,
        "experts": model.moe is not None,
        "shared_experts": model.moe is not None and model.moe.shared_width > 0,
        "state_space": model.state_space is not None,
        "lm_head": model.family != "encoder" and not model.tied_embeddings,
    }
    return [part for part in _PARTS if present[part]]


def _part_layers(model: ModelArchitecture, config: Mapping[str, Any]) -> dict[Part, list[int]]:
    """Layers that hold each part."""
    everywhere = list(range(model.num_layers))
    recurrent = {layer for layer in everywhere if _is_recurrent(model, config, layer)}
    sparse = [layer for layer in everywhere if _has_experts(model, layer)]
    return {
        "attention": [layer for layer in everywhere if layer not in recurrent],
        "mlp": [layer for layer in everywhere if layer not in set(sparse)],
        "experts": sparse,
        "shared_experts": sparse,
        "state_space": sorted(recurrent),
        "lm_head": [],
    }


def _is_recurrent(model: ModelArchitecture, config: Mapping[str, Any], layer: int) -> bool:
    if model.state_space is None:
        return False
    types = config.get("layer_types")
    if types:
        return bool(types[layer] == "linear_attention")
    if model.num_attention_layers == 0:
        return True
    return (layer + 1) % int(config.get("full_attention_interval", 4)) != 0


def _has_experts(model: ModelArchitecture, layer: int) -> bool:
    if model.moe is None:
        return False
    return layer >= model.moe.first_dense_layers and (layer + 1) % model.moe.every_num_layers == 0
