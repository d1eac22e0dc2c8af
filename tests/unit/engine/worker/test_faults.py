"""What is said about an exception in a rank, and which of several explains the others."""

import json

import pytest

from engine.errors import GeneratorError, UsageError
from engine.worker import faults
from engine.worker.messages import fault_of


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


class DistBackendError(RuntimeError):
    """As torch calls it."""


def _nccl(kind: str, last: str) -> DistBackendError:
    """As torch 2.5 and later put it."""
    return DistBackendError(
        "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, unhandled error (run with "
        f"NCCL_DEBUG=INFO for details), NCCL version 2.27.5\n{kind}\nLast error:\n{last}"
    )


def _of(error: BaseException):
    try:
        raise error
    except type(error) as raised:
        return faults.fault_from(raised, 2, 20.0)


def test_an_error_of_ours_keeps_its_words_and_says_where():
    fault = _of(UsageError("Not offered.", code="x", hint="Choose 4.", detail="library"))
    assert (fault.kind, fault.code, fault.message, fault.hint) == ("UsageError", "x", "Not offered.", "Choose 4.")
    assert fault.detail == "rank 2: library"
    assert not fault.is_consequence


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_no_memory_is_said_in_words(error):
    fault = _of(error)
    assert (fault.code, fault.message) == ("worker.out_of_memory", "Rank 2 ran out of memory.")
    assert not fault.is_consequence


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"
        ),
        RuntimeError("Connection reset by peer"),
        DistBackendError("NCCL error in: ProcessGroupNCCL.cpp"),
        DistBackendError("NCCL communicator was aborted on rank 1."),
        _nccl("ncclRemoteError: A call failed possibly due to a network error or a remote process exiting.", "Net: x"),
        _nccl("ncclSystemError: System call failed.", "socketProgress: Connection closed by remote peer b<42830>"),
        _nccl("ncclInternalError: Internal check failed.", "Socket recv failed while polling for opId=0x7f4774cc9620"),
    ],
)
def test_a_lost_neighbour_is_a_consequence(error):
    fault = _of(error)
    assert fault.is_consequence
    assert fault.code == "worker.rank_lost"


def test_a_silent_neighbour_is_a_consequence_that_says_how_long():
    fault = _of(RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 20000ms for recv operation"))
    assert fault.is_consequence
    assert fault.message == "One of the ranks has not answered for 20 seconds."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "0.5 seconds"), (1.0, "1 second"), (20.0, "20 seconds"), (90.0, "90 seconds"), (150.0, "2.5 minutes"),
     (720.0, "12 minutes"), (1800.0, "30 minutes"), (86400.0, "24 hours")],
)  # fmt: skip
def test_times_are_in_words(seconds, words):
    assert faults.hangs(seconds).message == f"One of the ranks has not answered for {words}."
    assert faults.nobody_came(seconds).message == f"No rank has come within {words}."


_SHM = "Error while creating shared memory segment /dev/shm/nccl-WU88OE (size 9637888), error: No space left on device"
_TWICE = "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 4f000"
_CUDA = "Cuda failure 1 'invalid argument'"


@pytest.mark.parametrize(
    ("error", "says", "hint"),
    [
        (_nccl("ncclSystemError: System call (e.g. socket, malloc) failed or device error. ", _SHM), _SHM, "shm-size"),
        (_nccl("ncclInvalidUsage: This usually reflects invalid usage.", _TWICE), _TWICE, "fewer ranks"),
        (_nccl("ncclUnhandledCudaError: Call to CUDA function failed.", _CUDA), _CUDA, ""),
        (
            _nccl("ncclSystemError: System call failed. ", ""),
            "ncclSystemError: System call failed",
            "",
        ),
    ],
)
def test_that_nccl_cannot_work_is_a_cause_in_its_own_words(error, says, hint):
    fault = _of(error)
    assert fault.message == f"NCCL, which connects the GPUs, failed on rank 2: {says}."
    assert (fault.code, fault.is_consequence) == ("worker.nccl", False)
    assert hint in fault.hint and bool(hint) == bool(fault.hint)
    assert "Traceback" in fault.detail


def test_nccl_without_memory_is_a_lack_of_memory():
    fault = _of(_nccl("ncclUnhandledCudaError: Call to CUDA function failed.", "Cuda failure 2 'out of memory'"))
    assert fault.code == "worker.out_of_memory"


def test_a_bug_is_a_bug():
    fault = _of(RuntimeError("shapes do not match"))
    assert not fault.is_consequence
    assert fault.message == "Rank 2 stopped because of an internal error: shapes do not match."
    assert "Traceback" in fault.detail and "test_faults" in fault.detail


def test_an_exception_without_words_is_named():
    assert _of(KeyError()).message == "Rank 2 stopped because of an internal error: KeyError."


def test_a_sentence_stays_one():
    fault = _of(ValueError("It broke.\nHere is why:\n" + "x" * 500))
    assert fault.message == "Rank 2 stopped because of an internal error: It broke."
    assert "Here is why" in fault.detail


def test_the_cause_wins_over_what_follows_from_it():
    follows = fault_of(GeneratorError("gone"), 0, is_consequence=True)
    cause = fault_of(GeneratorError("bug"), 1)
    assert faults.cause_of([follows, cause]) is cause
    assert faults.cause_of([follows]) is follows
    assert faults.cause_of([]) is None


def test_a_process_that_was_killed_points_at_memory():
    assert faults.ended(1, -9, "").message == "Rank 1 was killed."
    assert "memory" in faults.ended(1, -9, "").hint
    assert faults.ended(1, -11, "").message == "Rank 1 ended unexpectedly with signal 11."
    assert faults.ended(0, 7, "tail").message == "Rank 0 ended unexpectedly with status 7."


def test_what_is_recorded_reads_back_and_suits_torch(tmp_path, monkeypatch):
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    fault = _of(UsageError("Not offered.", hint="Choose 4."))
    faults.record(fault)
    assert faults.recorded(str(path)) == fault
    message = json.loads(path.read_text())["message"]
    assert message["message"] == "Not offered. Choose 4."
    assert int(message["extraInfo"]["timestamp"]) > 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"message": "plain"}', '{"message": {"extraInfo": {"fault": 1}}}'])
def test_what_others_wrote_there_is_no_fault_of_ours(tmp_path, text):
    path = tmp_path / "error.json"
    path.write_text(text)
    assert faults.recorded(str(path)) is None
    assert faults.recorded(str(tmp_path / "none")) is None


def test_without_a_launcher_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    faults.record(_of(RuntimeError("x")))
    assert list(tmp_path.iterdir()) == []
