"""The command `expertlens`: quick help, suites by name, settings by plain flags, errors that name what was meant."""

import configparser
import pathlib
import re
import subprocess
import sys
import time

import pytest

import expertlens_jax as el
from expertlens_jax import command
from expertlens_jax.experiments import suites

pytestmark = pytest.mark.process

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = {"jax", "flax", "transformers", "orbax", "scipy", "sklearn", "pandas", "xarray", "zarr", "matplotlib"}


def expertlens(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "expertlens_jax", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def told(*arguments, cwd=None):
    """The one paragraph of an error, unfolded."""
    done = expertlens(*arguments, cwd=cwd)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    assert "\n\n" not in done.stderr
    return " ".join(done.stderr.split())


def metadata():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_folder_of_python_is_installed():
    parser = metadata()
    listed = parser["options"]["packages"].split()
    moved = dict(line.split(" = ") for line in parser["options"]["package_dir"].strip().splitlines())
    assert moved == {"expertlens_jax.configs": "configs", "expertlens_jax.experiments": "experiments"}
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "expertlens_jax").rglob("*.py")}
    assert sorted(listed) == sorted(".".join(folder.parts) for folder in folders)
    for package in listed:
        folder = ROOT / moved.get(package, package.replace(".", "/"))
        assert (folder / "__init__.py").exists(), package


def test_what_stands_in_for_a_moved_folder_holds_nothing_else():
    for name in "configs", "experiments":
        files = [path.name for path in (ROOT / "expertlens_jax" / name).iterdir() if path.name != "__pycache__"]
        assert files == ["__init__.py"]


def test_the_command_is_installed():
    assert metadata()["options.entry_points"]["console_scripts"].split() == [
        "expertlens",
        "=",
        "expertlens_jax.command:main",
    ]


def test_every_launcher_has_a_command_and_every_command_a_launcher():
    launchers = {path.stem for path in (ROOT / "experiments").glob("*.py") if "launch(run" in path.read_text()}
    assert launchers - {"launch"} == {each.launcher for each in command.COMMANDS.values()}


def test_help_fits_a_screen_and_names_every_command():
    lines = command.overview().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    cells = [line[start : start + 39] for line in lines[2:] for start in (0, 39)]
    named = [cell.split()[0] for cell in cells if re.match("  [a-z]", cell)]
    assert sorted(named) == sorted([*command.COMMANDS, *command.EXPLORE, *command.LISTS])
    asked = [each for each in command.COMMANDS.values() if each.brief]
    assert len(asked) > 10 and all(any(each.brief in cell for cell in cells) for each in asked)


def test_help_has_room_for_questions_to_come():
    assert len(command.overview().splitlines()) <= 21


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["align", "--help"], ["configs"], ["explore", "--help"], ["compare", "--help"], ["push", "--help"]],
)
def test_help_imports_nothing_heavy_and_takes_a_moment(arguments):
    program = (
        "import sys, time; start = time.process_time(); sys.argv[1:] = "
        f"{arguments}; from expertlens_jax.command import main; import contextlib\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *modules, seconds = done.stdout.splitlines()[-1].split()
    assert "expertlens_jax" in modules
    assert not HEAVY & set(modules)
    assert float(seconds) < 1


def test_a_commands_help_tells_the_claim_the_flags_and_the_settings():
    said = expertlens("align", "--help").stdout
    assert said.startswith("expertlens align [--config=SUITE] --workdir=DIR")
    assert "Are a model's experts arranged as people arrange the concepts?" in said
    assert "The claim would be refuted if" in said
    assert "--workdir     Run directory to write" in said
    assert "--model=lenslet-5m" in said and "# a packaged model, a Hugging Face directory" in said
    assert "--thresholds=0.4,0.5,0.6,0.7,0.8\n" in said
    assert "--multihost" not in said  # which it refuses
    assert "--steering." not in said  # which it doesn't read
    for setting in suites.read_suite("demo"):
        if setting not in (*suites.read_suite("demo").experiments, "experiments"):
            assert f"--{setting}" in said, setting
    assert "--steering.counts=5,20,50,200" in command_help("steer")
    assert "--steering.counts" in (everything := command_help("reproduce")) and "--stability.counts" in everything
    found = command_help("find", "--config=find_experts")
    assert "--multihost" in found and "--concepts is --sentences" in found


def command_help(*arguments):
    done = expertlens(*arguments, "--help")
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout


def test_help_is_of_the_suite_that_is_named():
    said = command_help("align", "--config", "pythia:1b")
    assert "Settings of the suite pythia:1b" in said and "--model=EleutherAI/pythia-1b " in said
    own = command_help("mixture")
    assert "Settings of the suite mixture" in own and "--model=allenai/OLMoE-1B-7B-0924 " in own
    assert "--steering." not in own and "--experiments" not in own


def test_a_launcher_has_the_same_help():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.negatives", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("python -m experiments.negatives [--config=SUITE]")
    assert "--negatives.ratios=1,2.5,5,10,25" in done.stdout


def test_models_and_configs_are_listed():
    models = command.list_models()
    assert all(name in models for name in ("lenslet-5m", "step256", "BERT", "EleutherAI/pythia-70m-deduped"))
    said = command.list_configs()
    assert "pythia:{70m,160m,410m,1b,1.4b,2.8b,6.9b,12b}\n    Pythia, with the checkpoints of its training" in said
    assert [line.split(":")[0] for line in said.splitlines()[::2]] == list(suites.suite_names())


@pytest.mark.parametrize("name", suites.suite_names())
def test_every_variant_that_is_listed_can_be_read(name):
    for variant in suites.variants(name):
        suites.read_suite(f"{name}:{variant}")
    suites.read_suite(name)


def test_a_suite_is_found_by_name_or_by_path(tmp_path, monkeypatch):
    named = suites.find_suite("pythia:1b")
    assert named.endswith("configs/pythia.py:1b")
    assert suites.read_suite("pythia:1b").model == "EleutherAI/pythia-1b"
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from expertlens_jax.configs.demo import get_config as get_demo\n\n"
        "def get_config(model='lenslet-2m'):\n    c = get_demo()\n    c.model = model\n    return c\n"
    )
    monkeypatch.chdir(tmp_path)
    assert suites.read_suite("mine.py").model == "lenslet-2m"
    assert suites.read_suite(f"{mine}:lenslet-5m").model == "lenslet-5m"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "pytia:1b",
            r"the config pytia:1b can't be found: .*Did you mean --config=pythia\?.*Suites are demo, find_exp",
        ),
        ("configs/demo.py", r"the config configs/demo.py can't be found.*Did you mean --config=demo\?"),
        ("nothing_like_it.py", r"can't be found: there is no such file here, and no suite of that name. Suites are"),
        ("pythia:3b", r"pythia.py:3b\. Choose from: 70m, 160m"),
        ("find_experts:1b", r"the config find_experts:1b can't be read \(TypeError: get_config\(\) takes 0"),
        ("broken.py", r"the config broken.py can't be read \(SyntaxError"),
        ("empty.py", r"the config empty.py can't be read \(KeyError: 'get_config'"),
        ("none.py", r"its get_config returns None, not a ConfigDict"),
    ],
)
def test_a_suite_that_cannot_be_had(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "none.py").write_text("def get_config():\n    pass\n")
    with pytest.raises(el.ExpertLensError, match=message):
        suites.read_suite(given)


@pytest.mark.parametrize(
    ("given", "launcher", "message"),
    [
        ("demo:small", "find_experts", "isn't for find_experts: its setting 'negatives' is a section, where .* text"),
        (
            "find_experts",
            "alignment",
            "isn't for alignment: .*that fit: demo, gemma, gpt2, llama, minilm, mixture, pythia",
        ),
        ("find_experts", "stability", "isn't for stability: .*that fit: demo, gemma, gpt2, llama, mixture, pythia"),
    ],
)
def test_another_launchers_suite_is_refused(given, launcher, message):
    with pytest.raises(el.ExpertLensError, match=f"the config {given} {message}"):
        suites.check_fit(suites.read_suite(given), given, launcher)


@pytest.mark.parametrize("launcher", [each.launcher for each in command.COMMANDS.values()])
def test_the_suites_that_are_said_to_fit_do(launcher):
    fitting = suites.fitting(launcher)
    assert suites.suite_of(launcher) in fitting
    for name in fitting:
        suites.check_fit(suites.read_suite(name), name, launcher)


SWITCHES = {"workdir": False, "config": False, "multihost": True}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (["--model=gpt2"], ["--config.model=gpt2"]),
        (["--model", "gpt2", "--workdir", "runs/x"], ["--config.model=gpt2", "--workdir=runs/x"]),
        (["--config.model", "gpt2"], ["--config.model=gpt2"]),
        (["--stability.counts=5,10"], ["--config.stability.counts=5,10"]),
        (["--sampled", "--multihost", "x"], ["--config.sampled", "--multihost", "x"]),
        (["--nosampled", "--nomultihost"], ["--noconfig.sampled", "--nomultihost"]),
        (["--sampled=true", "--device_gigabytes", "-1"], ["--config.sampled=true", "--config.device_gigabytes=-1"]),
        (["--masked="], ["--config.masked="]),
        (["--ratings=a=b"], ["--config.ratings=a=b"]),
        (["--experiments=alignment, scale"], ["--config.experiments=('alignment', 'scale')"]),
        (["--config.ratings", "men,rg65"], ["--config.ratings=('men', 'rg65')"]),
        (["--ratings=('men','rg65')"], ["--config.ratings=('men','rg65')"]),
        (["--saes=sae@layer=8,centred=True"], ["--config.saes=sae@layer=8,centred=True"]),
        (["--model=a,b"], ["--config.model=a,b"]),
    ],
)
def test_settings_are_flags(given, written):
    assert suites.write_out(given, suites.read_suite("demo"), "demo", SWITCHES) == written


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--modle=x"], r"there is no flag --modle, and no setting 'modle' in the config demo. Did you mean --model\b"),
        (["--config.modle=x"], r"the config demo has no setting 'modle'. Did you mean --model\b"),
        (["--counts=5"], r"no setting 'counts' .*Did you mean --stability.counts or --steering.counts"),
        (["--wrokdir=x"], r"Did you mean --workdir\?"),
        (["--qqq=1"], r"no setting 'qqq' in the config demo. --help lists all there are"),
        (["--model"], r"--model has no value; write --model=VALUE"),
        (["--model", "--workdir=x"], r"--model has no value"),
        (["--nomodel"], r"there is no flag --nomodel"),
    ],
)
def test_flags_that_are_none(given, message):
    with pytest.raises(el.ExpertLensError, match=message):
        suites.write_out(given, suites.read_suite("demo"), "demo", SWITCHES)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["algin"], ["there is no command 'algin'. Did you mean align?", "Commands: find, reproduce, align"]),
        (["steering"], ["Did you mean steer or training?"]),
        (["qqq"], ["there is no command 'qqq'. Commands: find"]),
        (["models", "lenslet"], ["expertlens models takes no arguments, and was given lenslet"]),
        (["find", "--concept=facts", "--workdir=w"], ["no setting 'concept' in the config find_experts"]),
        (["align", "--config", "demo:tiny", "--workdir=w"], ["demo.py:tiny"]),
        (["align", "--config"], ["--config has no value; write --config=NAME, one of demo"]),
        (["align", "--config", "demo", "--modl=x"], ["no setting 'modl' in the config demo. Did you mean --model?"]),
        (["find"], ["--workdir is missing"]),
        (["find", "--workdir=w", "--seed=x"], ["--config.seed=x"]),
        (["find", "--workdir=w", "facts"], ["unexpected arguments facts"]),
        (["negatives", "--workdir=w", "--multihost"], ["can't be one run over several hosts"]),
        (["find", "--workdir=w", "--model=lenslet-5"], ["no model called 'lenslet-5'", "Did you mean lenslet-5m"]),
    ],
)
def test_errors_are_a_paragraph(arguments, parts, tmp_path):
    said = told(*arguments, cwd=tmp_path)
    for part in parts:
        assert part in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_setting_that_an_own_suite_lacks_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from expertlens_jax.configs.find_experts import get_config as get_whole\n\n"
        "def get_config():\n    c = get_whole()\n    del c.pooling\n    return c\n"
    )
    said = told("find", "--config=mine.py", "--workdir=w", "--model=lenslet-2m", cwd=tmp_path)
    assert (
        "the config mine.py has no setting 'pooling', which find_experts reads. Suites that have all it reads: find_e"
        in said
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "config", "fitting"),
    [
        ("reproduce", "minilm:small", "demo, gemma, gpt2, llama, mixture, pythia"),
        ("stability", "minilm", "demo, gemma, gpt2, llama, mixture, pythia"),
        ("write-concepts", "lenslet", "write_concepts"),
    ],
)
def test_a_suite_without_what_a_launcher_reads_is_told_with_those_that_have_it(name, config, fitting, tmp_path):
    said = told(name, f"--config={config}", "--workdir=w", cwd=tmp_path)
    assert f"the config {config} has no setting" in said
    assert f"Suites that have all it reads: {fitting}." in said


@pytest.mark.long
def test_find_runs_from_anywhere_with_plain_names(tmp_path):
    rows = [f"{word}\tThe {word} number {i} was there\n" for word in ("cat", "ship") for i in range(5)]
    (tmp_path / "mine.tsv").write_text("concept\tsentence\n" + "".join(rows))
    flags = ["--model", "lenslet-2m", "--concepts=mine.tsv", "--permutations=0", "--nohalves", "--workdir=run"]
    done = expertlens("find", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The table is in run; el.open_expertise reads it." in done.stdout
    table = el.open_expertise(tmp_path / "run")
    assert list(table["concept"].values) == ["cat", "ship"]
    assert "average_precision_halves" not in table


def test_reading_only_the_first_line_is_no_error():
    program = f"{sys.executable} -m expertlens_jax configs | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("demo")
    assert done.stderr == "" and done.returncode in (0, 1)


def test_the_version_is_told():
    start = time.perf_counter()
    assert expertlens("--version").stdout == f"expertlens_jax {el.__version__}\n"
    assert time.perf_counter() - start < 60
