"""docs/engine-presets.md: what each named engine does where its user says nothing, and where that is stated."""

from __future__ import annotations

from typing import Any, Final

from hermes_sim.scenario.engine_presets import ENGINE_PRESETS

_INTRODUCTION: Final = """\
# Engine presets

Generated from the table: `python -m hermes_sim.scenario.preset_page`.

`engine_preset: vllm_v1` on an engine fills in the keys below; what the file states wins. An option that belongs to the
preset's policy only is left out where the file names another policy, and `async_scheduling` where the file asks for a
pipeline or drafts. Without a preset an engine has the defaults of the [file reference](file-reference.md).

    engines:
      - name: llm
        serves: [prefill, decode]
        model: llama_3_70b
        placement: {gpu: 4}
        parallel: {tp: 4}
        engine_preset: sglang
        batching: {max_num_seqs: 512}     # the rest as SGLang

`hermes-sim list presets` names them, `hermes-sim show preset/vllm_v1` prints one with its sources, and `hermes-sim show
cluster/FILE` prints the engines of a file resolved. A value in *italics* is typical: the engine derives it from the
machine or the model, or its source does not say.
"""


def preset_markdown() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, _table()]
    for name, preset in ENGINE_PRESETS.items():
        rows = [f"## {name}\n\n{preset.title}.\n", "| key | value | where |", "|---|---|---|"]
        rows += [f"| `{path}` | {_cell(path, name)} | {one.where} |" for path, one in preset.values.items()]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _table() -> str:
    """Keys down, presets across."""
    paths = list(dict.fromkeys(path for preset in ENGINE_PRESETS.values() for path in preset.values))
    paths.sort(key=lambda path: ("batching", "kv_cache", "parallel", "host").index(path.partition(".")[0]))
    rows = [f"| key | {' | '.join(ENGINE_PRESETS)} |", f"|---|{'---|' * len(ENGINE_PRESETS)}"]
    rows += [f"| `{path}` | {' | '.join(_cell(path, name) for name in ENGINE_PRESETS)} |" for path in paths]
    return "\n".join(rows) + "\n"


def _cell(path: str, name: str) -> str:
    default = ENGINE_PRESETS[name].values.get(path)
    if default is None:
        return ""
    words = _words(default.value)
    return words if default.is_sure else f"*{words}*"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {part}" for key, part in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    from pathlib import Path

    page = Path(__file__).resolve().parents[2] / "docs" / "engine-presets.md"
    page.write_text(preset_markdown(), encoding="utf-8")
