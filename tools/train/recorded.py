"""A training step recorded once as a CUDA graph and replayed: launching its thousands of small kernels one by one from
Python takes longer than running them."""
import contextlib

import torch

PLAIN_RUNS = 3  # before recording, so that everything is compiled and allocated


@contextlib.contextmanager
def side_stream(device):
    """Recording needs all that it touches to have run on a stream that is not the default one."""
    if device == "cpu":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.synchronize()


class Step:
    """function(*batch), which must not wait for the device, over batches of one shape; just called if not `record`."""

    def __init__(self, phase, function, batch, device, record):
        self.phase, self._function, self._record = phase, function, record
        self._inputs = [torch.empty(x.shape, dtype=torch.long if x.dtype == torch.int32 else x.dtype, device=device)
                        for x in batch]
        self._runs, self._graph = 0, None

    def run(self, batch):
        for mine, given in zip(self._inputs, batch):
            mine.copy_(given, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
        elif not self._record or self._runs < PLAIN_RUNS:
            self._function(*self._inputs)
        else:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, such as the one that pins batches, may call CUDA meanwhile.
            with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self._function(*self._inputs)
            self._graph.replay()
        self._runs += 1
