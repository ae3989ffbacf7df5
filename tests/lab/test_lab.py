from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

import prunelab.lab
from prunelab.lab import extras, hardware


def test_names_are_loaded_lazily_and_functions_stay_functions() -> None:
    from prunelab.lab import exploration, plots  # noqa: F401

    assert callable(prunelab.lab.device)
    assert callable(prunelab.lab.explore)
    assert set(dir(prunelab.lab)) == {"data", "device", "explore", "minilm", "models", "plots", "train"}
    with pytest.raises(AttributeError, match=r"no attribute 'digits'.*data, device, explore"):
        prunelab.lab.digits  # noqa: B018


@pytest.mark.parametrize(
    ("package", "statement"),
    [
        ("matplotlib", "from prunelab.lab import plots"),
        ("ipywidgets", "import prunelab; prunelab.lab.explore"),
        ("tqdm", "from prunelab.lab import train"),
        ("sklearn", "import prunelab; prunelab.lab.data.digits()"),
    ],
)
def test_a_missing_package_names_the_extra(package: str, statement: str) -> None:
    # None in sys.modules is how Python itself marks a module as not importable.
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"try:\n    {statement}\nexcept ImportError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"MissingExtra prunelab.lab needs {package}")
    assert 'pip install "prunelab[lab]"' in done.stdout


def test_other_failed_imports_pass_unchanged() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught, extras.lab_extra():
        import no_such_package  # noqa: F401
    assert not isinstance(caught.value, extras.MissingExtra)


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_told", set())
    monkeypatch.delenv(hardware.VARIABLE, raising=False)


@pytest.mark.usefixtures("untold")
def test_the_best_device_is_chosen_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prunelab")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert prunelab.lab.device() == prunelab.lab.device() == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert prunelab.lab.device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    assert prunelab.lab.device() == torch.device("cuda")
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "device: mps",
        "device: cpu",
        "device: cuda",
    ]


@pytest.mark.usefixtures("untold")
def test_the_environment_overrules(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "prunelab")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(hardware.VARIABLE, "cpu")
    assert prunelab.lab.device() == torch.device("cpu")
    assert "(PRUNELAB_DEVICE=cpu)" in caplog.text


@pytest.mark.usefixtures("untold")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gpu", "PRUNELAB_DEVICE='gpu' is not a device"),
        ("cuda:99", "torch sees .* CUDA devices"),
        ("meta", "CPU, CUDA or MPS only"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    monkeypatch.setenv(hardware.VARIABLE, value)
    with pytest.raises(ValueError, match=message):
        prunelab.lab.device()
