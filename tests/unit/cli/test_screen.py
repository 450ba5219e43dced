import ast
import json
from pathlib import Path

import pytest
import raglan_cli
from raglan_cli.commands import app
from raglan_cli.screen import SafeConsole, out, plain, print_json
from rich.table import Table
from rich.text import Text

HOSTILE = "a\x1b[31mb\x9b2Jc\x07\rd\u202ee\x7f[bold]f[/] :warning:"
HARMLESS = "a[31mb2Jcde[bold]f[/] :warning:"


def table():
    made = Table(box=None, padding=0, show_header=False)
    made.add_row(HOSTILE)
    return made


@pytest.mark.parametrize("made", [HOSTILE, Text(HOSTILE), table()], ids=["str", "text", "table"])
def test_no_printed_text_steers_the_terminal(made):
    console = SafeConsole(width=80)
    with console.capture() as captured:
        console.print(made)
    assert captured.get().strip() == HARMLESS


def test_json_holds_no_control_characters_and_reads_as_what_it_was(capsys):
    print_json({"name": HOSTILE, "half": "\udce9"})
    printed = capsys.readouterr().out
    assert plain(printed) == printed.replace("\u202e", "")
    assert json.loads(printed) == {"name": HOSTILE, "half": "\udce9"}


def test_half_a_surrogate_pair_is_shown_as_an_escape():
    assert plain("caf\udce9") == "caf\\udce9"


def test_nothing_prints_past_the_safe_consoles():
    """`print`, `typer.echo` and consoles of one's own would let escapes through."""
    for path in Path(raglan_cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "typer.echo", "typer.secho", "Console"}, path
                assert not called.endswith(("stdout.write", "stderr.write")), path


def test_help_goes_past_them_and_holds_only_our_words():
    assert app.rich_markup_mode is None
    assert isinstance(out, SafeConsole)
