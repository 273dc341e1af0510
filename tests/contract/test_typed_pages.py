"""How the commands of a page are read and typed, which `make e2e-kind` does with a whole one."""

from __future__ import annotations

from pathlib import Path

from document import commands, typed

PAGE = """
Text, and `code` in it.

```sh
greeting=hello # a comment
for name in you me; do
  echo "$greeting, $name"
done
sleep 60 &
# no command
printf '%s\\n' one \\
  two
```

```yaml
not: a command
```

```sh
cd there
pwd
false
echo never
```
"""


def test_a_command_of_several_lines_is_one_and_other_blocks_are_none() -> None:
    first, loop, *_, last = commands(PAGE)
    assert first == "greeting=hello # a comment"
    assert loop.count("\n") == 2 and loop.endswith("done")
    assert last == "echo never"
    assert not any("not: a command" in command or command.startswith("#") for command in commands(PAGE))


def test_commands_share_a_shell_until_one_fails(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    steps = list(typed(PAGE, tmp_path, {}))
    assert [step.code for step in steps] == [0] * (len(steps) - 1) + [1]
    said = {step.command.split()[0]: step.output.split("\n") for step in steps}
    assert said["for"][:2] == ["hello, you", "hello, me"]
    assert said["printf"][:2] == ["one", "two"]
    assert said["pwd"][0].endswith("/there")
