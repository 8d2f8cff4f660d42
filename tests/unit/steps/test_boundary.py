import errno
import json
import logging
import os
from pathlib import Path

import pytest

from kfnas.errors import KfnasError, StepFailed, StorageFull
from kfnas.steps.boundary import MARKER, Failure, boundary, failures_in, numbers_of


def test_a_step_that_succeeds_reports_nothing(capfd):
    with boundary("sample"):
        pass
    assert failures_in(capfd.readouterr().err.splitlines()) == []


def test_an_error_of_kfnas_goes_on_and_is_reported_in_one_line(capfd):
    with pytest.raises(StorageFull), boundary("update"):
        raise StorageFull("store runs: no room left\n(3 bytes free); free some, then resume")
    (failure,) = failures_in(capfd.readouterr().err.splitlines())
    assert failure == Failure("update", "StorageFull", "store runs: no room left\n(3 bytes free); free some, then resume", expected=True)
    error = failure.as_error()
    assert type(error) is StorageFull
    assert str(error) == failure.message


def test_an_unforeseen_error_becomes_step_failed_and_names_the_log(capfd):
    with pytest.raises(KeyError), boundary("train_children"):
        raise KeyError("width")
    (failure,) = failures_in(capfd.readouterr().err.splitlines())
    error = failure.as_error(Path("/logs/run.log"))
    assert type(error) is StepFailed
    assert str(error) == "step train_children failed unexpectedly: KeyError: 'width'; its traceback is in /logs/run.log"


def test_a_full_disk_under_a_step_s_own_files_is_no_fault_of_kfnas(capfd):
    with pytest.raises(OSError, match="No space"), boundary("export"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/model.onnx")
    (failure,) = failures_in(capfd.readouterr().err.splitlines())
    error = failure.as_error()
    assert type(error) is StorageFull
    assert str(error) == "step export: /tmp/model.onnx: No space left on device; free some room there and resume"


def test_an_error_of_a_class_that_errors_does_not_have_counts_as_unforeseen(capfd):
    class OutsideError(KfnasError):
        pass

    with pytest.raises(OutsideError), boundary("update"):
        raise OutsideError("no")
    (failure,) = failures_in(capfd.readouterr().err.splitlines())
    assert not failure.expected


@pytest.mark.parametrize("name", ["KfnasError", "json", "annotations", "Path", "__name__"])
def test_only_classes_of_the_error_tree_are_made_from_a_log(name):
    error = Failure("update", name, "text", expected=True).as_error()
    assert isinstance(error, KfnasError)


def test_failures_are_found_between_other_lines_indented_and_once_each():
    first = Failure("sample", "StaleFence", "taken over", expected=True)
    second = Failure("train_children", "ValueError", "bad", expected=False)
    lines = ["[KFP Executor] starts", "        " + first.line(), "Traceback", first.line(), second.line()]
    assert failures_in(lines) == [first, second]


@pytest.mark.parametrize("line", [MARKER + '{"step": "sam', MARKER + "{}", MARKER + "[1]", MARKER, MARKER + '{"step": 1, "more": 2}'])
def test_a_line_that_was_cut_short_is_skipped(line):
    assert failures_in([line]) == []


def test_numbers_are_taken_from_the_top_level_and_from_metrics(tmp_path):
    path = tmp_path / "metrics"
    path.write_text(json.dumps({"rounds": 3, "best": None, "tracked": True, "name": "searched-1", "metrics": {"top1": 0.5, "loss": float("inf")}}))
    assert numbers_of(path) == {"rounds": 3.0, "top1": 0.5}


def test_inside_a_step_kfnas_is_heard_from_info_on_and_other_libraries_from_warnings_on(caplog):
    before = [logging.getLogger(name).level for name in ("", "kfnas")]
    with boundary("sample"):
        logging.getLogger("kfnas.steps.sample").info("ours")
        logging.getLogger("kfnas.steps.sample").debug("our details")
        logging.getLogger("torch.onnx").info("chatter")
        logging.getLogger("alembic.runtime").warning("a warning")
    assert [record.message for record in caplog.records] == ["ours", "a warning"]
    assert [logging.getLogger(name).level for name in ("", "kfnas")] == before
