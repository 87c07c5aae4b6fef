from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import typed_amp

PACKAGE = Path(typed_amp.__file__).parent

LAYERS = [
    [
        *("alarms", "backoff", "balancing", "budget", "counters", "details"),
        *("histogram", "limits", "recycling", "shared_counts", "worker_state"),
    ],
    ["errors"],
    [
        "box",
        "addresses",
        "child_process",
        "listening",
        "message",
        "opening",
        "orphans",
        "outgoing",
        "pipe_transport",
        "plain_functions",
        "tls",
    ],
    ["elements", "functions", "log", "nats_options", "nats_subjects", "peer_credentials", "rounds"],
    ["integers"],
    ["codecs", "capture", "compiled", "deadlines", "large", "python_source", "unix_transport"],
    ["acceptor", "admission", "columns", "descriptors", "guards", "unix_socket"],
    ["rows"],
    ["plan_source"],
    ["options", "annotations", "descriptor_exchange", "plan", "twisted_fields"],
    ["planning"],
    ["command_error"],
    ["signature"],
    ["command", "raw"],
    [
        *("built_in", "router", "dialogue", "from_twisted", "refusals", "transcript"),
        *("transitions", "writer"),
    ],
    ["settings"],
    [
        *("dispatch", "extensions", "lifetime", "responding", "waiting", "watchdog"),
        "worker_commands",
    ],
    ["calls", "nats_link"],
    ["handover", "nats_cancels", "rendering", "responses"],
    ["nats_calls", "nats_requests"],
    ["nats_client", "nats_discovery"],
    ["nats_bridge", "nats_service"],
    ["link"],
    ["connection", "protocol"],
    ["occupancy"],
    ["client", "client_state", "processes", "server", "stdio", "supply", "testing"],
    [
        *("connecting", "finding", "inherited", "pool_state", "resending", "upkeep"),
        *("worker", "worker_process"),
    ],
    ["calling", "crew", "pool_upkeep"],
    ["connection_pool", "reconnecting", "worker_calls"],
    ["worker_pool"],
    ["named", "terminal", "tls_files", "watching", "serve_settings"],
    ["completion", "supervised", "supervised_process"],
    ["generation"],
    ["load", "supervisor"],
    ["call_arguments", "tables"],
    ["cli_call", "cli_serve"],
    ["cli"],
    ["__init__", "__main__"],
]
"""What stands on what: the modules of one line import from the lines above it, if from any."""

PURE = [
    *(
        "addresses",
        "alarms",
        "backoff",
        "balancing",
        "box",
        "capture",
        "counters",
        "details",
        "dialogue",
        "elements",
        "errors",
        "histogram",
        "large",
        "limits",
        "message",
    )
]
"""What can be fuzzed alone, compiled, and used under any transport."""

LAYER_OF = {module: layer for layer, modules in enumerate(LAYERS) for module in modules}


def is_for_type_checkers(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imports_of(source: str) -> set[str]:
    """Give the full names of all that is imported when it runs, also within functions."""
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if is_for_type_checkers(node):
            assert isinstance(node, ast.If)
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = "typed_amp." * bool(node.level) + (node.module or "")
            names.add(package.rstrip("."))
            if package.rstrip(".") == "typed_amp":
                names |= {f"typed_amp.{alias.name}" for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return names


def imports_of_module(module: str) -> set[str]:
    return imports_of((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def own_modules(names: set[str]) -> set[str]:
    modules = {name.removeprefix("typed_amp.") for name in names if name.startswith("typed_amp.")}
    return (modules & set(LAYER_OF)) | ({"__init__"} if "typed_amp" in names else set())


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import a.b as c
from typed_amp import box, encode_box
from typed_amp.errors import AmpError
if TYPE_CHECKING:
    import never
else:
    import otherwise
def function():
    from . import codecs
"""
    names = imports_of(source)
    assert names - {"typed_amp.encode_box"} == {
        "a.b",
        "otherwise",
        "typed_amp",
        "typed_amp.box",
        "typed_amp.codecs",
        "typed_amp.errors",
    }
    assert own_modules(names) == {"__init__", "box", "codecs", "errors"}


def test_every_module_has_its_layer() -> None:
    assert set(LAYER_OF) == {path.stem for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("module", LAYER_OF)
def test_imports_point_to_lower_layers_only(module: str) -> None:
    upwards = {
        name
        for name in own_modules(imports_of_module(module))
        if LAYER_OF[name] >= LAYER_OF[module]
    }
    assert not upwards


@pytest.mark.parametrize("module", PURE)
def test_pure_module_knows_neither_asyncio_nor_pydantic(module: str) -> None:
    known: set[str] = set()
    modules = [module]
    seen: set[str] = set()
    while modules:
        name = modules.pop()
        if name not in seen:
            seen.add(name)
            imports = imports_of_module(name)
            known |= {imported.partition(".")[0] for imported in imports}
            modules += own_modules(imports)
    assert not known & {"asyncio", "pydantic", "pydantic_core", "socket", "ssl"}


def test_pure_modules_run_where_nothing_is_installed() -> None:
    # Without the package's own __init__, which imports all the rest, and without site-packages.
    program = f"""
import importlib, sys, types
package = types.ModuleType("typed_amp")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["typed_amp"] = package
for name in {PURE!r}:
    importlib.import_module("typed_amp." + name)
print({{"asyncio", "pydantic", "socket", "ssl"}} & set(sys.modules))
"""
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("set()\n", "")
