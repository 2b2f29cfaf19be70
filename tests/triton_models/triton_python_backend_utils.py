"""What Triton's Python backend gives a model, for tests without a server: data and nothing else."""

from __future__ import annotations

from typing import Any

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class TritonError(Exception):
    INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = "INTERNAL", "INVALID_ARG", "UNAVAILABLE", "GONE"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        super().__init__(message)
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(
        self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None
    ) -> None:
        self.outputs = {one.name(): one.as_numpy() for one in output_tensors or ()}
        self.error = error


class MetricFamily:
    COUNTER, GAUGE = "counter", "gauge"
    values: dict[tuple[str, str], float] = {}  # noqa: RUF012 (as Triton: one registry a server)

    def __init__(self, name: str, description: str, kind: str) -> None:
        self._name = name

    def Metric(self, labels: dict[str, str]) -> Metric:  # noqa: N802 (Triton's name)
        return Metric((self._name, ",".join(labels.values())))


class Metric:
    def __init__(self, key: tuple[str, str]) -> None:
        self._key = key

    def increment(self, value: float) -> None:
        MetricFamily.values[self._key] = MetricFamily.values.get(self._key, 0.0) + value

    def set(self, value: float) -> None:
        MetricFamily.values[self._key] = value


class Logger:
    @staticmethod
    def log_info(message: str) -> None: ...

    log_warn = log_error = log_info


def using_decoupled_model_transaction_policy(config: dict[str, Any]) -> bool:
    return bool(config.get("model_transaction_policy", {}).get("decoupled"))


def get_input_tensor_by_name(request: Any, name: str) -> Tensor | None:
    return next((one for one in request.inputs() if one.name() == name), None)
