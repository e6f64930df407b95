"""From ONNX to a plan, on a TensorRT that records what is asked of it."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import builder_double
import onnx
import pytest
from builder_double import BuilderFlag, MemoryPoolType, fake_tensorrt
from small_graphs import SPEC, network

from clickmask.engine_facts import EngineProfile
from clickmask.manifest import TensorSpec
from clickmask_export import tensorrt_build
from clickmask_export.errors import BuildError, RecipeError
from clickmask_export.progress import Progress
from clickmask_export.tensorrt_build import PlanRequest, build_plan, profile_shapes, run_interruptibly
from clickmask_export.tensorrt_cache import default_cache
from clickmask_export.tensorrt_options import PlanOptions
from clickmask_export.tensorrt_progress import Phases


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def fresh_loggers(monkeypatch):
    """Each test's module is another TensorRT, whose logger must derive from its own ILogger."""
    monkeypatch.setattr("clickmask.backends.tensorrt_engine._loggers", {})


@pytest.fixture
def build(tmp_path):
    """Builds a plan of the small network."""

    def run(trt=None, stream=None, model=None, **options):
        options = PlanOptions(**options)
        sizes = options.profiles((64, 96))
        request = PlanRequest(options, sizes, 16, tmp_path / "cache" / "my.timing")
        data = (model or network()).SerializeToString()
        progress = Progress(stream or io.StringIO())
        with progress.stage("build"):
            return build_plan(trt or fake_tensorrt(), "network", SPEC, data, request, progress)

    return run


def test_a_plan_is_built_in_order_of_a_strongly_typed_network(build):
    assert build().startswith(b"{")
    assert builder_double.world.calls == [
        "create_network",  # asserts the flag
        "parse",
        "create_builder_config",
        "build_serialized_network",
    ]


def test_the_configuration_is_what_was_chosen_and_tf32_is_off(build):
    build(workspace_mib=512, optimisation_level=5)
    (config,) = builder_double.world.configs
    assert config.limits == {MemoryPoolType.WORKSPACE: 512 << 20}
    assert config.builder_optimization_level == 5
    assert config.chosen == set()
    assert config.profiling_verbosity.name == "DETAILED"
    assert config.hardware_compatibility_level.name == "NONE"


@pytest.mark.parametrize(
    ("options", "flags", "level"),
    [
        ({"tf32": True}, {"TF32"}, "NONE"),
        ({"version_compatible": True}, {"VERSION_COMPATIBLE"}, "NONE"),
        (
            {"version_compatible": True, "lean_runtime": False, "hardware_compatibility": "ampere_plus"},
            {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"},
            "AMPERE_PLUS",
        ),
        (
            {"strip_weights": True, "hardware_compatibility": "same_compute_capability"},
            {"STRIP_PLAN", "REFIT_IDENTICAL"},
            "SAME_COMPUTE_CAPABILITY",
        ),
    ],
)
def test_options_become_flags(build, options, flags, level):
    build(**options)
    (config,) = builder_double.world.configs
    assert config.chosen == {BuilderFlag[name] for name in flags}
    assert set(PlanOptions(**options).flags) == flags
    assert config.hardware_compatibility_level.name == level


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "--max-batch: expected 1 to 1024 images, got 0"),
        ({"workspace_mib": 0}, "--workspace: expected 1 to"),
        ({"optimisation_level": 6}, "--optimization-level: expected 0 to 5, got 6"),
        ({"lean_runtime": False}, "add --version-compatible"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(RecipeError, match=message):
        PlanOptions(**options)


def test_every_size_has_a_profile_for_one_to_max_batch_images(build):
    build(max_batch=4)
    (config,) = builder_double.world.configs
    assert [profile.shapes for profile in config.profiles] == [
        {
            "image": ((1, 3, s, s), (1, 3, s, s), (4, 3, s, s)),
            "clicks": ((1, 1, 3), (1, 8, 3), (4, 16, 3)),
            "previous_mask": ((1, 1, s, s), (1, 1, s, s), (4, 1, s, s)),
        }
        for s in (64, 96)
    ]


def test_strides_and_few_clicks_in_profiles():
    feature = TensorSpec("feature_0", "float32", ("B", 24, "S/16", "S/16"))
    profile = EngineProfile(384, 1, 2, 8)
    assert profile_shapes(feature, profile, 128) == ((1, 24, 24, 24), (2, 24, 24, 24), (8, 24, 24, 24))
    rows = TensorSpec("clicks_by_label", "float32", ("B", 2, "M", 3))
    assert profile_shapes(rows, profile, 4) == ((1, 2, 1, 3), (2, 2, 4, 3), (8, 2, 4, 3))


def test_parser_errors_are_listed_node_by_node(build):
    trt = fake_tensorrt()
    faults = [(3, "pixel_diffusion/Pad", "Pad", "mode edge is not supported"), (7, "a/If", "If", "no If")]
    builder_double.world.parser_faults = faults
    with pytest.raises(BuildError) as caught:
        build(trt)
    assert str(caught.value).splitlines() == [
        "TensorRT 11.4.0.106 cannot parse the network:",
        "  node 3 pixel_diffusion/Pad (Pad): mode edge is not supported",
        "  node 7 a/If (If): no If",
    ]
    assert "build_serialized_network" not in builder_double.world.calls


def test_a_build_that_gives_nothing_says_what_tensorrt_said(build, tmp_path):
    trt = fake_tensorrt()
    builder_double.world.build = lambda _: False
    with pytest.raises(BuildError, match=r"cannot build the network: no kernel for the node"):
        build(trt)
    assert not (tmp_path / "cache").exists()


def test_the_bar_follows_nested_phases_and_never_leaves_its_range(build):
    stream = Terminal()
    build(stream=stream)
    shares = [int(share) for share in re.findall(r"\] +(\d+)% ", stream.getvalue())]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert "Tactic Selection" in stream.getvalue()


def test_progress_that_cannot_be_shown_ends_the_build_with_its_error(build):
    class Broken(Terminal):
        def write(self, text):
            if "[#" in text:
                raise BrokenPipeError
            return super().write(text)

    with pytest.raises(BrokenPipeError):
        build(stream=Broken())


def test_phases_may_come_from_several_threads_and_end_early():
    phases = Phases(Progress(io.StringIO()))
    phases.start("a", None, 2)

    def work(name):
        phases.start(name, "a", 50)
        assert all(phases.step(name, step) for step in range(50))
        phases.finish(name)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phases.finish("a")
    phases.finish("a")
    assert phases.step("a", 3)  # late, of a phase that is over
    phases.cancel()
    assert not phases.step("b", 0)
    assert phases.failure is None


@pytest.fixture
def terminal() -> Iterator[None]:
    """Ctrl-C is heard, as at a terminal; a shell's background jobs are started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_ends_the_build_at_its_next_step_and_keeps_nothing(build, tmp_path):
    trt, seen = fake_tensorrt(), []

    def endless(monitor):
        monitor.phase_start("Tactic Selection", None, 1000)
        for step in range(1000):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            if not monitor.step_complete("Tactic Selection", step):
                seen.append(step)
                return False
            time.sleep(0.01)
        return True

    builder_double.world.build = endless
    with pytest.raises(KeyboardInterrupt):
        build(trt)
    assert seen[0] < 900
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("terminal")
def test_work_that_cannot_be_interrupted_at_once_is_waited_for():
    """TensorRT's thread must never be left behind: what it uses would go away under it."""
    cancelled, ended = threading.Event(), threading.Event()

    def work():
        os.kill(os.getpid(), signal.SIGINT)
        assert cancelled.wait(10)
        os.kill(os.getpid(), signal.SIGINT)  # impatience
        time.sleep(0.3)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(work, cancelled.set)
    assert ended.is_set()


def test_sigterm_has_its_usual_effect_once_the_work_has_ended():
    ended = threading.Event()

    def work():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        ended.set()

    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(ended.is_set()))
    try:
        run_interruptibly(work, lambda: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [True]


def test_a_signal_that_is_ignored_stays_so():
    """As in the background of a shell: the build goes on, and its result is not lost."""
    cancelled = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:

        def work():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            return 3

        assert run_interruptibly(work, lambda: cancelled.append(True)) == 3
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert cancelled == []


def test_what_the_work_raises_is_raised():
    def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_interruptibly(work, lambda: None)
    assert run_interruptibly(lambda: 3, lambda: None) == 3


def test_the_timing_cache_is_kept_and_used_again(build, tmp_path):
    build()
    assert builder_double.world.old_caches == [b""]
    assert (tmp_path / "cache" / "my.timing").read_bytes() == b"measured"
    build()
    assert builder_double.world.old_caches == [b"measured"]
    assert os.listdir(tmp_path / "cache") == ["my.timing"]


def test_a_cache_that_does_not_fit_is_replaced_and_said(build, tmp_path):
    build()
    trt, stream = fake_tensorrt(), io.StringIO()
    builder_double.world.accepts_cache = False
    builder_double.world.cache = b"anew"
    build(trt, stream)
    assert builder_double.world.old_caches == [b"measured", b""]
    assert "no timing cache of this TensorRT and GPU" in stream.getvalue()
    assert (tmp_path / "cache" / "my.timing").read_bytes() == b"anew"


def test_a_cache_that_cannot_be_kept_costs_nothing_but_time(build, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    stream = io.StringIO()
    assert build(stream=stream)
    assert "the timing cache was not" in stream.getvalue()


def test_each_version_and_gpu_has_a_cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = default_cache("11.4.0.106", "NVIDIA H100 80GB HBM3")
    assert first == tmp_path / "clickmask" / "tensorrt-11.4.0.106-NVIDIA-H100-80GB-HBM3.timing"
    assert first != default_cache("11.4.0.106", "NVIDIA L4")


def test_the_parser_is_given_the_model_itself(build, monkeypatch):
    given = []
    trt = fake_tensorrt()
    parse = trt.OnnxParser.parse
    monkeypatch.setattr(
        trt.OnnxParser, "parse", lambda self, model: given.append(model) or parse(self, model)
    )
    build(trt)
    assert onnx.load_model_from_string(given[0]) == network()
    assert tensorrt_build.USUAL_CLICKS == 8
