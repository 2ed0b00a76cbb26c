"""README.md and docs/*.md: code runs, commands work, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from hermes_sim import cli, simulate
from hermes_sim.scenario.check import check_file
from hermes_sim.workload.traffic import Traffic
from tests.docs.blocks import PAGES, REPOSITORY, Block, blocks
from tests.docs.small_traces import write_azure
from tests.unit.models.config_examples import LLAMA_3_70B

README = REPOSITORY / "README.md"
TESTED_APART = ("extending.md", "python-api.md", "sweeps.md", "writing-a-policy.md")
"""Pages whose blocks are more than run, or build on each other: each has a test file of its own."""

PYTHON_BLOCKS = [block for page in PAGES if page.name not in TESTED_APART for block in blocks(page, "python")]

SHELL = ("", "bash", "console", "sh")
EXAMPLE_FILES = {
    "FILE": "my_cluster.yaml",
    "TERM": "ttft",
    "KIND": "cluster",
    "RUN": "saved",
    "FOLDER": "saved",
    "KIND/NAME": "device/h100_sxm",
    "cluster/FILE": "cluster/my_cluster",
}
"""What stands for the words in capitals."""


def commands() -> Iterator[tuple[str, str]]:
    """(place, command line) of every `hermes-sim` in a block or between backquotes."""
    for page in PAGES:
        for block in blocks(page, *SHELL) if page.name not in TESTED_APART else ():
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.removeprefix("$ ").startswith("hermes-sim "):
                    yield str(block), line.removeprefix("$ ").partition(" # ")[0]
        for quoted in re.findall(r"(?<!`)`(hermes-sim [^`]+)`(?!`)", page.read_text(encoding="utf-8")):
            yield page.name, " ".join(quoted.split())


COMMANDS = sorted({command: place for place, command in commands()}.items())


MINUTES = ("calibrate", "capacity", "profile", "search", "study", "sweep", "validate")
"""Commands that measure, fit and compare what was measured, or run a grid, unless told to do little."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    (device,) = blocks(REPOSITORY / "docs" / "extending.md", "yaml")
    for name in ("my_npu", "my_device"):
        Path(f"{name}.yaml").write_text(device.text)
    Path("my_cluster.yaml").write_text((REPOSITORY / "hardware_profiles" / "clusters" / "a100x8.yaml").read_text())
    Path("config.json").write_text(json.dumps(LLAMA_3_70B))
    Path("my_chip.yaml").write_text(device.text.replace("my_npu", "my_chip"))
    points = ["operator,device,dtype,m,n,k,measured_s"]
    points += [f"gemm,my_chip,bf16,{m},4096,4096,{2e-5 + m * 1e-7}" for m in (1, 16, 256, 1024, 4096)]
    for name in ("my_points.csv", "table.csv"):
        Path(name).write_text("\n".join(points) + "\n")
    for name in ("AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_conv.csv.gz"):
        write_azure(Path(name))
    return tmp_path


def test_there_is_something_to_test() -> None:
    """Main job, lists, definitions, checks; and Python."""
    words = Counter(shlex.split(command)[1] for command, _ in COMMANDS)
    assert {"--cluster", "list", "show", "define", "check", "schema", "import-model"} <= words.keys()
    assert PYTHON_BLOCKS


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_runs(block: Block, folder: Path) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("command", "place"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_commands_work(command: str, place: str, folder: Path) -> None:
    """As written, but for words in capitals and a run cut to twenty requests."""
    arguments = [EXAMPLE_FILES.get(word, word) for word in shlex.split(command)[1:]]
    if arguments[0] in MINUTES and not {"--dry-run", "--measured", "--quick"} & set(arguments):
        check_options(arguments)
        return
    if "saved" in arguments:
        simulate("my_cluster.yaml", "chat", overrides=["workload.traffic.num_requests=20"]).save("saved")
    if "--workload" in arguments:
        traces = [word for word in arguments if "trace.path=" in word]
        arguments += [] if traces else ["--set", "workload.traffic.num_requests=20"]
        arguments += [] if "--out" in arguments else ["--out", "run"]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0, f"{place}: {command}"
    if "--workload" in arguments:
        summary = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
        assert summary["requests"]["num_finished"] == summary["requests"]["num"] == 20


def check_options(arguments: list[str]) -> None:
    """A command of minutes, or of data that are not here: that it has the options it is shown with."""
    known: Any = typer.main.get_command(cli.app)
    options: set[str] = set()
    for word in arguments:
        known = getattr(known, "commands", {}).get(word, known)
    for parameter in known.params:
        options |= {*parameter.opts, *parameter.secondary_opts}
    assert {word for word in arguments if word.startswith("--")} <= options, arguments


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        named = re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", content, re.MULTILINE)
        assert {first or second for first, second in named} <= targets, page.name


def test_modules_to_run_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8")):
            assert importlib.util.find_spec(name) is not None, f"{page.name}: python -m {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and so do the headings named behind a #."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them: lower case, without punctuation, dashes for blanks."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_named_between_backquotes_exist() -> None:
    """Paths below the folders of the repository; a * stands for any name."""
    folders = "hermes_sim|hardware_profiles|workloads|traces|tests|docs|benchmarks|notebooks"
    for page in PAGES:
        for path in re.findall(rf"`((?:{folders})/[^`\s]*)`", page.read_text(encoding="utf-8")):
            assert list(REPOSITORY.glob(path)), f"{page.name}: {path}"


def test_the_traffic_of_the_page_on_traffic() -> None:
    """Each line of its YAML, and each key quoted in the text, is traffic that a workload may have."""
    page = REPOSITORY / "docs" / "traces.md"
    lines = [line for block in blocks(page, "yaml") for line in block.text.splitlines()]
    forms = [yaml.safe_load(line)["traffic"] for line in lines]
    assert [set(form) & {"trace", "arrivals", "closed_loop"} for form in forms] == [
        {"trace"}, {"arrivals"}, {"closed_loop"},
    ]  # fmt: skip
    quoted = re.findall(r"`((?:sessions|prefix|closed_loop): \{[^`]*\})`", page.read_text(encoding="utf-8"))
    for key in map(yaml.safe_load, quoted):
        forms.append({**(forms[2] if "closed_loop" in key else forms[1]), **key})
    assert len(forms) == 6
    for form in forms:
        Traffic.model_validate(form)


def test_the_engine_of_the_readme(folder: Path) -> None:
    """It is one that a cluster may have."""
    (block,) = blocks(README, "yaml")
    cluster = yaml.safe_load(Path("my_cluster.yaml").read_text(encoding="utf-8"))
    cluster["engines"][0] = yaml.safe_load(block.text)["engines"][0]
    Path("readme.yaml").write_text(yaml.safe_dump(cluster))
    assert check_file("readme.yaml") == []


def test_the_library_has_as_many_files_as_the_readme_says() -> None:
    content = README.read_text(encoding="utf-8")
    for kind in ("devices", "links", "clusters", "models"):
        folder = REPOSITORY / ("workloads" if kind == "models" else "hardware_profiles") / kind
        assert f"{len(list(folder.glob('*.yaml')))} {kind}" in content


def test_the_picture_of_the_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of the README's sample begins as one that the main job prints now."""
    (sample,) = (block.text for block in blocks(README, "") if "TTFT" in block.text)
    with pytest.raises(SystemExit):
        cli.main(["--cluster", "a100x8.yaml", "--workload", "rag.yaml", "--out", "run"])
    printed = {label(line) for line in capsys.readouterr().out.splitlines()}
    assert {label(line) for line in sample.splitlines()} <= printed


def label(line: str) -> str:
    """Words before the first run of blanks, indented as they are."""
    return re.split(r"(?<=\S)\s{2,}", line, maxsplit=1)[0] if not line.startswith("rag ") else "rag"
