from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import Trouble
from serving.settings import KNOWN, REFUSED, complete, ports, read_settings

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("name", ["config", "production"])
def test_shipped_profiles_hold_known_settings_only(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLS_CERTIFICATE", "certificate.pem")
    monkeypatch.setenv("TLS_PRIVATE_KEY", "key.pem")
    settings = read_settings(CONFIG / f"{name}.properties")
    assert settings["metrics_mode"] == "prometheus"
    assert ports(settings)["inference_address"] == 8080


def test_torchserve_knows_each_setting() -> None:
    """The list here is the one that TorchServe's own class file holds."""
    import zipfile
    from importlib.metadata import distribution

    jar = distribution("torchserve").locate_file("ts/frontend/model-server.jar")
    with zipfile.ZipFile(str(jar)) as classes:
        manager = classes.read("org/pytorch/serve/util/ConfigManager.class")
    # What only the launcher and the plugin loader read.
    elsewhere = {"vmargs", "plugins_path"}
    assert {key for key in KNOWN - elsewhere if key.encode() not in manager} == set()
    assert set(REFUSED) <= KNOWN


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("max_respons_size=1", "is not a setting of TorchServe; did you mean max_response_size?"),
        ("default_workers_per_model=4", "model-config.yaml is the one place for this"),
        ("a line", "a setting is written key=value"),
        ("keystore=$$NOT_SET_ANYWHERE$$", "needs the environment variable NOT_SET_ANYWHERE"),
        ("debug=true\ndebug=false", ":2: debug is set twice"),
    ],
)
def test_what_torchserve_would_ignore_is_refused(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "config.properties"
    path.write_text(line + "\n")
    with pytest.raises(Trouble) as told:
        read_settings(path)
    assert sentence in str(told.value)


def test_a_port_moves_all_five_listeners() -> None:
    settings = read_settings(CONFIG / "config.properties")
    moved = complete(settings, port=9100, folder=CONFIG.parent)
    assert list(ports(moved).values()) == [9100, 9101, 9102, 9103, 9104]
    assert moved["inference_address"] == "http://127.0.0.1:9100"
    assert Path(moved["metrics_config"]) == CONFIG / "metrics.yaml"
