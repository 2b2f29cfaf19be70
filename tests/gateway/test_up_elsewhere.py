"""make up with jobs in Redis and pictures in S3: the same code, other places."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
import requests

import s3_servers
from gateway_stack import Stack, ended, submit
from redis_rig import RedisServer
from served import PNG

pytestmark = [pytest.mark.system, pytest.mark.full]


def test_up_on_redis_and_s3(tmp_path: Path, redis_server: RedisServer) -> None:
    with s3_servers.moto(tmp_path) as address:
        stack = Stack(tmp_path / "run", **s3_servers.environment(address), AWS_ALLOW_HTTP="true")
        options = ("--redis-url", redis_server.url)
        options += ("--results-url", f"s3://{s3_servers.BUCKET}/drawn")
        started = stack.up(*options)
        assert started.returncode == 0, started.stdout + started.stderr
        try:
            jobs = [submit(stack, num_inference_steps=5, seed=seed) for seed in range(8)]
            os.kill(stack.gateway_process, signal.SIGKILL)
            assert stack.up(*options).returncode == 0
            found = [ended(stack, job["job_id"]) for job in jobs]
            assert [job["status"] for job in found] == ["completed"] * 8
            pictures = [requests.get(job["image_url"], timeout=10).content for job in found]
            assert all(picture.startswith(PNG) for picture in pictures)
            assert len(set(pictures)) == 8
        finally:
            stack.down()
        with redis.Redis.from_url(redis_server.url) as client:
            # Pictures never pass through Redis.
            sizes = [client.memory_usage(key) or 0 for key in client.scan_iter()]
        assert 0 < sum(sizes) < 200_000
        assert not (tmp_path / "run" / "results").exists()
