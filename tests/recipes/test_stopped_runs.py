"""A run that is killed, wherever that is, ends with the same bytes when it is run again."""

import hashlib
import shutil
import signal

import pytest

RESULTS = ("small.safetensors", "masks.safetensors", "exports/model.safetensors")

SCHEDULE = """\
model: work:make
inputs: {shape: [2, 1, 8, 8]}
evaluate: work:accuracy
prune:
  - algorithm: agp
    config_list:
      - {sparsity: 0.5, op_names: ["0", "3"]}
    options: {pruning_algorithm: l1, total_iteration: 3}
finetune: {call: work:train, optimizer: {call: torch.optim:SGD, arguments: {lr: 0.01}}}
"""


def results(run):
    files = [run / name for name in RESULTS if (run / name).exists()]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def steps(run):
    return sorted(each.name for each in (run / "steps").iterdir())


@pytest.fixture
def whole(finished):
    """What a run that nobody stops ends with."""
    return results(finished / "whole")


@pytest.fixture
def copied(finished, folder):
    """The finished run, in a folder that a test may change."""
    shutil.copytree(finished / "whole", folder / "whole")
    return folder


def test_at_every_boundary(call, prune, folder, whole):
    assert len(whole) == 3
    for done in (1, 3, 4, 6):
        run = folder / f"run{done}"
        call("die_after.py", str(done), run.name, status=-signal.SIGKILL)
        assert len([name for name in steps(run) if "unfinished" not in name]) == done
        assert not (run / "finished.json").exists()
        prune("run", "recipe.yaml", "-o", run.name, "--trust")
        assert results(run) == whole, f"stopped after step {done}"


@pytest.mark.parametrize(
    ("moment", "under_way"),
    [
        ("batch 2", "02-train"),  # in the first epoch
        ("batch 6", "02-train"),  # in the second one, after one was kept
        ("batch 16", "05-finetune"),
        ("evaluate 1", "03-prune"),
        ("evaluate 2", "04-shrink"),
    ],
)
def test_in_the_middle_of_a_step(prune, folder, whole, moment, under_way):
    (folder / "die.txt").write_text(moment)
    prune("run", "recipe.yaml", "-o", "killed", "--trust", status=-signal.SIGKILL)
    assert f"{under_way}.unfinished" in steps(folder / "killed")
    prune("run", "recipe.yaml", "-o", "killed", "--trust")
    assert results(folder / "killed") == whole


def test_an_epoch_that_was_kept_is_not_trained_again(prune, folder, whole):
    (folder / "die.txt").write_text("batch 18")  # the third epoch of finetune has begun
    prune("run", "recipe.yaml", "-o", "killed", "--trust", status=-signal.SIGKILL)
    (folder / "die.txt").write_text("batch 5")  # more than one epoch has batches
    prune("run", "recipe.yaml", "-o", "killed", "--trust")
    assert (folder / "die.txt").read_text() == "batch 1"
    (folder / "die.txt").unlink()
    assert results(folder / "killed") == whole


@pytest.mark.parametrize("moment", ["batch 5", "batch 10", "evaluate 2"])
def test_in_the_middle_of_a_schedule(prune, folder, moment):
    (folder / "recipe.yaml").write_text(SCHEDULE)
    prune("run", "recipe.yaml", "-o", "whole", "--trust")
    (folder / "die.txt").write_text(moment)
    prune("run", "recipe.yaml", "-o", "killed", "--trust", status=-signal.SIGKILL)
    assert "02-prune.unfinished" in steps(folder / "killed")
    prune("run", "recipe.yaml", "-o", "killed", "--trust")
    assert results(folder / "killed") == results(folder / "whole")


def test_a_finished_run_is_left_alone(prune, copied):
    before = {f: f.stat().st_mtime_ns for f in (copied / "whole").rglob("*") if f.is_file()}
    done = prune("run", "recipe.yaml", "-o", "whole")  # nothing runs, so nothing is to be trusted
    assert done.stdout == "whole is finished; nothing is left to do.\n"
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_a_folder_of_another_recipe_is_refused(prune, copied):
    recipe = copied / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("sparsity: 0.5", "sparsity: 0.6"))
    for trust in ((), ("--trust",)):
        done = prune("run", "recipe.yaml", "-o", "whole", *trust, status=1)
        assert "prune[0].sparsity is 0.5 there and 0.6 here" in done.stderr
    recipe.write_text("# a comment changes nothing\n" + recipe.read_text().replace("0.6", "0.5"))
    prune("run", "recipe.yaml", "-o", "whole")


def test_other_folders_are_not_touched(prune, folder):
    (folder / "mine").mkdir()
    (folder / "mine/recipe.yaml").write_text("mine")
    done = prune("run", "recipe.yaml", "-o", "mine", "--trust", status=1)
    assert "mine is not empty ('recipe.yaml' among others)" in done.stderr
    assert (folder / "mine/recipe.yaml").read_text() == "mine"


def test_changed_code_is_noticed(call, prune, folder):
    """The run goes on: that is how one mends a function that failed. But it is said."""
    with (folder / "work.py").open("a") as work:
        work.write("\nimport helper\n")
    (folder / "helper.py").write_text("")
    call("die_after.py", "3", "run", status=-signal.SIGKILL)
    (folder / "helper.py").write_text("# something else\n")
    command = ("-m", "prune_core", "run", "recipe.yaml", "-o", "run", "--trust")
    done = call("-W", "default", *command)
    assert "has changed since the run began: helper.py. Steps" in " ".join(done.stderr.split())
    assert "has changed since the run began: helper.py" in (folder / "run/run.log").read_text()


def test_code_that_is_as_it_was_is_not_spoken_of(call, folder):
    call("die_after.py", "3", "run", status=-signal.SIGKILL)
    done = call("-W", "default", "-m", "prune_core", "run", "recipe.yaml", "-o", "run", "--trust")
    assert "changed" not in done.stderr
