"""What computes the members of a sweep: this process, joblib's, submitit's jobs (Slurm), or Ray's tasks.

joblib, submitit and ray are used themselves, not through Hydra's launcher plugins: those answer when the last member
has ended (no progress), one whose process dies ends the others, and that for Ray needs ray 1.12 (Python up to 3.10).
Every launcher here is a generator that takes calls, says which has started, and yields outcomes as they come.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from prunebench.config import LauncherConfig, RunConfig, SearchConfig
from prunebench.errors import UsageError, brief, one_line
from prunebench.parsing import report

PACKAGES = {  # launcher or search -> what it needs, and the extra that brings it
    "joblib": ("joblib", "joblib"),
    "submitit_local": ("submitit", "slurm"),
    "slurm": ("submitit", "slurm"),
    "ray": ("ray", "ray"),
    "optuna": ("optuna", "optuna"),
}
POLL_SECONDS = 0.5  # between looks at jobs of submitit and tasks of Ray
PATIENCE = 60.0  # seconds in which a member that is asked to stop may save


@dataclass(frozen=True)
class Call:
    """One member, as another process needs it."""

    overrides: tuple[str, ...]
    config_dir: str | None
    force: bool
    cwd: str  # relative paths of settings start here
    mark: str  # a file that appears when the member starts
    log: str  # what the member says, where it does not share this process's stderr


@dataclass(frozen=True)
class Outcome:
    """`status`: finished, failed or stopped; `reason`: of the last two, one line; `result`: what result.json holds."""

    status: str
    reason: str | None = None
    result: Mapping[str, Any] | None = None


OnStart = Callable[[int], None]
Launcher = Callable[[Sequence[Call], LauncherConfig, OnStart], Iterator[tuple[int, Outcome]]]


def check_package(kind: str, name: str) -> None:
    """Raises UsageError, with pip's command, where the package for `kind`=`name` is missing."""
    package, extra = PACKAGES.get(name, (None, None))
    if package is not None and find_spec(package) is None:
        raise UsageError(f"{kind}={name} needs {package}: pip install 'prunebench[{extra}]'")
    if name == "slurm" and shutil.which("srun") is None:
        raise UsageError("launcher=slurm: there is no srun here: start it where Slurm is, or use launcher=joblib")


# --- one member ---------------------------------------------------------------------------------------------------


def compute(call: Call) -> Outcome:
    """Runs a member in this process. Ctrl-C passes through."""
    from prunebench.compose import load_config
    from prunebench.run import run

    try:
        result = run(as_single(load_config(list(call.overrides), call.config_dir)), force=call.force)
    except Exception as error:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise  # of several processes (torchrun), those that did not fail would go on with this member
        return Outcome("failed", "; ".join(report(error)))
    return Outcome("finished", result=result)


def as_single(config: RunConfig) -> RunConfig:
    """A member's settings are those of the same run alone."""
    return replace(config, launcher=LauncherConfig(), search=SearchConfig())


def compute_apart(call: Call) -> Outcome:
    """The same in a process that is there for members only."""
    os.chdir(call.cwd)
    Path(call.mark).write_text(str(os.getpid()))
    try:
        with _output_to(call.log):
            return compute(call)
    except KeyboardInterrupt:
        return Outcome("stopped", "stopped from outside; the same command continues it")


@contextmanager
def _output_to(log: str) -> Iterator[None]:
    """Sends stdout and stderr, those of C libraries too, to the end of a file."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file, kept = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), [os.dup(1), os.dup(2)]
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(file)


# --- GPUs of this machine -----------------------------------------------------------------------------------------


def visible_gpus(environment: Mapping[str, str], count: Callable[[], int]) -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    asked = environment.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return [str(index) for index in range(count())]
    names = [name.strip() for name in asked.split(",") if name.strip()]
    return names[: names.index("-1")] if "-1" in names else names


def worker_environments(workers: int | None, gpus: Sequence[str]) -> list[dict[str, str]]:
    """What each worker's environment has besides: a GPU of its own, shared in turn where there are more workers.

    `workers`: None is one a GPU, without any: one.
    """
    count = workers or len(gpus) or 1
    return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {} for index in range(count)]


def _gpus_here() -> list[str]:
    import torch

    return visible_gpus(os.environ, torch.cuda.device_count)


def _local_environments(settings: LauncherConfig) -> list[dict[str, str]]:
    return worker_environments(settings.n_jobs, _gpus_here())


def members_at_a_time(settings: LauncherConfig) -> int | None:
    """None: as many as the cluster has room for, which is not known here."""
    if settings.name == "joblib":
        return len(_local_environments(settings))
    return settings.n_jobs or 1 if settings.name in ("local", "submitit_local") else settings.n_jobs


# --- the launchers ------------------------------------------------------------------------------------------------


def _local(calls: Sequence[Call], settings: LauncherConfig, on_start: OnStart) -> Iterator[tuple[int, Outcome]]:
    for index, call in enumerate(calls):
        on_start(index)
        yield index, compute(call)


class _Worker:
    """A process of joblib's, which has a GPU of its own, and computes one member after another."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._start()

    def _start(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        self._pool = ProcessPoolExecutor(max_workers=1, env=self._environment)

    def submit(self, call: Call) -> Future[Outcome]:
        future: Future[Outcome] = self._pool.submit(compute_apart, call)
        return future

    def outcome(self, future: Future[Outcome]) -> Outcome:
        """Where the process died, a new one takes its place."""
        try:
            return future.result()
        except Exception as error:
            self._pool.shutdown(wait=False, kill_workers=True)
            self._start()
            return _died(error)

    def interrupt(self) -> None:
        for process in list((self._pool._processes or {}).values()):
            process.terminate()  # SIGTERM, at which a run saves

    def close(self, kill: bool = False) -> None:
        self._pool.shutdown(wait=True, kill_workers=kill)


def _died(error: Exception) -> Outcome:
    """Of a process that ended without an answer."""
    killed = "SIGKILL" in str(error) or "Terminated" in type(error).__name__
    why = "its process was killed (no memory left?)" if killed else brief(one_line(error), 200)
    return Outcome("failed", f"{why}; the same command continues it")


def _joblib(calls: Sequence[Call], settings: LauncherConfig, on_start: OnStart) -> Iterator[tuple[int, Outcome]]:
    workers = [_Worker(environment) for environment in _local_environments(settings)[: len(calls)]]
    free, waiting = list(reversed(workers)), deque(enumerate(calls))
    running: dict[Future[Outcome], tuple[int, _Worker]] = {}
    ended = False
    try:
        while waiting or running:
            while waiting and free:
                index, call = waiting.popleft()
                worker = free.pop()
                running[worker.submit(call)] = (index, worker)
                on_start(index)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index, worker = running.pop(future)
                yield index, worker.outcome(future)
                free.append(worker)
        ended = True
    finally:
        if not ended:
            for _, worker in running.values():
                worker.interrupt()
            wait(running, timeout=PATIENCE)
        for worker in workers:
            worker.close(kill=not ended)


class _Job(Protocol):
    """A job of submitit's, or a task of Ray's."""

    def ended(self) -> bool: ...
    def outcome(self) -> Outcome: ...
    def cancel(self) -> None: ...


def _follow(
    calls: Sequence[Call], submit: Callable[[Sequence[Call]], Sequence[_Job]], most: int | None, on_start: OnStart
) -> Iterator[tuple[int, Outcome]]:
    """Submits calls, at most `most` at a time, and asks from time to time which have ended."""
    waiting, jobs, started = deque(enumerate(calls)), dict[int, _Job](), set[int]()
    try:
        while waiting or jobs:
            room = len(waiting) if most is None else most - len(jobs)
            batch = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            if batch:
                jobs |= zip([index for index, _ in batch], submit([call for _, call in batch]), strict=True)
            for index in sorted(jobs):
                if index not in started and os.path.exists(calls[index].mark):
                    started.add(index)
                    on_start(index)
            for index in [index for index, job in jobs.items() if job.ended()]:
                yield index, jobs.pop(index).outcome()
            time.sleep(POLL_SECONDS if jobs else 0)
    finally:
        for job in jobs.values():
            job.cancel()
        limit = time.monotonic() + PATIENCE
        while any(not job.ended() for job in jobs.values()) and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)


class SubmititCall:
    """What submitit pickles. A job whose time is up, or that is preempted, goes to the queue again."""

    def __call__(self, call: Call) -> Outcome:
        return compute_apart(call)

    def checkpoint(self, call: Call) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, call)


class _SubmititJob:
    def __init__(self, job: Any) -> None:
        self._job = job

    def ended(self) -> bool:
        return bool(self._job.done())

    def outcome(self) -> Outcome:
        error = self._job.exception()
        if error is None:
            outcome: Outcome = self._job.result()
            return outcome
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = brief(told[-1] if told else type(error).__name__, 200)
        return Outcome("failed", f"job {self._job.job_id}: {why}; see {self._job.paths.stderr}")

    def cancel(self) -> None:
        self._job.cancel()


def _submitit(calls: Sequence[Call], settings: LauncherConfig, on_start: OnStart) -> Iterator[tuple[int, Outcome]]:
    executor = submitit_executor(settings, Path(calls[0].log).parent / "submitit")

    def submit(batch: Sequence[Call]) -> list[_SubmititJob]:
        with executor.batch():  # on Slurm one array
            jobs = [executor.submit(SubmititCall(), call) for call in batch]
        return [_SubmititJob(job) for job in jobs]

    yield from _follow(calls, submit, members_at_a_time(settings), on_start)


def submitit_executor(settings: LauncherConfig, folder: Path) -> Any:
    """Raises UsageError for parameters that submitit does not know."""
    import submitit

    local = settings.name == "submitit_local"
    own = {name: value for name, value in settings.params.items() if name in ("slurm_max_num_timeout",)}
    params = {name: value for name, value in settings.params.items() if name not in own}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster="local" if local else "slurm", **own)
        if local:  # it hides all GPUs but those it is told of
            params.setdefault("gpus_per_node", len(_gpus_here()))
        executor.update_parameters(name="prunebench", **params)
    except (TypeError, ValueError, NameError, AssertionError, RuntimeError) as error:
        raise UsageError(f"launcher.params: submitit says: {brief(one_line(error), 300)}") from error
    return executor


class _RayTask:
    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def ended(self) -> bool:
        import ray

        return bool(ray.wait([self._reference], timeout=0)[0])

    def outcome(self) -> Outcome:
        import ray

        try:
            outcome: Outcome = ray.get(self._reference)
            return outcome
        except Exception as error:
            return _died(error)

    def cancel(self) -> None:
        import ray

        ray.cancel(self._reference)  # KeyboardInterrupt, at which a run saves


def _ray(calls: Sequence[Call], settings: LauncherConfig, on_start: OnStart) -> Iterator[tuple[int, Outcome]]:
    import ray

    ray.init(**{"log_to_driver": False, "include_dashboard": False, "configure_logging": False, **settings.params})
    gpus = ray.cluster_resources().get("GPU", 0)
    task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_calls=1, max_retries=0)(compute_apart)
    try:
        submit = lambda batch: [_RayTask(task.remote(call)) for call in batch]  # noqa: E731
        yield from _follow(calls, submit, settings.n_jobs, on_start)
    finally:
        with suppress(Exception):
            ray.shutdown()


LAUNCHERS: dict[str, Launcher] = {
    "local": _local,
    "joblib": _joblib,
    "submitit_local": _submitit,
    "slurm": _submitit,
    "ray": _ray,
}
