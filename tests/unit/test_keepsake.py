"""A server's files are kept while another version tries them, and are the past once it writes."""

from __future__ import annotations

from pathlib import Path

from redkeep.agent.keepsake import change_version, forget


def test_what_the_newer_version_moved_is_back_for_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("all of it")
    change_version(tmp_path, "6.2", "7.0")
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonly.aof").rename(tmp_path / "appendonlydir" / "base")

    change_version(tmp_path, "7.0", "6.2")

    assert [one.name for one in tmp_path.iterdir()] == ["appendonly.aof"]
    assert (tmp_path / "appendonly.aof").read_text() == "all of it"


def test_one_that_has_written_since_keeps_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("old")
    change_version(tmp_path, "6.2", "7.0")
    (tmp_path / "appendonly.aof").unlink()
    (tmp_path / "appendonly.aof").write_text("new")

    forget(tmp_path)
    change_version(tmp_path, "7.0", "6.2")

    assert (tmp_path / "appendonly.aof").read_text() == "new"


def test_keeping_twice_keeps_the_first(tmp_path: Path) -> None:
    """An agent that died after it had kept them does it again."""
    (tmp_path / "dump.rdb").write_text("old")
    change_version(tmp_path, "6.2", "7.0")
    (tmp_path / "dump.rdb").unlink()
    (tmp_path / "dump.rdb").write_text("half")

    change_version(tmp_path, "6.2", "7.0")
    change_version(tmp_path, "7.0", "6.2")

    assert (tmp_path / "dump.rdb").read_text() == "old"


def test_a_server_without_files_has_nothing_to_keep(tmp_path: Path) -> None:
    change_version(tmp_path / "nowhere", "6.2", "7.0")
    change_version(tmp_path, "6.2", "7.0")
    change_version(tmp_path, "7.0", "6.2")

    assert list(tmp_path.iterdir()) == []
