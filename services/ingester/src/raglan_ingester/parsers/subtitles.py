"""Subtitles (SRT, WebVTT): what is said, put together to paragraphs, each with its time."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, one_line
from raglan_ingester.parsers.text_builder import TextBuilder

_TIME: Final = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING: Final = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}.*")
_SPEAKER: Final = re.compile(r"<v(?:\.[\w.]+)?\s+([^>]+)>")
_TAG: Final = re.compile(r"</?[a-zA-Z][^>\n]{0,200}>|<\d[\d:.]*>|\{\\[^}]*\}")
_PAUSE_S: Final = 3.0
_PARAGRAPH_CHARS: Final = 500
_SENTENCE_END: Final = re.compile(r"[.!?…。！？]['\"”’)]*$")  # noqa: RUF001


class _Cue(NamedTuple):
    start_s: float
    end_s: float
    speaker: str
    text: str


def parse(source: Source) -> ParsedDocument:
    """Read subtitles.

    Raises:
        Unparsable: it is empty, no text, or holds no cue.
    """
    decoded = decode_text(source.data)
    builder = TextBuilder()
    builder.warnings += decoded.warnings
    paragraph: list[_Cue] = []
    for cue in _cues(decoded.text):
        if paragraph and _begins_paragraph(paragraph, cue):
            _add(builder, paragraph)
            paragraph = []
        # Rolling captions show a line twice: as the new one and as the one before.
        if not paragraph or paragraph[-1].text != cue.text:
            paragraph.append(cue)
    if paragraph:
        _add(builder, paragraph)
    if not builder.length:
        raise Unparsable("The file holds no subtitles.")
    return builder.build()


def _cues(text: str) -> Iterator[_Cue]:
    for block in re.split(r"\n[^\S\n]*\n", text):
        lines = block.strip("\n").split("\n")
        for number, line in enumerate(lines):
            if timing := _TIMING.fullmatch(line):
                said = " ".join(lines[number + 1 :])
                speaker = _SPEAKER.search(said)
                shown = one_line(html.unescape(_TAG.sub("", said)))
                if shown:
                    start, end = _seconds(timing.groups()[:4]), _seconds(timing.groups()[4:])
                    yield _Cue(start, end, one_line(speaker[1]) if speaker else "", shown)
                break


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def _begins_paragraph(paragraph: list[_Cue], cue: _Cue) -> bool:
    last = paragraph[-1]
    length = sum(len(one.text) for one in paragraph)
    is_pause = cue.start_s - last.end_s > _PAUSE_S
    is_full = length > _PARAGRAPH_CHARS and _SENTENCE_END.search(last.text) is not None
    return is_pause or is_full or cue.speaker != last.speaker or length > 2 * _PARAGRAPH_CHARS


def _add(builder: TextBuilder, paragraph: list[_Cue]) -> None:
    minutes, seconds = divmod(int(paragraph[0].start_s), 60)
    builder.section(1, f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}")
    speaker = f"{paragraph[0].speaker}: " if paragraph[0].speaker else ""
    builder.paragraph(speaker + " ".join(cue.text for cue in paragraph))
