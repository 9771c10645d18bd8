"""The queue: single flight, order, withdrawal, cancel, retry, and workers that die."""

import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from explorer.jobs import ATTEMPTS, Jobs
from explorer.records import Status, Unavailable


class Clock:
    """Time that moves when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def jobs(tmp_path, clock):
    jobs = Jobs(tmp_path, clock)
    yield jobs
    jobs.close()


def ask(jobs: Jobs, key: str, owner: str = "ann", scope: str = "here", **options) -> Status:
    options = {"interactive": True} | options
    return jobs.submit(
        key, "split", {"key": key}, f"Split {key}", owner=owner, scope=scope, **options
    )


def state(jobs: Jobs, key: str) -> str:
    status = jobs.status(key)
    assert status is not None
    return status.state


def test_a_job_runs_once_and_is_done(jobs, clock) -> None:
    status = ask(jobs, "a")
    assert (status.state, status.place, status.title) == ("waiting", 1, "Split a")
    job = jobs.claim("w")
    assert (job.key, job.kind, job.args, job.interactive) == ("a", "split", {"key": "a"}, True)
    assert jobs.claim("w") is None
    assert ask(jobs, "a").state == "running"
    assert not jobs.beat("a", 0.5, "halfway")
    assert jobs.status("a").message == "halfway"
    jobs.finish("a")
    assert (state(jobs, "a"), jobs.status("a").fraction) == ("done", 1.0)
    assert jobs.status("nothing") is None


def test_a_done_job_is_run_again_only_if_its_answer_is_gone_for_a_while(jobs, clock) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    jobs.finish("a")
    assert ask(jobs, "a").state == "done"
    clock.wait(6)
    assert ask(jobs, "a").state == "waiting"


def test_interactive_jobs_go_first_then_first_come_first_served(jobs) -> None:
    for key in "ab":
        ask(jobs, key, interactive=False)
    for key in "cd":
        ask(jobs, key)
    assert [status.place for status in jobs.active()] == [1, 2, 3, 4]
    assert [status.key for status in jobs.active()] == list("cdab")
    assert [jobs.claim("w").key for _ in range(4)] == list("cdab")


def test_a_batch_job_that_a_page_waits_for_moves_up_and_outlives_the_page(jobs, clock) -> None:
    ask(jobs, "a", interactive=False)
    ask(jobs, "b", interactive=False)
    ask(jobs, "b", "bob")
    assert jobs.claim("w").key == "b"
    clock.wait(1000)
    assert not jobs.beat("b", 0.1, "")


def test_only_interactive_jobs_are_served_within_a_batch(jobs) -> None:
    ask(jobs, "a", interactive=False)
    assert jobs.claim("w", interactive_only=True) is None
    ask(jobs, "b")
    assert jobs.claim("w", interactive_only=True).key == "b"


def test_what_is_asked_for_ahead_gives_way_to_pages_and_goes_with_its_own(jobs, clock) -> None:
    assert ask(jobs, "next", ahead=True).ahead
    assert not ask(jobs, "now").ahead
    assert state(jobs, "next") == "waiting", "the page is the same"
    assert [jobs.claim("w").key for _ in range(2)] == ["now", "next"]
    jobs.finish("now")
    ask(jobs, "other", "bob")
    assert jobs.claim("w", interactive_only=True).key == "other"
    ask(jobs, "elsewhere", scope="there")
    assert jobs.beat("next", 0.5, ""), "nobody looks at that page any more"
    jobs.stopped("next")
    assert state(jobs, "next") == "cancelled"
    ask(jobs, "later", scope="there", ahead=True)
    clock.wait(16)
    ask(jobs, "mine", scope="there")
    assert jobs.claim("w").key == "mine"
    assert state(jobs, "later") == "cancelled", "the page was not seen for a while"


def test_what_runs_ahead_goes_on_for_who_turns_to_it(jobs, clock) -> None:
    for key in ("split", "crops"):
        ask(jobs, key, scope="3", ahead=True)
    assert jobs.claim("w").key == "split"
    assert not ask(jobs, "split", scope="4").ahead
    assert not jobs.beat("split", 0.5, "")
    assert state(jobs, "crops") == "cancelled"
    assert ask(jobs, "crops", scope="4").state == "waiting"
    assert jobs.claim("w", interactive_only=True).key == "crops"


def test_asking_ahead_changes_nothing_of_what_is_asked_for(jobs, clock) -> None:
    ask(jobs, "scan", interactive=False)
    ask(jobs, "split")
    assert not ask(jobs, "scan", "bob", ahead=True).ahead
    assert not ask(jobs, "split", "bob", ahead=True).ahead
    assert jobs.claim("w").key == "split"
    clock.wait(1000)
    assert jobs.claim("w").key == "scan", "it is kept"


def test_what_failed_ahead_is_tried_again_as_a_page_would(jobs) -> None:
    ask(jobs, "a", ahead=True)
    jobs.claim("w")
    jobs.fail("a", "No.")
    assert ask(jobs, "a").state == "failed"
    assert not jobs.retry("a", owner="ann", scope="here").ahead
    assert jobs.claim("w").interactive


def test_looking_elsewhere_withdraws_unless_someone_else_watches(jobs) -> None:
    ask(jobs, "a")
    ask(jobs, "b")
    ask(jobs, "b", "bob", "there")
    ask(jobs, "scan", interactive=False)
    ask(jobs, "c")
    assert state(jobs, "a") == "waiting"  # same scope: all of a page's questions are wanted
    ask(jobs, "d", scope="elsewhere")
    assert [state(jobs, key) for key in ("a", "b", "c", "d", "scan")] == [
        "cancelled",
        "waiting",
        "cancelled",
        "waiting",
        "waiting",
    ]
    assert ask(jobs, "a").state == "waiting"  # coming back asks anew


def test_looking_elsewhere_stops_what_runs_at_its_next_report(jobs) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    assert not jobs.beat("a", 0.1, "")
    ask(jobs, "b", scope="elsewhere")
    assert jobs.beat("a", 0.2, "")
    jobs.stopped("a")
    assert state(jobs, "a") == "cancelled"


def test_coming_back_before_it_stopped_keeps_it(jobs) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    ask(jobs, "b", scope="elsewhere")
    assert jobs.beat("a", 0.2, "")  # the worker is about to stop
    assert ask(jobs, "a", "bob").state == "running"
    jobs.stopped("a")
    assert state(jobs, "a") == "waiting"


def test_cancel_while_waiting(jobs, clock) -> None:
    ask(jobs, "a")
    jobs.cancel("a", "ann")
    assert state(jobs, "a") == "cancelled"
    for _ in range(20):  # a page that polls by asking again does not start it
        clock.wait(100)
        assert ask(jobs, "a").state == "cancelled"
        assert jobs.status("a", "ann").state == "cancelled"
    assert jobs.claim("w") is None
    assert ask(jobs, "a", retry=True).state == "waiting"
    assert ask(jobs, "a").state == "waiting"


def test_cancel_while_running(jobs) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    jobs.cancel("a", "ann")
    assert jobs.beat("a", 0.2, "")
    assert ask(jobs, "a").state == "cancelled"
    jobs.stopped("a")
    assert ask(jobs, "a").state == "cancelled"
    assert [status.key for status in jobs.recent()] == ["a"]


def test_cancel_leaves_it_running_for_others(jobs) -> None:
    ask(jobs, "a")
    ask(jobs, "a", "bob")
    jobs.claim("w")
    jobs.cancel("a", "ann")
    assert not jobs.beat("a", 0.2, "")
    assert ask(jobs, "a").state == "cancelled"
    assert jobs.status("a", "ann").state == "cancelled"
    assert jobs.status("a", "bob").state == "running"
    jobs.finish("a")
    assert jobs.status("a", "ann").state == "done"


def test_what_one_cancelled_starts_for_another_or_after_a_while(jobs, clock) -> None:
    ask(jobs, "a")
    jobs.cancel("a", "ann")
    assert ask(jobs, "a", "bob").state == "waiting"
    assert ask(jobs, "a").state == "cancelled"
    jobs.cancel("a", "bob")
    assert ask(jobs, "a", scope="another page").state == "waiting"
    jobs.cancel("a", "ann")
    clock.wait(601)
    assert ask(jobs, "a").state == "waiting"


def test_a_batch_job_is_cancelled_by_anyone_unless_its_owner_looks(jobs, clock) -> None:
    ask(jobs, "scan", interactive=False)
    jobs.cancel("scan", "bob")
    assert state(jobs, "scan") == "waiting"
    clock.wait(60)  # the owner closed the tab
    assert jobs.claim("w").key == "scan"
    jobs.cancel("scan", "bob")
    assert jobs.beat("scan", 0.1, "")
    jobs.stopped("scan")
    assert ask(jobs, "scan", interactive=False).state == "cancelled"
    assert ask(jobs, "scan", interactive=False, retry=True).state == "waiting"


def test_what_nobody_looks_at_is_withdrawn_from_the_queue(jobs, clock) -> None:
    ask(jobs, "a")
    ask(jobs, "b")
    for _ in range(5):
        clock.wait(10)
        assert jobs.status("b", "ann").state == "waiting"  # polling keeps it alive
    assert jobs.claim("w").key == "b"
    assert state(jobs, "a") == "cancelled"


def test_a_tab_that_wakes_up_gets_its_job_back(jobs, clock) -> None:
    ask(jobs, "a")
    clock.wait(60)
    assert jobs.claim("w") is None
    assert jobs.status("a", "bob").state == "cancelled"
    assert jobs.status("a", "ann").state == "waiting"
    clock.wait(60)
    assert jobs.claim("w") is None
    assert ask(jobs, "a").state == "waiting"


def test_a_running_job_that_nobody_looks_at_stops(jobs, clock) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    clock.wait(60)  # a hidden tab polls once a minute
    assert not jobs.beat("a", 0.1, "")
    ask(jobs, "b", "bob")  # but others come first
    assert jobs.beat("a", 0.1, "")
    jobs.status("a", "ann")
    assert not jobs.beat("a", 0.1, "")
    jobs.claim("w")
    clock.wait(91)
    assert jobs.beat("a", 0.1, "")
    jobs.stopped("a")
    assert state(jobs, "a") == "cancelled"


def test_a_batch_job_needs_no_watcher(jobs, clock) -> None:
    ask(jobs, "scan", interactive=False)
    clock.wait(10_000)
    jobs.claim("w")
    clock.wait(10_000)
    assert not jobs.beat("scan", 0.1, "")


def test_a_failure_is_not_run_again_by_polling(jobs, clock) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    jobs.fail("a", "There is no such layer.")
    for _ in range(20):
        clock.wait(100)
        status = ask(jobs, "a")
        assert (status.state, status.message) == ("failed", "There is no such layer.")
    assert jobs.claim("w") is None
    assert ask(jobs, "a", scope="another page").state == "failed"
    clock.wait(601)
    assert ask(jobs, "a").state == "waiting"  # a new visit


def test_a_failure_is_run_again_for_somebody_new(jobs, clock) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    jobs.fail("a", "There is no such layer.")
    assert ask(jobs, "a", "bob").state == "failed"  # twenty at once cause one computation
    clock.wait(6)
    assert ask(jobs, "a", "cleo").state == "waiting"
    assert ask(jobs, "a").state == "waiting"


def test_retry_asks_as_before(jobs) -> None:
    assert jobs.retry("a", owner="ann", scope="here") is None
    ask(jobs, "a", interactive=False)
    jobs.claim("w")
    jobs.fail("a", "This is a fault of ours.", fault=True)
    assert jobs.status("a").fault
    status = jobs.retry("a", owner="ann", scope="here")
    assert (status.state, status.message, status.fault) == ("waiting", "", False)
    job = jobs.claim("w")
    assert (job.kind, job.args, job.title, job.interactive) == (
        "split",
        {"key": "a"},
        "Split a",
        False,
    )


def test_a_dead_workers_job_is_put_back_in_its_place(jobs, clock) -> None:
    ask(jobs, "a", interactive=False)
    ask(jobs, "b", interactive=False)
    jobs.claim("w")
    clock.wait(19)
    assert jobs.requeue_stale() == 0
    clock.wait(2)
    assert jobs.requeue_stale() == 1
    assert jobs.claim("v").key == "a"
    assert jobs.requeue_stale(0) == 1


def test_a_job_that_takes_its_workers_along_fails(jobs) -> None:
    ask(jobs, "a", interactive=False)
    for _ in range(ATTEMPTS):
        assert jobs.claim("w").key == "a"
        jobs.requeue_stale(0)
    assert jobs.claim("w") is None
    status = jobs.status("a")
    assert status.state == "failed"
    assert "memory" in status.message


def test_a_worker_that_is_asked_to_end_releases_its_job(jobs) -> None:
    ask(jobs, "a", interactive=False)
    for _ in range(2 * ATTEMPTS):
        assert jobs.claim("w").key == "a"
        jobs.release("w")
    assert state(jobs, "a") == "waiting"


def test_what_was_cancelled_stays_so_when_its_worker_dies(jobs) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    jobs.cancel("a", "ann")
    assert jobs.requeue_stale(0) == 1
    assert state(jobs, "a") == "cancelled"


def test_what_ended_cannot_be_ended_or_reported_again(jobs) -> None:
    ask(jobs, "a")
    jobs.claim("w")
    jobs.finish("a")
    jobs.fail("a", "late")
    jobs.stopped("a")
    assert jobs.beat("a", 0.1, "late")
    assert state(jobs, "a") == "done"


def test_time_left_follows_the_pace_since_the_first_report(jobs, clock) -> None:
    ask(jobs, "a", interactive=False)
    jobs.claim("w")
    assert jobs.status("a").eta is None
    jobs.beat("a", 0.5, "resumed")
    assert jobs.status("a").eta is None
    clock.wait(10)
    jobs.beat("a", 0.75, "")
    assert jobs.status("a").eta == pytest.approx(10.0)


def test_old_rows_are_forgotten(jobs, monkeypatch) -> None:
    monkeypatch.setattr("explorer.job_table.KEPT_DONE", 3)
    for number in range(6):
        ask(jobs, str(number))
        jobs.claim("w")
        jobs.finish(str(number))
    assert len(jobs.recent()) == 3
    assert len(jobs.recent(2)) == 2
    assert jobs._database._connection.execute("SELECT count(*) FROM watchers").fetchone()[0] == 3


def test_arguments_are_plain_json(jobs) -> None:
    with pytest.raises(TypeError):
        jobs.submit("a", "k", {"x": object()}, "t", owner="o", scope="s", interactive=True)
    assert jobs.status("a") is None


def test_twenty_threads_ask_at_once_and_one_is_claimed(tmp_path) -> None:
    jobs = Jobs(tmp_path)
    barrier = threading.Barrier(20)
    claimed = []

    def work(number: int) -> None:
        barrier.wait()
        ask(jobs, "a", f"owner {number}")
        claimed.append(jobs.claim(f"w{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(job is not None for job in claimed) == 1
    assert len(jobs.active()) == 1
    jobs.close()


ASK_AND_CLAIM = """
import json, sys
from pathlib import Path
from explorer.jobs import Jobs
jobs = Jobs(Path(sys.argv[1]))
claimed = 0
for number in range(50):
    jobs.submit(str(number), "k", {}, "t", owner=sys.argv[2], scope="s", interactive=True)
    claimed += jobs.claim(sys.argv[2]) is not None
while jobs.claim(sys.argv[2]):
    claimed += 1
print(json.dumps(claimed))
"""


def test_processes_share_one_queue(tmp_path) -> None:
    command = [sys.executable, "-c", ASK_AND_CLAIM, str(tmp_path)]
    root = Path(__file__).parent.parent
    processes = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, cwd=root) for name in "abc"
    ]
    counts = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == 50


def test_a_full_disk_is_told(jobs) -> None:
    pages = jobs._database._connection.execute("PRAGMA page_count").fetchone()[0]
    jobs._database._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"):
        jobs.submit("a", "k", {"x": "x" * 100_000}, "t", owner="o", scope="s", interactive=True)
    assert jobs.status("a") is None


def test_a_folder_that_is_a_file_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="EXPLORER_CACHE_DIR"):
        Jobs(tmp_path / "file")


def test_a_queue_of_another_version_is_started_anew(tmp_path) -> None:
    jobs = Jobs(tmp_path)
    ask(jobs, "a")
    jobs.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    jobs = Jobs(tmp_path)
    assert jobs.active() == ()
    jobs.close()
