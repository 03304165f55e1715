"""The house in figures: its rooms, what stands in them, on which floor, and what imports what.

    python -m benchmarks.house

A *room* is a folder of `trainables` or `sweep`, or a module that stands beside these. An *arrow* is
an import of one room from another one of the same package, anywhere in it. A room stands one floor
above the highest room that it imports. The rules are in tests/test_architecture.py.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("trainables", "search_spaces", "sweep")


def modules() -> dict[str, Path]:
    """Full name → file, of all modules of the product."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def statements(path: Path) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(path.read_text())))


def room_of(module: str) -> str:
    """`sweep.run.driver` → `sweep.run`."""
    return ".".join(module.split(".")[:2])


def arrows() -> dict[str, set[str]]:
    """Room → rooms of the same package that something in it imports."""
    there = modules()
    rooms = {room_of(module) for module in there}
    inits = {f"{package}.__init__" for package in PACKAGES}
    targets: dict[str, set[str]] = {room: set() for room in rooms - inits}
    for module, path in there.items():
        room = room_of(module)
        for target in map(room_of, imports(path)):
            same_package = target.split(".")[0] == room.split(".")[0]
            if room in targets and same_package and target in rooms - {room, *inits}:
                targets[room].add(target)
    return targets


def floor(room: str, targets: dict[str, set[str]]) -> int:
    return 1 + max((floor(target, targets) for target in targets[room]), default=0)


def main() -> None:
    targets, there = arrows(), modules()
    for package in PACKAGES:
        rooms = [room for room in targets if room.startswith(f"{package}.")]
        rooms.sort(key=lambda room: (-floor(room, targets), room))
        files = {room: [m for m in there if room_of(m) == room] for room in rooms}
        print(f"{package}: {len(rooms)} rooms, {sum(len(targets[room]) for room in rooms)} arrows")
        for room in rooms:
            size = sum(statements(there[module]) for module in files[room])
            through = ", ".join(sorted(target.split(".")[1] for target in targets[room]))
            counts = f"{len(files[room]):>3} files {size:>5} statements"
            print(f"  floor {floor(room, targets)}  {room:<24} {counts}  → {through or '–'}")


if __name__ == "__main__":
    main()
