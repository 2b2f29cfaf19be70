"""TorchServe's config.properties: read, checked against the keys TorchServe knows, completed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from serving.errors import Trouble

# The keys of TorchServe 0.12's ConfigManager, plus the three that its launcher reads.
KNOWN = frozenset(
    """
    allowed_urls async_logging blacklist_env_vars certificate_file cors_allowed_headers
    cors_allowed_methods cors_allowed_origin cpp_log_config cpu_launcher_args cpu_launcher_enable
    debug decode_input_request default_response_timeout default_service_handler
    default_startup_timeout default_workers_per_model disable_system_metrics
    disable_token_authorization enable_envvars_config enable_grpc_ssl enable_metrics_api
    enable_model_api grpc_inference_address grpc_inference_max_connection_age_grace_ms
    grpc_inference_max_connection_age_ms grpc_inference_port grpc_management_address
    grpc_management_max_connection_age_grace_ms grpc_management_max_connection_age_ms
    grpc_management_port inference_address initial_distribution_port initial_worker_port
    install_py_dep_per_model io_ratio ipex_enable ipex_gpu_enable job_queue_size keystore
    keystore_pass keystore_type limit_max_image_pixels load_models management_address
    max_request_size max_response_size metric_time_interval metrics_address metrics_config
    metrics_mode model_metrics_auto_detect model_server_home model_snapshot model_store models
    netty_client_threads number_of_gpu number_of_netty_threads plugins_path prefer_direct_buffer
    private_key_file service_envelope system_metrics_cmd token_expiration_min
    ts_header_key_sequence_end ts_header_key_sequence_id ts_header_key_sequence_start
    ts_open_inference_protocol unregister_model_timeout use_env_allowed_urls use_native_io vmargs
    workflow_store
    """.split()  # noqa: SIM905 - as text it is a list one can read
)

_IN_THE_ARCHIVE = "an archive's model-config.yaml is the one place for this"
REFUSED = {
    "models": _IN_THE_ARCHIVE,
    "default_workers_per_model": _IN_THE_ARCHIVE,
    "default_response_timeout": _IN_THE_ARCHIVE,
    "default_startup_timeout": _IN_THE_ARCHIVE,
    "job_queue_size": _IN_THE_ARCHIVE,
    "load_models": "models are registered once the server is up",
    "model_snapshot": "the server starts without snapshots",
}

ADDRESSES = ("inference_address", "management_address", "metrics_address")
PORTS = (*ADDRESSES, "grpc_inference_port", "grpc_management_port")


def read_settings(path: Path) -> dict[str, str]:
    """The settings in `path`; `Trouble` names a line or a key that TorchServe would ignore."""
    settings: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        text = line.strip()
        if not text or text.startswith(("#", "!")):
            continue
        key, separator, value = (part.strip() for part in text.partition("="))
        if not separator:
            raise Trouble(f"{path}:{number}: a setting is written key=value.")
        _check_key(key, f"{path}:{number}", settings)
        settings[key] = _expand(value, f"{path}:{number}: {key}")
    return settings


def complete(settings: Mapping[str, str], *, port: int | None, folder: Path) -> dict[str, str]:
    """Settings as the server gets them: paths absolute, and `port` and the four after it if given.

    In this order: inference, management, metrics, gRPC inference, gRPC management.
    """
    completed = dict(settings)
    if "metrics_config" in completed:
        # TorchServe resolves it against its own folder, and workers against theirs.
        completed["metrics_config"] = str((folder / completed["metrics_config"]).resolve())
    for offset, key in enumerate(PORTS if port is not None else ()):
        assert port is not None
        if key in ADDRESSES:
            completed[key] = re.sub(r":\d+$", f":{port + offset}", completed[key])
        else:
            completed[key] = str(port + offset)
    return completed


def ports(settings: Mapping[str, str]) -> dict[str, int]:
    """The port that each of the server's five listeners takes."""
    return {key: int(settings[key].rsplit(":", 1)[-1]) for key in PORTS}


def client_url(address: str) -> str:
    """The address a client on this machine uses: 0.0.0.0 is where to listen, not where to go."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}.") from None


def _check_key(key: str, place: str, settings: Mapping[str, str]) -> None:
    if key in settings:
        raise Trouble(f"{place}: {key} is set twice.")
    if key in REFUSED:
        raise Trouble(f"{place}: {key} is not used here: {REFUSED[key]}.")
    if key not in KNOWN:
        close = get_close_matches(key, KNOWN, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise Trouble(f"{place}: {key} is not a setting of TorchServe{hint}")


def _expand(value: str, place: str) -> str:
    """$$NAME$$ replaced by that environment variable, as TorchServe does it."""

    def variable(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in os.environ:
            raise Trouble(f"{place} needs the environment variable {name}.")
        return os.environ[name]

    return re.sub(r"\$\$([^$]+)\$\$", variable, value)
