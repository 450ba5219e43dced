"""`raglan parity`: whether two engines or precisions of a model give the same vectors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from raglan_cli.failure import INTERRUPTED, Failure

app: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_MODULE: Final = "raglan_embedder"

_PRECISIONS: Final = "auto, f32, bf16, f16 or int8."


@app.callback()
def parity() -> None:
    """Compare what two engines or precisions make of the same texts."""


@app.command()
def embedder(
    a: Annotated[str, typer.Option(help="One engine: openvino, onnx or torch.")] = "onnx",
    b: Annotated[str, typer.Option(help="The other.")] = "torch",
    a_precision: Annotated[str, typer.Option(help=_PRECISIONS)] = "auto",
    b_precision: Annotated[str, typer.Option(help=_PRECISIONS)] = "auto",
    a_device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    b_device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    model: Annotated[
        str | None, typer.Option(help="A folder or a hub id. Default: the bundled model.")
    ] = None,
    texts: Annotated[int, typer.Option(help="Texts to compare on.", min=1)] = 500,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Evaluation sets. Default: $EVAL_DATA_DIR.")
    ] = None,
    search: Annotated[
        bool, typer.Option(help="Measure recall and nDCG on SciFact, which takes minutes.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two engines or precisions of the embedder's model.

    Prints the cosine of their vectors, the search quality with each on SciFact, and whether each
    gives a text the same bytes in 30 different batches.

    Examples:

      raglan parity embedder --a onnx --b torch

      raglan parity embedder --a openvino --a-precision int8 --b openvino --b-precision f32

      raglan parity embedder --a openvino --b torch --model BAAI/bge-m3 --texts 100 --no-search
    """
    # The models are loaded in a process of their own: the command line holds no service's code.
    if importlib.util.find_spec(_MODULE) is None:
        raise Failure("The embedder is not installed here: `pip install raglan-embedder`.")
    command = [sys.executable, "-m", f"{_MODULE}.parity", "--a", a, "--b", b]
    command += ["--a-precision", a_precision, "--b-precision", b_precision]
    command += ["--a-device", a_device, "--b-device", b_device, "--texts", str(texts)]
    command += ["--model", model] if model else []
    command += ["--data", str(data)] if data else []
    command += [] if search else ["--no-search"]
    command += ["--json"] if as_json else []
    try:
        done = subprocess.run(command, check=False)  # noqa: S603 - our own module
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(done.returncode)
