"""Processor, quota, throttling and affinity, read from made-up /proc and /sys trees and from the real ones."""

import os
import sys
from pathlib import Path

import pytest

from kfnas.measure.host import CpuLimits, accelerator_models, allowed_cores, cpu_limits, cpu_model, current_core, involuntary_switches, pinned


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_tightest_quota_of_cgroup_version_2_counts(tmp_path: Path) -> None:
    _write(tmp_path / "proc/self/cgroup", "0::/kubepods/pod1/container\n")
    _write(tmp_path / "sys/cpu.stat", "usage_usec 5\n")
    _write(tmp_path / "sys/kubepods/pod1/cpu.max", "150000 100000\n")
    _write(tmp_path / "sys/kubepods/pod1/cpu.stat", "nr_periods 10\nnr_throttled 4\n")
    _write(tmp_path / "sys/kubepods/pod1/container/cpu.max", "max 100000\n")
    _write(tmp_path / "sys/kubepods/pod1/container/cpu.stat", "nr_periods 10\nnr_throttled 3\n")
    assert cpu_limits(tmp_path / "proc", tmp_path / "sys") == CpuLimits(1.5, 7)


def test_a_container_sees_its_own_cgroup_at_the_root(tmp_path: Path) -> None:
    _write(tmp_path / "proc/self/cgroup", "0::/../../host/path/that/is/not/here\n")
    _write(tmp_path / "sys/cpu.max", "50000 100000\n")
    _write(tmp_path / "sys/cpu.stat", "nr_throttled 2\n")
    assert cpu_limits(tmp_path / "proc", tmp_path / "sys") == CpuLimits(0.5, 2)


def test_cgroup_version_1_is_read_too(tmp_path: Path) -> None:
    _write(tmp_path / "proc/self/cgroup", "3:memory:/a\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n")
    folder = tmp_path / "sys/cpu,cpuacct/docker/abc"
    _write(folder / "cpu.cfs_quota_us", "200000\n")
    _write(folder / "cpu.cfs_period_us", "100000\n")
    _write(folder / "cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 5\n")
    _write(tmp_path / "sys/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    _write(tmp_path / "sys/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert cpu_limits(tmp_path / "proc", tmp_path / "sys") == CpuLimits(2.0, 1)


def test_a_system_without_cgroups_has_no_limits(tmp_path: Path) -> None:
    assert cpu_limits(tmp_path / "proc", tmp_path / "sys") == CpuLimits(None, None)


def test_processors_of_one_masked_name_differ_by_family_and_model(tmp_path: Path) -> None:
    _write(tmp_path / "cpuinfo", "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n\nprocessor\t: 1\nmodel\t\t: 18\n")
    assert cpu_model(tmp_path) == "AMD EPYC (family 25, model 17, stepping 1)"


def test_an_arm_processor_is_told_by_its_part(tmp_path: Path) -> None:
    _write(tmp_path / "cpuinfo", "processor\t: 0\nHardware\t: Kirin\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\nCPU variant\t: 0x3\nCPU revision\t: 1\n")
    assert cpu_model(tmp_path) == "Kirin (implementer 0x41, part 0xd0c, variant 0x3, revision 1)"


def test_a_system_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    assert cpu_model(tmp_path)


def test_gpus_are_listed_by_their_driver(tmp_path: Path) -> None:
    _write(tmp_path / "driver/nvidia/gpus/0000:01/information", "Model: \t\t NVIDIA A10\nIRQ: 5\n")
    assert accelerator_models(tmp_path) == ["NVIDIA A10"]
    assert accelerator_models(tmp_path / "nowhere") == []


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_pinning_ends_with_its_block_even_when_it_fails() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with pytest.raises(RuntimeError), pinned([core]) as affinity:
        assert affinity == (core,)
        assert os.sched_getaffinity(0) == {core}
        assert current_core() == core
        raise RuntimeError
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_cores_that_do_not_exist_leave_the_thread_unpinned(caplog: pytest.LogCaptureFixture) -> None:
    before = os.sched_getaffinity(0)
    with pinned([100_000]) as affinity:
        assert affinity is None
    assert os.sched_getaffinity(0) == before
    assert "measuring unpinned" in caplog.text


def test_this_machine_answers() -> None:
    assert allowed_cores()
    limits = cpu_limits()
    assert limits.quota_cores is None or limits.quota_cores > 0
    switches = involuntary_switches(whole_process=False)
    assert switches is None or switches >= 0
