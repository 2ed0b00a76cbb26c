"""Twenty rows in each trace format that a shipped workload waits for, by hand from the published description."""

from __future__ import annotations

import json
from pathlib import Path

NUM_ROWS = 20


def write_azure(path: Path) -> None:
    """TIMESTAMP with seven decimals, prompt and output tokens: one request every two seconds."""
    rows = [f"2023-11-16 18:{15 + i // 30}:{2 * i % 60:02d}.6805900,{100 + 40 * i},{10 + i}" for i in range(NUM_ROWS)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")


def write_mooncake(path: Path) -> None:
    """Milliseconds, lengths and hash ids: requests in pairs that share two blocks of 512 tokens."""
    rows = [
        {
            "timestamp": 2000 * i,
            "input_length": 1200,
            "output_length": 10 + i,
            "hash_ids": [i // 2 * 2, i // 2 * 2 + 1, 100 + i],
        }
        for i in range(NUM_ROWS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_trace(format: str, path: Path) -> None:
    """Raises KeyError for a format that no shipped workload reads."""
    {"azure": write_azure, "mooncake": write_mooncake}[format](path)
