"""Become `governor worker`, with the harness' environment put in the governor's terms."""

from __future__ import annotations

import os
import sys
from pathlib import Path

POLICIES = {
    "rolling": "rules: [{name: campaign-hourly, cap: 3, per: campaign, window: 1h}]\n",
    "tumbling": "rules: [{name: user-minutely, cap: 1, per: user, window: 1m}]\n",
}


def main() -> None:
    """Replace this process."""
    peer = os.environ
    policy = Path(peer["PEER_FOLDER"]) / "policy.yaml"
    policy.write_text(POLICIES[peer["PEER_JOB"]])
    environment = {
        "GOVERNOR_BROKER": peer["PEER_BOOTSTRAP"],
        "GOVERNOR_GROUP": peer["PEER_GROUP"],
        "GOVERNOR_TOPIC_PREFIX": peer["PEER_INPUT"].removesuffix("impressions"),
        "GOVERNOR_PARTITIONS": peer["PEER_PARTITIONS"],
        "GOVERNOR_POLICY": str(policy),
        "GOVERNOR_METRICS_HOST": "127.0.0.1",
        "GOVERNOR_METRICS_PORT": "0",
    }
    command = [sys.executable, "-m", "streams.cli", "worker"]
    os.execve(sys.executable, command, {**peer, **environment})


if __name__ == "__main__":
    main()
