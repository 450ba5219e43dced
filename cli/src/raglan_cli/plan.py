"""`raglan plan`: services on GPUs, before there is a deployment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from raglan_cli import screen
from raglan_cli.client import JsonOption
from raglan_cli.failure import Failure, UsageFailure
from raglan_cli.placement import architecture, checkpoint, parameters, planning, quantisation
from raglan_cli.placement.architecture import InvalidConfig
from raglan_cli.placement.compose_file import compose_override
from raglan_cli.placement.devices import parse_devices
from raglan_cli.placement.encoders import BUNDLED, EncoderMemory, encoder_memory
from raglan_cli.placement.helm_values import Sharing, helm_values
from raglan_cli.placement.planning import LanguageModel, Plan, Request
from raglan_cli.placement.sizes import InvalidSize, gigabytes

_MODEL: Final = "A model's folder or its config.json."


class Encoder(StrEnum):
    """A service that can do without a GPU."""

    EMBEDDER = "embedder"
    RERANKER = "reranker"


def plan(
    gpu: Annotated[
        list[str],
        typer.Option(
            metavar="SIZE",
            help="A GPU: 24GB, 2x24GB, 24564MiB; one with MIG slices: 80GB/3g.40gb,3g.40gb.",
        ),
    ],
    llm: Annotated[
        Path | None, typer.Option(metavar="PATH", help=f"{_MODEL} Without it, no language model.")
    ] = None,
    context: Annotated[
        int, typer.Option(help="Tokens of prompt and answer together.", min=1)
    ] = 8_192,
    streams: Annotated[int, typer.Option(help="Answers written at a time.", min=1)] = 32,
    quantization: Annotated[
        str, typer.Option(help="Quantise while loading: fp8 or bitsandbytes.")
    ] = "",
    embedder: Annotated[
        Path | None, typer.Option(metavar="PATH", help=f"{_MODEL} Default: the bundled one.")
    ] = None,
    reranker: Annotated[
        Path | None, typer.Option(metavar="PATH", help=f"{_MODEL} Default: the bundled one.")
    ] = None,
    on_cpu: Annotated[
        list[Encoder] | None, typer.Option(help="An encoder that gets no GPU.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Hub id or folder that the generator loads, for the files.")
    ] = "",
    compose: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an override for Compose.")
    ] = None,
    helm: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write values for the Helm chart.")
    ] = None,
    sharing: Annotated[
        Sharing, typer.Option(help="How pods share a GPU: a claim (DRA) or the device plugin.")
    ] = "dra",
    json: JsonOption = False,
) -> None:
    """Place the model services on GPUs, by the memory that they need.

    Computes weights, keys and values, and intermediate values from config.json, splits a language
    model over GPUs where one is too small, and says what would fit where nothing does.

    Examples:

      raglan plan --gpu 2x24GB --llm models/Llama-3.1-8B --context 8192 --streams 8

      raglan plan --gpu 80GB/3g.40gb,2g.20gb,1g.10gb --llm config.json --streams 8

      raglan plan --gpu 48GB --llm config.json --compose compose.plan.yaml --helm values-plan.yaml
    """
    encoders = {
        name: path
        for name, path in (("embedder", embedder), ("reranker", reranker))
        if name not in (on_cpu or ())
    }
    try:
        request = Request(
            parse_devices(gpu),
            _language_model(llm, quantization, context) if llm else None,
            context,
            streams,
            {name: _encoder(name, path) for name, path in encoders.items()},
        )
    except InvalidSize as error:
        raise UsageFailure(str(error)) from None
    made = planning.plan(request)
    if made.placement is None:
        raise Failure(_refusal(made))
    if json:
        screen.print_json(_document(made))
    else:
        _show(made)
    if compose:
        _write(compose, compose_override(made, model=model, name=compose.name))
    if helm:
        _write(helm, helm_values(made, model=model, name=helm.name, sharing=sharing))


def _language_model(path: Path, quantization: str, context: int) -> LanguageModel:
    try:
        found = checkpoint.read(path)
        dimensions = architecture.read(found.config)
        precision = quantisation.of_config(dimensions.quantization, dimensions.dtype)
        if quantization and dimensions.quantization:
            raise InvalidConfig(
                f"it is quantised already ({precision.name}); leave out the option."
            )
        if quantization:
            precision = quantisation.on_load(quantization)
    except InvalidConfig as error:
        raise UsageFailure(f"--llm {path}: {error}") from None
    if dimensions.max_context and context > dimensions.max_context:
        raise UsageFailure(
            f"--context is {context:,}; the model reads {dimensions.max_context:,} tokens."
        )
    size = None if quantization else found.weight_bytes
    return LanguageModel(dimensions, precision, size, quantization)


def _encoder(name: str, path: Path | None) -> EncoderMemory:
    try:
        return encoder_memory(checkpoint.read(path).config if path else BUNDLED)
    except InvalidConfig as error:
        raise UsageFailure(f"--{name} {path}: {error}") from None


def _refusal(made: Plan) -> str:
    reason = planning.shortfall(made.request)
    if not made.advice:
        return f"{reason} No single change would make it fit; choose a smaller model."
    return f"{reason} What would fit: {'; or '.join(made.advice)}."


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}.") from None
    screen.note(f"Wrote {path}.")


# --- What is shown --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """A service on a device, in bytes."""

    service: str
    device: str
    weights: int
    kv: int
    rest: int
    share: float


def _lines(made: Plan) -> list[_Line]:
    assert made.placement is not None
    lines = []
    for share in made.placement.shares:
        memory = made.placement.generator
        if share.service == "generator" and memory is not None:
            weights, kv = memory.weights, memory.kv_bytes
            rest = memory.activations + memory.runtime
        else:
            encoder = made.request.encoders[share.service]
            weights, kv, rest = encoder.weights, 0, encoder.activations + encoder.runtime
        lines.append(_Line(share.service, str(share.device), weights, kv, rest, share.share))
    return lines


def _facts(made: Plan) -> list[str]:
    """Sentences below the table."""
    assert made.placement is not None
    model, memory = made.request.model, made.placement.generator
    if model is None or memory is None:
        return []
    total = parameters.count(model.architecture).total
    return [
        f"{total / 1e9:,.2f} billion parameters, weights in {model.precision.name}"
        + (" (by the size of their files)." if model.checkpoint_bytes else "."),
        f"{made.request.streams} streams of {made.request.context:,} tokens; memory is left for "
        f"{max(0, made.placement.spare_streams - made.request.streams)} more.",
        *(f"Note: {note}" for note in model.architecture.notes),
    ]


def _show(made: Plan) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("service")
    table.add_column("device")
    for column in ("weights", "keys, values", "the rest", "share"):
        table.add_column(column, justify="right")
    for line in _lines(made):
        sizes = (gigabytes(line.weights), gigabytes(line.kv), gigabytes(line.rest))
        table.add_row(line.service, line.device, *sizes, f"{line.share:.2f}")
    screen.out.print(table)
    for fact in _facts(made):
        screen.out.print(fact)


def _document(made: Plan) -> dict[str, Any]:
    """The plan as `--json` prints it; sizes in bytes."""
    assert made.placement is not None
    memory = made.placement.generator
    document: dict[str, Any] = {
        "placement": [
            {
                "service": share.service,
                "gpu": share.device.gpu,
                **({"slice": share.device.profile} if share.device.profile else {}),
                "device": share.device.name,
                "needed_bytes": share.size,
                "share": share.share,
            }
            for share in made.placement.shares
        ]
    }
    if made.request.model is not None and memory is not None:
        document["generator"] = {
            "parameters": parameters.count(made.request.model.architecture).total,
            "precision": made.request.model.precision.name,
            "weight_bytes": memory.weights,
            "kv_bytes_per_stream": memory.kv.bytes_per_stream,
            "kv_bytes": memory.kv_bytes,
            "activation_bytes": memory.activations,
            "runtime_bytes": memory.runtime,
            "streams": made.placement.spare_streams,
            "notes": list(made.request.model.architecture.notes),
        }
    return document
