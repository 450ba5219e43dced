"""Blocks as a tree: what a list item or a quotation holds lies below it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from raglan.blocks import Block, BlockKind

from raglan_generator import markdown

_BULLET: Final = re.compile(r"\s*(?:[-*+•‣◦]|\(?\w{1,9}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?")
_CONTAINERS: Final = (BlockKind.LIST_ITEM, BlockKind.QUOTATION)


@dataclass(slots=True)
class Node:
    """A block and the blocks inside it."""

    block: Block
    children: list[Node] = field(default_factory=list)

    def of_kind(self, *kinds: BlockKind) -> list[Node]:
        """The children of these kinds."""
        return [child for child in self.children if child.block.kind in kinds]


def tree_of(blocks: Sequence[Block]) -> list[Node]:
    """The outermost blocks, in order; page breaks are left out.

    Args:
        blocks: by start; a block inside another comes after it.
    """
    roots: list[Node] = []
    above: list[Node] = []
    for block in blocks:
        if block.kind is BlockKind.PAGE_BREAK:
            continue
        while above and block.start >= above[-1].block.end:
            above.pop()
        node = Node(block)
        (above[-1].children if above else roots).append(node)
        if block.kind in _CONTAINERS:
            above.append(node)
    return roots


def lists_of(nodes: Sequence[Node], at: int) -> list[Node]:
    """The items of one list that begins with `nodes[at]`."""
    run = [nodes[at]]
    for node in nodes[at + 1 :]:
        before, block = run[-1].block, node.block
        if (
            block.kind is not BlockKind.LIST_ITEM
            or block.level != before.level
            or block.label.isdigit() != before.label.isdigit()
            or (block.label.isdigit() and int(block.label) <= int(before.label))
        ):
            break
        run.append(node)
    return run


def item_start(text: str, block: Block) -> int:
    """Return the offset of a list item's words, behind its bullet or number."""
    match = _BULLET.match(text, block.start, block.end)
    return match.end() if match else block.start


def item_markdown(text: str, node: Node, *, nested: bool = True) -> str:
    """A list item as Markdown: its words on one line, its code and inner lists below them.

    Args:
        text: what the blocks describe.
        node: the item.
        nested: whether the lists inside it belong to it.
    """
    return "\n".join(_item_lines(text, node, nested))


def _item_lines(text: str, node: Node, nested: bool) -> Iterator[str]:
    block = node.block
    marker = f"{block.label}. " if block.label.isdigit() else "- "
    indent = " " * len(marker)
    inner = node.of_kind(BlockKind.CODE, BlockKind.LIST_ITEM)
    stop = block.end
    if not nested and (lists := node.of_kind(BlockKind.LIST_ITEM)):
        stop = lists[0].block.start
        inner = [child for child in inner if child.block.start < stop]
    at = min((child.block.start for child in inner), default=stop)
    yield marker + markdown.one_line(text[item_start(text, block) : at])
    for child in inner:
        if between := markdown.one_line(text[at : child.block.start]):
            yield from ("", indent + between)
        if child.block.kind is BlockKind.LIST_ITEM:
            lines = list(_item_lines(text, child, nested))
        else:
            lines = ["", *code_markdown(text, child.block).split("\n")]
        yield from (indent + line if line else "" for line in lines)
        at = child.block.end
    if inner and (rest := markdown.one_line(text[at:stop])):
        yield from ("", indent + rest)


def code_markdown(text: str, block: Block) -> str:
    """A code block with its fence, without the indentation of what it stands in."""
    start = text.rfind("\n", 0, block.start) + 1
    if text[start : block.start].strip(" \t"):
        start = block.start
    return markdown.code(text[start : block.end], block.label)
