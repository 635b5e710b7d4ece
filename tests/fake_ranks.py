"""Ranks that are threads of one process."""

import threading

import numpy as np

from pint.parallel.comm import SerialCommunicator


class Thread(threading.Thread):
    """A rank."""

    def __init__(self, action):
        super().__init__()
        self.action = action
        self.result = None

    def run(self):
        try:
            self.result = self.action()
        except BaseException as error:
            self.result = error


class FakeCommunicator(SerialCommunicator):
    """Ranks that are threads."""

    def __init__(self, rank, blocks, barrier):
        self.rank = rank
        self.size = len(blocks)
        self.blocks = blocks
        self.gate = barrier

    def allgather_blocks(self, array, rows=None):
        assert array.flags.c_contiguous
        self.blocks[self.rank] = array
        self.gate.wait(30)
        joined = np.concatenate(self.blocks)
        self.gate.wait(30)
        return joined

    def sum(self, array):
        return sum(np.split(self.allgather_blocks(array), self.size))

    def gather_blocks(self, array, root=0):
        joined = self.allgather_blocks(array)
        return joined if self.rank == root else None


def on_ranks(size, action):
    """Return what ``action(comm)`` returned or raised on every rank."""
    blocks, barrier = [None] * size, threading.Barrier(size)
    comms = [FakeCommunicator(rank, blocks, barrier) for rank in range(size)]
    threads = [Thread(lambda comm=comm: action(comm)) for comm in comms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [thread.result for thread in threads]
