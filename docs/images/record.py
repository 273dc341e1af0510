"""Record commands as they run in a terminal, and write the session as one animated SVG.

    python docs/images/record.py FOLDER OUTPUT.svg [--light] COMMAND…

The commands run one after another in FOLDER, on a terminal of 100 × 30, with their real output; waiting is shortened.
A browser shows the frames one by one, as CSS animates them; nothing but the standard library and Rich is needed.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from fcntl import ioctl
from html import escape
from pathlib import Path

from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS, ROWS = 100, 30
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 16
SESSION_SECONDS = 120.0
"""What all of it is shortened to."""
LONGEST_WAIT = 1.2
"""Seconds that one picture stays, but for the last of a command."""
LAST_STAYS = 3.5
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r\n|\r|\n")
_BRIGHT = [(125, 133, 144), (255, 123, 114), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255)]
_DEEP = [(110, 119, 129), (207, 34, 46), (17, 99, 41), (154, 103, 0), (9, 105, 218), (130, 80, 223)]
DARK = TerminalTheme((13, 17, 23), (230, 237, 243), [*_BRIGHT, (57, 197, 207), (230, 237, 243)])
LIGHT = TerminalTheme((255, 255, 255), (36, 41, 47), [*_DEEP, (27, 124, 131), (36, 41, 47)])


@dataclass
class Terminal:
    """The little of a terminal that Rich's pictures need: lines that are written over, and a cursor that moves up."""

    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0

    def feed(self, output: str) -> None:
        """Take what a program has written."""
        end = 0
        for control in CONTROL.finditer(output):
            self._write(output[end : control.start()])
            end = control.end()
            self._obey(control)
        self._write(output[end:])

    def screen(self) -> tuple[str, ...]:
        """The lines that are seen, the last `ROWS` of them."""
        return tuple(self.lines[-ROWS:])

    def _write(self, text: str) -> None:
        self.lines[self.row] += text

    def _obey(self, control: re.Match[str]) -> None:
        if control[0] in ("\n", "\r\n"):
            self.row += 1
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif control[2] == "A":
            self.row = max(0, self.row - int(control[1] or 1))
        elif control[2] == "K":
            self.lines[self.row] = ""
        elif control[2] == "m":
            self.lines[self.row] += control[0]


Frame = tuple[tuple[str, ...], float]
"""The screen, and for how many seconds it is shown."""


def record(commands: list[str], folder: Path) -> list[Frame]:
    """Run the commands in a terminal of their own."""
    terminal, frames = Terminal(), list[Frame]()
    for command in commands:
        for typed in range(0, len(command) + 1, 3):
            frames.append((_with_prompt(terminal, command[:typed]), 0.08))
        terminal.feed(f"\x1b[1;32m$\x1b[0m {command}\n")
        frames.append((terminal.screen(), 0.3))
        frames += _run(command, folder, terminal)
        frames.append((terminal.screen(), LAST_STAYS))
        terminal.feed("\n")
    return frames


def _with_prompt(terminal: Terminal, typed: str) -> tuple[str, ...]:
    return (*terminal.lines[:-1], f"\x1b[1;32m$\x1b[0m {typed}▌")[-ROWS:]


def _run(command: str, folder: Path, terminal: Terminal) -> list[Frame]:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    process = subprocess.Popen(
        command, shell=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    frames, before = list[Frame](), time.monotonic()
    while True:
        ready, _, _ = select.select([ours], [], [], 0.1)
        try:
            output = os.read(ours, 1 << 16) if ready else b""
        except OSError:  # the last program has closed it
            break
        if output:
            now = time.monotonic()
            seen = terminal.screen()
            terminal.feed(output.decode(errors="replace"))
            if terminal.screen() != seen and now - before >= 0.2:
                frames.append((seen, min(LONGEST_WAIT, now - before)))
                before = now
        elif process.poll() is not None:
            break
    os.close(ours)
    return frames


def svg(frames: list[Frame], theme: TerminalTheme) -> str:
    """All frames in one picture, each seen at its time."""
    joined: list[Frame] = []
    for screen, seconds in frames:
        if joined and joined[-1][0] == screen:
            joined[-1] = (screen, joined[-1][1] + seconds)
        else:
            joined.append((screen, seconds))
    total, began, rules, groups = sum(seconds for _, seconds in joined), 0.0, [], []
    known: dict[str, int] = {}
    lasts = min(SESSION_SECONDS, total)
    for number, (screen, seconds) in enumerate(joined):
        first, last = 100 * began / total, 100 * (began + seconds) / total
        begin = f"0%,{first:.3f}%{{visibility:hidden}}" if first else ""
        finish = f"{last:.3f}%,100%{{visibility:hidden}}" if last < 99.999 else ""
        rules.append(
            f"@keyframes f{number}{{{begin}{first + 0.001:.3f}%{{visibility:visible}}{finish}}}"
            f"#f{number}{{animation:f{number} {lasts:.1f}s step-end infinite}}"
        )
        groups.append(f'<g id="f{number}">{_frame(screen, theme, known)}</g>')
        began += seconds
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, ROWS * LINE_HEIGHT + 2 * MARGIN
    style = "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"
    color = theme.foreground_color.hex
    lines = "".join(f'<text id="l{number}" fill="{color}">{line}</text>' for line, number in known.items())
    still = f"g{{visibility:hidden}}#f{len(joined) - 1}{{visibility:visible}}"  # where nothing moves: the last one
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">'
        f"<style>{style}{still}{''.join(rules)}</style><defs>{lines}</defs>"
        f'<rect width="100%" height="100%" rx="8" fill="{theme.background_color.hex}"/>{"".join(groups)}</svg>\n'
    )


def _frame(screen: tuple[str, ...], theme: TerminalTheme, known: dict[str, int]) -> str:
    """The lines of a screen, each by its number among the `known` ones: most are seen again and again."""
    shown = []
    for row, ansi in enumerate(screen):
        if line := _line(Text.from_ansi(ansi[: 40 * COLUMNS]), theme):
            number = known.setdefault(line, len(known))
            shown.append(f'<use href="#l{number}" y="{MARGIN + LINE_HEIGHT * (row + 1) - 5}"/>')
    return "".join(shown)


def _line(text: Text, theme: TerminalTheme) -> str:
    """The pieces of a line, each in its colour, and each at its column, whatever font there is."""
    from rich.console import Console

    pieces, column = [], 0
    for segment in text.render(Console(color_system="truecolor", width=10 * COLUMNS)):
        style, shown = segment.style or Style(), segment.text.rstrip("\n")[: COLUMNS - column]
        if shown.strip():
            x = f' x="{MARGIN + column * CELL_WIDTH:.1f}" textLength="{len(shown) * CELL_WIDTH:.1f}"'
            pieces.append(f"<tspan{x}{_look(style, theme)}>{escape(shown)}</tspan>")
        column += len(shown)
    return "".join(pieces)


def _look(style: Style, theme: TerminalTheme) -> str:
    color = f' fill="{style.color.get_truecolor(theme).hex}"' if style.color else ""
    return color + (' font-weight="bold"' if style.bold else "") + (' opacity="0.65"' if style.dim else "")


def main() -> None:
    """Record, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--light", action="store_true", help="dark on white")
    options = parser.parse_args()
    frames = record(options.commands, options.folder)
    options.output.write_text(svg(frames, LIGHT if options.light else DARK), encoding="utf-8")
    print(f"{options.output}: {sum(seconds for _, seconds in frames):.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
