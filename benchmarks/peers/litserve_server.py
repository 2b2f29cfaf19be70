"""LitServe with a batched pipeline: what differs in steps is drawn in parts of equal steps."""

import argparse
from pathlib import Path
from typing import Any

import litserve
from drawing import Drawer
from fastapi import Response


class PipelineAPI(litserve.LitAPI):
    """A batch of requests is a call of the pipeline for each step count in it."""

    def __init__(self, folder: Path, dtype: str, threads: int, most: int, wait: float) -> None:
        super().__init__(max_batch_size=most, batch_timeout=wait, api_path="/draw")
        self._order = (folder, dtype, threads)

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Loads the pipeline in LitServe's worker."""
        self._drawer = Drawer(*self._order)

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """The request's JSON: LitServe hands that over where no type is named."""
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A list, as it is."""
        return inputs

    def predict(self, batch: Any) -> Any:
        """Files of a batch; LitServe hands over a single request when the batch size is one."""
        if isinstance(batch, dict):
            return self._drawer.draw([batch])[0]
        return self._drawer.draw_by_steps(batch)

    def unbatch(self, output: Any) -> Any:
        """A list, as it is."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """A PNG."""
        return Response(output, media_type="image/png")


def main() -> None:
    """Serves until it is ended."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--dtype", required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--most", type=int, required=True)
    options.add_argument("--wait", type=float, required=True)
    given = options.parse_args()
    api = PipelineAPI(given.folder, given.dtype, given.threads, given.most, given.wait)
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=given.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
