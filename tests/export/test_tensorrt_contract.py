"""Every name that our code uses of TensorRT is held against the real bindings, without TensorRT.

What is used is read off the code (``tensorrt_uses``), what there is off the wheel of the bindings
(``real_bindings``). To check another version as well, unpack its wheel and name the folder:
``CLICKMASK_TENSORRT_BINDINGS=folder``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from real_bindings import Bindings, places, read_bindings
from tensorrt_uses import Use, enums_of_double, methods_in, methods_of_double, uses_in

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("sdk/clickmask", "export", "examples", "tests/gpu")
    for path in (ROOT / folder).rglob("*.py")
    if "trt" in path.read_text()
)
# The runtime's double has short names for some classes.
DOUBLES = {
    ROOT / "tests/export/builder_double.py": {},
    ROOT / "tests/sdk/tensorrt_double.py": {
        "Engine": "ICudaEngine",
        "Context": "IExecutionContext",
        "Inspector": "EngineInspector",
        "ParserRefitter": "OnnxParserRefitter",
    },
}
NOT_TENSORRT = {"FakeTensorRt", "World"}


@pytest.fixture(scope="module", params=places(), ids=lambda place: Path(place).name or "installed")
def bindings(request: pytest.FixtureRequest) -> Bindings:
    return read_bindings(request.param)


def problem(use: Use, bindings: Bindings) -> str | None:
    found = bindings.find(*use.path)
    if found is None:
        return f"{use.where}: {'.'.join(use.path)} does not exist"
    if use.positional is None:
        return None
    path = (*use.path, "__init__") if "members" in found else use.path
    signatures = [arguments for arguments, _ in bindings.signatures(*path)]
    if not signatures:
        return f"{use.where}: {'.'.join(use.path)} is called and has no signature"
    if any(set(use.keywords) <= set(a) and use.positional + len(use.keywords) <= len(a) for a in signatures):
        return None
    given = f"{use.positional} positional and {use.keywords}"
    return f"{use.where}: {'.'.join(use.path)} takes {signatures}, not {given}"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_code_uses_exists_as_it_is_used(path: Path, bindings: Bindings) -> None:
    problems = [found for use in uses_in(path, bindings) if (found := problem(use, bindings))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_tensorrt_calls_has_its_arguments(path: Path, bindings: Bindings) -> None:
    for method in methods_in(path):
        if method.name != "__init__":
            signatures = [arguments for arguments, _ in bindings.signatures(method.base, method.name)]
            assert list(method.arguments) in signatures, method


@pytest.mark.parametrize("path", DOUBLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_doubles_have_nothing_that_the_real_one_lacks(path: Path, bindings: Bindings) -> None:
    for method in methods_of_double(path, DOUBLES[path]):
        if method.base in NOT_TENSORRT:
            continue
        signatures = [arguments for arguments, _ in bindings.signatures(method.base, method.name)]
        assert signatures, f"{method.base}.{method.name} of {method.where}"
        assert any(len(method.arguments) <= len(a) for a in signatures), (method, signatures)
    for name, members in enums_of_double(path).items():
        real = bindings.find(name) or bindings.find("ILogger", name)
        assert real is not None, name
        assert set(members) <= set(real["enum"]), name


def test_the_reader_of_our_code_sees_what_it_should(bindings: Bindings) -> None:
    """A reader that found nothing would pass every test above."""
    used = {use.path for path in CODE for use in uses_in(path, bindings)}
    for wanted in (
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "progress_monitor"),
        ("IOptimizationProfile", "set_shape"),
        ("ITimingCache", "serialize"),
        ("ParserError", "node_operator"),
        ("EngineInspector", "execution_context"),
        ("ICudaEngine", "get_tensor_location"),
        ("IExecutionContext", "execute_async_v3"),
        ("Runtime", "engine_host_code_allowed"),
        ("OnnxParserRefitter", "refit_from_bytes"),
        ("ILogger", "Severity", "VERBOSE"),
    ):
        assert wanted in used, wanted
    assert len(used) > 60


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = trt.BuilderFlag.FP16", "BuilderFlag.FP16 does not exist"),
        ("b = trt.Builder(l)\nb.build_engine(n, c)", "Builder.build_engine does not exist"),
        ("b = trt.Builder(l)\nc = b.create_builder_config()\nc.max_workspace_size = 1", "max_workspace_size"),
        ("b = trt.Builder(l)\nb.create_network(1, 2)", "create_network takes"),
        ("def f(engine):\n    engine.get_tensor_dtype(tensor='x')", "get_tensor_dtype takes"),
    ],
)
def test_what_tensorrt_11_has_not_is_found(code: str, message: str, tmp_path: Path) -> None:
    bindings = read_bindings("")
    (tmp_path / "code.py").write_text(code)
    problems = [problem(use, bindings) for use in uses_in(tmp_path / "code.py", bindings)]
    assert any(found and message in found for found in problems), problems
