"""What is read off a kernel, from directories that look like its own."""

from pathlib import Path

import pytest

from agent.tuning.knobs import Roots
from agent.tuning.observe import congestion_controls


@pytest.mark.parametrize(
    ("allowed_mode", "found"),
    [
        (0o644, ("reno", "bbr", "cubic")),  # the first network namespace: any that is loaded
        (0o444, ("reno", "cubic")),  # any other: the kernel refuses the rest, and a whole apply would fail for it
        (None, ("reno", "bbr", "cubic")),
    ],
)
def test_congestion_controls_are_those_that_can_be_chosen(
    tmp_path: Path, allowed_mode: int | None, found: tuple[str, ...]
) -> None:
    directory = tmp_path / "sys/net/ipv4"
    directory.mkdir(parents=True)
    (directory / "tcp_available_congestion_control").write_text("reno bbr cubic\n")
    if allowed_mode is not None:
        (directory / "tcp_allowed_congestion_control").write_text("reno cubic\n")
        (directory / "tcp_allowed_congestion_control").chmod(allowed_mode)
    assert congestion_controls(Roots(proc=tmp_path)) == found
